//! Each kind of key in its canonical form.

use throng_lake::{HashedRow, IdentifierQuery, KeyKind, LakeError};
use throng_model::{HashedIdentifier, UserKey};

use crate::{SEED, Shop, hashes, users};

async fn shop() -> Shop {
    let sql = "SELECT arrow_cast(7, 'Int8') AS i8, arrow_cast(-7, 'Int16') AS i16,
        arrow_cast(7, 'UInt32') AS u32, arrow_cast(18446744073709551615, 'UInt64') AS u64,
        'Ann' AS utf8, arrow_cast('Ann', 'LargeUtf8') AS large, arrow_cast('Ann', 'Utf8View') AS view,
        arrow_cast('Ann', 'Dictionary(Int32, Utf8)') AS dictionary,
        arrow_cast(arrow_cast('0123456789abcdef', 'Binary'), 'FixedSizeBinary(16)') AS uuid,
        arrow_cast('ab', 'Binary') AS bytes, 1.5 AS price, DATE '2026-01-01' AS day";
    Shop::new().query("t.parquet", "PARQUET", sql).await
}

#[tokio::test]
async fn every_kind_has_one_canonical_form() {
    let shop = shop().await;
    let lake = shop.lake();
    for (column, kind, key) in [
        ("i8", KeyKind::Integer, "7"),
        ("i16", KeyKind::Integer, "-7"),
        ("u32", KeyKind::Integer, "7"),
        ("u64", KeyKind::Integer, "18446744073709551615"),
        ("utf8", KeyKind::Text, "Ann"),
        ("large", KeyKind::Text, "Ann"),
        ("view", KeyKind::Text, "Ann"),
        ("dictionary", KeyKind::Text, "Ann"),
        ("uuid", KeyKind::Uuid, "30313233-3435-3637-3839-616263646566"),
        ("bytes", KeyKind::Binary, "6162"),
    ] {
        let sql = format!("SELECT {column} FROM shop.t");
        let info = lake.check_model(&sql, None).await.unwrap();
        assert_eq!((info.key_kind, info.key_column.as_str()), (kind, column));
        assert_eq!(users(&lake, &sql).await.0, hashes([key]), "{column}");
    }
}

#[tokio::test]
async fn an_empty_key_is_counted_as_none_in_every_format() {
    let shop = Shop::new()
        .file("c.csv", "id,n\na,1\n\"\",2\n,3\n")
        .file("j.jsonl", "{\"id\":\"a\"}\n{\"id\":\"\"}\n{\"id\":null}\n")
        .query("p.parquet", "PARQUET", "SELECT * FROM (VALUES ('a'), (''), (NULL)) AS t (id)")
        .await;
    let lake = shop.lake();
    for table in ["c", "j", "p"] {
        let found = users(&lake, &format!("SELECT id FROM shop.{table}")).await;
        assert_eq!(found, (hashes(["a"]), 3, 2), "{table}");
        let counted = format!("SELECT id FROM shop.{table} GROUP BY id HAVING count(*) >= 1");
        assert_eq!(users(&lake, &counted).await.0, hashes(["a"]), "{table}");
    }
}

#[tokio::test]
async fn a_text_for_a_missing_value_is_counted_as_no_key_in_every_format() {
    let shop = Shop::new()
        .file("c.csv", "id,n\n7,1\nNULL,2\n\\N,3\nnan,4\nNan,5\n")
        .file("j.jsonl", "{\"id\":\"7\"}\n{\"id\":\"None\"}\n{\"id\":\"Nan\"}\n{\"id\":\"#N/A\"}\n{\"id\":\"\"}\n")
        .query("p.parquet", "PARQUET", "SELECT * FROM (VALUES ('7'), ('NULL'), ('Nan'), ('NaN'), ('-')) AS t (id)")
        .await;
    let lake = shop.lake();
    for table in ["c", "j", "p"] {
        let found = users(&lake, &format!("SELECT id FROM shop.{table}")).await;
        assert_eq!(found, (hashes(["7", "Nan"]), 5, 3), "{table}");
        let counted = format!("SELECT id FROM shop.{table} GROUP BY id HAVING count(*) >= 1");
        assert_eq!(users(&lake, &counted).await.0, hashes(["7", "Nan"]), "{table}");
    }
}

#[tokio::test]
async fn other_types_are_refused_with_a_hint() {
    let shop = shop().await;
    let lake = shop.lake();
    for column in ["price", "day"] {
        let sql = format!("SELECT {column} FROM shop.t");
        let error = lake.check_model(&sql, None).await.unwrap_err();
        assert!(matches!(error, LakeError::Key { .. }), "{error:?}");
        assert!(error.help().unwrap().contains(&format!("CAST({column} AS VARCHAR)")));
    }
}

