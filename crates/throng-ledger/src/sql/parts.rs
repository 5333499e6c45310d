//! The parts of a refresh: recorded, claimed, renewed, released, finished.

use sqlx::QueryBuilder;
use throng_model::{RefreshId, Timestamp};

use super::{Backend, Conn, Db, DbResult, DbRow, ROWS_PER_INSERT, lock_rows, refreshes, write_tx};
use crate::rows::{Cells, SqlEnum, json};
use crate::{LedgerError, NewPart, Part, Result};

fn part_of(row: &DbRow) -> Result<Part> {
    let cells = Cells::new(row, "part");
    Ok(Part {
        kind: cells.variant("kind")?,
        number: cells.number("number")?,
        state: cells.variant("state")?,
        covers: cells.json("covers")?,
        output: cells.maybe_json("output")?,
        holder: cells.maybe_text("holder")?,
    })
}

/// Records parts of an open refresh; existing ones stay as they are. `replacing`: the holder of the
/// refresh, which replaces all parts by these.
pub(super) async fn record(
    backend: &Backend,
    id: RefreshId,
    parts: &[NewPart],
    replacing: Option<&str>,
) -> Result<()> {
    write_tx!(backend, Relaxed, "recording the parts of a refresh", |tx| {
        insert(tx, id, parts, replacing).await?
    })
}

async fn insert(
    tx: &mut Conn,
    id: RefreshId,
    parts: &[NewPart],
    replacing: Option<&str>,
) -> DbResult<()> {
    if let Some(holder) = replacing {
        refreshes::get_leased_by(tx, id, holder).await?;
        delete_all(tx, id).await?;
    }
    let refresh = refreshes::get(tx, id).await?;
    if refresh.finished_at.is_some() {
        return Err(LedgerError::WrongState {
            what: "refresh",
            name: id.to_string(),
            state: refresh.state.sql_name().to_owned(),
            wanted: "divided into parts",
        }
        .into());
    }
    for chunk in parts.chunks(ROWS_PER_INSERT) {
        let mut values = Vec::with_capacity(chunk.len());
        for part in chunk {
            values.push((part.number, part.kind.sql_name(), json(&part.covers)?));
        }
        let mut insert =
            QueryBuilder::<Db>::new("INSERT INTO refresh_parts (refresh, number, kind, covers) ");
        insert.push_values(values, |mut row, (number, kind, covers)| {
            row.push_bind(id.0).push_bind(i64::from(number)).push_bind(kind).push_bind(covers);
        });
        insert.push(" ON CONFLICT (refresh, number) DO NOTHING");
        insert.build().persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Deletes the parts of a refresh.
pub(super) async fn delete_all(tx: &mut Conn, id: RefreshId) -> DbResult<()> {
    sqlx::query("DELETE FROM refresh_parts WHERE refresh = $1").bind(id.0).execute(tx).await?;
    Ok(())
}

/// The parts of a refresh, by number.
pub(super) async fn all(tx: &mut Conn, id: RefreshId) -> DbResult<Vec<Part>> {
    let rows = sqlx::query(
        "SELECT number, kind, state, covers, output, holder FROM refresh_parts
         WHERE refresh = $1 ORDER BY number",
    )
    .bind(id.0)
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(part_of).collect::<Result<_>>()?)
}

/// Claims the first waiting part for `holder`, of one refresh or of any that is processing. Parts
/// of the kind `shards` wait until all scans are done, because each of them reads the output of
/// every scan.
pub(super) async fn claim(
    tx: &mut Conn,
    of: Option<RefreshId>,
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> DbResult<Option<(RefreshId, Part)>> {
    let rows = sqlx::query(concat!(
        "UPDATE refresh_parts SET holder = $1, lease_until = $3
         WHERE (refresh, number) = (
            SELECT p.refresh, p.number FROM refresh_parts p
            WHERE p.state = 'pending' AND (p.lease_until IS NULL OR p.lease_until <= $2)
                AND (CAST($4 AS BIGINT) IS NULL OR p.refresh = $4)
                AND EXISTS (SELECT 1 FROM refreshes r
                            WHERE r.id = p.refresh AND r.state = 'processing')
                AND (p.kind = 'scan' OR NOT EXISTS (
                    SELECT 1 FROM refresh_parts s WHERE s.refresh = p.refresh
                        AND s.kind = 'scan' AND s.state = 'pending'))
            ORDER BY p.refresh, p.number LIMIT 1",
        lock_rows!(),
        ") RETURNING refresh, number, kind, state, covers, output, holder"
    ))
    .bind(holder)
    .bind(now.0)
    .bind(lease_until.0)
    .bind(of.map(|id| id.0))
    .fetch_all(tx)
    .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let refresh = Cells::new(row, "part").number("refresh")?;
    Ok(Some((RefreshId(refresh), part_of(row)?)))
}

/// Renews the leases of all unfinished parts that `holder` has claimed.
pub(super) async fn renew_leases(
    tx: &mut Conn,
    holder: &str,
    lease_until: Timestamp,
) -> DbResult<()> {
    sqlx::query(
        "UPDATE refresh_parts SET lease_until = $2 WHERE holder = $1 AND state = 'pending'",
    )
    .bind(holder)
    .bind(lease_until.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Releases a part that `holder` has claimed; a part that another has, or that is done, stays as it
/// is.
pub(super) async fn release(
    tx: &mut Conn,
    id: RefreshId,
    number: u32,
    holder: &str,
) -> DbResult<()> {
    sqlx::query(
        "UPDATE refresh_parts SET holder = NULL, lease_until = NULL
         WHERE refresh = $1 AND number = $2 AND holder = $3 AND state = 'pending'",
    )
    .bind(id.0)
    .bind(i64::from(number))
    .bind(holder)
    .execute(tx)
    .await?;
    Ok(())
}

/// Records the output of a part; a first output stays. Earlier tries that ended with a crash no
/// longer count: the refresh makes progress, so it must not be given up as one that kills its
/// builders.
pub(super) async fn finish(
    tx: &mut Conn,
    id: RefreshId,
    number: u32,
    output: &serde_json::Value,
) -> DbResult<()> {
    // The refresh is locked before its parts, as in all transactions, so that they cannot deadlock.
    sqlx::query("UPDATE refreshes SET claims = 1 WHERE id = $1 AND claims > 1")
        .bind(id.0)
        .execute(&mut *tx)
        .await?;
    let found = sqlx::query(
        "UPDATE refresh_parts SET state = 'done', output = coalesce(output, $3)
         WHERE refresh = $1 AND number = $2",
    )
    .bind(id.0)
    .bind(i64::from(number))
    .bind(json(output)?)
    .execute(tx)
    .await?
    .rows_affected();
    if found == 0 {
        return Err(LedgerError::NotFound { what: "part", name: format!("{id}/{number}") }.into());
    }
    Ok(())
}
