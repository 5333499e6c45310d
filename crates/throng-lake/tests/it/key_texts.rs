//! Keys and identifiers have the text of the file, or are refused.

use throng_lake::LakeError;

use crate::files::{holds, refused};
use crate::{Shop, model, scan};

/// Whole numbers, and the same ones as a program writes them that has read an empty cell beside them.
fn two_forms() -> Shop {
    Shop::new()
        .file("a.csv", "user_id,code\n1,7\n2,8\n")
        .file("b.csv", "user_id,code\n1.0,7.0\n3.0,9.0\n,\n")
        .file("c.csv", "user_id,code\n1.0,7.0\n4.0,9.0\n")
        .file("d.csv", "user_id,code\n1.00,7\n")
}

#[tokio::test]
async fn numbers_of_two_forms_that_meet_in_a_key_are_refused() {
    let shop = two_forms();
    let on = "shop.a LEFT JOIN shop.b ON a.user_id = b.user_id";
    let words = ["column user_id", "shop.a.user_id (Int64)", "shop.b.user_id (Decimal128(18, 1))"];
    let cures = ["columns: { user_id: text }", "CAST(user_id AS BIGINT)"];
    let union = "SELECT user_id FROM shop.a UNION SELECT user_id FROM shop.b";
    for sql in [
        union.to_owned(),
        "SELECT user_id FROM shop.b UNION ALL SELECT user_id FROM shop.a".to_owned(),
        format!("SELECT user_id FROM ({union}) AS t WHERE user_id > 0 GROUP BY user_id"),
        format!("WITH t AS ({union}) SELECT t.user_id FROM t JOIN shop.a ON a.user_id = t.user_id"),
        format!("SELECT coalesce(b.user_id, a.user_id) AS user_id FROM {on}"),
        format!("SELECT greatest(a.user_id, b.user_id) AS user_id FROM {on}"),
        format!(
            "SELECT CASE WHEN a.code = 7 THEN a.user_id ELSE b.user_id END AS user_id FROM {on}"
        ),
        format!("SELECT max(coalesce(b.user_id, a.user_id)) AS user_id FROM {on} GROUP BY a.code"),
    ] {
        refused(&shop, &sql, &[words, [cures[0], cures[1], ""]].concat()).await;
    }
    let decimals = "SELECT user_id FROM shop.d UNION SELECT user_id FROM shop.b";
    refused(&shop, decimals, &["shop.b.user_id (Decimal128(18, 1)) meets shop.d.user_id"]).await;
}

#[tokio::test]
async fn numbers_of_two_forms_are_found_behind_a_column_that_is_read_many_times() {
    let shop = two_forms();
    // 2^20 ways to the column of the file: each is not followed by itself.
    let mut sql = "WITH t0 AS (SELECT user_id FROM shop.a)".to_owned();
    for (before, level) in (0..20).zip(1..) {
        sql.push_str(&format!(
            ", t{level} AS (SELECT coalesce(user_id, user_id) AS user_id FROM t{before})"
        ));
    }
    sql.push_str(" SELECT user_id FROM t20 UNION SELECT user_id FROM shop.b");
    refused(&shop, &sql, &["shop.a.user_id (Int64)", "shop.b.user_id (Decimal128(18, 1))"]).await;
}

#[tokio::test]
async fn numbers_of_one_form_or_with_a_cast_are_keys() {
    let shop = two_forms();
    for (sql, keys) in [
        ("SELECT user_id FROM shop.b", vec!["1.0", "3.0"]),
        ("SELECT user_id FROM shop.b UNION SELECT user_id FROM shop.c", vec!["1.0", "3.0", "4.0"]),
        ("SELECT coalesce(user_id, 0) AS user_id FROM shop.b", vec!["1.0", "3.0", "0.0"]),
        (
            "SELECT user_id FROM shop.a UNION SELECT CAST(user_id AS BIGINT) FROM shop.b",
            vec!["1", "2", "3"],
        ),
        ("SELECT user_id FROM shop.a WHERE user_id NOT IN (SELECT user_id FROM shop.c)", vec!["2"]),
        ("SELECT user_id FROM shop.a EXCEPT SELECT user_id FROM shop.c", vec!["2"]),
        ("SELECT a.user_id FROM shop.a JOIN shop.b ON a.user_id = b.user_id", vec!["1"]),
        (
            "SELECT user_id FROM shop.a UNION SELECT CAST(user_id AS VARCHAR) FROM shop.b",
            vec!["1", "2", "1.0", "3.0"],
        ),
    ] {
        holds(&shop, sql, &keys).await;
    }
    let declared = two_forms().declare("user_id", "text");
    let union = "SELECT user_id FROM shop.a UNION SELECT user_id FROM shop.b";
    holds(&declared, union, &["1", "2", "1.0", "3.0"]).await;
}

