//! Files become the table that a person expects, or are refused by name.

use std::sync::Arc;

use datafusion::parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use datafusion::parquet::schema::parser::parse_message_type;
use throng_lake::{FileError, LakeError, ScanPart, TableFacts};

use crate::{Shop, hashes, model, scan, users};

/// Asserts the members of a query.
pub(crate) async fn holds(shop: &Shop, sql: &str, keys: &[&str]) {
    let (found, ..) = users(&shop.lake(), sql).await;
    assert_eq!(found, hashes(keys.iter().copied()), "{sql}");
}

/// Asserts that a query is refused when it is planned, and that message and help contain these
/// words.
pub(crate) async fn refused(shop: &Shop, sql: &str, words: &[&str]) {
    let error = shop.lake().plan_scan(&model(sql), &[]).await.unwrap_err();
    let said = format!("{error}; {}", error.help().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "{sql}: {said}");
    }
    assert_eq!(error.fault(), throng_model::Fault::User, "{said}");
}

#[tokio::test]
async fn columns_are_matched_by_name_in_every_format() {
    let shop = Shop::new()
        .file("c/1.csv", "user_id,ref_id\n1,9001\n2,9002\n")
        .file("c/2.csv", "ref_id,user_id\n9003,3\n9004,4\n")
        .file("c/3.csv", "\"coupon\",\"ref_id\",\"user_id\"\r\nX,9005,5\r\n")
        .packed("c/4.csv.gz", &["user_id,ref_id\n6,9006\n", "7,9007\n"])
        .file("c/5.csv", "\u{feff}user_id,ref_id\n8,9008\n")
        .file("j/1.jsonl", "{\"user_id\":1}\n")
        .file("j/2.json", "[{\"coupon\":\"X\",\"user_id\":2},\n{\"user_id\":3}]")
        .file("j/3.ndjson", "\u{feff}{\n\"user_id\":\n4}\n")
        .parquet("p/1.parquet", "SELECT arrow_cast(1, 'Int32') AS user_id")
        .await
        .parquet("p/2.parquet", "SELECT 'X' AS coupon, 2 AS user_id")
        .await
        .parquet("p/3.parquet", "SELECT arrow_cast(3, 'UInt32') AS user_id, 9 AS ref_id")
        .await
        .file("m/1.csv", "user_id\n1\n")
        .file("m/2.jsonl", "{\"coupon\":\"X\",\"user_id\":2}\n")
        .parquet("m/3.parquet", "SELECT 3 AS user_id, 'X' AS coupon")
        .await;
    holds(&shop, "SELECT user_id FROM shop.c", &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    holds(&shop, "SELECT ref_id FROM shop.c WHERE user_id = 3", &["9003"]).await;
    holds(&shop, "SELECT user_id FROM shop.c WHERE coupon = 'X'", &["5"]).await;
    holds(&shop, "SELECT user_id FROM shop.j", &["1", "2", "3", "4"]).await;
    holds(&shop, "SELECT user_id FROM shop.j WHERE coupon IS NULL", &["1", "3", "4"]).await;
    holds(&shop, "SELECT user_id FROM shop.p WHERE coupon IS NULL", &["1", "3"]).await;
    holds(&shop, "SELECT user_id FROM shop.p WHERE user_id > 1", &["2", "3"]).await;
    holds(&shop, "SELECT user_id FROM shop.m", &["1", "2", "3"]).await;
    holds(&shop, "SELECT user_id FROM shop.m WHERE coupon = 'X'", &["2", "3"]).await;
    for (table, rows) in [("c", 8), ("j", 4), ("p", 3), ("m", 3)] {
        let sql = format!("SELECT count(*) FROM shop.{table}");
        holds(&shop, &sql, &[&rows.to_string()]).await;
    }
}

#[tokio::test]
async fn text_stays_as_it_was_written() {
    let shop = Shop::new()
        .file("codes.csv", "code,n\n32E0134,1\n12E3,2\n12000,3\n10.10,4\n10.1,5\n")
        .file(
            "big.jsonl",
            "{\"id\":18446744073709551615}\n{\"id\":18446744073709551614}\n{\"id\":42}\n",
        )
        .file("mixed.jsonl", "{\"id\":42}\n{\"id\":\"A7\"}\n{\"id\":null}\n")
        .file("t/1.jsonl", "{\"id\":\"00003\"}\n")
        .file("t/2.jsonl", "{\"id\":7}\n{\"id\":1e3}\n")
        .file("amounts.csv", "a,b,c\n12.00,5,2026-11-25 10:00:00\n10.10,6.5,2026-11-26 10:00:00\n")
        .parquet("b/1.parquet", "SELECT * FROM (VALUES ('00003'), ('x4')) AS t (user_id)")
        .await
        .parquet("b/2.parquet", "SELECT * FROM (VALUES (1), (2)) AS t (user_id)")
        .await;
    let codes = ["32E0134", "12E3", "12000", "10.10", "10.1"];
    holds(&shop, "SELECT code FROM shop.codes", &codes).await;
    let ids = ["18446744073709551615", "18446744073709551614", "42"];
    holds(&shop, "SELECT id FROM shop.big", &ids).await;
    holds(&shop, "SELECT id FROM shop.mixed", &["42", "A7"]).await;
    holds(&shop, "SELECT id FROM shop.t", &["00003", "7", "1e3"]).await;
    holds(&shop, "SELECT user_id FROM shop.b", &["00003", "x4", "1", "2"]).await;
    holds(&shop, "SELECT user_id FROM shop.b WHERE user_id = '1'", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.b WHERE user_id = '01'", &[]).await;
    holds(&shop, "SELECT a FROM shop.amounts", &["12.00", "10.10"]).await;
    holds(&shop, "SELECT b FROM shop.amounts WHERE b > 5.5", &["6.5"]).await;
    holds(&shop, "SELECT b FROM shop.amounts", &["5", "6.5"]).await;
    holds(&shop, "SELECT c FROM shop.amounts WHERE a < 11", &["2026-11-26 10:00:00"]).await;
    holds(&shop, "SELECT b FROM shop.amounts WHERE c < timestamp '2026-11-26 00:00:00'", &["5"])
        .await;
}

#[tokio::test]
async fn declared_types_and_trimming_are_rules_of_the_source() {
    let files = |shop: Shop| {
        shop.file("a.csv", "user_id,n, note \n     1,007, x \n    22,8,\n   333,9,  \n")
            .file("b.jsonl", "{\"user_id\":\" 1 \",\"n\":\"5\"}\n")
    };
    let plain = files(Shop::new());
    holds(&plain, "SELECT user_id FROM shop.a", &["     1", "    22", "   333"]).await;
    holds(&plain, "SELECT user_id FROM shop.a WHERE n = '007'", &["     1"]).await;
    let ruled = files(Shop::new()).trim().declare("n", "integer").declare("user_id", "text");
    let ruled = ruled.parquet("p.parquet", "SELECT ' 4 ' AS user_id, 7 AS n").await;
    holds(&ruled, "SELECT user_id FROM shop.a", &["1", "22", "333"]).await;
    holds(&ruled, "SELECT user_id FROM shop.a WHERE n >= 7 AND n < 9", &["1", "22"]).await;
    holds(&ruled, "SELECT user_id FROM shop.a WHERE \" note \" IS NULL", &["22", "333"]).await;
    holds(&ruled, "SELECT user_id FROM shop.b WHERE n = 5", &["1"]).await;
    holds(&ruled, "SELECT user_id FROM shop.p WHERE user_id = '4'", &["4"]).await;
    let wrong = files(Shop::new()).declare("n", "date");
    refused(
        &wrong,
        "SELECT user_id FROM shop.a",
        &["a.csv, line 2", "column n", "not of type date"],
    )
    .await;
    refused(
        &wrong,
        "SELECT user_id FROM shop.b",
        &["b.jsonl, line 1", "column n", "not of type date"],
    )
    .await;
    let typed = Shop::new().declare("n", "date").parquet("p.parquet", "SELECT 1 AS n").await;
    refused(&typed, "SELECT n FROM shop.p", &["p.parquet", "Int64", "declared date"]).await;
}

#[tokio::test]
async fn types_that_do_not_agree_are_refused_by_both_files() {
    let shop = Shop::new()
        .parquet("a/1.parquet", "SELECT 1.5 AS x, 1 AS user_id")
        .await
        .parquet("a/2.parquet", "SELECT 'text' AS x, 2 AS user_id")
        .await
        .file("m/1.csv", "x\n1.5\n")
        .parquet("m/2.parquet", "SELECT true AS x")
        .await
        .file("j/1.jsonl", "{\"x\":{\"y\":1}}\n")
        .file("j/2.jsonl", "{\"x\":5}\n");
    let sql = "SELECT user_id FROM shop.a WHERE x = 'text'";
    let words = ["column x", "Float64", "text", "1.parquet", "2.parquet", "CAST"];
    refused(&shop, sql, &words).await;
    // Who does not use the column gets all rows.
    assert_eq!(users(&shop.lake(), "SELECT user_id FROM shop.a").await.1, 2);
    let listed = shop.lake().list().await.unwrap();
    let a = listed[0].tables.iter().find(|table| table.name == "a").unwrap();
    assert!(a.refused.is_none() && a.warnings[0].contains("column x"), "{a:?}");
    refused(&shop, "SELECT x FROM shop.m", &["column x", "1.csv", "Boolean in", "2.parquet"]).await;
    refused(&shop, "SELECT x FROM shop.j", &["column x", "1.jsonl", "2.jsonl", "objects"]).await;
}

#[tokio::test]
async fn whole_numbers_and_decimals_of_two_files_are_one_column_only_if_it_is_declared() {
    let shop = Shop::new()
        .parquet("t/1.parquet", "SELECT 42 AS user_id, 7 AS amount, 'a' AS name")
        .await
        .parquet(
            "t/2.parquet",
            "SELECT CAST(43 AS DECIMAL(10, 2)) AS user_id, CAST(8.5 AS DECIMAL(10, 2)) AS amount, 'b' AS name",
        )
        .await
        .parquet("n/1.parquet", "SELECT 42 AS user_id")
        .await
        .parquet("n/2.parquet", "SELECT CAST(43 AS DECIMAL(10, 0)) AS user_id")
        .await
        .file("m/1.csv", "user_id\n42\n")
        .parquet("m/2.parquet", "SELECT CAST(43 AS DECIMAL(10, 2)) AS user_id")
        .await;
    let words = ["column user_id is Int64 in", "1.parquet", "Decimal128(10, 2) in", "2.parquet"];
    refused(&shop, "SELECT user_id FROM shop.t", &words).await;
    let words = ["user_id", "1.csv", "2.parquet", "user_id: \"decimal(38, 2)\""];
    refused(&shop, "SELECT user_id FROM shop.m", &words).await;
    holds(&shop, "SELECT user_id FROM shop.n", &["42", "43"]).await;
    holds(&shop, "SELECT name FROM shop.t", &["a", "b"]).await;
    let declared = shop.declare("amount", "decimal(38, 2)");
    holds(&declared, "SELECT name FROM shop.t WHERE amount < 8", &["a"]).await;
}

#[tokio::test]
async fn a_later_file_that_changes_the_text_of_keys_is_refused() {
    let whole = "SELECT 42 AS user_id, 7 AS amount";
    let by_user = "SELECT user_id FROM shop.t WHERE amount > 5";
    let shop = Shop::new().parquet("t.parquet", whole).await;
    let served = shop.lake().plan_scan(&model(by_user), &[]).await.unwrap().0.tables;
    let key = |name: &str| {
        let column = served[0].columns.iter().find(|column| column.name == name);
        column.unwrap().is_key
    };
    assert_eq!((key("user_id"), key("amount")), (true, false));
    // As an earlier version has recorded it.
    let recorded = r#"[{"name": "shop.t", "has_rows": true, "columns": [
        {"name": "user_id", "type": "Int64"}, {"name": "amount", "type": "Int64"}]}]"#;
    let recorded: Vec<TableFacts> = serde_json::from_str(recorded).unwrap();
    assert!(shop.lake().plan_scan(&model(by_user), &recorded).await.is_ok());

    let amounts = "SELECT 42 AS user_id, CAST(7 AS DECIMAL(10, 2)) AS amount";
    let shop = shop.parquet("t.parquet", amounts).await;
    assert!(shop.lake().plan_scan(&model(by_user), &served).await.is_ok(), "not in the keys");
    let keys = "SELECT CAST(42 AS DECIMAL(10, 2)) AS user_id, 7 AS amount";
    let shop = shop.parquet("t.parquet", keys).await;
    let as_text = "SELECT CAST(user_id AS VARCHAR) AS id FROM shop.t WHERE amount > 5";
    for (sql, before) in [(by_user, &served), (by_user, &recorded), (as_text, &served)] {
        let error = shop.lake().plan_scan(&model(sql), before).await.unwrap_err();
        let said = format!("{error}; {}", error.help().unwrap());
        for word in ["user_id is Decimal128(10, 2) in", "t.parquet", "was Int64", "CAST(user_id"] {
            assert!(said.contains(word), "{sql}: {said}");
        }
    }
    // The keys have the text that they had.
    for as_before in [
        "SELECT CAST(user_id AS BIGINT) AS id FROM shop.t WHERE amount > 5",
        "SELECT CAST(user_id AS BIGINT) AS user_id FROM shop.t WHERE amount > 5",
        "SELECT CAST(user_id AS BIGINT) AS user_id FROM shop.t WHERE amount > 5 GROUP BY 1",
        "SELECT CAST(user_id AS BIGINT) FROM shop.t WHERE amount > 5",
    ] {
        let planned = shop.lake().plan_scan(&model(as_before), &served).await;
        assert!(planned.is_ok(), "{as_before}: {:?}", planned.err());
    }
    let declared = shop.declare("user_id", "decimal(10, 2)");
    assert!(declared.lake().plan_scan(&model(by_user), &served).await.is_ok(), "accepted");
}

