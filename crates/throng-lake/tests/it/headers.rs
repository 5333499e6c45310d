//! First lines of CSV files: headers, rows, and what spreadsheets, programs and proxies write
//! there.

use std::collections::BTreeSet;

use crate::files::{holds, refused};
use crate::{Shop, model};

#[tokio::test]
async fn a_first_line_of_values_is_refused_without_showing_it() {
    let shop = Shop::new()
        .file("phone.csv", "zoe,+49 30 1234567\nbob,+49 30 7654321\n")
        .file("uuid.csv", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6,zoe\n")
        .file("numbers.csv", "zoe,42\nbob,17\n")
        .file("dated.csv", "zoe,2026-11-25\nbob,2026-01-02\n")
        .file("years.csv", "zoe,1985\nbob,1990\n")
        .file("ids.csv", "zoe1,rome\nbob22,paris\nann3,oslo\n")
        .file("again.csv", "zoe,gold\nbob,silver\nann,gold\n")
        .file("keyed.csv", "zoe\nbob\nzoe\n")
        .file("gap.csv", "zoe,,rome\nbob,gold,paris\n")
        .packed("packed.csv.gz", &["zoe,42\n", "bob,17\n"]);
    for (table, words) in [
        ("phone", "line 1: the first line holds values and not names of columns: field 2"),
        ("uuid", "field 1 is a UUID"),
        ("numbers", "field 2 is a number"),
        ("dated", "field 2 is written like the values below it"),
        ("years", "field 2"),
        ("ids", "field 1"),
        ("again", "field 2 is a value of its column"),
        ("keyed", "keyed.csv, line 3"),
        ("gap", "field 2 is blank"),
        ("packed", "field 2 is a number"),
    ] {
        let sql = format!("SELECT user_id FROM shop.{table}");
        refused(&shop, &sql, &[table, words, "`header: false`"]).await;
        let error = shop.lake().plan_scan(&model(&sql), &[]).await.unwrap_err();
        let text = format!("{error:?} {}", error.help().unwrap_or_default());
        assert!(!text.to_lowercase().contains("zoe"), "{text}");
    }
    let listed = format!("{:?}", shop.lake().list().await.unwrap());
    assert!(!listed.contains("zoe") && !listed.contains("1234567"), "{listed}");
}

#[tokio::test]
async fn headers_of_many_kinds_are_accepted() {
    let shop = Shop::new()
        .file("pivot.csv", "user_id,2024,2025,2026-11-25\n1,5,7,2\n")
        .file("counted.csv", "user_id,0,1,2\n1,5,7,2\n")
        .file("indexed.csv", ",user_id\n0,1\n1,2\n")
        .file("notes.csv", "user_id,total,,\n1,5,,called\n")
        .file("ticked.csv", "user_id,gold\n1,gold\n2,\n")
        .file("logs.csv", "@timestamp,user_id\n2026-11-25,1\n")
        .file("numbered.csv", "user_id,q1_1,q1_2\n1,yes,no\n");
    for table in ["pivot", "counted", "notes", "logs", "numbered"] {
        holds(&shop, &format!("SELECT user_id FROM shop.{table}"), &["1"]).await;
    }
    holds(&shop, "SELECT user_id FROM shop.indexed", &["1", "2"]).await;
    holds(&shop, "SELECT user_id FROM shop.ticked WHERE gold = 'gold'", &["1"]).await;
    holds(&shop, "SELECT user_id FROM shop.pivot WHERE \"2025\" = 7", &["1"]).await;
}

#[tokio::test]
async fn a_source_can_declare_that_files_have_no_header() {
    let files = |shop: Shop| {
        shop.file("t/1.csv", "1,gold\n2,gold\n")
            .file("t/2.csv", "\u{feff}3,silver\n")
            .file("t/3.csv", "")
            .file("t/4.jsonl", "{\"user_id\":4,\"tier\":\"gold\"}\n")
            .packed("t/5.csv.gz", &["5,gold\n"])
            .file("named.csv", "Tier,user_id\ngold,1\n")
            .file("wide.csv", "1,gold,x\n")
            .file("typed.csv", "1,gold\nx,gold\n")
    };
    let shop = files(Shop::new()).declare("user_id", "integer").declare("tier", "text");
    let shop = shop.header(false);
    holds(&shop, "SELECT user_id FROM shop.t", &["1", "2", "3", "4", "5"]).await;
    holds(&shop, "SELECT user_id FROM shop.t WHERE tier = 'gold'", &["1", "2", "4", "5"]).await;
    holds(&shop, "SELECT tier FROM shop.t WHERE user_id > 2", &["silver", "gold"]).await;
    holds(&shop, "SELECT count(*) FROM shop.t", &["5"]).await;
    let ids = |table: &str| format!("SELECT user_id FROM shop.{table}");
    refused(&shop, &ids("named"), &["named.csv, line 1", "names the columns", "header: false"])
        .await;
    refused(&shop, &ids("wide"), &["wide.csv, line 1", "3 fields", "declares 2 columns"]).await;
    refused(&shop, &ids("typed"), &["typed.csv, line 2", "column user_id", "not of type integer"])
        .await;
}

#[tokio::test]
async fn a_declared_header_is_always_accepted_and_personal_names_are_masked() {
    let text = "user_id,ann@example.com,42\n1,x,7\n2,x,8\n";
    let shop = Shop::new().file("t.csv", text).header(true);
    holds(&shop, "SELECT user_id FROM shop.t WHERE \"42\" > 7", &["2"]).await;
    holds(&shop, "SELECT \"ann@example.com\" FROM shop.t", &["x"]).await;
    refused(&shop, "SELECT nothing_like_it FROM shop.t", &["no column", "user_id, \"…\""]).await;
    // A JSON key can be a value, whatever is declared.
    let json = "{\"user_id\":1,\"ann@example.com\":{\"n\":1},\"+49 30 1234567\":2}\n";
    let shop = shop.file("j/1.jsonl", json).file("j/2.jsonl", "{\"user_id\":2}\n");
    let shop = shop
        .file("k/1.jsonl", json)
        .file("k/2.jsonl", "{\"user_id\":2,\"ann@example.com\":{\"n\":[1]}}\n");
    refused(&shop, "SELECT nothing_like_it FROM shop.j", &["no column", "…"]).await;
    let by_address = "SELECT user_id FROM shop.k WHERE \"ann@example.com\" IS NULL";
    refused(&shop, by_address, &["column ….n has", "1.jsonl", "2.jsonl"]).await;
    let listed = shop.lake().list().await.unwrap();
    let names = |table: &str| -> BTreeSet<String> {
        let table = listed[0].tables.iter().find(|there| there.name == table).unwrap();
        table.columns.iter().map(|column| column.name.clone()).collect()
    };
    assert_eq!(names("t"), BTreeSet::from(["42", "user_id", "…"].map(str::to_owned)));
    assert_eq!(names("j"), BTreeSet::from(["user_id", "…"].map(str::to_owned)));
    let text = format!("{listed:?}");
    assert!(!text.contains("ann@") && !text.contains("1234567"), "{text}");
}

#[tokio::test]
async fn a_first_line_of_words_is_a_doubt_that_shows_no_value() {
    let people = "Zoe,Rome\nBob,Paris\nAnnabel,Oslo\nCarla,New York\n";
    let shop = Shop::new()
        .file("people.csv", people)
        .file("keys.csv", "qwertz\nasdfgh\nyxcvbn\n")
        .file("headed.csv", "user_id,city\nzoe,Rome\nbob,Paris\n");
    // An unknown column says what was taken as the header.
    for table in ["people", "headed"] {
        let sql = format!("SELECT nothing_like_it FROM shop.{table}");
        refused(&shop, &sql, &["no column", "taken as the header", "`header: false`"]).await;
    }
    refused(&shop, "SELECT nothing_like_it FROM shop.headed", &["user_id, city"]).await;
    for name in ["first_name", "zo", "rom"] {
        let sql = format!("SELECT {name} FROM shop.people");
        let error = shop.lake().plan_scan(&model(&sql), &[]).await.unwrap_err();
        let text = format!("{error:?} {}", error.help().unwrap_or_default());
        assert!(!text.contains("Zoe") && !text.contains("Rome"), "{text}");
    }
    // The list of the sources, and every check of a model, report the doubt.
    let listed = shop.lake().list().await.unwrap();
    let warnings = |name: &str| {
        let table = listed[0].tables.iter().find(|there| there.name == name).unwrap();
        table.warnings.join(" ")
    };
    assert!(warnings("people").contains("people.csv") && warnings("keys").contains("keys.csv"));
    assert_eq!(warnings("headed"), "");
    let text = format!("{listed:?}").to_lowercase();
    assert!(!text.contains("zoe") && !text.contains("qwertz"), "{text}");
    let checked = shop.lake().check_model("SELECT * FROM shop.keys", None).await.unwrap();
    assert!(checked.warnings[0].contains("`header: true`"), "{:?}", checked.warnings);
    let checked = shop.lake().check_model("SELECT user_id FROM shop.headed", None).await.unwrap();
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);

    // A declaration, and a second file with the same line, end it.
    let declared = Shop::new().file("people.csv", people).header(true);
    refused(&declared, "SELECT nothing_like_it FROM shop.people", &["\"Zoe\", \"Rome\""]).await;
    let twice = Shop::new().file("t/1.csv", "Anrede\nDoktor\n").file("t/2.csv", "Anrede\nFrau\n");
    for shop in [declared, twice] {
        assert!(shop.lake().list().await.unwrap()[0].tables[0].warnings.is_empty());
    }
}

