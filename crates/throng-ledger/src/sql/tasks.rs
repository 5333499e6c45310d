//! Tasks and their batches: claims, leases, failures, ends.

use sqlx::{AssertSqlSafe, Row};
use throng_model::{SyncRunId, TaskId, Timestamp};

use super::{Conn, DbResult, DbRow, ROWS_PER_INSERT, runs};
use crate::rows::{Cells, SqlEnum, count, json};
use crate::{BatchOutcome, BatchState, LedgerError, Result, Task, TaskState};

/// The column of the time when a task was last enqueued. Its name has an earlier word for that and
/// stays: migrations only add, so that a node of the previous version can use the ledger during an
/// upgrade, and a renamed column would break its statements.
pub(super) const ENQUEUED_AT: &str = "announced_at";
/// The column of the time when a task's check was last enqueued; named as [`ENQUEUED_AT`].
pub(super) const CHECK_ENQUEUED_AT: &str = "check_announced_at";

macro_rules! task_columns {
    () => {
        "id, run, sync, audience, destination, state, priority, failures, not_before, holder,
         lease_until, batches, batches_done, last_error, created_at, finished_at"
    };
}

fn task_of(row: &DbRow) -> Result<Task> {
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

fn tasks_of(rows: &[DbRow]) -> Result<Vec<Task>> {
    rows.iter().map(task_of).collect()
}

fn wrong_state(id: TaskId, state: impl Into<String>, wanted: &'static str) -> LedgerError {
    LedgerError::WrongState { what: "task", name: id.to_string(), state: state.into(), wanted }
}

pub(super) fn batch_not_found(task: TaskId, number: u32) -> LedgerError {
    LedgerError::NotFound { what: "batch", name: format!("{task}/{number}") }
}

pub(super) async fn get(tx: &mut Conn, id: TaskId) -> DbResult<Task> {
    let row = sqlx::query(concat!("SELECT ", task_columns!(), " FROM tasks WHERE id = $1"))
        .bind(id.0)
        .fetch_optional(tx)
        .await?;
    let row = row.ok_or_else(|| LedgerError::NotFound { what: "task", name: id.to_string() })?;
    Ok(task_of(&row)?)
}

pub(super) async fn of_run(tx: &mut Conn, run: SyncRunId) -> DbResult<Task> {
    let row = sqlx::query(concat!("SELECT ", task_columns!(), " FROM tasks WHERE run = $1"))
        .bind(run.0)
        .fetch_optional(tx)
        .await?;
    let name = || format!("of run {run}");
    let row = row.ok_or_else(|| LedgerError::NotFound { what: "task", name: name() })?;
    Ok(task_of(&row)?)
}

/// One task, if `holder` has its lease; else `LeaseLost`. Writes of a holder call this in their
/// transaction: a worker whose lease was lost must not change a task that another worker has
/// claimed.
pub(super) async fn get_leased_by(tx: &mut Conn, id: TaskId, holder: &str) -> DbResult<Task> {
    let task = get(tx, id).await?;
    if task.holder.as_deref() == Some(holder) {
        Ok(task)
    } else {
        Err(LedgerError::LeaseLost { what: "task", name: id.to_string() }.into())
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
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'running', holder = $2, lease_until = $4
         WHERE id = $1 AND due_at <= $3 AND sync NOT IN (SELECT sync FROM paused_syncs)
           AND (SELECT count(*) FROM tasks AS other
                WHERE other.state = 'running' AND other.lease_until > $3
                  AND other.destination = tasks.destination) < $5
         RETURNING ",
        task_columns!()
    ))
    .bind(id.0)
    .bind(holder)
    .bind(now.0)
    .bind(lease_until.0)
    .bind(i64::from(at_most))
    .fetch_all(tx)
    .await?;
    Ok(rows.first().map(task_of).transpose()?)
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
    let rows = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM (SELECT *, row_number() OVER (PARTITION BY destination
                                             ORDER BY priority DESC, id) AS place
                FROM tasks WHERE due_at IS NOT NULL AND due_at <= $1
                    AND sync NOT IN (SELECT sync FROM paused_syncs)) AS due
          WHERE place <= $4
            AND (announced_at IS NULL OR announced_at < $2 OR announced_at < due_at)
          ORDER BY priority DESC, id LIMIT $3"
    ))
    .bind(now.0)
    .bind(before.0)
    .bind(i64::from(limit))
    .bind(i64::from(at_most))
    .fetch_all(tx)
    .await?;
    Ok(tasks_of(&rows)?)
}

/// Sets a column of many tasks to a time, in statements of up to [`ROWS_PER_INSERT`] tasks.
pub(super) async fn set_time(
    tx: &mut Conn,
    column: &'static str,
    ids: &[TaskId],
    at: Timestamp,
) -> DbResult<()> {
    for ids in ids.chunks(ROWS_PER_INSERT) {
        let places: Vec<String> = (2..2 + ids.len()).map(|n| format!("${n}")).collect();
        // The text contains only one of the column names above and placeholders.
        let text = format!("UPDATE tasks SET {column} = $1 WHERE id IN ({})", places.join(", "));
        let mut update = sqlx::query(AssertSqlSafe(text)).bind(at.0);
        for id in ids {
            update = update.bind(id.0);
        }
        update.execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn unchecked_task(tx: &mut Conn, id: TaskId) -> DbResult<Option<Task>> {
    let row = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE id = $1 AND unchecked_since IS NOT NULL"
    ))
    .bind(id.0)
    .fetch_optional(tx)
    .await?;
    Ok(row.as_ref().map(task_of).transpose()?)
}

