//! Runs: planning, counts, ends. `read = sent + skipped + rejected + pending` is a CHECK constraint
//! of the table, so that no statement here can break it.

use sqlx::QueryBuilder;
use throng_model::{DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use super::{Conn, Db, DbResult, DbRow, ROWS_PER_INSERT, pauses};
use crate::rows::{Cells, SqlEnum, count, json};
use crate::{
    BatchOutcome, HoldCause, LedgerError, NewRun, Operation, ReasonCounts, Result, RunState,
    SyncRun, TaskState,
};

macro_rules! run_columns {
    () => {
        "id, sync, audience, destination, mode, from_version, to_version, state, adds, removes,
         read, sent, skipped_reasons, rejected_reasons, pending, created_at, finished_at, reason,
         normalised, plan, users_removed"
    };
}

fn run_of(row: &DbRow) -> Result<SyncRun> {
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
    let row = sqlx::query(concat!("SELECT ", run_columns!(), " FROM sync_runs WHERE id = $1"))
        .bind(id.0)
        .fetch_optional(tx)
        .await?;
    let row = row.ok_or_else(|| LedgerError::NotFound { what: "run", name: id.to_string() })?;
    Ok(run_of(&row)?)
}

pub(super) async fn newest(
    tx: &mut Conn,
    sync: Option<&SyncName>,
    limit: u32,
) -> DbResult<Vec<SyncRun>> {
    // Two statements, so that each uses its index.
    let rows = match sync {
        Some(sync) => {
            sqlx::query(concat!(
                "SELECT ",
                run_columns!(),
                " FROM sync_runs WHERE sync = $1 ORDER BY id DESC LIMIT $2"
            ))
            .bind(sync.as_str())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?
        }
        None => {
            sqlx::query(concat!(
                "SELECT ",
                run_columns!(),
                " FROM sync_runs ORDER BY id DESC LIMIT $1"
            ))
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?
        }
    };
    Ok(rows.iter().map(run_of).collect::<Result<_>>()?)
}

/// The number of users of a run. Fails with `Refused` if its batches and its counts do not agree.
fn users_of(run: &NewRun) -> Result<u64> {
    let refuse = |why: String| LedgerError::Refused {
        what: "run",
        why: format!("sync {}: {why}", run.sync),
    };
    let users = run.adds.checked_add(run.removes);
    let mut in_batches = 0u64;
    for (_, rows) in &run.batches {
        in_batches = in_batches.saturating_add(*rows);
    }
    match users {
        Some(users) if users == in_batches && i64::try_from(users).is_ok() => Ok(users),
        _ => Err(refuse(format!(
            "its batches have {in_batches} users, but it has {} to add and {} to remove",
            run.adds, run.removes
        ))),
    }
}

pub(super) async fn plan(
    tx: &mut Conn,
    run: &NewRun,
    now: Timestamp,
) -> DbResult<Option<SyncRunId>> {
    let users = users_of(run)?;
    if pauses::is_paused(tx, &run.sync).await? {
        return Ok(None);
    }
    let (run_state, task_state) = match &run.held {
        Some(_) => (RunState::Held, TaskState::Held),
        None => (RunState::Active, TaskState::Queued),
    };
    let planned: Option<i64> = sqlx::query_scalar(
        "INSERT INTO sync_runs (sync, audience, destination, mode, from_version, to_version, state,
            adds, removes, read, pending, created_at, reason, normalised, plan, hold_cause,
            users_removed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, $14, $15, $16)
         ON CONFLICT (sync) WHERE state IN ('active', 'held') DO NOTHING
         RETURNING id",
    )
    .bind(run.sync.as_str())
    .bind(run.audience.as_str())
    .bind(run.destination.as_str())
    .bind(run.mode.sql_name())
    .bind(run.from_version.map(count))
    .bind(count(run.to_version))
    .bind(run_state.sql_name())
    .bind(count(run.adds))
    .bind(count(run.removes))
    .bind(count(users))
    .bind(now.0)
    .bind(run.held.as_ref().map(|hold| hold.reason.as_str()))
    .bind(json(&run.normalised)?)
    .bind(run.plan.as_deref())
    .bind(run.held.as_ref().map(|hold| hold.cause.sql_name()))
    .bind(count(run.users_removed))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(id) = planned else { return Ok(None) };
    let task: i64 = sqlx::query_scalar(
        "INSERT INTO tasks (run, sync, audience, destination, state, priority, not_before, batches,
            created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7)
         RETURNING id",
    )
    .bind(id)
    .bind(run.sync.as_str())
    .bind(run.audience.as_str())
    .bind(run.destination.as_str())
    .bind(task_state.sql_name())
    .bind(i64::from(run.priority))
    .bind(now.0)
    .bind(count(run.batches.len() as u64))
    .fetch_one(&mut *tx)
    .await?;
    insert_batches(tx, TaskId(task), &run.batches).await?;
    Ok(Some(SyncRunId(id)))
}