#[tokio::test]
async fn a_first_line_that_can_be_a_row_shows_no_value_in_errors() {
    let shop = Shop::new()
        .file("one.csv", "Meier,Zoe,Rome\n")
        .file("streets.csv", "Main Street 7,Zoetown\nOak Road 9,Shelbyville\n")
        .file("places.csv", "Zoe,Street\nBert,Road\n")
        .file("coded.csv", "zoe_0001 Meier,f\nBert,m\n")
        .file("titled.csv", "user_id,Loyalty Tier,q1_1\n")
        .file("t/1.csv", "Rang,Saal\nx,y\n")
        .file("t/2.csv", "Rang,Saal\nv,w\n");
    for table in ["one", "streets", "places", "coded"] {
        let sql = format!("SELECT nothing_like_it FROM shop.{table}");
        let error = shop.lake().plan_scan(&model(&sql), &[]).await.unwrap_err();
        let text = format!("{error:?} {}", error.help().unwrap_or_default()).to_lowercase();
        assert!(text.contains("no column") && text.contains("…"), "{text}");
        for value in ["zoe", "meier", "rome", "main street"] {
            assert!(!text.contains(value), "{text}");
        }
        // The columns of a result, of which none is the key.
        let all = format!("SELECT * FROM shop.{table}");
        let columns = ["phone".to_owned()];
        let lake = shop.lake();
        let errors = [
            lake.plan_scan(&model(&all), &[]).await.unwrap_err(),
            lake.check_identifiers(&all, "id", &columns).await.unwrap_err(),
        ];
        for error in errors {
            let text = format!("{error:?} {}", error.help().unwrap_or_default()).to_lowercase();
            assert!(text.contains("…") && !text.contains("zoe"), "{text}");
        }
    }
    // What can hardly be a row, and a line that a second file confirms.
    let sql = "SELECT nothing_like_it FROM shop.titled";
    refused(&shop, sql, &["user_id, \"Loyalty Tier\", q1_1"]).await;
    refused(&shop, "SELECT nothing_like_it FROM shop.t", &["\"Rang\", \"Saal\""]).await;
    let listed = shop.lake().list().await.unwrap();
    for table in listed[0].tables.iter().filter(|table| !["t", "places"].contains(&&*table.name)) {
        let text = format!("{:?}", table.columns).to_lowercase();
        assert!(!["zoe", "meier", "rome"].iter().any(|value| text.contains(value)), "{text}");
    }
}

