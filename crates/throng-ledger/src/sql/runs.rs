//! Runs: planning, counts, ends. `read = sent + skipped + rejected + pending` is a CHECK constraint
//! of the table, so that no statement here can break it.

use std::collections::HashMap;

use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use super::{alerts, delivered, pauses};
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{
    AlertKind, BatchOutcome, HistoryEvent, HoldCause, LedgerError, NewRun, Operation, PlanBase,
    PlanOutcome, ReasonCounts, Result, RunState, StoredEnum, SyncRun, TaskState, add_reasons,
    sum_reasons,
};

macro_rules! run_columns {
    () => {
        "id, sync, audience, destination, mode, from_version, to_version, state, adds, removes,
         read, sent, skipped_reasons, rejected_reasons, pending, created_at, finished_at, reason,
         normalised, plan, users_removed"
    };
}

/// The columns that [`run_of`] reads.
pub(super) const COLUMNS: &str = run_columns!();

/// SELECT of runs, with these clauses.
macro_rules! runs {
    ($clauses:literal) => {
        concat!("SELECT ", run_columns!(), " FROM sync_runs ", $clauses)
    };
}

pub(super) fn run_of(row: &DbRow) -> Result<SyncRun> {
    let cells = Cells::new(row, "run");
    Ok(SyncRun {
        id: SyncRunId(cells.int("id")?),
        sync: cells.name("sync")?,
        audience: cells.name("audience")?,
        destination: cells.name("destination")?,
        mode: cells.variant("mode")?,
        from_version: cells.maybe_number("from_version")?,
        to_version: cells.number("to_version")?,
        state: cells.variant("state")?,
        adds: cells.number("adds")?,
        removes: cells.number("removes")?,
        read: cells.number("read")?,
        sent: cells.number("sent")?,
        skipped: cells.json("skipped_reasons")?,
        rejected: cells.json("rejected_reasons")?,
        pending: cells.number("pending")?,
        created_at: cells.time("created_at")?,
        finished_at: cells.maybe_time("finished_at")?,
        reason: cells.maybe_text("reason")?,
        normalised: cells.json("normalised")?,
        plan: cells.maybe_text("plan")?,
        users_removed: cells.maybe_number("users_removed")?.unwrap_or(0),
    })
}

pub(super) async fn get(tx: &mut Conn, id: SyncRunId) -> DbResult<SyncRun> {
    let run = tx.optional(runs!("WHERE id = $1"), id, run_of).await?;
    Ok(run.ok_or_else(|| LedgerError::not_found("run", id))?)
}

pub(super) async fn newest(
    tx: &mut Conn,
    sync: Option<&SyncName>,
    limit: u32,
) -> DbResult<Vec<SyncRun>> {
    // Two statements, so that each uses its index.
    match sync {
        Some(sync) => {
            let text = runs!("WHERE sync = $1 ORDER BY id DESC LIMIT $2");
            tx.all(text, (sync, limit), run_of).await
        }
        None => tx.all(runs!("ORDER BY id DESC LIMIT $1"), limit, run_of).await,
    }
}

/// Records a run if nothing of its sync has changed since `base` was read.
pub(super) async fn plan_from(
    tx: &mut Conn,
    run: &NewRun,
    base: &PlanBase,
    now: Timestamp,
) -> DbResult<PlanOutcome> {
    let is_current = delivered::one(tx, &run.sync).await? == base.record
        && delivered::platform_audience(tx, &run.sync).await? == base.audience
        && newest(tx, Some(&run.sync), 1).await?.pop() == base.newest;
    if !is_current {
        return Ok(PlanOutcome::Superseded);
    }
    Ok(plan(tx, run, now).await?.map_or(PlanOutcome::Blocked, PlanOutcome::Planned))
}

pub(super) async fn plan(
    tx: &mut Conn,
    run: &NewRun,
    now: Timestamp,
) -> DbResult<Option<SyncRunId>> {
    let users = run.users()?;
    if pauses::is_paused(tx, &run.sync).await? {
        return Ok(None);
    }
    let (run_state, task_state) = match &run.held {
        Some(_) => (RunState::Held, TaskState::Held),
        None => (RunState::Active, TaskState::Queued),
    };
    let planned: Option<i64> = tx
        .maybe_scalar(
            "INSERT INTO sync_runs (sync, audience, destination, mode, from_version, to_version,
                state, adds, removes, read, pending, created_at, reason, normalised, plan, hold_cause,
                 users_removed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT (sync) WHERE state IN ('active', 'held') DO NOTHING
             RETURNING id",
            (
                &run.sync,
                &run.audience,
                &run.destination,
                run.mode,
                run.from_version,
                run.to_version,
                run_state,
                run.adds,
                run.removes,
                users,
                now,
                run.held.as_ref().map(|hold| hold.reason.as_str()),
                json(&run.normalised)?,
                run.plan.as_deref(),
                run.held.as_ref().map(|hold| hold.cause),
                run.users_removed,
            ),
        )
        .await?;
    let Some(id) = planned else { return Ok(None) };
    let batches = run.batches.len() as u64;
    let task: i64 = tx
        .scalar(
            "INSERT INTO tasks (run, sync, audience, destination, state, priority, not_before,
                batches, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7)
             RETURNING id",
            (
                id,
                &run.sync,
                &run.audience,
                &run.destination,
                task_state,
                run.priority,
                now,
                batches,
            ),
        )
        .await?;
    insert_batches(tx, TaskId(task), &run.batches).await?;
    // Whatever becomes of the run: a failed run must not be planned again without another request.
    delivered::set_requested(tx, &run.sync, false).await?;
    Ok(Some(SyncRunId(id)))
}