#[tokio::test]
async fn a_text_that_would_be_read_as_a_number_is_refused() {
    let shop = Shop::new()
        .file("a.csv", "user_id,alt\n1,00001\n2,00002\n,00777\n")
        .file("c.csv", "user_id\n1\n2\n")
        .file("d.csv", "user_id\n007\n2\n");
    let cures =
        ["`007` would become `7`", "columns: { user_id: text }", "CAST(user_id AS VARCHAR)"];
    for sql in [
        "SELECT coalesce(user_id, alt) AS user_id FROM shop.a",
        "SELECT coalesce(alt, user_id) AS user_id FROM shop.a",
        "SELECT greatest(user_id, alt) AS user_id FROM shop.a",
        "SELECT coalesce(user_id, '000') AS user_id FROM shop.a",
        "SELECT coalesce(user_id, trim(alt)) AS user_id FROM shop.a",
        "SELECT unnest([user_id, alt]) AS user_id FROM shop.a",
        "SELECT unnest(make_array(alt, user_id)) AS user_id FROM shop.a",
        "SELECT coalesce(c.user_id, d.user_id) AS user_id FROM shop.c FULL JOIN shop.d ON c.user_id = d.user_id",
    ] {
        refused(&shop, sql, &cures).await;
    }
    refused(&shop, "SELECT user_id FROM (VALUES (1), ('007')) AS v (user_id)", &cures[..1]).await;
    for (sql, keys) in [
        ("SELECT alt AS user_id FROM shop.a", &["00001", "00002", "00777"][..]),
        ("SELECT user_id FROM shop.c UNION SELECT user_id FROM shop.d", &["1", "2", "007"]),
        (
            "SELECT CASE WHEN user_id IS NULL THEN alt ELSE user_id END AS user_id FROM shop.a",
            &["1", "2", "00777"],
        ),
        (
            "SELECT coalesce(CAST(user_id AS VARCHAR), alt) AS user_id FROM shop.a",
            &["1", "2", "00777"],
        ),
        ("SELECT coalesce(user_id, '5') AS user_id FROM shop.a", &["1", "2", "5"]),
        ("SELECT unnest([alt, '7']) AS user_id FROM shop.a", &["00001", "00002", "00777", "7"]),
        ("SELECT user_id FROM (VALUES (1), (2)) AS v (user_id)", &["1", "2"]),
    ] {
        holds(&shop, sql, keys).await;
    }
}

#[tokio::test]
async fn a_column_without_a_value_is_not_a_text_that_is_read_as_a_number() {
    let shop = Shop::new()
        .file("a.csv", "user_id\n1\n2\n")
        .file("b.csv", "user_id\n")
        .file("c.csv", "user_id\n007\nx\n")
        .file("d.csv", "user_id\n1.0\n3.0\n");
    let of = |table: &str, columns: &str| {
        format!(
            "SELECT coalesce({columns}) AS user_id FROM shop.a FULL JOIN shop.b ON a.user_id = b.user_id \
             FULL JOIN shop.{table} t ON a.user_id = t.user_id"
        )
    };
    for columns in ["a.user_id, b.user_id", "b.user_id, a.user_id"] {
        holds(&shop, &of("a", columns), &["1", "2"]).await;
    }
    refused(&shop, &of("c", "b.user_id, a.user_id, t.user_id"), &["`007` would become `7`"]).await;
    refused(&shop, &of("d", "b.user_id, a.user_id, t.user_id"), &["meets", "`1` and `1.0`"]).await;
    // Numbers become text here, and keep their form.
    let union = "SELECT user_id FROM shop.a UNION SELECT user_id FROM shop.b";
    holds(&shop, union, &["1", "2"]).await;
}

