//! Errors of SQL have a position and a hint with the name that was probably intended.

use throng_lake::{FileError, LakeError};

use crate::Shop;

/// The SQL, the position of the error, and parts of message and help.
type Case = (&'static str, Option<(u32, u32)>, &'static str, &'static str);

const CASES: [Case; 9] = [
    ("SELECT id\nFROM shop.orders\nWHERE totl > 5", Some((3, 7)), "no column totl", "mean total"),
    ("SELECT id FROM shop.ordres", Some((1, 21)), "no table shop.ordres", "mean shop.orders"),
    ("SELECT id FROM shp.orders", Some((1, 16)), "no source shp", "mean shop"),
    ("SELECT id FROM orders", Some((1, 16)), "without its source", "shop.orders"),
    ("SELECT id\nFROM shop.orders\nWHERE", None, "expression", ""),
    ("SELECT id FROM shop.orders WHERE ((total > 5", None, "", ""),
    ("DROP TABLE shop.orders", None, "", ""),
    ("INSERT INTO shop.orders VALUES (1, 2)", None, "", ""),
    ("SELECT sqroot(total) FROM shop.orders", None, "sqroot", ""),
];

#[tokio::test]
async fn errors_of_sql_have_a_position_and_a_hint() {
    let shop = Shop::new().file("orders.csv", "id,total\na,5\n");
    let lake = shop.lake();
    for (sql, position, message, help) in CASES {
        let error = lake.check_model(sql, None).await.unwrap_err();
        let texts = (error.to_string(), error.help().unwrap_or_default());
        assert!(texts.0.contains(message), "{sql}: {texts:?}");
        assert!(texts.1.contains(help), "{sql}: {texts:?}");
        if position.is_some() {
            assert_eq!(error.position(), position, "{sql}: {texts:?}");
        }
        assert_eq!(error.fault(), throng_model::Fault::User, "{sql}");
        assert_eq!(error.retry(), throng_model::Retry::Never, "{sql}");
    }
}

#[tokio::test]
async fn a_missing_folder_is_not_an_error_of_the_sql() {
    let shop = Shop::new();
    let lake = shop.lake();
    std::fs::remove_dir(shop.folder()).unwrap();
    let error = lake.check_model("SELECT id FROM shop.orders", None).await.unwrap_err();
    assert!(matches!(error, LakeError::File(FileError::Source { .. })), "{error:?}");
    let words = throng_model::with_causes(&error);
    let folder = shop.folder().display().to_string();
    assert!(words.contains(&folder) && words.contains("No such file"), "{words}");
    assert_eq!(error.fault(), throng_model::Fault::External);
}
