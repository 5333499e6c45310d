//! The tables of the tests.

use datafusion::prelude::SessionContext;

use crate::Cluster;

/// Orders of 3,000 users in CSV files, one of which has the columns in another order; the users in JSON; their visits
/// in Parquet, in two files of different columns.
pub(crate) async fn write(cluster: &Cluster) {
    for file in 0..6 {
        let (header, rows): (&str, String) = if file == 5 {
            let row = |n: u32| format!("{},u{},{n}\n", n % 97, (n * 7 + file) % 3_000);
            ("amount,who,id", (0..2_000).map(row).collect())
        } else {
            let row = |n: u32| format!("{n},u{},{}\n", (n * 7 + file) % 3_000, n % 97);
            ("id,who,amount", (0..2_000).map(row).collect())
        };
        cluster.file(&format!("orders/{file}.csv"), format!("{header}\n{rows}"));
    }
    let user = |n: u32| {
        let region = ["north", "south", "east"][(n % 3) as usize];
        format!(
            "{{\"id\": \"u{n}\", \"region\": \"{region}\", \"note\": \"zoe{n}@example.com\"}}\n"
        )
    };
    cluster.file("users.json", (0..3_000).map(user).collect::<String>());
    let context = SessionContext::new();
    for (name, columns) in [
        ("a", "'u' || value AS who, value AS n"),
        ("b", "value AS n, 'u' || (value + 500) AS who, 1 AS old"),
    ] {
        let path = cluster.shop().join(format!("visits/{name}.parquet"));
        let copy = format!(
            "COPY (SELECT {columns} FROM generate_series(1, 1000)) TO '{}' STORED AS PARQUET",
            path.display()
        );
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        context.sql(&copy).await.unwrap().collect().await.unwrap();
    }
}
