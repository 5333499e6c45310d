//! Files of one folder with other columns: of two tables, or with another name for a column.

use throng_lake::Model;

use crate::files::{holds, refused};
use crate::{Shop, model, scan};

#[tokio::test]
async fn files_of_two_tables_in_one_folder_are_refused() {
    let shop = Shop::new()
        .file("t/customers.csv", "id,name,created_at\n1,Ann,2026-01-01\n")
        .file("t/orders.csv", "id,customer_id,created_at\n9001,1,2026-01-02\n")
        .file("m/customers.csv", "id,name,created_at\n1,Ann,2026-01-01\n")
        .file("m/orders.jsonl", "{\"id\":9001,\"customer_id\":1,\"created_at\":\"2026-01-02\"}\n");
    for (table, other) in [("t", "orders.csv"), ("m", "orders.jsonl")] {
        let sql = format!("SELECT id FROM shop.{table}");
        let error = shop.lake().check(model(&sql)).await.unwrap_err().to_string();
        for word in ["customers.csv", other, "name", "customer_id"] {
            assert!(error.contains(word), "{error}");
        }
    }
    // The source says that they are columns of one table.
    let declared = shop.declare("name", "text").declare("customer_id", "integer");
    let info = declared.lake().check(model("SELECT id FROM shop.t")).await.unwrap();
    assert_eq!(info.warnings.len(), 1, "{:?}", info.warnings);
}

