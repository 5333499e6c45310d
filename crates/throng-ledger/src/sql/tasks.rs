//! Tasks and their batches: claims, leases, failures, ends.

use throng_model::{SyncRunId, TaskId, Timestamp};

use super::runs;
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{
    BatchOutcome, BatchState, LedgerError, ReasonCounts, Result, StoredEnum, Task, TaskState,
};

/// Sets the time when a task was last enqueued. The column's name has an earlier word for that and
/// stays: migrations only add, so that a node of the previous version can use the ledger during an
/// upgrade, and a renamed column would break its statements.
pub(super) const SET_ENQUEUED_AT: &str = "UPDATE tasks SET announced_at = ";
/// Sets the time when a task's check was last enqueued; named as in [`SET_ENQUEUED_AT`].
pub(super) const SET_CHECK_ENQUEUED_AT: &str = "UPDATE tasks SET check_announced_at = ";

macro_rules! task_columns {
    () => {
        "id, run, sync, audience, destination, state, priority, failures, not_before, holder,
         lease_until, batches, batches_done, last_error, created_at, finished_at"
    };
}

/// The columns that [`task_of`] reads.
pub(super) const COLUMNS: &str = task_columns!();

/// SELECT of tasks, with these clauses.
macro_rules! tasks {
    ($clauses:literal) => {
        concat!("SELECT ", task_columns!(), " FROM tasks ", $clauses)
    };
}

pub(super) fn task_of(row: &DbRow) -> Result<Task> {
    let cells = Cells::new(row, "task");
    Ok(Task {
        id: TaskId(cells.int("id")?),
        run: SyncRunId(cells.int("run")?),
        sync: cells.name("sync")?,
        audience: cells.name("audience")?,
        destination: cells.name("destination")?,
        state: cells.variant("state")?,
        priority: cells.number("priority")?,
        failures: cells.number("failures")?,
        not_before: cells.time("not_before")?,
        holder: cells.maybe_text("holder")?,
        lease_until: cells.maybe_time("lease_until")?,
        batches: cells.number("batches")?,
        batches_done: cells.number("batches_done")?,
        last_error: cells.maybe_text("last_error")?,
        created_at: cells.time("created_at")?,
        finished_at: cells.maybe_time("finished_at")?,
    })
}

fn wrong_state(id: TaskId, state: impl Into<String>, wanted: &'static str) -> LedgerError {
    LedgerError::wrong_state("task", id, state, wanted)
}

pub(super) fn batch_not_found(task: TaskId, number: u32) -> LedgerError {
    LedgerError::not_found("batch", format_args!("{task}/{number}"))
}

pub(super) async fn get(tx: &mut Conn, id: TaskId) -> DbResult<Task> {
    let task = tx.optional(tasks!("WHERE id = $1"), id, task_of).await?;
    Ok(task.ok_or_else(|| LedgerError::not_found("task", id))?)
}

pub(super) async fn of_run(tx: &mut Conn, run: SyncRunId) -> DbResult<Task> {
    let task = tx.optional(tasks!("WHERE run = $1"), run, task_of).await?;
    Ok(task.ok_or_else(|| LedgerError::not_found("task", format_args!("of run {run}")))?)
}

/// One task, if `holder` has its lease; else `LeaseLost`. Writes of a holder call this in their
/// transaction: a worker whose lease was lost must not change a task that another worker has
/// claimed.
pub(super) async fn get_leased_by(tx: &mut Conn, id: TaskId, holder: &str) -> DbResult<Task> {
    let task = get(tx, id).await?;
    if task.holder.as_deref() == Some(holder) {
        Ok(task)
    } else {
        Err(LedgerError::lease_lost("task", id).into())
    }
}

/// Claims a task if it is due and its destination has fewer than `at_most` running tasks.
pub(super) async fn claim(
    tx: &mut Conn,
    id: TaskId,
    holder: &str,
    at_most: u32,
    now: Timestamp,
    lease_until: Timestamp,
) -> DbResult<Option<Task>> {
    let text = concat!(
        "UPDATE tasks SET state = 'running', holder = $2, lease_until = $4
         WHERE id = $1 AND due_at <= $3 AND sync NOT IN (SELECT sync FROM paused_syncs)
           AND (SELECT count(*) FROM tasks AS other
                WHERE other.state = 'running' AND other.lease_until > $3
                  AND other.destination = tasks.destination) < $5
         RETURNING ",
        task_columns!()
    );
    Ok(tx.all(text, (id, holder, now, lease_until, at_most), task_of).await?.pop())
}

