//! How the scans of models are divided, and which models the build counts or adds itself.

use std::collections::{BTreeMap, BTreeSet};

use throng_lake::{FileError, LakeError, RowCountRange, Rule, ScanPart, Shape};
use throng_model::UserHash;

use crate::{Shop, hashes, model, scan, users};

fn days() -> Shop {
    Shop::new()
        .file("visits/1.csv", "id,zip,n\n1,00123,1\n2,99999,2\n")
        .file("visits/2.csv", "id,zip,n\n2,123,3\n3,123,4\n")
        .file("visits/3.csv", "id,zip,n\n04,00123,5\n,00123,6\n")
}

#[tokio::test]
async fn rows_that_are_evaluated_by_themselves_are_scanned_file_by_file() {
    let shop = days();
    let lake = shop.lake();
    for (sql, parts) in [
        ("SELECT id FROM shop.visits", 3),
        ("SELECT DISTINCT id FROM shop.visits WHERE n > 1 ORDER BY id", 3),
        ("SELECT id FROM shop.visits GROUP BY id", 3),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) >= 2", 3),
        (
            "SELECT id FROM (SELECT DISTINCT id, n FROM shop.visits) GROUP BY id HAVING count(*) > 1",
            1,
        ),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(n) >= 2", 1),
        ("SELECT id FROM shop.visits ORDER BY n LIMIT 3", 1),
        ("SELECT id FROM (SELECT id, row_number() OVER (ORDER BY n) AS r FROM shop.visits)", 1),
        ("SELECT id FROM shop.visits WHERE n > (SELECT avg(n) FROM shop.visits)", 1),
        ("SELECT a.id FROM shop.visits a JOIN shop.visits b ON a.id = b.id", 1),
    ] {
        let cut = lake.plan_scan(&model(sql), &[]).await.unwrap().1;
        assert_eq!(cut.len(), parts, "{sql}");
        let shape = if parts == 3 { Shape::FilterOnly } else { Shape::General };
        assert_eq!(lake.check_model(sql, None).await.unwrap().shape, shape, "{sql}");
    }
}

/// The members that the build finds in the scanned rows.
pub(crate) async fn members(shop: &Shop, sql: &str, rule: Rule) -> BTreeSet<UserHash> {
    let lake = shop.lake();
    let mut rows = BTreeMap::<UserHash, Vec<u64>>::new();
    for part in lake.plan_scan(&model(sql), &[]).await.unwrap().1 {
        let mut sink = |batch: throng_lake::KeyBatch| {
            let values = batch.values.unwrap_or_else(|| vec![0; batch.hashes.len()]);
            assert_eq!(values.len(), batch.hashes.len());
            for (hash, value) in batch.hashes.into_iter().zip(values) {
                rows.entry(hash).or_default().push(value);
            }
            Ok(())
        };
        lake.scan(&model(sql), &part, crate::SEED, &mut sink).await.unwrap();
    }
    let is_member = |values: &Vec<u64>| match rule {
        Rule::Rows(occurs) => occurs.allows(values.len() as u64),
        Rule::Sum(sum) => sum.allows(values.iter().copied()),
    };
    rows.into_iter().filter(|(_, values)| is_member(values)).map(|(hash, _)| hash).collect()
}

/// The members that the engine finds with the whole model, behind a step that cannot be decomposed.
async fn by_engine(shop: &Shop, sql: &str) -> BTreeSet<UserHash> {
    let opaque = format!(
        "SELECT max(id) AS id FROM ({sql}) t (id) GROUP BY t.id HAVING max(id) IS NOT NULL"
    );
    users(&shop.lake(), &opaque).await.0.into_iter().collect()
}

#[tokio::test]
async fn counts_of_rows_are_left_to_the_build() {
    let shop = days();
    let rows = |min, max| Rule::Rows(RowCountRange { min, max });
    let (two, most) = (rows(2, None), rows(2, Some(4)));
    for (sql, rule) in [
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) >= 2", two),
        ("SELECT id AS who FROM shop.visits v WHERE n > 0 GROUP BY id HAVING 1 < count(1)", two),
        (
            "SELECT id FROM shop.visits GROUP BY id HAVING count(*) BETWEEN 2 AND 4 ORDER BY id",
            most,
        ),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) > 1 AND count(*) < 5", most),
        (
            "SELECT a.id FROM shop.visits a JOIN shop.visits b ON a.zip = b.zip GROUP BY a.id HAVING count(*) > 1",
            two,
        ),
        // These are left to the engine: they count something other than rows, or have more
        // conditions.
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(DISTINCT n) >= 2", Rule::ANY),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(n) >= 2", Rule::ANY),
        (
            "SELECT id FROM shop.visits GROUP BY id HAVING count(*) FILTER (WHERE n > 1) >= 2",
            Rule::ANY,
        ),
        ("SELECT id FROM shop.visits GROUP BY id, n HAVING count(*) >= 1", Rule::ANY),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) >= 2 OR sum(n) > 1", Rule::ANY),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) >= 2 AND sum(n) > 1", Rule::ANY),
        ("SELECT id FROM shop.visits GROUP BY id HAVING count(*) >= 2 LIMIT 1", Rule::ANY),
    ] {
        assert_eq!(shop.lake().check_model(sql, None).await.unwrap().rule, rule, "{sql}");
        assert_eq!(members(&shop, sql, rule).await, by_engine(&shop, sql).await, "{sql}");
    }
}

