//! The manifests of the dictionary's shards, each replaced by compare and swap.

use super::{Conn, DbResult, DbRow};
use crate::rows::{Cells, count};
use crate::{DictionaryShard, Result};

fn shard_of(row: &DbRow) -> Result<DictionaryShard> {
    let cells = Cells::new(row, "dictionary shard");
    Ok(DictionaryShard {
        shard: cells.number("shard")?,
        version: cells.number("version")?,
        manifest: cells.text("manifest")?,
    })
}

/// All shards that ever had a user, by number.
pub(super) async fn all(tx: &mut Conn) -> DbResult<Vec<DictionaryShard>> {
    let rows = sqlx::query("SELECT shard, version, manifest FROM dictionary_shards ORDER BY shard")
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(shard_of).collect::<Result<_>>()?)
}

/// One shard; of version 0 if it never had a user.
pub(super) async fn shard(tx: &mut Conn, shard: u8) -> DbResult<DictionaryShard> {
    let row =
        sqlx::query("SELECT shard, version, manifest FROM dictionary_shards WHERE shard = $1")
            .bind(i64::from(shard))
            .fetch_optional(tx)
            .await?;
    Ok(match row {
        Some(row) => shard_of(&row)?,
        None => DictionaryShard { shard, version: 0, manifest: String::new() },
    })
}

/// Replaces a shard's manifest if it still has the expected version.
pub(super) async fn compare_and_swap(
    tx: &mut Conn,
    shard: u8,
    expected: u64,
    manifest: &str,
) -> DbResult<bool> {
    let statement = if expected == 0 {
        sqlx::query(
            "INSERT INTO dictionary_shards (shard, version, manifest)
             VALUES ($1, $2 + 1, $3) ON CONFLICT (shard) DO NOTHING",
        )
    } else {
        sqlx::query(
            "UPDATE dictionary_shards SET version = version + 1, manifest = $3
             WHERE shard = $1 AND version = $2",
        )
    };
    let changed = statement
        .bind(i64::from(shard))
        .bind(count(expected))
        .bind(manifest)
        .execute(tx)
        .await?
        .rows_affected();
    Ok(changed == 1)
}