/// The due tasks to enqueue. A task is due again when its backoff ends or its lease expires: it is
/// then enqueued even if it was enqueued after `before`, because that message was already consumed.
pub(super) async fn to_enqueue(
    tx: &mut Conn,
    before: Timestamp,
    now: Timestamp,
    at_most: u32,
    limit: u32,
) -> DbResult<Vec<Task>> {
    let text = concat!(
        "SELECT ",
        task_columns!(),
        " FROM (SELECT *, row_number() OVER (PARTITION BY destination
                                             ORDER BY priority DESC, id) AS place
                FROM tasks WHERE due_at IS NOT NULL AND due_at <= $1
                    AND sync NOT IN (SELECT sync FROM paused_syncs)) AS due
          WHERE place <= $4
            AND (announced_at IS NULL OR announced_at < $2 OR announced_at < due_at)
          ORDER BY priority DESC, id LIMIT $3"
    );
    tx.all(text, (now, before, limit, at_most), task_of).await
}

/// Sets the time when tasks were enqueued, in statements of up to [`ROWS_PER_STATEMENT`] tasks.
/// `update`: the statement up to the time.
pub(super) async fn set_time(
    tx: &mut Conn,
    update: &'static str,
    ids: &[TaskId],
    at: Timestamp,
) -> DbResult<()> {
    for ids in ids.chunks(ROWS_PER_STATEMENT) {
        let update = tx.build(update).values(at).push(" WHERE id IN (").values(ids).push(")");
        let update = update.build(true);
        tx.execute_built(update).await?;
    }
    Ok(())
}

pub(super) async fn unchecked_task(tx: &mut Conn, id: TaskId) -> DbResult<Option<Task>> {
    tx.optional(tasks!("WHERE id = $1 AND unchecked_since IS NOT NULL"), id, task_of).await
}

pub(super) async fn checks_to_enqueue(
    tx: &mut Conn,
    before: Timestamp,
    limit: u32,
) -> DbResult<Vec<Task>> {
    let text = tasks!(
        "WHERE unchecked_since IS NOT NULL
            AND (check_announced_at IS NULL OR check_announced_at < $1)
         ORDER BY unchecked_since, id LIMIT $2"
    );
    tx.all(text, (before, limit), task_of).await
}

pub(super) async fn list(tx: &mut Conn, limit: u32) -> DbResult<Vec<Task>> {
    let open = tasks!(
        "WHERE state IN ('running', 'queued', 'held')
         ORDER BY CASE state WHEN 'running' THEN 0 ELSE 1 END, priority DESC, not_before, id
         LIMIT $1"
    );
    let mut tasks = tx.all(open, limit, task_of).await?;
    let ended = tasks!("WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT $1");
    let left = u64::from(limit).saturating_sub(tasks.len() as u64);
    tasks.extend(tx.all(ended, left, task_of).await?);
    Ok(tasks)
}

pub(super) async fn unchecked(tx: &mut Conn, limit: u32) -> DbResult<Vec<Task>> {
    let text = tasks!("WHERE unchecked_since IS NOT NULL ORDER BY unchecked_since, id LIMIT $1");
    tx.all(text, limit, task_of).await
}

/// A batch before its outcome, with the counts by reason of its run.
struct OpenBatch {
    state: BatchState,
    rows: u64,
    reasons: runs::RunReasons,
}

fn open_batch_of(row: &DbRow) -> Result<OpenBatch> {
    let cells = Cells::new(row, "batch");
    let reasons = runs::RunReasons {
        run: SyncRunId(cells.int("run")?),
        skipped: cells.json::<ReasonCounts>("skipped_reasons")?,
        rejected: cells.json("rejected_reasons")?,
    };
    Ok(OpenBatch { state: cells.variant("state")?, rows: cells.number("row_count")?, reasons })
}

