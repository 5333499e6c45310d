//! Pauses, pins and ended backoffs in SQL.

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, Timestamp};

use super::{Backend, Conn, DbResult, read_one, write_one, write_tx};
use crate::rows::Cells;
use crate::{LedgerError, PauseLedger, Result};

/// Whether a sync is paused.
pub(super) async fn is_paused(tx: &mut Conn, sync: &SyncName) -> DbResult<bool> {
    let row = sqlx::query("SELECT paused_at FROM paused_syncs WHERE sync = $1")
        .bind(sync.as_str())
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// Why no refresh of an audience may be queued.
struct Stopped {
    paused: bool,
    /// The version that it is pinned to.
    pinned: Option<u64>,
}

async fn stopped(tx: &mut Conn, audience: &AudienceName) -> DbResult<Stopped> {
    let row = sqlx::query(
        "SELECT paused_at, CASE WHEN pinned_at IS NOT NULL THEN current_version END AS pinned
         FROM audiences WHERE name = $1",
    )
    .bind(audience.as_str())
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(Stopped { paused: false, pinned: None }) };
    let cells = Cells::new(&row, "audience");
    let paused = cells.maybe_time("paused_at")?.is_some();
    Ok(Stopped { paused, pinned: cells.maybe_number("pinned")? })
}

/// Fails with `WrongState` if no refresh of an audience may be queued.
pub(super) async fn check_not_stopped(tx: &mut Conn, audience: &AudienceName) -> DbResult<()> {
    let state = match stopped(tx, audience).await? {
        Stopped { paused: true, .. } => "paused".to_owned(),
        Stopped { pinned: Some(version), .. } => format!("pinned to version {version}"),
        Stopped { .. } => return Ok(()),
    };
    let name = audience.to_string();
    Err(LedgerError::WrongState { what: "audience", name, state, wanted: "refreshed" }.into())
}

/// Fails with `WrongState` if another version of an audience may not become current.
pub(super) async fn check_not_pinned(tx: &mut Conn, audience: &AudienceName) -> DbResult<()> {
    let Some(version) = stopped(tx, audience).await?.pinned else { return Ok(()) };
    let (name, state) = (audience.to_string(), format!("pinned to version {version}"));
    let wanted = "given another version";
    Err(LedgerError::WrongState { what: "audience", name, state, wanted }.into())
}

/// Pins the current version of an audience.
pub(super) async fn pin(tx: &mut Conn, audience: &AudienceName, now: Timestamp) -> DbResult<()> {
    sqlx::query("UPDATE audiences SET pinned_at = $2, skips = 0 WHERE name = $1")
        .bind(audience.as_str())
        .bind(now.0)
        .execute(tx)
        .await?;
    Ok(())
}

#[async_trait]
impl PauseLedger for Backend {
    async fn pause_sync(&self, sync: &SyncName, now: Timestamp) -> Result<bool> {
        write_one!(self, Full, "pausing a sync", |tx| {
            let done = sqlx::query(
                "INSERT INTO paused_syncs (sync, paused_at) VALUES ($1, $2)
                 ON CONFLICT (sync) DO NOTHING",
            )
            .bind(sync.as_str())
            .bind(now.0)
            .execute(tx)
            .await?;
            done.rows_affected() == 1
        })
    }

    async fn resume_sync(&self, sync: &SyncName) -> Result<bool> {
        write_tx!(self, Full, "resuming a sync", |tx| {
            let done = sqlx::query("DELETE FROM paused_syncs WHERE sync = $1")
                .bind(sync.as_str())
                .execute(&mut *tx)
                .await?;
            // The tasks' messages were consumed while no worker could claim the tasks.
            sqlx::query(
                "UPDATE tasks SET announced_at = NULL
                 WHERE sync = $1 AND state IN ('queued', 'running')",
            )
            .bind(sync.as_str())
            .execute(tx)
            .await?;
            done.rows_affected() == 1
        })
    }

