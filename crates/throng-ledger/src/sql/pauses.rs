//! Pauses, pins and ended backoffs in SQL.

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, Timestamp};

use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{LedgerError, PauseLedger, Result};

/// Whether a sync is paused.
pub(super) async fn is_paused(tx: &mut Conn, sync: &SyncName) -> DbResult<bool> {
    let text = "SELECT paused_at FROM paused_syncs WHERE sync = $1";
    Ok(tx.maybe_scalar::<i64>(text, sync).await?.is_some())
}

/// Why no refresh of an audience may be queued.
#[derive(Default)]
struct Stopped {
    paused: bool,
    /// The version that it is pinned to.
    pinned: Option<u64>,
}

fn stopped_of(row: &DbRow) -> Result<Stopped> {
    let cells = Cells::new(row, "audience");
    let paused = cells.maybe_time("paused_at")?.is_some();
    Ok(Stopped { paused, pinned: cells.maybe_number("pinned")? })
}

async fn stopped(tx: &mut Conn, audience: &AudienceName) -> DbResult<Stopped> {
    let text =
        "SELECT paused_at, CASE WHEN pinned_at IS NOT NULL THEN current_version END AS pinned
         FROM audiences WHERE name = $1";
    Ok(tx.optional(text, audience, stopped_of).await?.unwrap_or_default())
}

/// Fails with `WrongState` if no refresh of an audience may be queued.
pub(super) async fn check_not_stopped(tx: &mut Conn, audience: &AudienceName) -> DbResult<()> {
    let state = match stopped(tx, audience).await? {
        Stopped { paused: true, .. } => "paused".to_owned(),
        Stopped { pinned: Some(version), .. } => format!("pinned to version {version}"),
        Stopped { .. } => return Ok(()),
    };
    Err(LedgerError::wrong_state("audience", audience, state, "refreshed").into())
}

/// Fails with `WrongState` if another version of an audience may not become current.
pub(super) async fn check_not_pinned(tx: &mut Conn, audience: &AudienceName) -> DbResult<()> {
    let Some(version) = stopped(tx, audience).await?.pinned else { return Ok(()) };
    Err(pinned_error(audience, version).into())
}

/// Another version of an audience may not become current, because it is pinned to this one.
pub(super) fn pinned_error(audience: &AudienceName, version: u64) -> LedgerError {
    let (state, wanted) = (format!("pinned to version {version}"), "given another version");
    LedgerError::wrong_state("audience", audience, state, wanted)
}

/// Pins the current version of an audience.
pub(super) async fn pin(tx: &mut Conn, audience: &AudienceName, now: Timestamp) -> DbResult<()> {
    let text = "UPDATE audiences SET pinned_at = $2, skips = 0 WHERE name = $1";
    tx.execute(text, (audience, now)).await?;
    Ok(())
}

fn paused_of(row: &DbRow) -> Result<(SyncName, Timestamp)> {
    let cells = Cells::new(row, "paused sync");
    Ok((cells.name("sync")?, cells.time("paused_at")?))
}

fn ended_of(row: &DbRow) -> Result<(DestinationName, Timestamp)> {
    let cells = Cells::new(row, "ended backoff");
    Ok((cells.name("destination")?, cells.time("at")?))
}

#[async_trait]
impl<B: Backend> PauseLedger for SqlLedger<B> {
    async fn pause_sync(&self, sync: &SyncName, now: Timestamp) -> Result<bool> {
        write_one!(self, Full, "pausing a sync", |tx| {
            let text = "INSERT INTO paused_syncs (sync, paused_at) VALUES ($1, $2)
                 ON CONFLICT (sync) DO NOTHING";
            tx.execute(text, (sync, now)).await? == 1
        })
    }

    async fn resume_sync(&self, sync: &SyncName) -> Result<bool> {
        write_tx!(self, Full, "resuming a sync", |tx| {
            let resumed = tx.execute("DELETE FROM paused_syncs WHERE sync = $1", sync).await?;
            // The tasks' messages were consumed while no worker could claim the tasks.
            tx.execute(
                "UPDATE tasks SET announced_at = NULL
                 WHERE sync = $1 AND state IN ('queued', 'running')",
                sync,
            )
            .await?;
            resumed == 1
        })
    }

    async fn paused_syncs(&self) -> Result<Vec<(SyncName, Timestamp)>> {
        read_one!(self, "reading the paused syncs", |tx| {
            let text = "SELECT sync, paused_at FROM paused_syncs ORDER BY sync";
            tx.all(text, (), paused_of).await?
        })
    }

    async fn is_sync_paused(&self, sync: &SyncName) -> Result<bool> {
        read_one!(self, "reading whether a sync is paused", |tx| is_paused(tx, sync).await?)
    }

    async fn pause_audience(&self, audience: &AudienceName, now: Timestamp) -> Result<bool> {
        write_one!(self, Full, "pausing an audience", |tx| {
            let text = "INSERT INTO audiences (name, paused_at) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, skips = 0
                 WHERE audiences.paused_at IS NULL";
            tx.execute(text, (audience, now)).await? == 1
        })
    }

    async fn resume_audience(&self, audience: &AudienceName) -> Result<bool> {
        write_one!(self, Full, "resuming an audience", |tx| {
            let text = "UPDATE audiences SET paused_at = NULL, skips = 0
                 WHERE name = $1 AND paused_at IS NOT NULL";
            tx.execute(text, audience).await? == 1
        })
    }

    async fn unpin_audience(&self, audience: &AudienceName) -> Result<bool> {
        write_one!(self, Full, "unpinning an audience", |tx| {
            let text = "UPDATE audiences SET pinned_at = NULL, skips = 0
                 WHERE name = $1 AND pinned_at IS NOT NULL";
            tx.execute(text, audience).await? == 1
        })
    }

    async fn skip_schedule(&self, audience: &AudienceName, fire_at: Timestamp) -> Result<bool> {
        write_one!(self, Relaxed, "skipping a firing of a schedule", |tx| {
            let text = "UPDATE audiences SET last_fired = $2, skips = skips + 1
                 WHERE name = $1 AND (paused_at IS NOT NULL OR pinned_at IS NOT NULL)
                   AND (last_fired IS NULL OR last_fired < $2)
                 RETURNING skips";
            // All rows are fetched: only then is it certain that the statement was committed.
            let skips: Vec<i64> = tx.scalars(text, (audience, fire_at)).await?;
            skips.first() == Some(&1)
        })
    }

    async fn end_backoff(&self, destination: &DestinationName, now: Timestamp) -> Result<()> {
        // The table is named after the earlier word for a backoff: a rename would not be additive.
        write_one!(self, Relaxed, "ending the backoff of an account", |tx| {
            tx.execute(
                "INSERT INTO ended_rests (destination, at) VALUES ($1, $2)
                 ON CONFLICT (destination) DO UPDATE SET at = excluded.at
                 WHERE ended_rests.at < excluded.at",
                (destination, now),
            )
            .await?;
        })
    }

    async fn ended_backoffs(&self) -> Result<Vec<(DestinationName, Timestamp)>> {
        read_one!(self, "reading which backoffs were ended", |tx| {
            let text = "SELECT destination, at FROM ended_rests ORDER BY destination";
            tx.all(text, (), ended_of).await?
        })
    }
}
