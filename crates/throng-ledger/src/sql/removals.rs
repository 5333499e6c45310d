//! Removals in SQL.

use async_trait::async_trait;
use throng_model::{SyncName, Timestamp};

use super::{alerts, delivered, spec};
use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{
    AlertKind, LedgerError, NewAlert, NewRemoval, Removal, RemovalLedger, Result, SpecApplied,
    SpecUpdate, removal_subject,
};

/// SELECT of removals, with these clauses.
macro_rules! removals {
    ($clauses:literal) => {
        concat!(
            "SELECT sync, rule, definition, requested_at, approved_at, approved_by, tries, retry_at,
                last_error
             FROM sync_removals ",
            $clauses
        )
    };
}

/// The reason of the end of runs that no worker has claimed.
const REMOVED_REASON: &str = "the sync was removed from the spec";

fn removal_of(row: &DbRow) -> Result<Removal> {
    let cells = Cells::new(row, "removal");
    Ok(Removal {
        sync: cells.name("sync")?,
        rule: cells.variant("rule")?,
        definition: cells.json("definition")?,
        requested_at: cells.time("requested_at")?,
        approved_at: cells.maybe_time("approved_at")?,
        approved_by: cells.maybe_text("approved_by")?,
        tries: cells.number("tries")?,
        retry_at: cells.maybe_time("retry_at")?,
        last_error: cells.maybe_text("last_error")?,
    })
}

async fn all(tx: &mut Conn) -> DbResult<Vec<Removal>> {
    tx.all(removals!("ORDER BY sync"), (), removal_of).await
}

async fn get(tx: &mut Conn, sync: &SyncName) -> DbResult<Option<Removal>> {
    tx.optional(removals!("WHERE sync = $1"), sync, removal_of).await
}

fn not_found(sync: &SyncName) -> LedgerError {
    LedgerError::not_found("removal", sync)
}

fn wrong_state(sync: &SyncName, state: &str, wanted: &'static str) -> LedgerError {
    LedgerError::wrong_state("removal", sync, state, wanted)
}

/// Whether the sync has an audience on a platform, or a run that may create one.
async fn has_audience(tx: &mut Conn, sync: &SyncName) -> DbResult<bool> {
    let text = "SELECT sync FROM platform_audiences WHERE sync = $1
         UNION ALL
         SELECT sync FROM sync_runs WHERE sync = $1 AND state IN ('active', 'held')
         LIMIT 1";
    Ok(tx.maybe_scalar::<String>(text, sync).await?.is_some())
}

/// Records a removal with its alert. `false` if there is nothing on a platform, or one is already
/// recorded.
async fn record(tx: &mut Conn, removal: &NewRemoval, now: Timestamp) -> DbResult<bool> {
    if !has_audience(tx, &removal.sync).await? {
        return Ok(false);
    }
    let text = "INSERT INTO sync_removals (sync, rule, definition, requested_at)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (sync) DO NOTHING";
    let values = (&removal.sync, removal.rule, json(&removal.definition)?, now);
    if tx.execute(text, values).await? == 0 {
        return Ok(false);
    }
    let subject = removal_subject(&removal.sync);
    let message = removal.message.clone();
    alerts::raise(tx, &NewAlert { kind: AlertKind::RunHeld, subject, message }, now).await?;
    Ok(true)
}

async fn delete(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    tx.execute("DELETE FROM sync_removals WHERE sync = $1", sync).await?;
    Ok(())
}

/// Resolves the open alerts about a removal.
async fn resolve(tx: &mut Conn, sync: &SyncName, now: Timestamp) -> DbResult<()> {
    let subject = removal_subject(sync);
    for kind in [AlertKind::RunHeld, AlertKind::TaskFailed] {
        alerts::resolve(tx, kind, &subject, now).await?;
    }
    Ok(())
}

/// Ends the runs of a sync that no worker has claimed.
async fn end_idle_runs(tx: &mut Conn, sync: &SyncName, now: Timestamp) -> DbResult<()> {
    tx.execute(
        "UPDATE sync_runs SET state = 'failed', finished_at = $2, reason = $3
         WHERE sync = $1 AND state IN ('active', 'held') AND id IN
            (SELECT run FROM tasks WHERE sync = $1 AND state IN ('queued', 'held'))",
        (sync, now, REMOVED_REASON),
    )
    .await?;
    tx.execute(
        "UPDATE tasks SET state = 'failed', finished_at = $2, last_error = $3
         WHERE sync = $1 AND state IN ('queued', 'held')",
        (sync, now, REMOVED_REASON),
    )
    .await?;
    Ok(())
}