async fn insert_batches(tx: &mut Conn, task: TaskId, batches: &[(Operation, u64)]) -> DbResult<()> {
    let mut next_rank = std::collections::HashMap::<Operation, u64>::new();
    let mut numbered = Vec::with_capacity(batches.len());
    for (number, (operation, rows)) in (0i64..).zip(batches) {
        let rank = next_rank.entry(*operation).or_default();
        numbered.push((number, *operation, *rank, *rows));
        *rank += *rows;
    }
    for chunk in numbered.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::<Db>::new(
            "INSERT INTO batches (task, number, operation, first_rank, row_count) ",
        );
        insert.push_values(chunk, |mut row, (number, operation, first_rank, rows)| {
            row.push_bind(task.0)
                .push_bind(*number)
                .push_bind(operation.sql_name())
                .push_bind(count(*first_rank))
                .push_bind(count(*rows));
        });
        // Most runs are small: their statements stay prepared.
        let common = chunk.len() <= 4;
        insert.build().persistent(common).execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn approve(tx: &mut Conn, id: SyncRunId, now: Timestamp) -> DbResult<()> {
    let run = get(tx, id).await?;
    if run.state != RunState::Held {
        return Err(LedgerError::WrongState {
            what: "run",
            name: id.to_string(),
            state: run.state.sql_name().to_owned(),
            wanted: "approved",
        }
        .into());
    }
    sqlx::query(
        "UPDATE sync_runs SET state = 'active', reason = NULL, hold_cause = NULL WHERE id = $1",
    )
    .bind(id.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE tasks SET state = 'queued', not_before = $2 WHERE run = $1 AND state = 'held'",
    )
    .bind(id.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Why a run is held, if the cause was recorded.
fn hold_cause_of(row: &DbRow) -> Result<Option<HoldCause>> {
    let cells = Cells::new(row, "run");
    match cells.maybe_text("hold_cause")? {
        Some(_) => cells.variant("hold_cause").map(Some),
        None => Ok(None),
    }
}

/// Approves all held runs of a destination, or deletes those that are to be planned again. Returns
/// how many there were.
pub(super) async fn approve_all(
    tx: &mut Conn,
    destination: &DestinationName,
    account_reason: Option<&str>,
    now: Timestamp,
) -> DbResult<u64> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        run_columns!(),
        ", hold_cause FROM sync_runs WHERE destination = $1 AND state = 'held' ORDER BY id"
    ))
    .bind(destination.as_str())
    .fetch_all(&mut *tx)
    .await?;
    for row in &rows {
        let run = run_of(row)?;
        let of_account = match hold_cause_of(row)? {
            Some(cause) => cause == HoldCause::Account,
            None => account_reason
                .zip(run.reason.as_deref())
                .is_some_and(|(account_reason, reason)| reason.contains(account_reason)),
        };
        let unsent = run.plan.is_some() && run.pending == run.read;
        if !(of_account && unsent && delete(tx, run.id).await?) {
            approve(tx, run.id, now).await?;
        }
    }
    Ok(rows.len() as u64)
}