pub(super) async fn checks_to_enqueue(
    tx: &mut Conn,
    before: Timestamp,
    limit: u32,
) -> DbResult<Vec<Task>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE unchecked_since IS NOT NULL
            AND (check_announced_at IS NULL OR check_announced_at < $1)
          ORDER BY unchecked_since, id LIMIT $2"
    ))
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await?;
    Ok(tasks_of(&rows)?)
}

pub(super) async fn list(tx: &mut Conn, limit: u32) -> DbResult<Vec<Task>> {
    let open = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE state IN ('running', 'queued', 'held')
         ORDER BY CASE state WHEN 'running' THEN 0 ELSE 1 END, priority DESC, not_before, id
         LIMIT $1"
    ))
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    let mut tasks = tasks_of(&open)?;
    let ended = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT $1"
    ))
    .bind(i64::from(limit) - count(tasks.len() as u64))
    .fetch_all(tx)
    .await?;
    tasks.extend(tasks_of(&ended)?);
    Ok(tasks)
}

pub(super) async fn unchecked(tx: &mut Conn, limit: u32) -> DbResult<Vec<Task>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE unchecked_since IS NOT NULL ORDER BY unchecked_since, id LIMIT $1"
    ))
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await?;
    Ok(tasks_of(&rows)?)
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
    let row = sqlx::query(
        "SELECT t.run, b.row_count, b.state, r.skipped_reasons, r.rejected_reasons
         FROM tasks t JOIN sync_runs r ON r.id = t.run JOIN batches b ON b.task = t.id
         WHERE t.id = $1 AND t.holder = $2 AND b.number = $3",
    )
    .bind(task.0)
    .bind(holder)
    .bind(i64::from(number))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        get_leased_by(tx, task, holder).await?;
        return Err(batch_not_found(task, number).into());
    };
    let cells = Cells::new(&row, "batch");
    if cells.variant::<BatchState>("state")? == BatchState::Done {
        return Ok(None);
    }
    let reasons = runs::RunReasons {
        run: SyncRunId(cells.int("run")?),
        skipped: cells.json("skipped_reasons")?,
        rejected: cells.json("rejected_reasons")?,
    };
    let rows: u64 = cells.number("row_count")?;
    let users = runs::users_in(outcome);
    if users != rows {
        return Err(LedgerError::Refused {
            what: "outcome",
            why: format!("batch {task}/{number} has {rows} users, but the outcome has {users}"),
        }
        .into());
    }
    sqlx::query(
        "UPDATE batches SET state = 'done', sent = $3, skipped_reasons = $4, rejected_reasons = $5,
            refused = $6
         WHERE task = $1 AND number = $2",
    )
    .bind(task.0)
    .bind(i64::from(number))
    .bind(count(outcome.sent))
    .bind(json(&outcome.skipped)?)
    .bind(json(&outcome.rejected)?)
    .bind((!outcome.refused.is_empty()).then(|| json(&outcome.refused)).transpose()?)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE tasks SET batches_done = batches_done + 1, failures = 0 WHERE id = $1")
        .bind(task.0)
        .execute(tx)
        .await?;
    Ok(Some(reasons))
}

/// Queues a task again after a failed try.
pub(super) async fn retry(
    tx: &mut Conn,
    id: TaskId,
    error: &str,
    retry_at: Timestamp,
    counts: bool,
) -> DbResult<Task> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'queued', holder = NULL, lease_until = NULL, not_before = $2,
            last_error = $3, failures = failures + $4
         WHERE id = $1 RETURNING ",
        task_columns!()
    ))
    .bind(id.0)
    .bind(retry_at.0)
    .bind(error)
    .bind(i64::from(counts))
    .fetch_one(tx)
    .await?;
    Ok(task_of(&row)?)
}

/// Fails a task for good.
pub(super) async fn give_up(
    tx: &mut Conn,
    id: TaskId,
    error: &str,
    counts: bool,
    now: Timestamp,
) -> DbResult<Task> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'failed', holder = NULL, lease_until = NULL, finished_at = $2,
            last_error = $3, failures = failures + $4
         WHERE id = $1 RETURNING ",
        task_columns!()
    ))
    .bind(id.0)
    .bind(now.0)
    .bind(error)
    .bind(i64::from(counts))
    .fetch_one(tx)
    .await?;
    Ok(task_of(&row)?)
}

pub(super) async fn complete(tx: &mut Conn, task: &Task, now: Timestamp) -> DbResult<()> {
    if task.batches_done != task.batches {
        let state = format!("at batch {} of {}", task.batches_done, task.batches);
        return Err(wrong_state(task.id, state, "completed").into());
    }
    sqlx::query(
        "UPDATE tasks SET state = 'done', holder = NULL, lease_until = NULL, finished_at = $2
         WHERE id = $1",
    )
    .bind(task.id.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn requeue(tx: &mut Conn, id: TaskId, now: Timestamp) -> DbResult<()> {
    let task = get(tx, id).await?;
    if task.state != TaskState::Failed {
        return Err(wrong_state(id, task.state.sql_name(), "requeued").into());
    }
    // A newer run was planned from the version that was delivered before this one. To continue this
    // one now would undo the newer run.
    let newer = sqlx::query("SELECT id FROM sync_runs WHERE sync = $1 AND id > $2 LIMIT 1")
        .bind(task.sync.as_str())
        .bind(task.run.0)
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(newer) = newer {
        let newer: i64 = newer.try_get(0)?;
        let state = format!("failed and replaced by run {newer} of its sync");
        return Err(wrong_state(id, state, "requeued").into());
    }
    sqlx::query(
        "UPDATE sync_runs SET state = 'active', finished_at = NULL, reason = NULL WHERE id = $1",
    )
    .bind(task.run.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE tasks SET state = 'queued', finished_at = NULL, failures = 0, not_before = $2
         WHERE id = $1",
    )
    .bind(id.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}