#[tokio::test]
async fn sums_are_left_to_the_build() {
    let shop = days().query(
        "paid.parquet",
        "PARQUET",
        "SELECT id, amount, CAST(amount AS DECIMAL(10, 2)) AS price, CAST(amount AS DOUBLE) AS real
         FROM (VALUES ('a', '66.67'), ('a', '66.67'), ('a', '66.66'), ('b', '199.99'), ('c', NULL),
               ('d', '500'), ('d', '-300.01'), (NULL, '900'), ('e', '200'), ('e', NULL)) AS t (id, amount)",
    );
    let shop = shop.await;
    for having in [
        "sum(price) >= 200",
        "sum(price) > 200",
        "sum(price) > 199.985",
        "199.99 >= sum(price)",
        "sum(price) = 199.99",
        "sum(price) BETWEEN 199.99 AND 200",
        "sum(real) >= 200",
        "sum(real) < 200.5 AND sum(real) > 199.995",
        "sum(real * 2) >= 400",
        "sum(CAST(price AS BIGINT)) > 199",
    ] {
        let sql = format!("SELECT id FROM shop.paid GROUP BY id HAVING {having}");
        let rule = shop.lake().check_model(&sql, None).await.unwrap().rule;
        assert!(matches!(rule, Rule::Sum(_)), "{having}: {rule:?}");
        assert_eq!(members(&shop, &sql, rule).await, by_engine(&shop, &sql).await, "{having}");
    }
    for having in ["sum(DISTINCT price) > 1", "sum(price) > 1 AND sum(real) > 1", "avg(price) > 1"]
    {
        let sql = format!("SELECT id FROM shop.paid GROUP BY id HAVING {having}");
        let rule = shop.lake().check_model(&sql, None).await.unwrap().rule;
        assert_eq!(rule, Rule::ANY, "{having}");
    }
}

#[tokio::test]
async fn a_part_has_the_same_result_as_the_whole_query() {
    let shop = days();
    let lake = shop.lake();
    // In the second file alone `zip` and `id` would be numbers, and 123 would be 00123.
    let filter = "SELECT id FROM shop.visits WHERE zip = '00123'";
    let (found, rows, null_keys) = users(&lake, filter).await;
    assert_eq!((found, rows, null_keys), (hashes(["1", "04"]), 3, 1));
    let whole = ScanPart::default();
    let (all, _) = scan(&lake, &model(filter), &whole).await.unwrap();
    assert_eq!(all.into_iter().collect::<std::collections::BTreeSet<_>>(), hashes(["1", "04"]));
}

#[tokio::test]
async fn a_part_whose_file_is_missing_fails_and_is_not_empty() {
    let shop = days();
    let lake = shop.lake();
    let model = model("SELECT id FROM shop.visits");
    let parts = lake.plan_scan(&model, &[]).await.unwrap().1;
    std::fs::remove_file(shop.folder().join("visits/2.csv")).unwrap();
    let error = scan(&lake, &model, &parts[1]).await.unwrap_err();
    assert!(matches!(error, LakeError::File(FileError::Source { .. })), "{error:?}");
    assert!(scan(&lake, &model, &parts[0]).await.is_ok());
}

#[tokio::test]
async fn an_error_of_the_sink_stops_the_scan() {
    let shop = days();
    let mut sink = |_: throng_lake::KeyBatch| Err("full".into());
    let part = ScanPart::default();
    let model = model("SELECT id FROM shop.visits");
    let error = shop.lake().scan(&model, &part, crate::SEED, &mut sink).await.unwrap_err();
    assert!(matches!(error, LakeError::Sink(_)), "{error:?}");
}

#[tokio::test]
async fn plans_have_files_columns_and_rows() {
    let shop =
        days().query("p.parquet", "PARQUET", "SELECT * FROM (VALUES (1), (2)) AS t (id)").await;
    let lake = shop.lake();
    let info = lake.check_model("SELECT id, n FROM shop.visits", Some("id")).await.unwrap();
    assert_eq!(info.files, 3);
    let names: Vec<&str> = info.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "n"]);
    let info = lake.check_model("SELECT id FROM shop.p", None).await.unwrap();
    assert_eq!(info.estimated_rows, Some(2));
}

#[test]
fn the_fingerprint_ignores_layout() {
    let one = model("SELECT id\n  FROM shop.t;").fingerprint();
    assert_eq!(one, model("SELECT id FROM shop.t").fingerprint());
    assert_ne!(one, model("SELECT id FROM shop.u").fingerprint());
    // White space inside of quotes is not layout.
    let spaced =
        |text: &str| model(&format!("SELECT id FROM shop.t WHERE a = '{text}'")).fingerprint();
    assert_ne!(spaced("x y"), spaced("x  y"));
    let keyed = throng_lake::Model {
        sql: "SELECT id FROM shop.t".into(),
        key: Some("id".into()),
        source: None,
        parameters: Vec::new(),
    };
    assert_ne!(one, keyed.fingerprint());
}
