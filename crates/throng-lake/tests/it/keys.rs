//! Each kind of key in its canonical form.

use throng_lake::{KeyKind, LakeError};

use crate::{Shop, hashes, users};

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
async fn other_types_are_refused_with_a_mend() {
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
    let stream = lake.identifiers(sql, "id", &columns).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let mut rows: Vec<(String, Vec<Option<String>>)> = batches
        .into_iter()
        .flatten()
        .map(|(key, cells)| {
            let cells = cells.into_iter().map(|c| c.map(|c| c.expose().to_owned())).collect();
            (key.as_str().to_owned(), cells)
        })
        .collect();
    rows.sort();
    let cell = |text: &str| Some(text.to_owned());
    // The row without a key is nobody's.
    assert_eq!(
        rows,
        [
            ("007".to_owned(), vec![cell("5"), cell("ann@example.com")]),
            ("8".to_owned(), vec![cell("6"), None]),
        ]
    );
    let error = lake.check_identifiers(sql, "id", &["phone".to_owned()]).await.unwrap_err();
    assert_eq!(error.help().unwrap(), "the columns are: id, email, age");
}