#[tokio::test]
async fn an_integer_and_a_text_with_other_spellings_are_not_compared() {
    let shop = Shop::new()
        .file("a.csv", "user_id,n\n42,1\n7,1\n")
        .file("b.csv", "user_id,n\n042,1\n7,1\n")
        .file("plain.csv", "user_id,n\n42,1\n7,1\nx,1\n");
    let words = [
        "shop.a.user_id (Int64) is compared with shop.b.user_id (text)",
        "columns: { user_id: text }",
        "CAST(user_id AS VARCHAR)",
        "to compare them as numbers, CAST(user_id AS BIGINT)",
    ];
    for sql in [
        "SELECT user_id FROM shop.a EXCEPT SELECT user_id FROM shop.b",
        "SELECT user_id FROM shop.b EXCEPT SELECT user_id FROM shop.a",
        "SELECT user_id FROM shop.a INTERSECT SELECT user_id FROM shop.b",
        "SELECT a.user_id FROM shop.a JOIN shop.b ON a.user_id = b.user_id",
        "SELECT b.user_id FROM shop.a JOIN shop.b USING (user_id)",
        "SELECT user_id FROM shop.a WHERE user_id IN (SELECT user_id FROM shop.b)",
        "SELECT user_id FROM shop.a WHERE user_id NOT IN (SELECT user_id FROM shop.b)",
        "SELECT user_id FROM shop.a a WHERE NOT EXISTS (SELECT 1 FROM shop.b b WHERE b.user_id = a.user_id)",
        "WITH t AS (SELECT user_id AS k FROM shop.b) SELECT a.user_id FROM shop.a, t WHERE t.k = a.user_id",
    ] {
        refused(&shop, sql, &words).await;
    }
    let cast = "SELECT user_id FROM shop.b EXCEPT SELECT CAST(user_id AS VARCHAR) FROM shop.a";
    holds(&shop, cast, &["042"]).await;
    let numbers =
        "SELECT a.user_id FROM shop.a JOIN shop.b ON a.user_id = CAST(b.user_id AS BIGINT)";
    holds(&shop, numbers, &["42", "7"]).await;
    let other = "SELECT a.user_id FROM shop.a JOIN shop.b ON a.n = b.n AND b.user_id <> 'x'";
    holds(&shop, other, &["42", "7"]).await;
    // Each text is the number, or fails the query.
    let plain = "SELECT a.user_id FROM shop.a JOIN shop.plain p ON a.user_id = p.user_id";
    assert!(shop.lake().plan_scan(&model(plain), &[]).await.is_ok());
}

