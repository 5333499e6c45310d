//! The key column of a result; columns of BigQuery, and its keys in their canonical form. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use throng_lake::{KeyKind, column_index};
use throng_model::{HashSeed, UserHash, UserKey};
use throng_refresh::WarehouseError;

/// The columns of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Schema {
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) of: String,
    #[serde(default)]
    mode: Option<String>,
}

/// The key column of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) at: usize,
    pub(crate) kind: KeyKind,
}

pub(crate) fn refused(message: String, help: String) -> WarehouseError {
    WarehouseError::Refused { message, help: Some(help) }
}

impl Schema {
    /// The key column: `key`, or the only column. Of all columns none may be an array or a struct.
    pub(crate) fn key(&self, key: Option<&str>) -> Result<KeyColumn, WarehouseError> {
        if let Some(nested) = self.fields.iter().find(|field| field.is_nested()) {
            let message = format!("the column {} is an array or a struct", nested.name);
            let help = format!("leave {} out of the SELECT, or use UNNEST or a field", nested.name);
            return Err(refused(message, help));
        }
        let names: Vec<&str> = self.fields.iter().map(|field| field.name.as_str()).collect();
        let at = key_position(&names, key)?;
        Ok(KeyColumn { at, kind: self.fields[at].key_kind()? })
    }
}

/// The position of the key column among the columns of a result: `key`, or the only column.
pub(crate) fn key_position(names: &[&str], key: Option<&str>) -> Result<usize, WarehouseError> {
    match key {
        Some(key) if has_several(names, key) => {
            let message = format!("the model returns several columns {key}");
            let help = format!(
                "one of them is the key: select that one only, such as t.{key}, or give each its own name with AS"
            );
            Err(refused(message, help))
        }
        Some(key) => column_index(key, names.iter().copied()).ok_or_else(|| {
            let message = format!("the model returns no column {key}");
            refused(message, format!("the columns are: {}", names.join(", ")))
        }),
        None if names.len() == 1 => Ok(0),
        None => {
            let message = format!("the model returns {} columns", names.len());
            let help = "name the users' column with `key:`; the columns are";
            Err(refused(message, format!("{help}: {}", names.join(", "))))
        }
    }
}

/// Whether several columns have the name `key`, or, if none has it, one name that differs from it only in case. A join
/// returns them, and only one has the users of its rows.
fn has_several(names: &[&str], key: &str) -> bool {
    let count = |name: &str| names.iter().filter(|other| **other == name).count();
    let lower = key.to_lowercase();
    match count(key) {
        0 => names.iter().any(|name| name.to_lowercase() == lower && count(name) > 1),
        same => same > 1,
    }
}

impl Field {
    fn is_nested(&self) -> bool {
        self.mode.as_deref() == Some("REPEATED")
            || matches!(self.of.as_str(), "RECORD" | "STRUCT" | "ARRAY")
    }

    /// The same types as in tables of files are keys: no other type has one text for each value.
    fn key_kind(&self) -> Result<KeyKind, WarehouseError> {
        match self.of.as_str() {
            "STRING" | "NUMERIC" | "BIGNUMERIC" => Ok(KeyKind::Text),
            "INTEGER" | "INT64" => Ok(KeyKind::Integer),
            "BYTES" => Ok(KeyKind::Binary),
            other => {
                let name = &self.name;
                let message =
                    format!("the key column {name} is of type {other}, which is not a user key");
                let help = format!(
                    "a key is STRING, INT64, NUMERIC or BYTES: write CAST({name} AS STRING) to use \
                     its text"
                );
                Err(refused(message, help))
            }
        }
    }
}