/// Whether a process is carrying out a removal.
async fn is_in_progress(tx: &mut Conn, sync: &SyncName, now: Timestamp) -> DbResult<bool> {
    let text = "SELECT sync FROM sync_removals WHERE sync = $1 AND lease_until > $2
         UNION ALL
         SELECT sync FROM tasks WHERE sync = $1 AND state = 'running' AND lease_until > $2
         LIMIT 1";
    Ok(tx.maybe_scalar::<String>(text, (sync, now)).await?.is_some())
}

#[async_trait]
impl<B: Backend> RemovalLedger for SqlLedger<B> {
    async fn apply_spec_update(
        &self,
        update: SpecUpdate<'_>,
        now: Timestamp,
    ) -> Result<Option<SpecApplied>> {
        write_tx!(self, Full, "applying a spec", |tx| {
            let newest = spec::newest_spec(tx).await?;
            if newest.as_ref().map_or(0, |newest| newest.version) == update.base {
                let version = spec::put_spec(tx, newest, update.spec, now).await?;
                let mut cancelled = Vec::new();
                for removal in all(tx).await? {
                    if removal.approved_at.is_none() && update.declared.contains(&removal.sync) {
                        delete(tx, &removal.sync).await?;
                        resolve(tx, &removal.sync, now).await?;
                        cancelled.push(removal.sync);
                    }
                }
                let mut recorded = Vec::new();
                for removal in update.removals {
                    if record(tx, removal, now).await? {
                        recorded.push(removal.sync.clone());
                    }
                }
                Some(SpecApplied { version, recorded, cancelled })
            } else {
                None
            }
        })
    }

    async fn removals(&self) -> Result<Vec<Removal>> {
        read_one!(self, "reading the removals", |tx| all(tx).await?)
    }

    async fn removal(&self, sync: &SyncName) -> Result<Option<Removal>> {
        read_one!(self, "reading a removal", |tx| get(tx, sync).await?)
    }

    async fn approve_removal(&self, sync: &SyncName, by: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "approving a removal", |tx| {
            let removal = get(tx, sync).await?.ok_or_else(|| not_found(sync))?;
            if removal.approved_at.is_some() {
                return Err(wrong_state(sync, "already approved", "approved").into());
            }
            let text =
                "UPDATE sync_removals SET approved_at = $2, approved_by = $3 WHERE sync = $1";
            tx.execute(text, (sync, now, by)).await?;
            resolve(tx, sync, now).await?;
            tx.execute("DELETE FROM paused_syncs WHERE sync = $1", sync).await?;
            end_idle_runs(tx, sync, now).await?;
        })
    }

    async fn discard_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "discarding a removal", |tx| {
            let removal = get(tx, sync).await?.ok_or_else(|| not_found(sync))?;
            if removal.approved_at.is_some() {
                if is_in_progress(tx, sync, now).await? {
                    return Err(wrong_state(sync, "being carried out", "discarded").into());
                }
                end_idle_runs(tx, sync, now).await?;
                // Some users may have been removed: the sync adds them when it is declared again.
                delivered::reset_identifiers(tx, sync).await?;
            }
            delete(tx, sync).await?;
            resolve(tx, sync, now).await?;
        })
    }

    async fn claim_removal(
        &self,
        sync: &SyncName,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<bool> {
        write_one!(self, Full, "claiming a removal", |tx| {
            let text = "UPDATE sync_removals SET lease_until = $3
                 WHERE sync = $1 AND approved_at IS NOT NULL
                   AND (retry_at IS NULL OR retry_at <= $2)
                   AND (lease_until IS NULL OR lease_until <= $2)";
            tx.execute(text, (sync, now, lease_until)).await? == 1
        })
    }

    async fn fail_removal(
        &self,
        sync: &SyncName,
        error: &str,
        retry_at: Timestamp,
        counts: bool,
    ) -> Result<()> {
        write_one!(self, Relaxed, "recording a failed removal", |tx| {
            tx.execute(
                "UPDATE sync_removals SET tries = tries + $4, last_error = $2, retry_at = $3,
                    lease_until = NULL
                 WHERE sync = $1",
                (sync, error, retry_at, counts),
            )
            .await?;
        })
    }

    async fn finish_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "finishing a removal", |tx| {
            let removal = get(tx, sync).await?.ok_or_else(|| not_found(sync))?;
            if removal.approved_at.is_none() {
                return Err(not_found(sync).into());
            }
            end_idle_runs(tx, sync, now).await?;
            delivered::delete_all(tx, sync).await?;
            delete(tx, sync).await?;
            resolve(tx, sync, now).await?;
            for kind in [AlertKind::RunHeld, AlertKind::TaskFailed, AlertKind::CheckFailed] {
                alerts::resolve(tx, kind, sync.as_str(), now).await?;
            }
        })
    }
}