    async fn paused_syncs(&self) -> Result<Vec<(SyncName, Timestamp)>> {
        read_one!(self, "reading the paused syncs", |tx| {
            let rows = sqlx::query("SELECT sync, paused_at FROM paused_syncs ORDER BY sync")
                .fetch_all(tx)
                .await?;
            let mut paused = Vec::with_capacity(rows.len());
            for row in &rows {
                let cells = Cells::new(row, "paused sync");
                paused.push((cells.name("sync")?, cells.time("paused_at")?));
            }
            paused
        })
    }

    async fn is_sync_paused(&self, sync: &SyncName) -> Result<bool> {
        read_one!(self, "reading whether a sync is paused", |tx| is_paused(tx, sync).await?)
    }

    async fn pause_audience(&self, audience: &AudienceName, now: Timestamp) -> Result<bool> {
        write_one!(self, Full, "pausing an audience", |tx| {
            let done = sqlx::query(
                "INSERT INTO audiences (name, paused_at) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, skips = 0
                 WHERE audiences.paused_at IS NULL",
            )
            .bind(audience.as_str())
            .bind(now.0)
            .execute(tx)
            .await?;
            done.rows_affected() == 1
        })
    }

    async fn resume_audience(&self, audience: &AudienceName) -> Result<bool> {
        write_one!(self, Full, "resuming an audience", |tx| {
            let done = sqlx::query(
                "UPDATE audiences SET paused_at = NULL, skips = 0
                 WHERE name = $1 AND paused_at IS NOT NULL",
            )
            .bind(audience.as_str())
            .execute(tx)
            .await?;
            done.rows_affected() == 1
        })
    }

    async fn unpin_audience(&self, audience: &AudienceName) -> Result<bool> {
        write_one!(self, Full, "unpinning an audience", |tx| {
            let done = sqlx::query(
                "UPDATE audiences SET pinned_at = NULL, skips = 0
                 WHERE name = $1 AND pinned_at IS NOT NULL",
            )
            .bind(audience.as_str())
            .execute(tx)
            .await?;
            done.rows_affected() == 1
        })
    }

    async fn skip_schedule(&self, audience: &AudienceName, fire_at: Timestamp) -> Result<bool> {
        write_one!(self, Relaxed, "skipping a firing of a schedule", |tx| {
            // All rows are fetched: only then is it certain that the statement was committed.
            let rows = sqlx::query(
                "UPDATE audiences SET last_fired = $2, skips = skips + 1
                 WHERE name = $1 AND (paused_at IS NOT NULL OR pinned_at IS NOT NULL)
                   AND (last_fired IS NULL OR last_fired < $2)
                 RETURNING skips",
            )
            .bind(audience.as_str())
            .bind(fire_at.0)
            .fetch_all(tx)
            .await?;
            match rows.first() {
                Some(row) => Cells::new(row, "audience").int("skips")? == 1,
                None => false,
            }
        })
    }

    async fn end_backoff(&self, destination: &DestinationName, now: Timestamp) -> Result<()> {
        // The table is named after the earlier word for a backoff: a rename would not be additive.
        write_one!(self, Relaxed, "ending the backoff of an account", |tx| {
            sqlx::query(
                "INSERT INTO ended_rests (destination, at) VALUES ($1, $2)
                 ON CONFLICT (destination) DO UPDATE SET at = excluded.at
                 WHERE ended_rests.at < excluded.at",
            )
            .bind(destination.as_str())
            .bind(now.0)
            .execute(tx)
            .await?;
        })
    }

    async fn ended_backoffs(&self) -> Result<Vec<(DestinationName, Timestamp)>> {
        read_one!(self, "reading which backoffs were ended", |tx| {
            let rows = sqlx::query("SELECT destination, at FROM ended_rests ORDER BY destination")
                .fetch_all(tx)
                .await?;
            let mut ended = Vec::with_capacity(rows.len());
            for row in &rows {
                let cells = Cells::new(row, "ended backoff");
                ended.push((cells.name("destination")?, cells.time("at")?));
            }
            ended
        })
    }
}