#[tokio::test]
async fn lines_before_the_header_are_refused_with_a_hint() {
    let shop = Shop::new()
        .file("excel.csv", "sep=;\nuser_id;total\n1;5\n")
        .file("comma.csv", "sep=,\nuser_id,total\n1,5\n")
        .file("commented.csv", "# exported by crm\nuser_id,total\n1,5\n")
        .file("noted.csv", "# exported by crm, 2026-11-25\nuser_id,total\n1,5\n")
        .file("hash.csv", "#exported,by,crm\nuser_id,total\n1,5\n")
        .file("title.csv", "Customers,,\n,,\nuser_id,email,city\n1,a,b\n")
        .file("alone.csv", "Customers\n\nuser_id,email\n1,a\n")
        .file("semi.csv", "user_id;total\n1;12,50\n")
        .file("joined.csv", "user_id,total\n1,5\n\u{feff}user_id,total\n2,6\n")
        .file("named.csv", "#user_id,total\n1,5\n");
    let total = |table: &str| format!("SELECT total FROM shop.{table}");
    for table in ["excel", "comma"] {
        refused(&shop, &total(table), &[table, "line 1", "`sep=`", "commas"]).await;
    }
    for table in ["commented", "noted"] {
        refused(&shop, &total(table), &[table, "line 1", "comment", "lines before"]).await;
    }
    refused(&shop, &total("hash"), &["hash.csv, line 2", "lines before"]).await;
    refused(&shop, &total("title"), &["title.csv, line 1", "3 columns", "lines before"]).await;
    refused(&shop, &total("alone"), &["alone.csv, line", "lines before"]).await;
    refused(&shop, &total("semi"), &["semi.csv, line 2", "commas"]).await;
    refused(&shop, &total("joined"), &["joined.csv, line 3", "repeated"]).await;
    holds(&shop, &total("named"), &["5"]).await;
}