#[tokio::test]
async fn headers_that_have_nothing_in_common_are_refused_without_showing_them() {
    let shop = Shop::new()
        .file("p/1.csv", "user_id,email\nu1,a@example.com\n")
        .file("p/2.csv", "User ID,E-Mail\nu2,b@example.com\n")
        .file("q/1.csv", "user_id,name\nu1,Ann\n")
        .file("q/2.csv", "Zoe,Rome\nBob,Paris\n")
        .file("d/customers.csv", "user_id,city\n1,Rome\n")
        .file("d/orders.csv", "order_id,user_id\n9001,1\n")
        .file("h.csv", "u3,zoe@example.com\n")
        .file("rows.csv", "a,b\n1,2\n3,zoe,5\n");
    refused(&shop, "SELECT user_id FROM shop.p", &["p/2.csv", "another header", "p/1.csv"]).await;
    refused(&shop, "SELECT user_id FROM shop.q", &["q/2.csv", "another header"]).await;
    refused(&shop, "SELECT user_id FROM shop.d", &["d/orders.csv", "d/customers.csv"]).await;
    refused(&shop, "SELECT a FROM shop.h", &["h.csv, line 1", "names of columns"]).await;
    refused(&shop, "SELECT a FROM shop.rows", &["rows.csv, line 3", "3 fields", "header has 2"])
        .await;
    for sql in ["SELECT user_id FROM shop.q", "SELECT a FROM shop.h", "SELECT a FROM shop.rows"] {
        let error = shop.lake().plan_scan(&model(sql), &[]).await.unwrap_err();
        let said = format!("{error:?} {}", error.help().unwrap_or_default());
        assert!(!said.to_lowercase().contains("zoe"), "{said}");
    }
}

