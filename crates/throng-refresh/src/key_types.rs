//! The key column of a warehouse's result, compared with that of the served version. Pure.

use throng_lake::{ColumnFacts, TableFacts};

use super::parts::ScanOutput;
use super::warehouse::WarehouseError;

/// What is recorded with a version that a warehouse's SQL has made: the key column, as that of a table with the name of
/// the source. Nothing if its pages were read by an older version.
pub(super) fn tables(source: &str, outputs: &[(u32, ScanOutput)]) -> Vec<TableFacts> {
    let key = outputs.iter().find_map(|(_, output)| output.page.as_ref()?.key.clone());
    let table = key.map(|key| TableFacts {
        name: source.to_owned(),
        has_rows: None,
        columns: vec![key],
        doubts: Vec::new(),
        unread: None,
    });
    table.into_iter().collect()
}

/// Refuses a key column whose type is not that of the served version: its keys may be other users. `served`: what is
/// recorded with that version, if the same SQL made it. `rows`: of the whole result.
pub(super) fn check(
    served: &[TableFacts],
    now: &ColumnFacts,
    rows: u64,
    source: &str,
) -> Result<(), WarehouseError> {
    let before = served.iter().flat_map(|table| &table.columns).find(|column| column.is_key);
    let Some(before) = before.filter(|before| kind(&before.of) != kind(&now.of)) else {
        return Ok(());
    };
    let (name, of) = (&now.name, &now.of);
    Err(WarehouseError::Refused {
        message: format!(
            "the key column {name} is {of} in the source {source}, and was {} when the served version was made",
            before.of
        ),
        help: Some(match rows {
            // Not to accept the type: the table has it because it is empty, and gets the other one with its rows.
            0 => format!(
                "the result has no rows: refresh again when the table has some; if they have the type {of} too, \
                 correct the table, or write CAST({name} AS {}) AS {name} in the SQL",
                before.of
            ),
            _ => format!(
                "its keys may be other users: correct the table, or write CAST({name} AS {}) AS {name} in the SQL; or \
                 accept its keys: write CAST({name} AS {of}) AS {name} in the SQL",
                before.of
            ),
        }),
    })
}

/// Types of one kind replace each other: a value that both have is the same key.
fn kind(of: &str) -> &str {
    match of {
        "INTEGER" | "INT64" | "NUMERIC" | "BIGNUMERIC" | "INT2" | "INT4" | "INT8" => "number",
        "STRING" | "TEXT" | "VARCHAR" => "text",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::PageOutput;
    use super::*;

    fn key(of: &str) -> ColumnFacts {
        ColumnFacts::key("user_id".to_owned(), of.to_owned())
    }

    /// What is recorded of a result with a page of this key column.
    fn recorded(key: Option<ColumnFacts>) -> Vec<TableFacts> {
        let output = ScanOutput {
            object: String::new(),
            rows_read: 0,
            null_keys: 0,
            padded_keys: 0,
            checksum: None,
            page: Some(PageOutput { next: None, total_rows: Some(0), key }),
        };
        tables("app", &[(0, output)])
    }

    #[test]
    fn another_kind_of_key_is_refused_by_name() {
        for (before, now, is_accepted) in [
            ("INTEGER", "STRING", false),
            ("STRING", "INTEGER", false),
            ("STRING", "BYTES", false),
            ("INT8", "TEXT", false),
            ("UUID", "TEXT", false),
            ("INTEGER", "NUMERIC", true),
            ("INT4", "INT8", true),
            ("TEXT", "VARCHAR", true),
            ("UUID", "UUID", true),
        ] {
            let checked = |rows| check(&recorded(Some(key(before))), &key(now), rows, "app");
            let (checked, empty) = (checked(3), checked(0));
            assert_eq!(empty.is_ok(), is_accepted, "{before} {now}");
            let Err(error) = checked else {
                assert!(is_accepted, "{before} {now}");
                continue;
            };
            assert!(!is_accepted, "{before} {now}");
            let message = error.to_string();
            assert!(message.contains(&format!("user_id is {now} in the source app")), "{message}");
            assert!(message.contains(&format!("was {before} when")), "{message}");
            let help = error.help().unwrap();
            assert!(help.contains(&format!("CAST(user_id AS {before}) AS user_id")), "{help}");
            assert!(help.contains("accept its keys"), "{help}");
            let empty = empty.unwrap_err();
            let help = empty.help().unwrap();
            assert!(help.contains("has no rows") && !help.contains("accept"), "{help}");
        }
    }

    #[test]
    fn a_version_without_a_record_is_accepted() {
        for served in [Vec::new(), recorded(None)] {
            assert_eq!(check(&served, &key("STRING"), 3, "app"), Ok(()));
        }
        // A page as an older version has recorded it.
        let page: PageOutput = serde_json::from_str(r#"{"next":null,"total_rows":3}"#).unwrap();
        assert_eq!(page.key, None);
    }
}