async fn insert_batches(tx: &mut Conn, task: TaskId, batches: &[(Operation, u64)]) -> DbResult<()> {
    let mut next_rank = std::collections::HashMap::<Operation, u64>::new();
    let mut rows = Vec::with_capacity(batches.len());
    for (number, (operation, users)) in (0i64..).zip(batches) {
        let rank = next_rank.entry(*operation).or_default();
        rows.push((task, number, *operation, *rank, *users));
        *rank += *users;
    }
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let insert = tx
            .build("INSERT INTO batches (task, number, operation, first_rank, row_count) VALUES ");
        // Most runs are small: their statements stay prepared.
        let insert = insert.rows(chunk.iter().copied()).build(chunk.len() <= 4);
        tx.execute_built(insert).await?;
    }
    Ok(())
}

/// Approves a held run. `account_held`: its account is held too, which releases only runs that are held for nothing else.
pub(super) async fn approve(
    tx: &mut Conn,
    id: SyncRunId,
    account_held: bool,
    now: Timestamp,
) -> DbResult<()> {
    let text = concat!("SELECT ", run_columns!(), ", hold_cause FROM sync_runs WHERE id = $1");
    let found = tx.optional(text, id, held_run_of).await?;
    let (run, cause) = found.ok_or_else(|| LedgerError::not_found("run", id))?;
    let state = match (run.state, cause) {
        (RunState::Held, Some(HoldCause::Guard | HoldCause::Adoption)) if account_held => {
            "held, and its account is held too"
        }
        (RunState::Held, _) => return release(tx, id, now).await,
        (other, _) => other.stored_name(),
    };
    Err(LedgerError::wrong_state("run", id, state, "approved").into())
}

/// Queues the task of a held run.
async fn release(tx: &mut Conn, id: SyncRunId, now: Timestamp) -> DbResult<()> {
    tx.execute(
        "UPDATE sync_runs SET state = 'active', reason = NULL, hold_cause = NULL WHERE id = $1",
        id,
    )
    .await?;
    tx.execute(
        "UPDATE tasks SET state = 'queued', not_before = $2 WHERE run = $1 AND state = 'held'",
        (id, now),
    )
    .await?;
    Ok(())
}

/// A held run, and why it is held, if the cause was recorded.
fn held_run_of(row: &DbRow) -> Result<(SyncRun, Option<HoldCause>)> {
    let cells = Cells::new(row, "run");
    let cause = match cells.maybe_text("hold_cause")? {
        Some(_) => Some(cells.variant("hold_cause")?),
        None => None,
    };
    Ok((run_of(row)?, cause))
}

/// Approves the runs of a destination that are held for their account, or deletes those that are to be planned again.
/// Returns how many there were.
pub(super) async fn approve_all(
    tx: &mut Conn,
    destination: &DestinationName,
    account_reason: Option<&str>,
    now: Timestamp,
) -> DbResult<u64> {
    let text = concat!(
        "SELECT ",
        run_columns!(),
        ", hold_cause FROM sync_runs WHERE destination = $1 AND state = 'held' ORDER BY id"
    );
    let held = tx.all(text, destination, held_run_of).await?;
    let mut approved = 0;
    for (run, cause) in &held {
        let of_account = match cause {
            Some(cause) => *cause == HoldCause::Account,
            None => account_reason
                .zip(run.reason.as_deref())
                .is_some_and(|(account_reason, reason)| reason.contains(account_reason)),
        };
        if !of_account {
            continue;
        }
        approved += 1;
        let unsent = run.plan.is_some() && run.pending == run.read;
        if unsent && delete(tx, run.id).await? {
            // It may have been planned for a request, and the run before it may have failed.
            delivered::set_requested(tx, &run.sync, true).await?;
        } else {
            release(tx, run.id, now).await?;
        }
    }
    Ok(approved)
}

/// Deletes a run of which nothing was sent; `false` if the platform has answered a request of it.
async fn delete(tx: &mut Conn, id: SyncRunId) -> DbResult<bool> {
    let task: i64 = tx.scalar("SELECT id FROM tasks WHERE run = $1", id).await?;
    let answered: i64 = tx.scalar("SELECT count(*) FROM receipts WHERE task = $1", task).await?;
    if answered > 0 {
        return Ok(false);
    }
    for statement in ["DELETE FROM batches WHERE task = $1", "DELETE FROM tasks WHERE id = $1"] {
        tx.execute(statement, task).await?;
    }
    tx.execute("DELETE FROM sync_runs WHERE id = $1", id).await?;
    Ok(true)
}