#[tokio::test]
async fn open_quotes_repeated_headers_and_two_spellings_are_refused() {
    let shop = Shop::new()
        .file("open.csv", "user_id,n\n1,\"abc\n2,b\n3,c\n")
        .file("last.csv", "user_id,n\n1,a\n2,\"b")
        .file("head.csv", "user_id,\"n\n1,a\n")
        .file("again.csv", "user_id,n\n1,a\nuser_id,n\n2,b\n")
        .file("m/1.csv", "user_id,email,phone\n1,a,b\n")
        .file("m/2.csv", "userid,email,phone\n2,a,b\n")
        .file("both/1.csv", "user_id,userid,n\n1,7,b\n")
        .file("both/2.csv", "user_id,n\n2,b\n")
        .file("quoted.csv", "user_id,n\n1,\"a \"\"b\"\"\nc\"");
    let ids = |table: &str| format!("SELECT user_id FROM shop.{table}");
    refused(&shop, &ids("open"), &["open.csv, line 2", "quote"]).await;
    refused(&shop, &ids("last"), &["last.csv, line 3", "quote"]).await;
    refused(&shop, &ids("head"), &["head.csv, line 1", "quote"]).await;
    refused(&shop, &ids("again"), &["again.csv, line 3", "header"]).await;
    refused(&shop, &ids("m"), &["user_id in ", "m/1.csv", "userid in ", "m/2.csv"]).await;
    holds(&shop, &ids("both"), &["1", "2"]).await;
    holds(&shop, &ids("quoted"), &["1"]).await;
}

