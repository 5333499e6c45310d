//! The manifests of the dictionary's shards, each replaced by compare and swap.

use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
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
    let text = "SELECT shard, version, manifest FROM dictionary_shards ORDER BY shard";
    tx.all(text, (), shard_of).await
}

/// One shard; of version 0 if it never had a user.
pub(super) async fn shard(tx: &mut Conn, shard: u8) -> DbResult<DictionaryShard> {
    let text = "SELECT shard, version, manifest FROM dictionary_shards WHERE shard = $1";
    let found = tx.optional(text, shard, shard_of).await?;
    Ok(found.unwrap_or(DictionaryShard { shard, version: 0, manifest: String::new() }))
}

/// Replaces a shard's manifest if it still has the expected version.
pub(super) async fn compare_and_swap(
    tx: &mut Conn,
    shard: u8,
    expected: u64,
    manifest: &str,
) -> DbResult<bool> {
    let text = if expected == 0 {
        "INSERT INTO dictionary_shards (shard, version, manifest)
         VALUES ($1, $2 + 1, $3) ON CONFLICT (shard) DO NOTHING"
    } else {
        "UPDATE dictionary_shards SET version = version + 1, manifest = $3
         WHERE shard = $1 AND version = $2"
    };
    Ok(tx.execute(text, (shard, expected, manifest)).await? == 1)
}