/// Held runs whose audience serves another version than theirs, each with that version. Without those that an account
/// holds, which may have sent something, and those of paused syncs, which are not planned again.
pub(super) async fn outdated(tx: &mut Conn) -> DbResult<Vec<(SyncRun, u64)>> {
    let text = concat!(
        "SELECT ",
        run_columns!(),
        ", (SELECT current_version FROM audiences WHERE audiences.name = sync_runs.audience)
            AS served
         FROM sync_runs
         WHERE state = 'held' AND hold_cause IN ('guard', 'adoption')
            AND plan IS NOT NULL AND pending = read
            AND NOT EXISTS (SELECT 1 FROM paused_syncs WHERE paused_syncs.sync = sync_runs.sync)
            AND EXISTS (SELECT 1 FROM audiences WHERE audiences.name = sync_runs.audience
                AND audiences.current_version <> sync_runs.to_version)
         ORDER BY id"
    );
    tx.all(text, (), outdated_of).await
}

fn outdated_of(row: &DbRow) -> Result<(SyncRun, u64)> {
    Ok((run_of(row)?, Cells::new(row, "run").number("served")?))
}

/// Deletes the outdated runs of audiences that serve one of these versions, and returns them.
pub(super) async fn discard_outdated(
    tx: &mut Conn,
    served: &HashMap<AudienceName, u64>,
    now: Timestamp,
) -> DbResult<Vec<SyncRun>> {
    let mut discarded = Vec::new();
    for (run, version) in outdated(tx).await? {
        if served.get(&run.audience) != Some(&version) || !delete(tx, run.id).await? {
            continue;
        }
        // It may have been planned for a request, and the run before it may have failed.
        delivered::set_requested(tx, &run.sync, true).await?;
        alerts::resolve(tx, AlertKind::RunHeld, run.sync.as_str(), now).await?;
        let why = format!(
            "run {} to version {} was held; version {version} is served now, to which a run is planned",
            run.id, run.to_version
        );
        tx.execute(
            "INSERT INTO history (subject_kind, subject, what, why, at)
             VALUES ('sync', $1, $2, $3, $4)",
            (&run.sync, HistoryEvent::Cancelled.name(), why, now),
        )
        .await?;
        discarded.push(run);
    }
    Ok(discarded)
}

/// Ended runs whose plans are not in a delivered state.
pub(super) async fn unrecorded(tx: &mut Conn) -> DbResult<Vec<SyncRun>> {
    let text = runs!("WHERE plan IS NOT NULL AND state IN ('completed', 'failed') ORDER BY id");
    tx.all(text, (), run_of).await
}

/// The counts by reason of a run.
pub(super) struct RunReasons {
    pub(super) run: SyncRunId,
    pub(super) skipped: ReasonCounts,
    pub(super) rejected: ReasonCounts,
}

/// Moves the users of a batch from `pending` to `sent`, `skipped` and `rejected`.
pub(super) async fn count_outcome(
    tx: &mut Conn,
    mut reasons: RunReasons,
    outcome: &BatchOutcome,
) -> DbResult<()> {
    add_reasons(&mut reasons.skipped, &outcome.skipped);
    add_reasons(&mut reasons.rejected, &outcome.rejected);
    tx.execute(
        "UPDATE sync_runs SET sent = sent + $2, skipped = skipped + $3, rejected = rejected + $4,
            pending = pending - $2 - $3 - $4, skipped_reasons = $5, rejected_reasons = $6
         WHERE id = $1",
        (
            reasons.run,
            outcome.sent,
            sum_reasons(&outcome.skipped),
            sum_reasons(&outcome.rejected),
            json(&reasons.skipped)?,
            json(&reasons.rejected)?,
        ),
    )
    .await?;
    Ok(())
}

pub(super) async fn fail(
    tx: &mut Conn,
    id: SyncRunId,
    error: &str,
    now: Timestamp,
) -> DbResult<()> {
    tx.execute(
        "UPDATE sync_runs SET state = 'failed', reason = $2, finished_at = $3 WHERE id = $1",
        (id, error, now),
    )
    .await?;
    Ok(())
}

/// Completes a run and records its version as delivered. Its sync must have a platform audience.
pub(super) async fn complete(tx: &mut Conn, id: SyncRunId, now: Timestamp) -> DbResult<()> {
    let text = "UPDATE sync_runs SET state = 'completed', finished_at = $2 WHERE id = $1";
    tx.execute(text, (id, now)).await?;
    let delivered = tx
        .execute(
            "UPDATE platform_audiences SET delivered_at = $2, delivered_version =
                (SELECT to_version FROM sync_runs WHERE id = $1)
             WHERE sync = (SELECT sync FROM sync_runs WHERE id = $1)",
            (id, now),
        )
        .await?;
    if delivered == 0 {
        let state = "without a platform audience";
        return Err(LedgerError::wrong_state("run", id, state, "completed").into());
    }
    Ok(())
}