#[tokio::test]
async fn comparisons_with_values_that_are_not_read_are_doubtful() {
    let shop = Shop::new()
        .file("a.csv", "user_id\n42\n7\n")
        .parquet("p.parquet", "SELECT '7' AS user_id")
        .await
        .parquet("d.parquet", "SELECT CAST(7 AS DOUBLE) AS user_id")
        .await
        .file("d2.csv", "user_id\n7\n7.5\n");
    let warnings = async |table: &str| {
        let sql =
            format!("SELECT a.user_id FROM shop.a JOIN shop.{table} t ON a.user_id = t.user_id");
        shop.lake().check(model(&sql)).await.unwrap().warnings
    };
    let text = warnings("p").await;
    assert!(text.len() == 1 && text[0].contains("shop.p.user_id (text) as a number"), "{text:?}");
    let double = warnings("d").await;
    assert!(double.len() == 1 && double[0].contains("9007199254740992"), "{double:?}");
    assert_eq!(warnings("d2").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_order_of_texts_that_are_nearly_all_numbers_or_dates_is_doubtful() {
    let rows = "u1,9,2026-01-02,a\nu2,10,2026-01-10,b\nu3,n.a.,never,c\nu4,11,2026-01-11,d\n";
    let files = || Shop::new().file("t.csv", &format!("user_id,n,day,word\n{rows}"));
    let shop = files();
    let warnings = async |shop: &Shop, sql: &str| {
        let sql = format!("SELECT user_id FROM shop.t {sql}");
        shop.lake().check(model(&sql)).await.unwrap().warnings
    };
    for (sql, word) in [
        ("GROUP BY user_id HAVING max(n) > '9'", "TRY_CAST(n AS DOUBLE)"),
        ("WHERE n >= '10'", "TRY_CAST(n AS DOUBLE)"),
        ("WHERE day > '2026-01-05'", "TRY_CAST(day AS DATE)"),
        ("WHERE day BETWEEN '2026-01-05' AND '2026-01-31'", "TRY_CAST(day AS DATE)"),
        ("ORDER BY n DESC LIMIT 1", "TRY_CAST(n AS DOUBLE)"),
    ] {
        let found = warnings(&shop, sql).await;
        assert!(found.len() == 1 && found[0].contains(word), "{sql}: {found:?}");
    }
    for sql in ["WHERE n = '10'", "WHERE word > 'b'", "ORDER BY n", "WHERE TRY_CAST(n AS INT) > 9"]
    {
        assert_eq!(warnings(&shop, sql).await, Vec::<String>::new(), "{sql}");
    }
    let declared = files().declare("n", "text");
    assert_eq!(warnings(&declared, "WHERE n >= '10'").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_order_of_texts_of_moments_that_do_not_sort_is_doubtful() {
    let shop = Shop::new().file(
        "t.csv",
        "user_id,us,zoned,mixed\n\
         u1,1/5/2026,2026-01-05T10:00:00+01:00,2026-01-05T10:00:00\n\
         u2,12/31/2025,2026-01-05T10:30:00+02:00,2026-01-05 09:00:00\n",
    );
    let warnings = async |condition: &str| {
        let sql = format!("SELECT user_id FROM shop.t WHERE {condition}");
        shop.lake().check(model(&sql)).await.unwrap().warnings
    };
    for (condition, column) in [
        ("us >= '1/1/2026'", "shop.t.us"),
        ("zoned > '2026-01-05T09:00:00Z'", "shop.t.zoned"),
        ("mixed >= '2026-01-05T09:30:00'", "shop.t.mixed"),
    ] {
        let found = warnings(condition).await;
        let words = ["does not sort", column, "to_date("];
        assert!(found.len() == 1 && words.iter().all(|word| found[0].contains(word)), "{found:?}");
    }
    for condition in ["us = '1/5/2026'", "to_date(us, '%m/%d/%Y') >= DATE '2026-01-01'"] {
        assert_eq!(warnings(condition).await, Vec::<String>::new(), "{condition}");
    }
    assert_eq!(warnings("CAST(mixed AS TIMESTAMP) > '2026-01-01'").await, Vec::<String>::new());
}

#[tokio::test]
async fn help_does_not_make_two_keys_of_the_forms_of_a_number() {
    let files = || {
        Shop::new()
            .file("a.csv", "user_id\n1\n2\n3\n")
            .file("b/1.csv", "user_id,x\n1.0,1\n,1\n")
            .file("b/2.csv", "user_id,x\n2,1\n")
            .file("c.csv", "user_id\n1.0\n2.0\n")
    };
    let kept = |table: &str| {
        format!(
            "SELECT user_id FROM shop.a a WHERE NOT EXISTS \
             (SELECT 1 FROM shop.{table} b WHERE b.user_id = a.user_id)"
        )
    };
    let error = files().lake().check_model(&kept("b"), None).await.unwrap_err();
    let help = error.help().unwrap();
    assert!(help.contains("`1` and `1.0`") && help.contains("user_id: integer"), "{help}");
    assert!(!help.contains("user_id: text"), "{help}");
    // Who declares text is warned, also where each table has one form.
    let text = files().declare("user_id", "text");
    let of_keys = text.lake().check(model("SELECT user_id FROM shop.b")).await.unwrap().warnings;
    assert!(of_keys.len() == 1 && of_keys[0].contains("different keys"), "{of_keys:?}");
    for table in ["b", "c"] {
        let warnings = text.lake().check(model(&kept(table))).await.unwrap().warnings;
        let found = warnings.iter().any(|warning| warning.contains("which are not equal"));
        assert!(found, "{table}: {warnings:?}");
    }
    let cast = "SELECT user_id FROM shop.a EXCEPT \
                SELECT CAST(CAST(user_id AS DECIMAL(38, 1)) AS BIGINT) FROM shop.b";
    holds(&files(), cast, &["3"]).await;
}

#[tokio::test]
async fn a_number_of_several_forms_or_a_timestamp_in_a_text_is_refused() {
    let files = || {
        Shop::new()
            .file("a.csv", "user_id,at\n5,2026-11-25 10:00:00\n6.5,2026-11-26 10:00:00\n")
            .file("b.csv", "user_id\nq7\n")
    };
    let shop = files();
    let cure = "columns: { user_id: text }";
    for sql in [
        "SELECT user_id FROM shop.a UNION ALL SELECT user_id FROM shop.b",
        "SELECT concat('u', user_id) AS user_id FROM shop.a",
        "SELECT 'u' || user_id AS user_id FROM shop.a",
        "SELECT lower(concat('u', user_id)) AS user_id FROM shop.a",
        "SELECT concat_ws('-', 'u', user_id) AS user_id FROM shop.a",
    ] {
        refused(&shop, sql, &["`5` would become `5.0`", cure]).await;
    }
    let moment = "SELECT 'u' || at AS user_id FROM shop.a";
    refused(&shop, moment, &["a space would become `T`", "columns: { at: text }"]).await;
    refused(&shop, "SELECT trim(user_id) AS user_id FROM shop.a", &[cure]).await;
    let as_text = files().declare("user_id", "text");
    let union = "SELECT user_id FROM shop.a UNION ALL SELECT user_id FROM shop.b";
    holds(&as_text, union, &["5", "6.5", "q7"]).await;
    holds(&as_text, "SELECT 'u' || user_id AS user_id FROM shop.a", &["u5", "u6.5"]).await;
    holds(&shop, "SELECT user_id FROM shop.a", &["5", "6.5"]).await;
    let whole = "SELECT concat('u', CAST(user_id AS BIGINT)) AS user_id FROM shop.a";
    holds(&shop, whole, &["u5", "u6"]).await;
}

#[tokio::test]
async fn timestamps_that_no_file_writes_otherwise_are_parts_of_texts() {
    let moment = "SELECT CAST('2026-11-25 10:00:00' AS TIMESTAMP) AS at";
    let shop = Shop::new().file("t.csv", "at\n2026-11-25T10:00:00\n2026-11-26T10:00:00\n");
    let shop = shop.parquet("p.parquet", moment).await;
    let of = |table: &str| format!("SELECT 'u' || at AS user_id FROM shop.{table}");
    holds(&shop, &of("t"), &["u2026-11-25T10:00:00", "u2026-11-26T10:00:00"]).await;
    holds(&shop, &of("p"), &["u2026-11-25T10:00:00"]).await;
}

#[tokio::test]
async fn the_help_for_columns_of_parquet_files_is_a_cast() {
    let row = "SELECT CAST(5 AS DOUBLE) AS user_id, CAST(5 AS DOUBLE) AS score, \
               CAST('2026-11-25 10:00:00' AS TIMESTAMP) AS at, 5 AS n, '007' AS alt";
    let shop = Shop::new().parquet("p.parquet", row).await;
    for (sql, cast) in [
        ("SELECT 'u' || user_id AS user_id FROM shop.p", "CAST(user_id AS VARCHAR)"),
        ("SELECT coalesce(n, alt) AS user_id FROM shop.p", "CAST(n AS VARCHAR)"),
        ("SELECT user_id FROM shop.p WHERE lower(score) = '5'", "CAST(score AS TEXT)"),
        ("SELECT user_id FROM shop.p WHERE at LIKE '2026-11%'", "CAST(at AS TEXT)"),
    ] {
        let error = shop.lake().plan_scan(&model(sql), &[]).await.unwrap_err();
        let help = error.help().unwrap();
        assert!(help.contains(cast) && !help.contains("columns:"), "{sql}: {error}: {help}");
    }
    let cast = "SELECT 'u' || CAST(user_id AS VARCHAR) AS user_id FROM shop.p";
    holds(&shop, cast, &["u5.0"]).await;
}

#[tokio::test]
async fn numbers_of_two_forms_that_meet_in_an_identifier_are_refused() {
    let shop = two_forms();
    let sql = "SELECT CAST(user_id AS BIGINT) AS user_id, code FROM shop.a
               UNION ALL SELECT CAST(user_id AS BIGINT), code FROM shop.b";
    let columns = ["code".to_owned()];
    let error = shop.lake().check_identifiers(sql, "user_id", &columns).await.unwrap_err();
    assert!(matches!(error, LakeError::Key { .. }), "{error:?}");
    let said = format!("{error}; {}", error.help().unwrap());
    for word in ["column code", "shop.a.code (Int64)", "shop.b.code", "columns: { code: text }"] {
        assert!(said.contains(word), "{said}");
    }
    // Who does not use it is not refused.
    assert!(shop.lake().check_identifiers(sql, "user_id", &[]).await.is_ok());
}

#[tokio::test]
async fn a_declared_decimal_that_writes_keys_otherwise_is_refused() {
    let files = || {
        Shop::new()
            .file("t.csv", "user_id,n\n1,1\n2,1\n10.10,1\n10.1,1\n")
            .file("even.csv", "user_id,n\n1.00,1\n10.10,1\n")
            .file("j.jsonl", "{\"user_id\":1,\"n\":1}\n")
    };
    let shop = files().declare("user_id", "decimal(38, 2)");
    let shop = shop.parquet("p.parquet", "SELECT 1 AS user_id").await;
    for table in ["t", "j", "p"] {
        let place = format!("column user_id of shop.{table}");
        let words = [place.as_str(), "`1.00`", "columns: { user_id: text }"];
        refused(&shop, &format!("SELECT user_id FROM shop.{table}"), &words).await;
    }
    let columns = ["user_id".to_owned()];
    let sql = "SELECT n, user_id FROM shop.t";
    let error = shop.lake().check_identifiers(sql, "n", &columns).await.unwrap_err();
    assert!(error.to_string().contains("declared as a decimal"), "{error}");
    holds(&shop, "SELECT user_id FROM shop.even", &["1.00", "10.10"]).await;
    holds(&shop, "SELECT n FROM shop.t WHERE user_id > 2", &["1"]).await;
    let as_text = "SELECT CAST(user_id AS VARCHAR) AS user_id FROM shop.t";
    holds(&shop, as_text, &["1.00", "2.00", "10.10"]).await;
    let text = files().declare("user_id", "text");
    holds(&text, "SELECT user_id FROM shop.t", &["1", "2", "10.10", "10.1"]).await;
}

#[tokio::test]
async fn a_declared_integer_that_writes_keys_otherwise_is_doubtful() {
    let sql = "SELECT user_id FROM shop.t";
    let plain = Shop::new().file("t.csv", "user_id\n1\n-2\n").declare("user_id", "integer");
    assert_eq!(plain.lake().check(model(sql)).await.unwrap().warnings, Vec::<String>::new());
    let zeros = Shop::new().file("t.csv", "user_id\n0001\n+2\n").declare("user_id", "integer");
    holds(&zeros, sql, &["1", "2"]).await;
    let warnings = zeros.lake().check(model(sql)).await.unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("columns: { user_id: text }"), "{warnings:?}");
    // The SQL says which text is meant.
    let cast = model("SELECT CAST(user_id AS INT) AS id FROM shop.t");
    assert_eq!(zeros.lake().check(cast).await.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn invisible_characters_around_keys_are_as_white_space() {
    let keys = ["a1\u{200b}", "\u{200e}b2\u{200f}", "c3\u{ad}", "\u{2060}d4", "e5\0", "f\u{200b}6"];
    let files = || {
        let shop =
            Shop::new().file("t.csv", &format!("user_id,n\n{},1\n\u{200b},1\n", keys.join(",1\n")));
        shop.file("j.jsonl", "{\"user_id\":\"7\u{2060}\"}\n{\"user_id\":\"\u{200b}\"}\n")
    };
    let shop =
        files().parquet("p.parquet", "SELECT '8\u{200b}' AS user_id UNION SELECT '\u{feff}'").await;
    for (table, rows, padded) in [("t", 7, 5), ("j", 2, 1), ("p", 2, 1)] {
        let sql = model(&format!("SELECT user_id FROM shop.{table}"));
        let lake = shop.lake();
        let (info, parts) = lake.plan_scan(&sql, &[]).await.unwrap();
        let (_, stats) = scan(&lake, &sql, &parts[0]).await.unwrap();
        // A key that shows nothing is none.
        assert_eq!(
            (stats.rows_read, stats.null_keys, stats.padded_keys),
            (rows, 1, padded),
            "{table}"
        );
        let warned = info.warnings.iter().any(|warning| warning.contains("invisible characters"));
        assert_eq!(warned, table != "p", "{:?}", info.warnings);
    }
    holds(&shop, "SELECT user_id FROM shop.t", &keys).await;
    let listed = shop.lake().list().await.unwrap();
    let padded = |name: &str| {
        let table = listed[0].tables.iter().find(|table| table.name == name).unwrap();
        table.padded.clone()
    };
    assert_eq!(
        (padded("t"), padded("j")),
        (vec!["user_id".to_owned()], vec!["user_id".to_owned()])
    );
    let trimmed = files().parquet("p.parquet", "SELECT '8\u{200b}' AS user_id").await.trim();
    holds(&trimmed, "SELECT user_id FROM shop.t", &["a1", "b2", "c3", "d4", "e5", "f\u{200b}6"])
        .await;
    holds(&trimmed, "SELECT user_id FROM shop.j", &["7"]).await;
    holds(&trimmed, "SELECT user_id FROM shop.p", &["8"]).await;
}

#[tokio::test]
async fn keys_in_the_form_of_spreadsheets_are_doubtful() {
    let shop = Shop::new()
        .file("t.csv", "user_id,note\n=\"00012\",x\n3,y\n")
        .file("u.csv", "user_id,note\n'00012,x\n3,y\n")
        .file("v.csv", "user_id,note\n1,'42\n's-1,=\"3\"\n");
    for (table, is_doubtful) in [("t", true), ("u", true), ("v", false)] {
        let sql = format!("SELECT user_id FROM shop.{table}");
        let warnings = shop.lake().check(model(&sql)).await.unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(is_doubtful), "{table}: {warnings:?}");
        assert!(warnings.iter().all(|w| w.contains("user_id") && w.contains("spreadsheet")));
    }
    holds(&shop, "SELECT user_id FROM shop.u", &["'00012", "3"]).await;
    let shop = Shop::new()
        .file("t.csv", "user_id,note\n1.23457E+12,x\n3,y\n")
        .file("u.csv", "user_id,note\n1-Mar,x\n3,y\n")
        .file("v.csv", "user_id,note\n'a1',x\n'b2',y\n")
        .file("w.csv", "user_id,note\n1,1-Mar\n2,########\n");
    for (table, words) in [
        ("t", Some("a spreadsheet")),
        ("u", Some("a spreadsheet")),
        ("v", Some("apostrophes")),
        ("w", None),
    ] {
        let sql = format!("SELECT user_id FROM shop.{table}");
        let warnings = shop.lake().check(model(&sql)).await.unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(words.is_some()), "{table}: {warnings:?}");
        assert!(
            warnings.iter().all(|w| words.is_some_and(|words| w.contains(words))),
            "{warnings:?}"
        );
    }
}

#[tokio::test]
async fn whole_numbers_in_two_forms_are_doubtful_as_keys() {
    let shop = Shop::new()
        .file("t/1.csv", "user_id,n\n1,1\n2,2.0\n")
        .file("t/2.csv", "user_id,n\n1.0,3\n3.0,4\n")
        .file("j.jsonl", "{\"user_id\":1,\"n\":1}\n{\"user_id\":\"2.0\",\"n\":2.0}\n")
        .file("u.csv", "user_id,n\n1,1\n2,2.0\n");
    let declared = Shop::new()
        .file("t/1.csv", "user_id,n\n1,1\n2,2.0\n")
        .file("t/2.csv", "user_id,n\n1.0,3\n3.0,4\n")
        .file("p/1.csv", "user_id,n\n1.0,3\n3.0,4\n")
        .parquet("p/2.parquet", "SELECT 2 AS user_id, 'x' AS n")
        .await
        .declare("user_id", "text");
    for (shop, table, is_doubtful) in [
        (&shop, "t", true),
        (&shop, "j", true),
        (&shop, "u", false),
        (&declared, "t", true),
        (&declared, "p", true),
    ] {
        let sql = format!("SELECT user_id FROM shop.{table}");
        let warnings = shop.lake().check(model(&sql)).await.unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(is_doubtful), "{table}: {warnings:?}");
        assert!(warnings.iter().all(|w| w.contains("`1.0`")), "{table}: {warnings:?}");
    }
    holds(&shop, "SELECT user_id FROM shop.t", &["1", "2", "1.0", "3.0"]).await;
}