/// Marks a batch done and resets the task's failures. Returns the run's counts by reason without
/// this batch; `None` if the batch was already done.
pub(super) async fn finish_batch(
    tx: &mut Conn,
    task: TaskId,
    holder: &str,
    number: u32,
    outcome: &BatchOutcome,
) -> DbResult<Option<runs::RunReasons>> {
    // One statement for all that is needed, because this is called for every batch.
    let text = "SELECT t.run, b.row_count, b.state, r.skipped_reasons, r.rejected_reasons
         FROM tasks t JOIN sync_runs r ON r.id = t.run JOIN batches b ON b.task = t.id
         WHERE t.id = $1 AND t.holder = $2 AND b.number = $3";
    let batch = tx.optional(text, (task, holder, number), open_batch_of).await?;
    let Some(batch) = batch else {
        get_leased_by(tx, task, holder).await?;
        return Err(batch_not_found(task, number).into());
    };
    if batch.state == BatchState::Done {
        return Ok(None);
    }
    let (rows, users) = (batch.rows, outcome.users());
    if users != rows {
        let why = format!("batch {task}/{number} has {rows} users, but the outcome has {users}");
        return Err(LedgerError::refused("outcome", why).into());
    }
    let (skipped, rejected) = (json(&outcome.skipped)?, json(&outcome.rejected)?);
    let refused = (!outcome.refused.is_empty()).then(|| json(&outcome.refused)).transpose()?;
    tx.execute(
        "UPDATE batches SET state = 'done', sent = $3, skipped_reasons = $4, rejected_reasons = $5,
            refused = $6
         WHERE task = $1 AND number = $2",
        (task, number, outcome.sent, skipped, rejected, refused),
    )
    .await?;
    let text = "UPDATE tasks SET batches_done = batches_done + 1, failures = 0 WHERE id = $1";
    tx.execute(text, task).await?;
    Ok(Some(batch.reasons))
}

/// Queues a task again after a failed try.
pub(super) async fn retry(
    tx: &mut Conn,
    id: TaskId,
    error: &str,
    retry_at: Timestamp,
    counts: bool,
) -> DbResult<Task> {
    let text = concat!(
        "UPDATE tasks SET state = 'queued', holder = NULL, lease_until = NULL, not_before = $2,
            last_error = $3, failures = failures + $4
         WHERE id = $1 RETURNING ",
        task_columns!()
    );
    tx.one(text, (id, retry_at, error, counts), task_of).await
}

/// Fails a task for good.
pub(super) async fn give_up(
    tx: &mut Conn,
    id: TaskId,
    error: &str,
    counts: bool,
    now: Timestamp,
) -> DbResult<Task> {
    let text = concat!(
        "UPDATE tasks SET state = 'failed', holder = NULL, lease_until = NULL, finished_at = $2,
            last_error = $3, failures = failures + $4
         WHERE id = $1 RETURNING ",
        task_columns!()
    );
    tx.one(text, (id, now, error, counts), task_of).await
}

pub(super) async fn release(tx: &mut Conn, id: TaskId, now: Timestamp) -> DbResult<()> {
    tx.execute(
        "UPDATE tasks SET state = 'queued', holder = NULL, lease_until = NULL, not_before = $2
         WHERE id = $1",
        (id, now),
    )
    .await?;
    Ok(())
}

pub(super) async fn complete(tx: &mut Conn, task: &Task, now: Timestamp) -> DbResult<()> {
    if task.batches_done != task.batches {
        let state = format!("at batch {} of {}", task.batches_done, task.batches);
        return Err(wrong_state(task.id, state, "completed").into());
    }
    tx.execute(
        "UPDATE tasks SET state = 'done', holder = NULL, lease_until = NULL, finished_at = $2
         WHERE id = $1",
        (task.id, now),
    )
    .await?;
    Ok(())
}

pub(super) async fn requeue(tx: &mut Conn, id: TaskId, now: Timestamp) -> DbResult<()> {
    let task = get(tx, id).await?;
    if task.state != TaskState::Failed {
        return Err(wrong_state(id, task.state.stored_name(), "requeued").into());
    }
    // A newer run was planned from the version that was delivered before this one. To continue this
    // one now would undo the newer run.
    let text = "SELECT id FROM sync_runs WHERE sync = $1 AND id > $2 LIMIT 1";
    if let Some(newer) = tx.maybe_scalar::<i64>(text, (&task.sync, task.run)).await? {
        let state = format!("failed and replaced by run {newer} of its sync");
        return Err(wrong_state(id, state, "requeued").into());
    }
    tx.execute(
        "UPDATE sync_runs SET state = 'active', finished_at = NULL, reason = NULL WHERE id = $1",
        task.run,
    )
    .await?;
    tx.execute(
        "UPDATE tasks SET state = 'queued', finished_at = NULL, failures = 0, not_before = $2
         WHERE id = $1",
        (id, now),
    )
    .await?;
    Ok(())
}