/// The hash of a key as the API writes it; `None` if it is not a value of its type.
pub(crate) fn hash_of(cell: &str, kind: KeyKind, seed: HashSeed) -> Option<UserHash> {
    match kind {
        KeyKind::Text => Some(UserHash::of_canonical(cell.as_bytes(), seed)),
        KeyKind::Integer => {
            let number: i64 = cell.parse().ok()?;
            Some(UserKey::integer(number.into()).hash(seed))
        }
        KeyKind::Binary | KeyKind::Uuid => {
            let bytes = STANDARD.decode(cell).ok()?;
            Some(UserKey::binary(&bytes).hash(seed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, &str, &str)]) -> Schema {
        let field = |(name, of, mode): &(&str, &str, &str)| Field {
            name: (*name).to_owned(),
            of: (*of).to_owned(),
            mode: Some((*mode).to_owned()),
        };
        Schema { fields: fields.iter().map(field).collect() }
    }

    #[test]
    fn the_key_is_found_and_nested_columns_are_refused_by_name() {
        let two = schema(&[("user_id", "INTEGER", "NULLABLE"), ("at", "TIMESTAMP", "NULLABLE")]);
        let key = KeyColumn { at: 0, kind: KeyKind::Integer };
        assert_eq!(two.key(Some("User_ID")), Ok(key));
        let message = |schema: &Schema, key| schema.key(key).unwrap_err().to_string();
        assert_eq!(message(&two, None), "the model returns 2 columns");
        assert_eq!(message(&two, Some("id")), "the model returns no column id");
        assert!(message(&two, Some("at")).contains("of type TIMESTAMP"));
        let alike = schema(&[("A", "STRING", "NULLABLE"), ("a", "STRING", "NULLABLE")]);
        assert_eq!(alike.key(Some("a")).unwrap().at, 1);
        let array = schema(&[("id", "STRING", "REQUIRED"), ("tags", "STRING", "REPEATED")]);
        assert_eq!(message(&array, Some("id")), "the column tags is an array or a struct");
        let nested = schema(&[("id", "STRING", "REQUIRED"), ("geo", "RECORD", "NULLABLE")]);
        assert_eq!(message(&nested, Some("id")), "the column geo is an array or a struct");
        for of in ["FLOAT", "FLOAT64", "BOOLEAN", "DATE", "DATETIME", "TIME", "JSON", "GEOGRAPHY"] {
            assert!(schema(&[("id", of, "NULLABLE")]).key(None).is_err(), "{of}");
        }
    }

    #[test]
    fn several_columns_with_the_name_of_the_key_are_refused_by_name() {
        for (names, key) in [
            (&["id", "email", "id"][..], "id"),
            (&["id", "id"][..], "ID"),
            (&["id", "ID", "id"][..], "id"),
        ] {
            let error = key_position(names, Some(key)).unwrap_err();
            assert_eq!(error.to_string(), format!("the model returns several columns {key}"));
            assert!(error.help().unwrap().contains("with AS"), "{error:?}");
        }
        // Others are ignored, and an exact name comes first.
        assert_eq!(key_position(&["at", "id", "at"], Some("id")), Ok(1));
        assert_eq!(key_position(&["ID", "ID", "id"], Some("id")), Ok(2));
        assert_eq!(
            key_position(&["id", "id"], None).unwrap_err().to_string(),
            "the model returns 2 columns"
        );
    }

    #[test]
    fn keys_have_the_canonical_form_of_other_sources() {
        let seed = HashSeed(7);
        let hash = |cell, kind| hash_of(cell, kind, seed);
        assert_eq!(hash("42", KeyKind::Integer), Some(UserKey::integer(42).hash(seed)));
        assert_eq!(hash("-7", KeyKind::Integer), Some(UserKey::integer(-7).hash(seed)));
        assert_eq!(hash("4x", KeyKind::Integer), None);
        assert_eq!(hash("007", KeyKind::Text), Some(UserKey::text("007").hash(seed)));
        assert_eq!(hash("12.50", KeyKind::Text), Some(UserKey::text("12.50").hash(seed)));
        assert_eq!(hash("AP8=", KeyKind::Binary), Some(UserKey::binary(&[0, 255]).hash(seed)));
        assert_eq!(hash("AP8", KeyKind::Binary), None);
    }
}
