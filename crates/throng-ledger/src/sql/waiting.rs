//! Refreshes that wait for the open one of their audience: requested while it may have listed its files already.

use throng_model::{AudienceName, RefreshId, Timestamp};

use super::{pauses, refreshes};
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{RefreshState, RefreshTrigger, Result};

/// A refresh that waits.
struct Waiting {
    audience: AudienceName,
    id: RefreshId,
    forced: bool,
    requested_at: Timestamp,
}

fn waiting_of(row: &DbRow) -> Result<Waiting> {
    let cells = Cells::new(row, "waiting refresh");
    Ok(Waiting {
        audience: cells.name("audience")?,
        id: RefreshId(cells.int("refresh")?),
        forced: cells.flag("forced")?,
        requested_at: cells.time("requested_at")?,
    })
}

/// Queues a refresh of an audience, which may be new, for a person: see
/// [`AudienceLedger::request_refresh`](crate::AudienceLedger::request_refresh).
pub(super) async fn request(
    tx: &mut Conn,
    audience: &AudienceName,
    force: bool,
    now: Timestamp,
) -> DbResult<RefreshId> {
    let text = "INSERT INTO audiences (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
    tx.execute(text, audience).await?;
    pauses::check_not_stopped(tx, audience).await?;
    // An earlier version, which knows no waiting refreshes, has ended the one that was waited for.
    let left = "DELETE FROM waiting_refreshes WHERE audience = $1 AND NOT EXISTS
            (SELECT 1 FROM refreshes r
             WHERE r.audience = $1 AND r.state IN ('scheduled', 'processing', 'halted')
               AND r.id < waiting_refreshes.refresh)";
    tx.execute(left, audience).await?;
    // Files are listed before the parts are recorded, and those parts are kept over a halt and a retry. Refreshes of a
    // template that are built together have no parts: one that is tried again and is waited for has started too.
    let started = "SELECT id FROM refreshes
         WHERE audience = $1 AND state IN ('scheduled', 'processing', 'halted')
           AND (state <> 'scheduled'
                OR EXISTS (SELECT 1 FROM refresh_parts p WHERE p.refresh = refreshes.id)
                OR EXISTS (SELECT 1 FROM waiting_refreshes w WHERE w.audience = $1))";
    if tx.maybe_scalar::<i64>(started, audience).await?.is_some() {
        return wait(tx, audience, force, now).await;
    }
    let id = refreshes::queue(tx, audience, RefreshTrigger::Manual, now).await?;
    if force {
        tx.execute("UPDATE refreshes SET forced = 1 WHERE id = $1", id).await?;
    }
    Ok(id)
}

/// Lets a refresh wait for the open one. Returns the one that waits already, if there is one.
async fn wait(
    tx: &mut Conn,
    audience: &AudienceName,
    force: bool,
    now: Timestamp,
) -> DbResult<RefreshId> {
    let waiting = "SELECT refresh FROM waiting_refreshes WHERE audience = $1";
    if let Some(id) = tx.maybe_scalar::<i64>(waiting, audience).await? {
        if force {
            let text = "UPDATE waiting_refreshes SET forced = 1 WHERE audience = $1";
            tx.execute(text, audience).await?;
        }
        return Ok(RefreshId(id));
    }
    // A row that is deleted again: its id is not given to another refresh, and an audience has one open refresh only.
    let reserve = "INSERT INTO refreshes
            (audience, state, started_by, scheduled_at, finished_at, not_before)
         VALUES ($1, $2, $3, $4, $4, $4) RETURNING id";
    let values = (audience, RefreshState::Failed, RefreshTrigger::Manual, now);
    let id = RefreshId(tx.scalar(reserve, values).await?);
    tx.execute("DELETE FROM refreshes WHERE id = $1", id).await?;
    let insert = "INSERT INTO waiting_refreshes (audience, refresh, forced, requested_at)
         VALUES ($1, $2, $3, $4)";
    tx.execute(insert, (audience, id, force, now)).await?;
    Ok(id)
}

/// Queues the refreshes that have waited for these, which have ended in the same transaction.
pub(super) async fn follow(tx: &mut Conn, ended: &[RefreshId], now: Timestamp) -> DbResult<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let delete = tx
        .build(
            "DELETE FROM waiting_refreshes
             WHERE audience IN (SELECT audience FROM refreshes WHERE id IN (",
        )
        .values(ended)
        .push(")) RETURNING audience, refresh, forced, requested_at");
    let rows = tx.rows(delete.build(ended.len() == 1)).await?;
    for row in &rows {
        let Waiting { audience, id, forced, requested_at } = waiting_of(row)?;
        // A newer one was queued if an earlier version has ended the one that was waited for.
        let insert = "INSERT INTO refreshes
                (id, audience, state, started_by, scheduled_at, not_before, forced)
             SELECT $1, name, 'scheduled', 'manual', $3, $4, $5 FROM audiences
             WHERE name = $2 AND NOT EXISTS
                (SELECT 1 FROM refreshes r WHERE r.audience = $2 AND r.id > $1)";
        tx.execute(insert, (id, &audience, requested_at, now, forced)).await?;
    }
    Ok(())
}

/// Ends the refresh that waits for the open one of an audience, which was cancelled in the same transaction: as failed,
/// so that whoever waits for it learns of its end.
pub(super) async fn cancel(
    tx: &mut Conn,
    audience: &AudienceName,
    reason: &str,
    now: Timestamp,
) -> DbResult<()> {
    let delete = "DELETE FROM waiting_refreshes WHERE audience = $1
         RETURNING audience, refresh, forced, requested_at";
    let Some(waiting) = tx.all(delete, audience, waiting_of).await?.pop() else { return Ok(()) };
    let insert = "INSERT INTO refreshes
            (id, audience, state, started_by, scheduled_at, finished_at, not_before, reason, forced)
         VALUES ($1, $2, 'failed', 'manual', $3, $4, $4, $5, $6)";
    let values = (waiting.id, audience, waiting.requested_at, now, reason, waiting.forced);
    tx.execute(insert, values).await?;
    Ok(())
}