#[tokio::test]
async fn the_key_is_the_named_column_or_the_only_one() {
    let shop = Shop::new().file("t.csv", "id,other\na,b\n");
    let lake = shop.lake();
    let both = "SELECT id, other FROM shop.t";
    assert_eq!(lake.check_model(both, Some("other")).await.unwrap().key_column, "other");
    let error = lake.check_model(both, None).await.unwrap_err();
    assert!(error.help().unwrap().ends_with("the columns are: id, other"));
    let error = lake.check_model(both, Some("email")).await.unwrap_err();
    assert_eq!(error.to_string(), "the model returns no column email");
}

#[tokio::test]
async fn identifiers_come_with_their_keys() {
    use futures::TryStreamExt;
    let shop =
        Shop::new().file("t.csv", "id,email,age\n007,ann@example.com,5\n8,,6\n,x@example.com,7\n");
    let lake = shop.lake();
    let columns = ["age".to_owned(), "email".to_owned()];
    let sql = "SELECT * FROM shop.t";
    lake.check_identifiers(sql, "id", &columns).await.unwrap();
    let stream = lake.identifiers(&query(sql, &columns), SEED).await.unwrap();
    let batches: Vec<Vec<HashedRow>> = stream.try_collect().await.unwrap();
    let mut rows: Vec<HashedRow> = batches.into_iter().flatten().collect();
    rows.sort();
    let row = |key: &str, cells: [&str; 2]| -> HashedRow {
        let hashed = cells.map(|cell| HashedIdentifier::of_normalised(cell).0).concat();
        (UserKey::text(key).hash(SEED), hashed.into())
    };
    // The row without a key is left out.
    let mut wanted = [row("007", ["5", "ann@example.com"]), row("8", ["6", ""])];
    wanted.sort();
    assert_eq!(rows, wanted);
    let error = lake.check_identifiers(sql, "id", &["phone".to_owned()]).await.unwrap_err();
    assert_eq!(error.help().unwrap(), "the columns are: id, email, age");
}

#[tokio::test]
async fn uuids_are_identifiers_as_they_are_keys_and_bytes_are_doubtful() {
    use futures::TryStreamExt;
    let shop = shop().await;
    let lake = shop.lake();
    let sql = "SELECT utf8 AS id, uuid, bytes FROM shop.t";
    let columns = ["uuid".to_owned()];
    assert_eq!(lake.check_identifiers(sql, "id", &columns).await.unwrap(), Vec::<String>::new());
    let stream = lake.identifiers(&query(sql, &columns), SEED).await.unwrap();
    let batches: Vec<Vec<HashedRow>> = stream.try_collect().await.unwrap();
    let uuid = HashedIdentifier::of_normalised("30313233-3435-3637-3839-616263646566").0;
    let wanted: HashedRow = (UserKey::text("Ann").hash(SEED), [uuid].concat().into());
    assert_eq!(batches.concat(), [wanted]);
    let doubts = lake.check_identifiers(sql, "id", &["bytes".to_owned()]).await.unwrap();
    assert!(doubts.len() == 1 && doubts[0].contains("encode(bytes, 'hex')"), "{doubts:?}");
}

