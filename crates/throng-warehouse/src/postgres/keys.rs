//! Keys of PostgreSQL in their canonical form. Pure.

use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};
use throng_lake::{KeyKind, is_padded};
use throng_model::{HashSeed, UserHash, UserKey};
use throng_refresh::WarehouseError;

use crate::columns::refused;

/// The kind of the key column, by the name of its type. The same types as in tables of files are keys:
/// no other type has one text for each value. `CHAR(n)` is padded with blanks, and `NUMERIC` has a
/// text for each scale.
pub(super) fn kind_of(name: &str, of: &str) -> Result<KeyKind, WarehouseError> {
    match of {
        "TEXT" | "VARCHAR" => Ok(KeyKind::Text),
        "INT2" | "INT4" | "INT8" => Ok(KeyKind::Integer),
        "UUID" => Ok(KeyKind::Uuid),
        "BYTEA" => Ok(KeyKind::Binary),
        other => {
            let message =
                format!("the key column {name} is of type {other}, which is not a user key");
            let help = format!(
                "a key is TEXT, VARCHAR, SMALLINT, INTEGER, BIGINT, UUID or BYTEA: write \
                 CAST({name} AS TEXT) AS {name} to use its text"
            );
            Err(refused(message, help))
        }
    }
}

/// The hash of the key of a row: `Some(None)` for NULL and for an empty key, `None` if it is not a value of its type.
pub(super) fn hash_of_row(
    row: &PgRow,
    at: usize,
    kind: KeyKind,
    seed: HashSeed,
) -> Option<Option<UserHash>> {
    let value = row.try_get_raw(at).ok()?;
    if value.is_null() {
        return Some(None);
    }
    key_of(value.as_bytes().ok()?, kind, seed)
}

/// Whether the key of a row is a text with white space around it.
pub(super) fn is_padded_row(row: &PgRow, at: usize, kind: KeyKind) -> bool {
    let value = row.try_get_raw(at).ok();
    let bytes = value.and_then(|value| value.as_bytes().ok());
    kind == KeyKind::Text && bytes.is_some_and(is_padded)
}

/// As in tables of files, an empty text is not a key.
fn key_of(bytes: &[u8], kind: KeyKind, seed: HashSeed) -> Option<Option<UserHash>> {
    match kind {
        KeyKind::Text | KeyKind::Binary if bytes.is_empty() => Some(None),
        _ => hash_of(bytes, kind, seed).map(Some),
    }
}

/// The hash of a key in PostgreSQL's binary format.
fn hash_of(bytes: &[u8], kind: KeyKind, seed: HashSeed) -> Option<UserHash> {
    match kind {
        KeyKind::Text => Some(UserHash::of_canonical(bytes, seed)),
        KeyKind::Integer => {
            let number: i64 = match bytes.len() {
                2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
                4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
                _ => i64::from_be_bytes(bytes.try_into().ok()?),
            };
            Some(UserKey::integer(number.into()).hash(seed))
        }
        KeyKind::Uuid => Some(UserKey::uuid(bytes.try_into().ok()?).hash(seed)),
        KeyKind::Binary => Some(UserKey::binary(bytes).hash(seed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_canonical_form_of_other_sources() {
        let seed = HashSeed(7);
        let hash = |bytes: &[u8], kind| hash_of(bytes, kind, seed);
        let number = Some(UserKey::integer(-7).hash(seed));
        assert_eq!(hash(&(-7_i16).to_be_bytes(), KeyKind::Integer), number);
        assert_eq!(hash(&(-7_i32).to_be_bytes(), KeyKind::Integer), number);
        assert_eq!(hash(&(-7_i64).to_be_bytes(), KeyKind::Integer), number);
        assert_eq!(hash(b"abc", KeyKind::Integer), None);
        assert_eq!(hash(b"007", KeyKind::Text), Some(UserKey::text("007").hash(seed)));
        assert_eq!(hash(&[9; 16], KeyKind::Uuid), Some(UserKey::uuid([9; 16]).hash(seed)));
        assert_eq!(hash(&[9; 15], KeyKind::Uuid), None);
        assert_eq!(hash(&[0, 255], KeyKind::Binary), Some(UserKey::binary(&[0, 255]).hash(seed)));
        assert_eq!(key_of(b"", KeyKind::Text, seed), Some(None));
        assert_eq!(key_of(b"", KeyKind::Integer, seed), None);
        assert_eq!(key_of(b"007", KeyKind::Text, seed), Some(hash(b"007", KeyKind::Text)));
    }

    #[test]
    fn other_types_are_refused_with_a_cast() {
        for of in ["NUMERIC", "FLOAT4", "FLOAT8", "CHAR", "BOOL", "DATE", "TEXT[]", "JSONB", "OID"]
        {
            let error = kind_of("id", of).unwrap_err();
            assert!(error.to_string().contains(of), "{error}");
            assert!(error.help().unwrap().contains("CAST(id AS TEXT)"), "{error:?}");
        }
    }
}
