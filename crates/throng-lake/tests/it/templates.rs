//! Rows of templates, and models with parameters.

use std::collections::BTreeSet;

use throng_lake::Model;
use throng_spec::{ParameterValue, TemplateRows};

use crate::{SEED, Shop, hashes, users};

fn text(value: &str) -> ParameterValue {
    ParameterValue::Text(value.to_owned())
}

fn shop() -> Shop {
    Shop::new()
        .file("regions.csv", "slug,region,least,since\nemea,EMEA,2,2026-01-31\nodd,x' OR '1'='1,1,2026-02-01\n")
        .file("orders.csv", "id,region,day\na,EMEA,2026-01-30\na,EMEA,2026-02-02\nb,EMEA,2026-02-03\nc,APAC,2026-02-04\n")
        .declare("since", "date")
        .declare("day", "date")
}

async fn members(shop: &Shop, sql: &str, parameters: &[(&str, ParameterValue)]) -> usize {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let (sql, parameters) = (sql.to_owned(), parameters.collect());
    let model = Model { sql, key: None, source: None, parameters };
    let lake = shop.lake();
    let mut found = BTreeSet::new();
    for part in lake.plan_scan(&model, &[]).await.unwrap().1 {
        let mut sink = |batch: throng_lake::KeyBatch| {
            found.extend(batch.hashes);
            Ok(())
        };
        lake.scan(&model, &part, SEED, &mut sink).await.unwrap();
    }
    found.len()
}

#[tokio::test]
async fn rows_have_values_of_their_types() {
    let shop = shop();
    let lake = shop.lake();
    let rows = lake.template_rows(
        "SELECT slug, least, since, least > 1 AS many, CAST(least AS DECIMAL(9, 2)) AS price \
         FROM shop.regions ORDER BY slug LIMIT 1",
        10,
    );
    let expected = TemplateRows {
        columns: ["slug", "least", "since", "many", "price"].map(str::to_owned).to_vec(),
        rows: vec![vec![
            text("emea"),
            ParameterValue::Integer(2),
            ParameterValue::Date("2026-01-31".to_owned()),
            ParameterValue::Boolean(true),
            ParameterValue::Decimal { unscaled: 200, scale: 2 },
        ]],
    };
    assert_eq!(rows.await.unwrap(), expected);
}

#[tokio::test]
async fn rows_that_are_no_values_are_refused() {
    let shop = shop();
    let lake = shop.lake();
    for (sql, part) in [
        ("SELECT slug FROM shop.regions", "more than 1 rows"),
        ("SELECT CAST(NULL AS VARCHAR) AS slug", "slug is NULL in row 1 of the query's result"),
        (
            "SELECT CASE WHEN least = 1 THEN slug END AS slug FROM shop.regions ORDER BY least",
            "slug is NULL in row 2 of the query's result",
        ),
        (
            "SELECT repeat('x', 1025) AS slug",
            "more than 1024 bytes, in row 1 of the query's result",
        ),
        ("SELECT 0.5::DOUBLE AS share", "share is of type Float64"),
        ("SELECT 'a' AS a, 'b' AS \"A\"", "two columns"),
        ("SELECT $slug AS slug", "no value for the parameter $slug"),
    ] {
        let error = lake.template_rows(sql, 1).await.unwrap_err();
        assert!(error.to_string().contains(part), "{sql}: {error}");
        assert!(error.help().is_some(), "{sql}");
    }
}

#[tokio::test]
async fn a_refused_number_or_time_is_not_to_be_converted_to_text() {
    let shop = shop();
    let lake = shop.lake();
    for (value, part) in [
        ("avg(least)", "write CAST(x AS DECIMAL(18, 2)) AS x"),
        ("CAST('2026-01-01' AS TIMESTAMP)", "write CAST(x AS DATE) AS x"),
    ] {
        let sql = format!("SELECT {value} AS x FROM shop.regions");
        let error = lake.template_rows(&sql, 10).await.unwrap_err();
        let help = error.help().unwrap();
        assert!(help.contains(part), "{value}: {help}");
    }
}

#[tokio::test]
async fn a_value_is_a_literal_and_never_a_part_of_the_statement() {
    let shop = shop();
    let sql = "SELECT id FROM shop.orders WHERE region = $Region";
    assert_eq!(members(&shop, sql, &[("region", text("EMEA"))]).await, 2);
    assert_eq!(members(&shop, sql, &[("region", text("x' OR '1'='1"))]).await, 0);
    let sql = "SELECT id FROM shop.orders WHERE day >= $since AND lower(region) = lower($region)";
    let since = ParameterValue::Date("2026-02-03".to_owned());
    assert_eq!(members(&shop, sql, &[("region", text("Emea")), ("since", since)]).await, 1);
    // As the same statement with the value written in it.
    let written = "SELECT id FROM shop.orders WHERE region = 'EMEA'";
    assert_eq!(users(&shop.lake(), written).await.0, hashes(["a", "b"]));
}

#[tokio::test]
async fn a_threshold_may_be_a_parameter() {
    let shop = shop();
    let model = |least| Model {
        sql: "SELECT id FROM shop.orders GROUP BY id HAVING count(*) >= $least".to_owned(),
        key: None,
        source: None,
        parameters: vec![("least".to_owned(), ParameterValue::Integer(least))],
    };
    let rule = async |least| shop.lake().check(model(least)).await.unwrap().rule;
    assert_ne!(rule(2).await, rule(3).await);
    assert_ne!(model(2).fingerprint(), model(3).fingerprint());
}