/// Deletes a run of which nothing was sent; `false` if the platform has answered a request of it.
async fn delete(tx: &mut Conn, id: SyncRunId) -> DbResult<bool> {
    let task: i64 = sqlx::query_scalar("SELECT id FROM tasks WHERE run = $1")
        .bind(id.0)
        .fetch_one(&mut *tx)
        .await?;
    let answered: i64 = sqlx::query_scalar("SELECT count(*) FROM receipts WHERE task = $1")
        .bind(task)
        .fetch_one(&mut *tx)
        .await?;
    if answered > 0 {
        return Ok(false);
    }
    for statement in ["DELETE FROM batches WHERE task = $1", "DELETE FROM tasks WHERE id = $1"] {
        sqlx::query(statement).bind(task).execute(&mut *tx).await?;
    }
    sqlx::query("DELETE FROM sync_runs WHERE id = $1").bind(id.0).execute(tx).await?;
    Ok(true)
}

/// Ended runs whose plans are not in a delivered state.
pub(super) async fn unrecorded(tx: &mut Conn) -> DbResult<Vec<SyncRun>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        run_columns!(),
        " FROM sync_runs WHERE plan IS NOT NULL AND state IN ('completed', 'failed') ORDER BY id"
    ))
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(run_of).collect::<Result<_>>()?)
}

fn total(reasons: &ReasonCounts) -> u64 {
    reasons.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// The number of users of an outcome.
pub(super) fn users_in(outcome: &BatchOutcome) -> u64 {
    outcome.sent.saturating_add(total(&outcome.skipped)).saturating_add(total(&outcome.rejected))
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
    merge(&mut reasons.skipped, &outcome.skipped);
    merge(&mut reasons.rejected, &outcome.rejected);
    sqlx::query(
        "UPDATE sync_runs SET sent = sent + $2, skipped = skipped + $3, rejected = rejected + $4,
            pending = pending - $2 - $3 - $4, skipped_reasons = $5, rejected_reasons = $6
         WHERE id = $1",
    )
    .bind(reasons.run.0)
    .bind(count(outcome.sent))
    .bind(count(total(&outcome.skipped)))
    .bind(count(total(&outcome.rejected)))
    .bind(json(&reasons.skipped)?)
    .bind(json(&reasons.rejected)?)
    .execute(tx)
    .await?;
    Ok(())
}

fn merge(into: &mut ReasonCounts, from: &ReasonCounts) {
    for (reason, n) in from {
        let sum = into.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}

pub(super) async fn fail(
    tx: &mut Conn,
    id: SyncRunId,
    error: &str,
    now: Timestamp,
) -> DbResult<()> {
    sqlx::query(
        "UPDATE sync_runs SET state = 'failed', reason = $2, finished_at = $3 WHERE id = $1",
    )
    .bind(id.0)
    .bind(error)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Completes a run and records its version as delivered. Its sync must have a platform audience.
pub(super) async fn complete(tx: &mut Conn, id: SyncRunId, now: Timestamp) -> DbResult<()> {
    sqlx::query("UPDATE sync_runs SET state = 'completed', finished_at = $2 WHERE id = $1")
        .bind(id.0)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
    let delivered = sqlx::query(
        "UPDATE platform_audiences SET delivered_at = $2, delivered_version =
            (SELECT to_version FROM sync_runs WHERE id = $1)
         WHERE sync = (SELECT sync FROM sync_runs WHERE id = $1)",
    )
    .bind(id.0)
    .bind(now.0)
    .execute(tx)
    .await?
    .rows_affected();
    if delivered == 0 {
        return Err(LedgerError::WrongState {
            what: "run",
            name: id.to_string(),
            state: "without a platform audience".to_owned(),
            wanted: "completed",
        }
        .into());
    }
    Ok(())
}
