//! Key ranges: a result in the order of a hash of its keys, so that another transaction goes on behind the hash that was
//! read last. Pure.
//!
//! Rows with one hash are always in one range. So a range ends between two hashes, and the next one begins behind the
//! last hash: no row is read twice or left out, however many rows a user has.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use throng_lake::{ColumnFacts, KeyKind};
use throng_model::UserHash;

/// Where a key range begins, in the ledger. It has no key of a user: positions are hashes of keys, by a seed of their
/// refresh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RangeCursor {
    /// The server, the database and the user that have read the ranges before it.
    pub(super) source: String,
    /// The key column of the ranges before it.
    pub(super) key: ColumnFacts,
    /// The position of their last row.
    pub(super) behind: i64,
    /// How many rows they have together.
    pub(super) rows: u64,
}

/// A row of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyRow {
    /// The hash by which rows are ordered. That of rows whose key is NULL is the lowest one.
    pub(super) position: i64,
    /// `None`: the row has no key.
    pub(super) key: Option<UserHash>,
    /// Whether the key has white space around it.
    pub(super) is_padded: bool,
}

/// A range while it is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) rows: u64,
    pub(super) null_keys: u64,
    pub(super) padded_keys: u64,
    /// The position of its last row.
    pub(super) last: Option<i64>,
}

/// Rows that a range has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) hashes: Vec<UserHash>,
    pub(super) null_keys: u64,
    /// Whether the next row belongs to the next range.
    pub(super) is_full: bool,
}

impl Range {
    /// Takes rows from the front: `limit` in all, and those that have the position of the last one.
    pub(super) fn take(&mut self, rows: &mut VecDeque<KeyRow>, limit: u64) -> Taken {
        let mut taken = Taken::default();
        while let Some(row) = rows.front().copied() {
            if self.rows >= limit && self.last != Some(row.position) {
                taken.is_full = true;
                break;
            }
            match row.key {
                Some(hash) => taken.hashes.push(hash),
                None => taken.null_keys += 1,
            }
            self.rows += 1;
            self.padded_keys += u64::from(row.is_padded);
            self.last = Some(row.position);
            rows.pop_front();
        }
        self.null_keys += taken.null_keys;
        taken
    }
}

/// The SQL that returns the keys of a query and their positions, in the order of positions. `key`: its key column;
/// `behind`: only rows with a higher position.
pub(super) fn statement(
    sql: &str,
    key: &str,
    kind: KeyKind,
    seed: i64,
    behind: Option<i64>,
) -> String {
    let key = format!("q.\"{}\"", key.replace('"', "\"\""));
    // The text of BYTEA depends on a setting of the session.
    let text = match kind {
        KeyKind::Binary => format!("encode({key}, 'hex')"),
        KeyKind::Text | KeyKind::Integer | KeyKind::Uuid => format!("CAST({key} AS text)"),
    };
    // Collations may take different texts for equal, and those of a UNION may conflict.
    let hash = format!("hashtextextended({text} COLLATE \"C\", {})", bigint(seed));
    let position = format!("coalesce({hash}, {})", bigint(i64::MIN));
    let after = behind.map(|behind| format!("WHERE r.throng_position > {} ", bigint(behind)));
    let after = after.unwrap_or_default();
    // The query is followed by a line break: it may end with a comment.
    format!(
        "SELECT r.throng_key, r.throng_position FROM (SELECT {key} AS throng_key, {position} AS throng_position \
         FROM (\n{sql}\n) AS q) AS r {after}ORDER BY r.throng_position"
    )
}

/// A number in SQL. As a literal, the lowest one would be a NUMERIC with a sign.
fn bigint(number: i64) -> String {
    format!("CAST('{number}' AS bigint)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: i64, key: Option<u64>) -> KeyRow {
        KeyRow { position, key: key.map(UserHash), is_padded: key == Some(1) }
    }

    fn hashes(hashes: &[u64]) -> Vec<UserHash> {
        hashes.iter().copied().map(UserHash).collect()
    }

    #[test]
    fn a_range_ends_between_two_hashes() {
        let rows = [(i64::MIN, None), (-5, Some(1)), (3, Some(2)), (3, Some(4)), (9, Some(5))];
        let mut rows: VecDeque<KeyRow> = rows.map(|(at, key)| row(at, key)).into();
        let mut range = Range::default();
        let taken = range.take(&mut rows, 3);
        let (null_keys, is_full) = (1, true);
        assert_eq!(taken, Taken { hashes: hashes(&[1, 2, 4]), null_keys, is_full });
        let (null_keys, padded_keys, last) = (1, 1, Some(3));
        assert_eq!(range, Range { rows: 4, null_keys, padded_keys, last });
        assert_eq!(rows.len(), 1);
        let mut range = Range::default();
        let taken = range.take(&mut rows, 3);
        assert_eq!((taken.hashes, taken.is_full), (hashes(&[5]), false));
    }

    #[test]
    fn rows_with_one_hash_stay_together_over_all_fetches() {
        let mut range = Range::default();
        for _ in 0..3 {
            let mut rows: VecDeque<KeyRow> = [row(7, Some(2)), row(7, Some(2))].into();
            assert!(!range.take(&mut rows, 1).is_full);
            assert!(rows.is_empty());
        }
        let mut rows: VecDeque<KeyRow> = [row(8, Some(3))].into();
        let taken = range.take(&mut rows, 1);
        assert_eq!((taken.hashes, taken.is_full, rows.len()), (Vec::new(), true, 1));
        assert_eq!((range.rows, range.last), (6, Some(7)));
    }

    #[test]
    fn the_statement_has_one_text_for_each_type_and_goes_on_behind_a_position() {
        let sql = "SELECT id FROM t -- all";
        let first = statement(sql, "id", KeyKind::Integer, 7, None);
        assert_eq!(
            first,
            "SELECT r.throng_key, r.throng_position FROM (SELECT q.\"id\" AS throng_key, \
             coalesce(hashtextextended(CAST(q.\"id\" AS text) COLLATE \"C\", CAST('7' AS bigint)), \
             CAST('-9223372036854775808' AS bigint)) AS throng_position FROM (\nSELECT id FROM t -- all\n) AS q) \
             AS r ORDER BY r.throng_position"
        );
        let later = statement(sql, "id", KeyKind::Integer, 7, Some(-4));
        let where_at = "AS r WHERE r.throng_position > CAST('-4' AS bigint) ORDER BY";
        assert!(later.contains(where_at), "{later}");
        let binary = statement(sql, "a\"b", KeyKind::Binary, 7, None);
        assert!(binary.contains("encode(q.\"a\"\"b\", 'hex') COLLATE"), "{binary}");
    }

    #[test]
    fn a_cursor_survives_the_ledger() {
        let key = ColumnFacts::key("id".to_owned(), "TEXT".to_owned());
        let source = "db:5432/shop as throng".to_owned();
        let cursor = RangeCursor { source, key, behind: i64::MIN, rows: 12 };
        let stored = serde_json::to_value(&cursor).unwrap();
        assert_eq!(RangeCursor::deserialize(&stored).unwrap(), cursor);
        let text = serde_json::to_string(&stored).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), stored);
    }
}
