//! Runs, tasks, batches, receipts and checks in SQL. Changes of tasks are in `tasks`, the planning
//! and the counts of runs in `runs`.

use async_trait::async_trait;
use throng_model::{DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use super::{Backend, DbRow, delivered, read_one, read_tx, runs, tasks, write_one, write_tx};
use crate::rows::{Cells, SqlEnum, count, json};
use crate::{
    Batch, BatchOutcome, BatchState, Check, DeliveredRecord, ForeignAudience, HoldCause,
    LedgerError, NewRun, PlatformAudience, Receipt, Result, RunState, SyncLedger, SyncRun, Task,
    TaskState, Verdict,
};

fn batch_of(row: &DbRow) -> Result<Batch> {
    let cells = Cells::new(row, "batch");
    let state = cells.variant("state")?;
    let outcome = match state {
        BatchState::Pending => None,
        BatchState::Done => Some(BatchOutcome {
            sent: cells.number("sent")?,
            skipped: cells.json("skipped_reasons")?,
            rejected: cells.json("rejected_reasons")?,
            refused: cells.maybe_json("refused")?.unwrap_or_default(),
        }),
    };
    Ok(Batch {
        number: cells.number("number")?,
        operation: cells.variant("operation")?,
        first_rank: cells.number("first_rank")?,
        rows: cells.number("row_count")?,
        state,
        outcome,
    })
}

fn receipt_of(row: &DbRow) -> Result<Receipt> {
    let cells = Cells::new(row, "receipt");
    Ok(Receipt {
        task: TaskId(cells.int("task")?),
        batch: cells.number("batch")?,
        operation: cells.variant("operation")?,
        rows: cells.number("row_count")?,
        received: cells.number("received")?,
        invalid: cells.number("invalid")?,
        invalid_reasons: cells.json("invalid_reasons")?,
        http_status: cells.number("http_status")?,
        error_code: cells.maybe_int("error_code")?,
        platform_ref: cells.maybe_text("platform_ref")?,
        at: cells.time("at")?,
    })
}

fn check_of(row: &DbRow) -> Result<Check> {
    let cells = Cells::new(row, "check");
    Ok(Check {
        run: SyncRunId(cells.int("run")?),
        task: TaskId(cells.int("task")?),
        verdict: cells.variant("verdict")?,
        reasons: cells.json("reasons")?,
        at: cells.time("at")?,
    })
}

fn platform_audience_of(row: &DbRow) -> Result<PlatformAudience> {
    let cells = Cells::new(row, "platform audience");
    Ok(PlatformAudience {
        platform_id: cells.text("platform_id")?,
        delivered_version: cells.maybe_number("delivered_version")?,
        delivered_at: cells.maybe_time("delivered_at")?,
    })
}

#[async_trait]
impl SyncLedger for Backend {
    async fn plan_run(&self, run: &NewRun, now: Timestamp) -> Result<Option<SyncRunId>> {
        write_tx!(self, Relaxed, "planning a run", |tx| { runs::plan(tx, run, now).await? })
    }

    async fn run(&self, id: SyncRunId) -> Result<SyncRun> {
        read_one!(self, "reading a run", |tx| runs::get(tx, id).await?)
    }

    async fn runs(&self, sync: Option<&SyncName>, limit: u32) -> Result<Vec<SyncRun>> {
        read_one!(self, "reading the runs", |tx| { runs::newest(tx, sync, limit).await? })
    }

    async fn incomplete_syncs(&self) -> Result<Vec<(SyncName, RunState)>> {
        read_one!(self, "reading the incomplete syncs", |tx| {
            let rows = sqlx::query(
                "SELECT sync, state FROM sync_runs WHERE state IN ('active', 'held')
                 UNION ALL
                 SELECT sync, state FROM sync_runs failed WHERE state = 'failed' AND id =
                    (SELECT max(id) FROM sync_runs newest WHERE newest.sync = failed.sync)
                 ORDER BY sync",
            )
            .fetch_all(tx)
            .await?;
            let mut incomplete_syncs = Vec::with_capacity(rows.len());
            for row in &rows {
                let cells = Cells::new(row, "run");
                incomplete_syncs.push((cells.name("sync")?, cells.variant("state")?));
            }
            incomplete_syncs
        })
    }

    async fn approve_run(&self, id: SyncRunId, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "approving a run", |tx| { runs::approve(tx, id, now).await? })
    }

    async fn claim_task(
        &self,
        id: TaskId,
        holder: &str,
        at_most: u32,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Task>> {
        // A serializable transaction: otherwise two concurrent claims would each count the running
        // tasks without the other's, and the destination would have more than `at_most`.
        write_tx!(self, Relaxed, "claiming a task", |tx| {
            tasks::claim(tx, id, holder, at_most, now, lease_until).await?
        })
    }

    async fn tasks_to_enqueue(
        &self,
        before: Timestamp,
        now: Timestamp,
        at_most: u32,
        limit: u32,
    ) -> Result<Vec<Task>> {
        read_one!(self, "selecting tasks to enqueue", |tx| {
            tasks::to_enqueue(tx, before, now, at_most, limit).await?
        })
    }

    async fn mark_tasks_enqueued(&self, ids: &[TaskId], now: Timestamp) -> Result<()> {
        // Not in a transaction: it would lock many tasks for a long time while workers claim and
        // end them. A task that is not marked is only enqueued again.
        write_one!(self, Relaxed, "marking enqueued tasks", |tx| {
            tasks::set_time(tx, tasks::ENQUEUED_AT, ids, now).await?;
        })
    }

    async fn checks_to_enqueue(&self, before: Timestamp, limit: u32) -> Result<Vec<Task>> {
        read_one!(self, "selecting checks to enqueue", |tx| {
            tasks::checks_to_enqueue(tx, before, limit).await?
        })
    }

    async fn unchecked_task(&self, id: TaskId) -> Result<Option<Task>> {
        read_one!(self, "reading a task", |tx| tasks::unchecked_task(tx, id).await?)
    }

    async fn mark_checks_enqueued(&self, ids: &[TaskId], now: Timestamp) -> Result<()> {
        // Not in a transaction, as above.
        write_one!(self, Relaxed, "marking enqueued checks", |tx| {
            tasks::set_time(tx, tasks::CHECK_ENQUEUED_AT, ids, now).await?;
        })
    }

    async fn expire_leases(&self, now: Timestamp) -> Result<u64> {
        write_tx!(self, Relaxed, "ending the leases of a dead process", |tx| {
            let tasks = sqlx::query("UPDATE tasks SET lease_until = $1 WHERE state = 'running'")
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
            let refreshes =
                sqlx::query("UPDATE refreshes SET lease_until = $1 WHERE state = 'processing'")
                    .bind(now.0)
                    .execute(&mut *tx)
                    .await?;
            sqlx::query("UPDATE refresh_parts SET lease_until = NULL").execute(&mut *tx).await?;
            sqlx::query("UPDATE sync_removals SET lease_until = NULL").execute(tx).await?;
            tasks.rows_affected() + refreshes.rows_affected()
        })
    }

    async fn renew_task_lease(
        &self,
        id: TaskId,
        holder: &str,
        lease_until: Timestamp,
    ) -> Result<()> {
        write_one!(self, Relaxed, "renewing a task's lease", |tx| {
            let renewed =
                sqlx::query("UPDATE tasks SET lease_until = $3 WHERE id = $1 AND holder = $2")
                    .bind(id.0)
                    .bind(holder)
                    .bind(lease_until.0)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected();
            if renewed == 0 {
                // Returns `NotFound` or `LeaseLost`.
                tasks::get_leased_by(tx, id, holder).await?;
            }
        })
    }

    async fn task(&self, id: TaskId) -> Result<Task> {
        read_one!(self, "reading a task", |tx| tasks::get(tx, id).await?)
    }

    async fn task_of_run(&self, run: SyncRunId) -> Result<Task> {
        read_one!(self, "reading the task of a run", |tx| tasks::of_run(tx, run).await?)
    }

    async fn tasks(&self, limit: u32) -> Result<Vec<Task>> {
        read_tx!(self, "reading the tasks", |tx| { tasks::list(tx, limit).await? })
    }

    async fn open_batches(&self) -> Result<u64> {
        read_one!(self, "counting the open batches", |tx| {
            let row = sqlx::query(
                "SELECT CAST(coalesce(sum(batches - batches_done), 0) AS BIGINT) AS n FROM tasks
                 WHERE state IN ('queued', 'running', 'held')",
            )
            .fetch_one(tx)
            .await?;
            Cells::new(&row, "count of batches").number("n")?
        })
    }

    async fn task_counts(&self) -> Result<Vec<(TaskState, u64)>> {
        read_one!(self, "counting the tasks", |tx| {
            let rows = sqlx::query("SELECT state, count(*) AS tasks FROM tasks GROUP BY state")
                .fetch_all(tx)
                .await?;
            let mut counts: Vec<(TaskState, u64)> =
                TaskState::VARIANTS.iter().map(|(state, _)| (*state, 0)).collect();
            for row in &rows {
                let cells = Cells::new(row, "task");
                let state: TaskState = cells.variant("state")?;
                let tasks = cells.number("tasks")?;
                for entry in counts.iter_mut().filter(|entry| entry.0 == state) {
                    entry.1 = tasks;
                }
            }
            counts
        })
    }

    async fn batches(&self, task: TaskId) -> Result<Vec<Batch>> {
        read_one!(self, "reading the batches of a task", |tx| {
            let rows = sqlx::query(
                "SELECT number, operation, first_rank, row_count, state, sent, skipped_reasons,
                    rejected_reasons, refused
                 FROM batches WHERE task = $1 ORDER BY number",
            )
            .bind(task.0)
            .fetch_all(tx)
            .await?;
            rows.iter().map(batch_of).collect::<Result<_>>()?
        })
    }

    async fn add_receipt(&self, receipt: &Receipt) -> Result<()> {
        write_one!(self, Relaxed, "storing a receipt", |tx| {
            let stored = sqlx::query(
                "INSERT INTO receipts (task, batch, operation, row_count, received, invalid,
                    invalid_reasons, http_status, error_code, platform_ref, at)
                 SELECT task, number, $3, $4, $5, $6, $7, $8, $9, $10, $11
                 FROM batches WHERE task = $1 AND number = $2",
            )
            .bind(receipt.task.0)
            .bind(i64::from(receipt.batch))
            .bind(receipt.operation.sql_name())
            .bind(count(receipt.rows))
            .bind(count(receipt.received))
            .bind(count(receipt.invalid))
            .bind(json(&receipt.invalid_reasons)?)
            .bind(i64::from(receipt.http_status))
            .bind(receipt.error_code)
            .bind(receipt.platform_ref.as_deref())
            .bind(receipt.at.0)
            .execute(tx)
            .await?
            .rows_affected();
            if stored == 0 {
                return Err(tasks::batch_not_found(receipt.task, receipt.batch).into());
            }
        })
    }

    async fn receipts(&self, task: TaskId) -> Result<Vec<Receipt>> {
        read_one!(self, "reading the receipts of a task", |tx| {
            let rows = sqlx::query(
                "SELECT task, batch, operation, row_count, received, invalid, invalid_reasons,
                    http_status, error_code, platform_ref, at
                 FROM receipts WHERE task = $1 ORDER BY id",
            )
            .bind(task.0)
            .fetch_all(tx)
            .await?;
            rows.iter().map(receipt_of).collect::<Result<_>>()?
        })
    }

    async fn finish_batch(
        &self,
        task: TaskId,
        holder: &str,
        number: u32,
        outcome: &BatchOutcome,
    ) -> Result<()> {
        write_tx!(self, Relaxed, "finishing a batch", |tx| {
            if let Some(reasons) = tasks::finish_batch(tx, task, holder, number, outcome).await? {
                runs::count_outcome(tx, reasons, outcome).await?;
            }
        })
    }

    async fn fail_task(
        &self,
        id: TaskId,
        holder: &str,
        error: &str,
        retry_at: Option<Timestamp>,
        count: bool,
        now: Timestamp,
    ) -> Result<Task> {
        write_tx!(self, Relaxed, "recording a failed task", |tx| {
            let task = tasks::get_leased_by(tx, id, holder).await?;
            match retry_at {
                Some(at) => tasks::retry(tx, task.id, error, at, count).await?,
                None => {
                    runs::fail(tx, task.run, error, now).await?;
                    tasks::give_up(tx, task.id, error, count, now).await?
                }
            }
        })
    }

    async fn release_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Relaxed, "releasing a task", |tx| {
            tasks::get_leased_by(tx, id, holder).await?;
            sqlx::query(
                "UPDATE tasks SET state = 'queued', holder = NULL, lease_until = NULL,
                    not_before = $2
                 WHERE id = $1",
            )
            .bind(id.0)
            .bind(now.0)
            .execute(tx)
            .await?;
        })
    }

    async fn complete_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "completing a task", |tx| {
            let task = tasks::get_leased_by(tx, id, holder).await?;
            tasks::complete(tx, &task, now).await?;
            runs::complete(tx, task.run, now).await?;
        })
    }

    async fn requeue_task(&self, id: TaskId, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "requeueing a task", |tx| { tasks::requeue(tx, id, now).await? })
    }

    async fn platform_audience(&self, sync: &SyncName) -> Result<Option<PlatformAudience>> {
        read_one!(self, "reading a platform's audience", |tx| {
            let row = sqlx::query(
                "SELECT platform_id, delivered_version, delivered_at
                 FROM platform_audiences WHERE sync = $1",
            )
            .bind(sync.as_str())
            .fetch_optional(tx)
            .await?;
            row.as_ref().map(platform_audience_of).transpose()?
        })
    }

    async fn put_platform_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
    ) -> Result<PlatformAudience> {
        write_tx!(self, Full, "recording a platform's audience", |tx| {
            sqlx::query(
                "INSERT INTO platform_audiences (sync, platform_id) VALUES ($1, $2)
                 ON CONFLICT (sync) DO NOTHING",
            )
            .bind(sync.as_str())
            .bind(platform_id)
            .execute(&mut *tx)
            .await?;
            delivered::delete_foreign(tx, sync).await?;
            let row = sqlx::query(
                "SELECT platform_id, delivered_version, delivered_at
                 FROM platform_audiences WHERE sync = $1",
            )
            .bind(sync.as_str())
            .fetch_one(tx)
            .await?;
            platform_audience_of(&row)?
        })
    }

    async fn put_foreign_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
        run: SyncRunId,
    ) -> Result<()> {
        delivered::put_foreign(self, sync, platform_id, run).await
    }

    async fn foreign_audiences(&self) -> Result<Vec<ForeignAudience>> {
        delivered::foreign(self).await
    }

    async fn delivered(&self) -> Result<Vec<(SyncName, PlatformAudience)>> {
        read_one!(self, "reading the delivered versions", |tx| {
            let rows = sqlx::query(
                "SELECT sync, platform_id, delivered_version, delivered_at
                 FROM platform_audiences ORDER BY sync",
            )
            .fetch_all(tx)
            .await?;
            let mut delivered = Vec::with_capacity(rows.len());
            for row in &rows {
                let sync = Cells::new(row, "platform audience").name("sync")?;
                delivered.push((sync, platform_audience_of(row)?));
            }
            delivered
        })
    }

    async fn delivered_records(&self) -> Result<Vec<DeliveredRecord>> {
        delivered::all(self).await
    }

    async fn put_delivered_record(
        &self,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<()> {
        delivered::put(self, record, recorded).await
    }

    async fn unrecorded_runs(&self) -> Result<Vec<SyncRun>> {
        read_one!(self, "reading runs to record", |tx| runs::unrecorded(tx).await?)
    }

    async fn record_delivered_version(
        &self,
        sync: &SyncName,
        version: u64,
        now: Timestamp,
    ) -> Result<()> {
        delivered::version(self, sync, version, now).await
    }

    async fn forget_delivered(&self, sync: &SyncName, reason: &str, now: Timestamp) -> Result<()> {
        delivered::forget(self, sync, reason, now).await
    }

    async fn put_check(&self, check: &Check) -> Result<()> {
        write_tx!(self, Relaxed, "storing a check", |tx| {
            let marked = sqlx::query("UPDATE tasks SET checked = 1 WHERE id = $1 AND run = $2")
                .bind(check.task.0)
                .bind(check.run.0)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if marked == 0 {
                return Err(LedgerError::NotFound {
                    what: "task",
                    name: format!("{} of run {}", check.task, check.run),
                }
                .into());
            }
            sqlx::query(
                "INSERT INTO checks (task, run, verdict, reasons, at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (task) DO UPDATE SET verdict = excluded.verdict,
                    reasons = excluded.reasons, at = excluded.at",
            )
            .bind(check.task.0)
            .bind(check.run.0)
            .bind(check.verdict.sql_name())
            .bind(json(&check.reasons)?)
            .bind(check.at.0)
            .execute(tx)
            .await?;
        })
    }

    async fn verdicts(
        &self,
        destination: &DestinationName,
        after: Timestamp,
        limit: u32,
    ) -> Result<Vec<Verdict>> {
        read_one!(self, "reading verdicts", |tx| {
            let rows = sqlx::query(
                "SELECT checks.verdict FROM checks JOIN tasks ON tasks.id = checks.task
                 WHERE tasks.destination = $1 AND checks.at > $2
                 ORDER BY checks.at DESC, checks.task DESC LIMIT $3",
            )
            .bind(destination.as_str())
            .bind(after.0)
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?;
            let mut verdicts = Vec::with_capacity(rows.len());
            for row in &rows {
                verdicts.push(Cells::new(row, "check").variant("verdict")?);
            }
            verdicts
        })
    }

    async fn hold_destination(&self, destination: &DestinationName, reason: &str) -> Result<u64> {
        write_tx!(self, Full, "holding an account's tasks", |tx| {
            sqlx::query(
                "UPDATE sync_runs SET state = 'held', reason = $2, hold_cause = $3
                 WHERE state = 'active' AND id IN
                    (SELECT run FROM tasks WHERE destination = $1 AND state = 'queued')",
            )
            .bind(destination.as_str())
            .bind(reason)
            .bind(HoldCause::Account.sql_name())
            .execute(&mut *tx)
            .await?;
            let held = sqlx::query(
                "UPDATE tasks SET state = 'held' WHERE destination = $1 AND state = 'queued'",
            )
            .bind(destination.as_str())
            .execute(&mut *tx)
            .await?;
            held.rows_affected()
        })
    }

    async fn approve_destination(
        &self,
        destination: &DestinationName,
        account_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<u64> {
        write_tx!(self, Full, "approving an account's runs", |tx| {
            runs::approve_all(tx, destination, account_reason, now).await?
        })
    }

    async fn check_of(&self, task: TaskId) -> Result<Option<Check>> {
        read_one!(self, "reading a check", |tx| {
            let row =
                sqlx::query("SELECT task, run, verdict, reasons, at FROM checks WHERE task = $1")
                    .bind(task.0)
                    .fetch_optional(tx)
                    .await?;
            row.as_ref().map(check_of).transpose()?
        })
    }

    async fn checks(&self, limit: u32) -> Result<Vec<Check>> {
        read_one!(self, "reading the checks", |tx| {
            let rows = sqlx::query(
                "SELECT task, run, verdict, reasons, at FROM checks
                 ORDER BY at DESC, task DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?;
            rows.iter().map(check_of).collect::<Result<_>>()?
        })
    }

    async fn unchecked_tasks(&self, limit: u32) -> Result<Vec<Task>> {
        read_one!(self, "reading the unchecked tasks", |tx| { tasks::unchecked(tx, limit).await? })
    }
}