#[tokio::test]
async fn names_may_have_any_characters() {
    let shop = Shop::new()
        .file("orders [2026]/part[1].csv", "user_id\n1\n2\n")
        .file("vip[1].csv", "user_id\n7\n")
        .file("s/step[a]*?#%41 ü.csv", "user_id\n1\n")
        .parquet("s/step[b]*?#%41 ü.parquet", "SELECT 2 AS user_id")
        .await
        .parquet("s/100%/{x}~.parquet", "SELECT 3 AS user_id")
        .await
        .file("CUSTOMERS.CSV", "user_id\n4\n")
        .file("exports/JAN.CSV", "user_id\n5\n")
        .file("exports/feb.csv", "user_id\n6\n")
        .file("LOG.JSONL", "{\"user_id\":8}\n")
        .parquet("P.PARQUET", "SELECT 9 AS user_id")
        .await;
    holds(&shop, "SELECT user_id FROM shop.\"orders_[2026]\"", &["1", "2"]).await;
    holds(&shop, "SELECT user_id FROM shop.\"vip[1]\"", &["7"]).await;
    holds(&shop, "SELECT user_id FROM shop.s", &["1", "2", "3"]).await;
    holds(&shop, "SELECT user_id FROM shop.customers", &["4"]).await;
    holds(&shop, "SELECT user_id FROM shop.exports", &["5", "6"]).await;
    holds(&shop, "SELECT user_id FROM shop.log", &["8"]).await;
    holds(&shop, "SELECT user_id FROM shop.p", &["9"]).await;
}