#[tokio::test]
async fn files_of_another_format_than_their_name_are_refused() {
    let page = "<!DOCTYPE html><html><body>Sign in</body></html>\n";
    let shop = Shop::new()
        .file("page.csv", page)
        .packed("page2.csv.gz", &[page])
        .file("page3.jsonl", page)
        .file("answer.csv", "{\"error\":\"unauthorized\"}\n")
        .file("unpacked.csv.gz", "user_id\n1\n")
        .file("p.parquet", "")
        .file("marks.csv", "\u{feff}\u{feff}user_id\n1\n")
        .file("t/1.jsonl", "{\"user_id\":1,\"total\":5}\n")
        .file("t/2.jsonl", "{\"error\":\"unauthorized\",\"status\":401}\n");
    let write = |name: &str, bytes: &[u8]| std::fs::write(shop.folder().join(name), bytes).unwrap();
    write("book.csv", b"PK\x03\x04\x14\0\x06\0");
    write("packed.csv", b"\x1F\x8B\x08\0\0\0\0\0");
    write("wide.csv", b"u\0s\0e\0r\0\n\0");
    let ids = |table: &str| format!("SELECT user_id FROM shop.{table}");
    for (table, words) in [
        ("page", "proxy"),
        ("page2", "proxy"),
        ("page3", "proxy"),
        ("answer", "it is JSON"),
        ("unpacked", "not compressed by gzip"),
        ("p", "p.parquet: it is empty"),
        ("book", "Excel"),
        ("packed", "compressed by gzip"),
        ("wide", "UTF-16"),
        ("t", "2.jsonl has no column of"),
    ] {
        refused(&shop, &ids(table), &[table, words]).await;
    }
    holds(&shop, &ids("marks"), &["1"]).await;
}
