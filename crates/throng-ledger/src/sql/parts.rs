//! The parts of a refresh: recorded, claimed, kept, given back, finished.

use sqlx::QueryBuilder;
use throng_model::{RefreshId, Timestamp};

use super::audiences::{get_held_by, get_refresh};
use super::snapshots::delete_parts;
use super::{Backend, Conn, Db, DbRow, ROWS_PER_INSERT, Tried, lock_rows, write_tx};
use crate::rows::{Cells, Word, json};
use crate::{LedgerError, NewPart, Part, Result};

fn part_of(row: &DbRow) -> Result<Part> {
    let cells = Cells::new(row, "part");
    Ok(Part {
        kind: cells.word("kind")?,
        number: cells.number("number")?,
        state: cells.word("state")?,
        covers: cells.json("covers")?,
        output: cells.maybe_json("output")?,
        holder: cells.maybe_text("holder")?,
    })
}

/// Records parts of an open refresh; those that are there already stay as they are. `replacing`: whoever
/// holds the refresh and puts these in the place of all parts.
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
) -> Tried<()> {
    if let Some(holder) = replacing {
        get_held_by(tx, id, holder).await?;
        delete_parts(tx, id).await?;
    }
    let refresh = get_refresh(tx, id).await?;
    if refresh.finished_at.is_some() {
        return Err(LedgerError::WrongState {
            what: "refresh",
            name: id.to_string(),
            state: refresh.state.word().to_owned(),
            wanted: "cut into parts",
        }
        .into());
    }
    for chunk in parts.chunks(ROWS_PER_INSERT) {
        let mut values = Vec::with_capacity(chunk.len());
        for part in chunk {
            values.push((part.number, part.kind.word(), json(&part.covers)?));
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

/// The parts of a refresh, by number.
pub(super) async fn all(tx: &mut Conn, id: RefreshId) -> Tried<Vec<Part>> {
    let rows = sqlx::query(
        "SELECT number, kind, state, covers, output, holder FROM refresh_parts
         WHERE refresh = $1 ORDER BY number",
    )
    .bind(id.0)
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(part_of).collect::<Result<_>>()?)
}

/// Gives `holder` the first part that waits, of one refresh or of any that is processed. Parts that
/// come after the scan wait for the whole of it.
pub(super) async fn claim(
    tx: &mut Conn,
    of: Option<RefreshId>,
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> Tried<Option<(RefreshId, Part)>> {
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

/// Prolongs the leases of all parts that `holder` has in hand.
pub(super) async fn keep(tx: &mut Conn, holder: &str, lease_until: Timestamp) -> Tried<()> {
    sqlx::query(
        "UPDATE refresh_parts SET lease_until = $2 WHERE holder = $1 AND state = 'pending'",
    )
    .bind(holder)
    .bind(lease_until.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives a part back that `holder` has in hand; what another holds or has done stays as it is.
pub(super) async fn release(tx: &mut Conn, id: RefreshId, number: u32, holder: &str) -> Tried<()> {
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

/// Records what a part came to; the first word counts. Tries that died before have done something all
/// the same: they count as crashes no longer.
pub(super) async fn finish(
    tx: &mut Conn,
    id: RefreshId,
    number: u32,
    output: &serde_json::Value,
) -> Tried<()> {
    // The refresh before its parts, as everywhere: two transactions must not wait for each other.
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