#[tokio::test]
async fn folders_name_columns_and_table_formats_are_refused() {
    let shop = Shop::new()
        .parquet("v/region=0001/seen=2026%3A54/1.parquet", "SELECT 1 AS user_id")
        .await
        .parquet("v/region=0002/seen=2026%3A54/1.parquet", "SELECT 2 AS user_id")
        .await
        .file("v/region=__HIVE_DEFAULT_PARTITION__/seen=x/3.csv", "user_id\n3\n")
        .file("d/_delta_log/0.json", "{}")
        .parquet("d/1.parquet", "SELECT 1 AS user_id")
        .await;
    holds(&shop, "SELECT user_id FROM shop.v WHERE region = '0001'", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.v WHERE region IS NULL", &["3"]).await;
    holds(&shop, "SELECT seen FROM shop.v", &["2026:54", "x"]).await;
    let declared = shop.declare("region", "integer");
    holds(&declared, "SELECT region FROM shop.v WHERE region > 1", &["2"]).await;
    refused(&declared, "SELECT user_id FROM shop.d", &["Delta", "Parquet"]).await;
}

#[tokio::test]
async fn a_column_that_a_file_has_twice_is_an_error_where_it_is_used() {
    let both = "SELECT 1 AS user_id, 10 AS value, 100 AS other";
    let shop = Shop::new().file("dup.csv", "user_id,value,value\n1,10,100\n2,20,200\n");
    let shop = shop.file("dupj.jsonl", "{\"user_id\":1,\"value\":1,\"value\":2}\n");
    let shop = shop.parquet("p.parquet", both).await;
    for table in ["dup", "dupj"] {
        refused(
            &shop,
            &format!("SELECT user_id FROM shop.{table} WHERE value > 5"),
            &["two columns of", table, "are named value"],
        )
        .await;
    }
    let shop = shop.file("r/region=1/1.csv", "user_id,region\n1,2\n");
    let both = ["the column region is both in", "1.csv and in the name of its folder"];
    refused(&shop, "SELECT user_id FROM shop.r WHERE region = '1'", &both).await;
    holds(&shop, "SELECT user_id FROM shop.r", &["1"]).await;
    // The name of the folder has it in another case.
    let shop = shop.file("rc/Region=1/1.csv", "user_id,region\n1,2\n");
    refused(&shop, "SELECT user_id FROM shop.rc WHERE region = '1'", &both).await;
    holds(&shop, "SELECT user_id FROM shop.rc", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.dup", &["1", "2"]).await;
    holds(&shop, "SELECT user_id FROM shop.dupj", &["1"]).await;
}

#[tokio::test]
async fn unquoted_names_match_the_column_that_differs_only_in_case() {
    let shop = Shop::new()
        .file("crm.csv", "CustomerID,Email\n1,a@example.com\n2,b@example.com\n")
        .file("two.csv", "ID,Id\n1,2\n")
        .file("u/1.csv", "user_id,tier\n1,gold\n")
        .file("u/2.csv", "USER_ID,TIER\n2,gold\n")
        .parquet("w/1.parquet", "SELECT 1 AS user_id, 'gold' AS tier")
        .await
        .parquet("w/2.parquet", "SELECT 2 AS \"USER_ID\", 'gold' AS \"Tier\"")
        .await
        .file("x/1.jsonl", "{\"user_id\":1,\"tier\":\"gold\"}\n")
        .file("x/2.jsonl", "{\"User_Id\":2,\"TIER\":\"gold\"}\n")
        .file("semi.csv", "user_id;email\n1;a\n");
    holds(&shop, "SELECT CustomerID FROM shop.crm WHERE email LIKE 'a%'", &["1"]).await;
    holds(&shop, "SELECT \"CustomerID\" FROM shop.crm", &["1", "2"]).await;
    holds(
        &shop,
        "SELECT c.customerid AS id FROM shop.crm c GROUP BY c.CUSTOMERID HAVING count(*) = 1",
        &["1", "2"],
    )
    .await;
    for table in ["u", "w", "x"] {
        let sql = format!("SELECT user_id FROM shop.{table} WHERE tier = 'gold'");
        holds(&shop, &sql, &["1", "2"]).await;
    }
    let lake = shop.lake();
    let info = lake.check_model("SELECT CustomerID, Email FROM shop.crm", Some("customerid")).await;
    assert_eq!(info.unwrap().key_column, "CustomerID");
    refused(&shop, "SELECT id FROM shop.two", &["\"ID\"", "\"Id\"", "quotes"]).await;
    refused(&shop, "SELECT \"customerid\" FROM shop.crm", &["write \"CustomerID\""]).await;
    refused(&shop, "SELECT user_id FROM shop.semi", &["commas"]).await;
}

#[tokio::test]
async fn empty_files_are_ignored() {
    let shop = Shop::new()
        .file("z.csv", "")
        .file("a/1.csv", "")
        .file("a/2.csv", "user_id\n1\n2\n")
        .file("b/1.csv", "user_id\n")
        .file("b/2.csv", "user_id\n0001\n")
        .file("j/1.jsonl", "")
        .file("j/2.jsonl", "{\"user_id\":1}\n")
        .file("g/1.csv.gz", "")
        .packed("g/2.csv.gz", &["user_id\n5\n"])
        .parquet("p/1.parquet", "SELECT 1 AS user_id WHERE false")
        .await
        .parquet("p/2.parquet", "SELECT 1 AS user_id")
        .await
        .file("day/_SUCCESS", "")
        .file("day/.b.csv.crc", "x")
        .file("day/a.csv", "user_id\n9\n");
    refused(&shop, "SELECT user_id FROM shop.z", &["no column user_id", "empty"]).await;
    holds(&shop, "SELECT user_id FROM shop.a", &["1", "2"]).await;
    holds(&shop, "SELECT user_id FROM shop.b", &["0001"]).await;
    holds(&shop, "SELECT user_id FROM shop.j", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.g", &["5"]).await;
    holds(&shop, "SELECT user_id FROM shop.p", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.day", &["9"]).await;
}

#[tokio::test]
async fn files_that_are_not_utf8_or_json_are_refused_with_the_line() {
    let shop = Shop::new()
        .file("bad.jsonl", "{\"user_id\":1}\n{\"user_id\":zoe}\n")
        .file("list.json", "[1, 2]");
    std::fs::write(shop.folder().join("l1.csv"), b"user_id,city\n1,Bern\n2,Z\xFCrich\n").unwrap();
    std::fs::write(shop.folder().join("u16.csv"), b"\xFF\xFEu\0s\0").unwrap();
    std::fs::write(shop.folder().join("p.parquet"), b"PAR1 and nothing more").unwrap();
    std::fs::write(shop.folder().join("g.csv.gz"), b"\x1f\x8b\x08 cut off").unwrap();
    refused(&shop, "SELECT user_id FROM shop.l1", &["l1.csv, line 3", "UTF-8"]).await;
    refused(&shop, "SELECT user_id FROM shop.u16", &["u16.csv", "UTF-16", "iconv"]).await;
    refused(&shop, "SELECT user_id FROM shop.bad", &["bad.jsonl, line 2", "not valid JSON"]).await;
    refused(&shop, "SELECT user_id FROM shop.list", &["list.json, line 1", "one object a line"])
        .await;
    refused(&shop, "SELECT user_id FROM shop.p", &["p.parquet", "not a complete Parquet"]).await;
    refused(&shop, "SELECT user_id FROM shop.g", &["g.csv.gz"]).await;
}

#[tokio::test]
async fn a_file_that_changes_after_planning_fails_its_part() {
    let shop = Shop::new().file("t/1.csv", "id\n1\n").file("t/2.csv", "id\n2\n");
    let lake = shop.lake();
    let by_file = model("SELECT id FROM shop.t");
    let whole = model("SELECT id FROM shop.t GROUP BY id HAVING count(id) > 0");
    let parts = lake.plan_scan(&by_file, &[]).await.unwrap().1;
    let all = lake.plan_scan(&whole, &[]).await.unwrap().1;
    assert_eq!((parts.len(), all.len()), (2, 1));
    let shop = shop.file("t/2.csv", "id\n2\n3\n");
    assert!(scan(&lake, &by_file, &parts[0]).await.is_ok());
    for (model, part) in [(&by_file, &parts[1]), (&whole, &all[0])] {
        let error = scan(&lake, model, part).await.unwrap_err();
        assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
    }
    // A part that an older version planned detects no change.
    let old = ScanPart { planned_files: None, ..parts[1].clone() };
    assert_eq!(scan(&lake, &by_file, &old).await.unwrap().1.rows_read, 2);
    // A file that was added later.
    let all = lake.plan_scan(&whole, &[]).await.unwrap().1;
    let shop = shop.file("t/3.csv", "id\n4\n");
    let error = scan(&lake, &whole, &all[0]).await.unwrap_err();
    assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
    drop(shop);
}

#[tokio::test]
async fn text_that_is_compared_with_a_number_is_converted_or_refused() {
    let shop = Shop::new().file("t.csv", "id,amount,zip\na,5,00123\nb,10.50,99999\nc,9.5,1\n");
    holds(&shop, "SELECT id FROM shop.t WHERE zip = 123", &["a"]).await;
    let lake = shop.lake();
    let model = model("SELECT id FROM shop.t WHERE amount >= 6");
    let error = scan(&lake, &model, &ScanPart::default()).await.unwrap_err();
    assert!(error.help().unwrap().contains("columns:"), "{error:?}");
    let declared = shop.declare("amount", "decimal(10, 2)");
    holds(&declared, "SELECT id FROM shop.t WHERE amount >= 6", &["b", "c"]).await;
}

#[tokio::test]
async fn a_later_file_that_changes_a_type_is_refused() {
    let shop =
        Shop::new().file("t/1.csv", "user_id,n,note\n1,5,a\n2,6,b\n").file("z.csv", "id\n1\n");
    let lake = shop.lake();
    let by_note = model("SELECT user_id FROM shop.t WHERE n > 5");
    let served = lake.plan_scan(&by_note, &[]).await.unwrap().0.tables;
    assert_eq!(served[0].name, "shop.t");
    let used: Vec<&str> = served[0].columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(used, ["user_id", "n"]);
    // A column that the model does not use, and another size of number.
    let shop = shop.file("t/2.csv", "user_id,n,note\n3,7.5,4\n");
    assert!(lake.plan_scan(&by_note, &served).await.is_ok());
    let shop = shop.file("t/3.csv", "user_id,n,note\n4,many,4\n");
    let error = lake.plan_scan(&by_note, &served).await.unwrap_err();
    let said = format!("{error}; {}", error.help().unwrap());
    for word in ["column n is text", "t/3.csv", "was Int64", "columns: { n: text }"] {
        assert!(said.contains(word), "{said}");
    }
    // Declaring the type accepts it.
    let shop = shop.declare("n", "text");
    let text = model("SELECT user_id FROM shop.t WHERE n = 'many'");
    assert!(shop.lake().plan_scan(&text, &served).await.is_ok());
    // A table that had rows is empty.
    let all = model("SELECT id FROM shop.z");
    let served = shop.lake().plan_scan(&all, &[]).await.unwrap().0.tables;
    let shop = shop.file("z.csv", "id\n");
    let error = shop.lake().plan_scan(&all, &served).await.unwrap_err();
    assert!(error.to_string().contains("shop.z no longer has rows"), "{error}");
    assert!(shop.lake().plan_scan(&all, &[]).await.is_ok());
}

#[tokio::test]
async fn sources_are_listed_with_what_is_not_read() {
    let shop = Shop::new()
        .file("t/1.csv", "id,zip\n1,00123\n2,4\n")
        .file("t/_SUCCESS", "")
        .parquet("p.parquet", "SELECT 1 AS id")
        .await
        .file("a-b.csv", "id\n1\n")
        .file("a_b.csv", "id\n1\n")
        .file("readme.md", "x")
        .file("bad.csv", "id,n\n1\n");
    let listed = shop.lake().list().await.unwrap();
    let [source] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((source.name.as_str(), source.passed_over_count), ("shop", 1));
    let table = |name: &str| source.tables.iter().find(|table| table.name == name).unwrap();
    let t = table("t");
    assert_eq!((t.file_count, t.rows, t.passed_over_count), (1, Some(2), 1));
    let columns: Vec<String> = t.columns.iter().map(|c| format!("{} {}", c.name, c.of)).collect();
    assert_eq!(columns, ["id Int64", "zip text"]);
    assert_eq!((table("p").rows, table("p").files[0].format.as_str()), (Some(1), "parquet"));
    let refused = |name: &str| table(name).refused.as_ref().unwrap().message.clone();
    assert!(refused("a_b").contains("a-b.csv"), "{}", refused("a_b"));
    assert!(refused("bad").contains("line 2"), "{}", refused("bad"));
}

/// A Parquet file with midnights of the type INT96, as Spark writes times, by their Julian days.
fn midnights_of_spark(days: &[(&str, u32)]) -> Vec<u8> {
    let columns = "message m { required binary user_id (UTF8); required int96 until; }";
    let columns = Arc::new(parse_message_type(columns).unwrap());
    let mut file = Vec::new();
    let properties = Arc::new(WriterProperties::default());
    let mut writer = SerializedFileWriter::new(&mut file, columns, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let users: Vec<ByteArray> = days.iter().map(|(user, _)| ByteArray::from(*user)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&users, None, None).unwrap();
    column.close().unwrap();
    let times: Vec<Int96> = days.iter().map(|(_, day)| Int96::from(vec![0, 0, *day])).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&times, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

#[tokio::test]
async fn times_of_spark_after_2262_are_not_of_another_century() {
    let shop = Shop::new();
    // 9999-12-31, which stands for no end, and 2026-11-25.
    let file = midnights_of_spark(&[("1", 5_373_484), ("2", 2_461_370)]);
    std::fs::write(shop.folder().join("t.parquet"), file).unwrap();
    holds(&shop, "SELECT user_id FROM shop.t", &["1", "2"]).await;
    let of_year =
        |year| format!("SELECT user_id FROM shop.t WHERE extract(year FROM until) = {year}");
    holds(&shop, &of_year(9999), &["1"]).await;
    holds(&shop, &of_year(2026), &["2"]).await;
    holds(
        &shop,
        "SELECT user_id FROM shop.t WHERE until > TIMESTAMP '2030-01-01 00:00:00'",
        &["1"],
    )
    .await;
}

#[tokio::test]
async fn files_with_other_endings_are_named_without_reading_the_others() {
    let shop = Shop::new()
        .file("t/1.csv", "id\n1\n")
        .file("t/2.csv.old", "id\n2\n")
        .file("notes.txt", "x")
        .file("bad.csv", "id,n\n1\n");
    let listed = shop.lake().list_files().await.unwrap();
    let [source] = listed.as_slice() else { panic!("{listed:?}") };
    let [warning] = source.warnings.as_slice() else { panic!("{source:?}") };
    for part in ["2 files are not read", "notes.txt", "t/2.csv.old", ".parquet"] {
        assert!(warning.contains(part), "{warning}");
    }
    let unread =
        |table: &throng_lake::TableListing| table.refused.is_none() && table.rows.is_none();
    assert!(source.tables.len() == 2 && source.tables.iter().all(unread), "{source:?}");
    // What is recorded with a version has the files of the table's folder.
    let info = shop.lake().check(model("SELECT id FROM shop.t")).await.unwrap();
    let of_table = info.tables[0].unread.as_deref().unwrap();
    assert!(of_table.contains("2.csv.old") && !of_table.contains("notes.txt"), "{of_table}");
}