#[tokio::test]
async fn lists_and_structs_are_no_identifiers() {
    let sql = "SELECT 'a' AS id, make_array('x@example.com') AS emails,
        named_struct('email', 'x@example.com') AS person";
    let shop = Shop::new().query("t.parquet", "PARQUET", sql).await;
    let lake = shop.lake();
    for column in ["emails", "person"] {
        let columns = [column.to_owned()];
        let error =
            lake.check_identifiers("SELECT * FROM shop.t", "id", &columns).await.unwrap_err();
        assert!(matches!(error, LakeError::Key { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("the column {column} is of type ")));
        assert!(error.help().unwrap().contains(&format!("unnest({column})")));
    }
    let columns = ["email".to_owned()];
    for sql in [
        "SELECT id, emails[1] AS email FROM shop.t",
        "SELECT id, unnest(emails) AS email FROM shop.t",
        "SELECT id, person['email'] AS email FROM shop.t",
    ] {
        let doubts = lake.check_identifiers(sql, "id", &columns).await.unwrap();
        assert_eq!(doubts, Vec::<String>::new(), "{sql}");
    }
}

fn query(sql: &str, columns: &[String]) -> IdentifierQuery {
    let (sql, key, columns) = (sql.to_owned(), "id".to_owned(), columns.to_vec());
    IdentifierQuery { sql, key, columns, hasher: serde_json::Value::Null }
}

#[tokio::test]
async fn a_later_file_that_changes_the_keys_or_identifiers_of_a_query_is_refused() {
    use futures::TryStreamExt;
    let text = "SELECT '007' AS id, 4917 AS phone, 1 AS other";
    let shop = Shop::new().parquet("t.parquet", text).await;
    let query = query("SELECT * FROM shop.t", &["phone".to_owned()]);
    let none = Vec::new();
    let (before, stream) = shop.lake().identifiers_after(&query, none, SEED).await.unwrap();
    let batches: Vec<Vec<HashedRow>> = stream.try_collect().await.unwrap();
    assert_eq!(batches.concat().len(), 1);
    let is_key = before[0].columns.iter().map(|column| (column.name.as_str(), column.is_key));
    assert_eq!(is_key.collect::<Vec<_>>(), [("id", true), ("phone", true), ("other", false)]);

    for (sql, words) in [
        (
            "SELECT 7 AS id, 4917 AS phone, 1 AS other",
            ["column id is Int64 in", "was text", "id: text"],
        ),
        (
            "SELECT '007' AS id, CAST(4917 AS DECIMAL(10, 2)) AS phone, 1 AS other",
            ["column phone is Decimal128(10, 2) in", "was Int64", "CAST(phone AS BIGINT)"],
        ),
    ] {
        let shop = Shop::new().parquet("t.parquet", sql).await;
        let delivered = vec![Vec::new(), before.clone()];
        let opened = shop.lake().identifiers_after(&query, delivered, SEED).await;
        let error = opened.err().unwrap();
        let said = format!("{error}; {}", error.help().unwrap());
        assert!(said.contains("t.parquet"), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
        // Nothing is known of earlier rows.
        assert!(shop.lake().identifiers_after(&query, Vec::new(), SEED).await.is_ok());
    }
    let other = "SELECT '007' AS id, 4917 AS phone, 1.5::DECIMAL(10, 2) AS other";
    let shop = Shop::new().parquet("t.parquet", other).await;
    let opened = shop.lake().identifiers_after(&query, vec![before], SEED).await;
    assert!(opened.is_ok(), "not of an identifier: {:?}", opened.err());
}

#[tokio::test]
async fn identifiers_of_floating_point_are_written_as_integers_are() {
    use futures::TryStreamExt;
    let sql = "SELECT 'a' AS id, 42::DOUBLE AS number, arrow_cast(7, 'Float32') AS small
        UNION ALL SELECT 'b', 'NaN'::DOUBLE, arrow_cast(0.1, 'Float32')
        UNION ALL SELECT 'c', 1e16::DOUBLE, NULL";
    let shop = Shop::new().query("t.parquet", "PARQUET", sql).await;
    let columns = ["number".to_owned(), "small".to_owned()];
    let query = query("SELECT * FROM shop.t", &columns);
    let stream = shop.lake().identifiers(&query, SEED).await.unwrap();
    let batches: Vec<Vec<HashedRow>> = stream.try_collect().await.unwrap();
    let mut rows: Vec<HashedRow> = batches.into_iter().flatten().collect();
    rows.sort();
    let cells = [("a", ["42", "7"]), ("b", ["", "0.1"]), ("c", ["10000000000000000", ""])];
    let mut wanted = cells.map(|(key, cells)| -> HashedRow {
        let hashed = cells.map(|cell| HashedIdentifier::of_normalised(cell).0).concat();
        (UserKey::text(key).hash(SEED), hashed.into())
    });
    wanted.sort();
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn an_identifier_query_that_fails_shows_no_value() {
    use futures::StreamExt;
    let shop = Shop::new().file("t.csv", "id,email\n1,zoe@example.com\n");
    let sql = "SELECT id, CAST(email AS INT) AS age FROM shop.t";
    let mut stream = shop.lake().identifiers(&query(sql, &["age".to_owned()]), SEED).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    let said = throng_model::with_causes(&error);
    assert!(said.contains("cannot be converted"), "{said}");
    assert!(!said.contains("zoe"), "{said}");
}

#[tokio::test]
async fn identifiers_are_never_on_the_disk() {
    use futures::StreamExt;
    let shop = Shop::new();
    let sql = "SELECT 'user-' || CAST(value AS VARCHAR) AS id, repeat('x', 100) AS email
        FROM generate_series(1, 500000)";
    let shop = shop.query("big.parquet", "PARQUET", sql).await;
    // Sorting needs more memory than the query has, and it must not spill.
    let sql = "SELECT id, email FROM shop.big ORDER BY email, id";
    let lake = shop.lake_with(80 << 20);
    let columns = ["email".to_owned()];
    let mut stream = lake.identifiers(&query(sql, &columns), SEED).await.unwrap();
    let error = loop {
        if let Err(error) = stream.next().await.unwrap() {
            break error;
        }
    };
    assert!(matches!(error, throng_lake::LakeError::OutOfMemory { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(shop.spill()).unwrap().count(), 0);
}
