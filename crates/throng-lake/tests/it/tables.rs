//! Every format becomes a table, and no value is changed.

use crate::{Shop, hashes, users};

#[tokio::test]
async fn a_number_with_leading_zeros_is_text() {
    let shop = Shop::new().file("orders.csv", "customer_id,total\n00001,5\n00042,6\n");
    let lake = shop.lake();
    let (found, rows, _) = users(&lake, "SELECT customer_id FROM shop.orders").await;
    assert_eq!((found, rows), (hashes(["00001", "00042"]), 2));
    let (found, ..) = users(&lake, "SELECT customer_id FROM shop.orders WHERE total > 5").await;
    assert_eq!(found, hashes(["00042"]));
}

#[tokio::test]
async fn a_leading_zero_late_in_a_file_counts_too() {
    let mut text = "id\n".to_owned();
    (100_000..205_000).for_each(|n| text.push_str(&format!("{n}\n")));
    text.push_str("000007\n");
    let lake = Shop::new().file("ids.csv", &text);
    let (found, ..) = users(&lake.lake(), "SELECT id FROM shop.ids WHERE id = '000007'").await;
    assert_eq!(found, hashes(["000007"]));
}

#[tokio::test]
async fn a_type_is_inferred_from_all_values() {
    let mut text = "id,total,code\n".to_owned();
    (0..105_000).for_each(|n| text.push_str(&format!("u{n},1,1\n")));
    text.push_str("last,2.5,x\n");
    let shop = Shop::new().file("t.csv", &text);
    let lake = shop.lake();
    let (found, ..) = users(&lake, "SELECT id FROM shop.t WHERE total > 2").await;
    assert_eq!(found, hashes(["last"]));
    let (found, ..) = users(&lake, "SELECT id FROM shop.t WHERE code = 'x'").await;
    assert_eq!(found, hashes(["last"]));
}

#[tokio::test]
async fn blank_cells_are_null_and_do_not_change_a_type() {
    let shop = Shop::new().file("t.csv", "id,total\na,1\n,2\nb,\n");
    let lake = shop.lake();
    let (found, rows, null_keys) = users(&lake, "SELECT id FROM shop.t").await;
    assert_eq!((found, rows, null_keys), (hashes(["a", "b"]), 3, 1));
    let (found, ..) = users(&lake, "SELECT id FROM shop.t WHERE total >= 1").await;
    assert_eq!(found, hashes(["a"]));
}

#[tokio::test]
async fn quoted_cells_hold_commas_quotes_and_line_breaks() {
    let text = "id,note\n\"a,1\",\"x\"\n\"b\"\"2\",\"two\nlines\"\nc,z\n";
    let shop = Shop::new().file("q.csv", text);
    let (found, rows, _) = users(&shop.lake(), "SELECT id FROM shop.q").await;
    assert_eq!((found, rows), (hashes(["a,1", "b\"2", "c"]), 3));
}

#[tokio::test]
async fn every_format_holds_the_same_users() {
    let rows = "SELECT * FROM (VALUES ('00001', 3), ('00002', 4), (NULL, 5)) AS t (id, n)";
    let shop = Shop::new()
        .query("plain.csv", "CSV", rows)
        .await
        .query("packed.csv.gz", "CSV OPTIONS ('format.compression' 'gzip')", rows)
        .await
        .query("columns.parquet", "PARQUET", rows)
        .await
        .query("lines.json", "JSON", rows)
        .await
        .query("packed-lines.json.gz", "JSON OPTIONS ('format.compression' 'gzip')", rows)
        .await;
    let lake = shop.lake();
    for table in ["plain", "packed", "columns", "lines", "packed_lines"] {
        let (found, rows, null_keys) =
            users(&lake, &format!("SELECT id FROM shop.{table} WHERE n >= 3")).await;
        assert_eq!((found, rows, null_keys), (hashes(["00001", "00002"]), 3, 1), "{table}");
    }
}

#[tokio::test]
async fn ndjson_endings_are_recognized() {
    let shop = Shop::new()
        .file("a.ndjson", "{\"id\":\"00001\"}\n{\"id\":null}\n")
        .file("b.jsonl", "{\"id\":\"00002\"}\n");
    let lake = shop.lake();
    let (found, ..) = users(&lake, "SELECT id FROM shop.a UNION ALL SELECT id FROM shop.b").await;
    assert_eq!(found, hashes(["00001", "00002"]));
}

#[tokio::test]
async fn the_next_query_reads_a_changed_file() {
    let shop = Shop::new().file("t.csv", "id\n1\n");
    let lake = shop.lake();
    assert_eq!(users(&lake, "SELECT id FROM shop.t").await.0, hashes(["1"]));
    let shop = shop.file("t.csv", "id\n01\nx2\n").file("new.csv", "id\n9\n");
    assert_eq!(users(&lake, "SELECT id FROM shop.t").await.0, hashes(["01", "x2"]));
    assert_eq!(users(&lake, "SELECT id FROM shop.new").await.0, hashes(["9"]));
    drop(shop);
}