#[tokio::test]
async fn a_key_with_another_name_in_one_file_is_doubtful() {
    let mut shop = Shop::new().file("t/part-30.csv", "uid,city,n\n301,Rome,1\n302,Oslo,2\n");
    for part in 10..30 {
        shop =
            shop.file(&format!("t/part-{part}.csv"), &format!("user_id,city,n\n{part},Rome,1\n"));
    }
    let mut by_name = model("SELECT u.user_id AS customer FROM shop.t u WHERE city = 'Rome'");
    by_name.key = Some("customer".to_owned());
    let info = shop.lake().check(by_name).await.unwrap();
    let doubts: Vec<&String> = info.tables.iter().flat_map(|table| &table.doubts).collect();
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    for word in ["user_id", "uid", "part-10.csv", "part-30.csv"] {
        assert!(doubts[0].contains(word), "{doubts:?}");
        assert!(info.warnings[0].contains(word), "{:?}", info.warnings);
    }
    let columns = ["city".to_owned()];
    let sql = "SELECT user_id, city FROM shop.t";
    let doubts = shop.lake().check_identifiers(sql, "user_id", &columns).await.unwrap();
    assert!(doubts.iter().any(|doubt| doubt.contains("part-30.csv")), "{doubts:?}");
    let listed = shop.lake().list().await.unwrap();
    assert!(listed[0].tables[0].warnings[0].contains("part-30.csv"), "{listed:?}");
    // A column that was added later is missing in earlier files, which have no column of their own.
    let evolved = Shop::new()
        .file("t/1.csv", "user_id,city\n1,Rome\n")
        .file("t/2.csv", "user_id,city,tier\n2,Rome,gold\n");
    let info = evolved.lake().check(model("SELECT user_id FROM shop.t WHERE tier = 'gold'")).await;
    assert_eq!(info.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn several_columns_of_one_name_are_doubtful() {
    let shop = Shop::new()
        .file("users.csv", "id,email\n1,a@x.com\n2,b@x.com\n")
        .file("crm.csv", "id,user_id,email\n7,1,c@x.com\n8,2,d@x.com\n");
    let from = "FROM shop.users u JOIN shop.crm c ON c.user_id = u.id";
    let keyed = |sql: String| Model { key: Some("id".to_owned()), ..model(&sql) };
    let lake = shop.lake();
    for columns in ["*", "c.id, u.id"] {
        let info = lake.check(keyed(format!("SELECT {columns} {from}"))).await.unwrap();
        assert_eq!(info.warnings.len(), 1, "{:?}", info.warnings);
        assert!(info.warnings[0].contains("several columns id"), "{:?}", info.warnings);
    }
    let info = lake.check(keyed(format!("SELECT c.id AS crm_id, u.id {from}"))).await.unwrap();
    assert!(info.warnings.is_empty(), "{:?}", info.warnings);
    let sql = format!("SELECT u.id, u.email, c.email {from}");
    let doubts = lake.check_identifiers(&sql, "id", &["email".to_owned()]).await.unwrap();
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    assert!(doubts[0].contains("several columns email"), "{doubts:?}");
}

#[tokio::test]
async fn padded_keys_are_doubtful_unless_they_are_trimmed() {
    let shop = || Shop::new().file("t.csv", "user_id,note\na1 ,x\nb2,y \n");
    let sql = "SELECT user_id FROM shop.t";
    let warnings = shop().lake().check(model(sql)).await.unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("user_id") && warnings[0].contains("trim: true"), "{warnings:?}");
    assert!(shop().trim().lake().check(model(sql)).await.unwrap().warnings.is_empty());
    // Identifiers are sent without white space around them, and keys are compared with it.
    let (sql, columns) = ("SELECT user_id, note FROM shop.t", ["note".to_owned()]);
    let doubts = shop().lake().check_identifiers(sql, "user_id", &columns).await.unwrap();
    assert_eq!(doubts, warnings);
}

#[tokio::test]
async fn scans_count_padded_keys_of_every_format() {
    let shop = Shop::new()
        .file("t.csv", "user_id,n\n a1,1\nb2\u{a0},1\nc3,1\n")
        .parquet("p.parquet", "SELECT '  7' AS user_id UNION ALL SELECT '8'")
        .await;
    let padded = async |shop: &Shop, sql: &str| {
        let (lake, model) = (shop.lake(), model(sql));
        let mut padded = 0;
        for part in lake.plan_scan(&model, &[]).await.unwrap().1 {
            padded += scan(&lake, &model, &part).await.unwrap().1.padded_keys;
        }
        padded
    };
    assert_eq!(padded(&shop, "SELECT user_id FROM shop.t").await, 2);
    let summed = "SELECT user_id FROM shop.t GROUP BY user_id HAVING sum(n) >= 1";
    assert_eq!(padded(&shop, summed).await, 2);
    assert_eq!(padded(&shop, "SELECT user_id FROM shop.p").await, 1);
    assert_eq!(padded(&shop, "SELECT trim(user_id) AS user_id FROM shop.p").await, 0);
    assert_eq!(padded(&shop.trim(), "SELECT user_id FROM shop.t").await, 0);
}

#[tokio::test]
async fn the_hint_for_parquet_files_of_different_types_fits_them() {
    let first = "SELECT 1 AS id, DATE '2026-01-01' AS day, true AS flag, 1.5::DOUBLE AS amount";
    let second = "SELECT 2 AS id, TIMESTAMP '2026-01-01 00:00:00' AS day, 1 AS flag, 2 AS amount";
    let shop = Shop::new().parquet("t/1.parquet", first).await;
    let shop = shop.parquet("t/2.parquet", second).await;
    for (column, hint) in [
        ("day", "such as CAST(… AS TIMESTAMP) in the query"),
        ("flag", "such as CAST(… AS VARCHAR) in the query"),
        ("amount", "CAST(… AS BIGINT) if it has keys in the query"),
    ] {
        let sql = format!("SELECT {column} FROM shop.t");
        crate::files::refused(&shop, &sql, &[hint, "1.parquet", "2.parquet"]).await;
    }
}

#[tokio::test]
async fn parquet_files_of_a_hudi_table_are_refused_by_their_columns() {
    let row = |time: u32| {
        format!("SELECT 'a' AS user_id, '{time}' AS _hoodie_commit_time, 'a' AS _hoodie_record_key")
    };
    let shop = async || {
        let shop =
            Shop::new().file("c.csv", "user_id,_hoodie_commit_time,_hoodie_record_key\na,1,a\n");
        let shop = shop.parquet("t/1.parquet", &row(1)).await;
        shop.parquet("t/2.parquet", &row(2)).await
    };
    let plain = shop().await;
    let words = ["1.parquet is a file of a Hudi table", "{ _hoodie_record_key: text }"];
    refused(&plain, "SELECT user_id FROM shop.t", &words).await;
    // An export of a query.
    holds(&plain, "SELECT user_id FROM shop.c", &["a"]).await;
    let declared = shop().await.declare("_hoodie_record_key", "text");
    holds(&declared, "SELECT user_id FROM shop.t", &["a"]).await;
}
