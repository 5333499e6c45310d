//! Runs, tasks, batches, receipts and checks in SQL. Changes of tasks are in `tasks`, the planning
//! and the counts of runs in `runs`.

use std::collections::HashMap;

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use super::delivered::platform_audiences;
use super::{delivered, runs, tasks};
use crate::backend::{Backend, SqlLedger, read_one, read_tx, write_one, write_tx};
use crate::rows::{Cells, DbRow, json};
use crate::{
    Batch, BatchOutcome, BatchState, Check, DeliveredRecord, ForeignAudience, HoldCause,
    LedgerError, NewRun, PlanBase, PlanOutcome, PlatformAudience, Receipt, Result, RunState,
    StoredEnum, SyncLedger, SyncRun, Task, TaskState, Verdict,
};

/// SELECT of checks, with these clauses.
macro_rules! checks {
    ($clauses:literal) => {
        concat!("SELECT task, run, verdict, reasons, at FROM checks ", $clauses)
    };
}

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

pub(super) fn check_of(row: &DbRow) -> Result<Check> {
    let cells = Cells::new(row, "check");
    Ok(Check {
        run: SyncRunId(cells.int("run")?),
        task: TaskId(cells.int("task")?),
        verdict: cells.variant("verdict")?,
        reasons: cells.json("reasons")?,
        at: cells.time("at")?,
    })
}

fn delivered_of(row: &DbRow) -> Result<(SyncName, PlatformAudience)> {
    Ok((Cells::new(row, "platform audience").name("sync")?, delivered::platform_audience_of(row)?))
}

fn incomplete_of(row: &DbRow) -> Result<(SyncName, RunState)> {
    let cells = Cells::new(row, "run");
    Ok((cells.name("sync")?, cells.variant("state")?))
}

pub(super) fn count_of(row: &DbRow) -> Result<(TaskState, u64)> {
    let cells = Cells::new(row, "task");
    Ok((cells.variant("state")?, cells.number("tasks")?))
}

/// The counts of all states; 0 of those that are not among the found ones.
pub(super) fn every_state(found: &[(TaskState, u64)]) -> Vec<(TaskState, u64)> {
    let count = |state| found.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    TaskState::VARIANTS.iter().map(|(state, _)| (*state, count(*state))).collect()
}

#[async_trait]
impl<B: Backend> SyncLedger for SqlLedger<B> {
    async fn plan_run(&self, run: &NewRun, now: Timestamp) -> Result<Option<SyncRunId>> {
        write_tx!(self, Relaxed, "planning a run", |tx| { runs::plan(tx, run, now).await? })
    }

    async fn plan_run_from(
        &self,
        run: &NewRun,
        base: &PlanBase,
        now: Timestamp,
    ) -> Result<PlanOutcome> {
        write_tx!(self, Relaxed, "planning a run", |tx| {
            runs::plan_from(tx, run, base, now).await?
        })
    }

    async fn run(&self, id: SyncRunId) -> Result<SyncRun> {
        read_one!(self, "reading a run", |tx| runs::get(tx, id).await?)
    }

    async fn runs(&self, sync: Option<&SyncName>, limit: u32) -> Result<Vec<SyncRun>> {
        read_one!(self, "reading the runs", |tx| { runs::newest(tx, sync, limit).await? })
    }

    async fn incomplete_syncs(&self) -> Result<Vec<(SyncName, RunState)>> {
        read_one!(self, "reading the incomplete syncs", |tx| {
            let text = "SELECT sync, state FROM sync_runs WHERE state IN ('active', 'held')
                 UNION ALL
                 SELECT sync, state FROM sync_runs failed WHERE state = 'failed' AND id =
                    (SELECT max(id) FROM sync_runs newest WHERE newest.sync = failed.sync)
                 ORDER BY sync";
            tx.all(text, (), incomplete_of).await?
        })
    }

    async fn approve_run(&self, id: SyncRunId, account_held: bool, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "approving a run", |tx| {
            runs::approve(tx, id, account_held, now).await?
        })
    }

    async fn discard_outdated_runs(
        &self,
        served: &HashMap<AudienceName, u64>,
        now: Timestamp,
    ) -> Result<Vec<SyncRun>> {
        let outdated = read_one!(self, "reading outdated runs", |tx| runs::outdated(tx).await?)?;
        // Nearly always: a writing transaction would wait for others.
        if outdated.is_empty() {
            return Ok(Vec::new());
        }
        write_tx!(self, Full, "discarding outdated runs", |tx| {
            runs::discard_outdated(tx, served, now).await?
        })
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
            tasks::set_time(tx, tasks::SET_ENQUEUED_AT, ids, now).await?;
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
            tasks::set_time(tx, tasks::SET_CHECK_ENQUEUED_AT, ids, now).await?;
        })
    }

    async fn expire_leases(&self, now: Timestamp) -> Result<u64> {
        write_tx!(self, Relaxed, "ending the leases of a dead process", |tx| {
            let text = "UPDATE tasks SET lease_until = $1 WHERE state = 'running'";
            let tasks = tx.execute(text, now).await?;
            let text = "UPDATE refreshes SET lease_until = $1 WHERE state = 'processing'";
            let refreshes = tx.execute(text, now).await?;
            tx.execute("UPDATE refresh_parts SET lease_until = NULL", ()).await?;
            tx.execute("UPDATE sync_removals SET lease_until = NULL", ()).await?;
            tx.execute("UPDATE store_writes SET lease_until = NULL", ()).await?;
            tasks + refreshes
        })
    }

    async fn renew_task_lease(
        &self,
        id: TaskId,
        holder: &str,
        lease_until: Timestamp,
    ) -> Result<()> {
        write_one!(self, Relaxed, "renewing a task's lease", |tx| {
            let text = "UPDATE tasks SET lease_until = $3 WHERE id = $1 AND holder = $2";
            if tx.execute(text, (id, holder, lease_until)).await? == 0 {
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
            let text =
                "SELECT CAST(coalesce(sum(batches - batches_done), 0) AS BIGINT) AS n FROM tasks
                 WHERE state IN ('queued', 'running', 'held')";
            tx.one(text, (), |row| Cells::new(row, "count of batches").number("n")).await?
        })
    }

    async fn task_counts(&self) -> Result<Vec<(TaskState, u64)>> {
        read_one!(self, "counting the tasks", |tx| {
            let text = "SELECT state, count(*) AS tasks FROM tasks GROUP BY state";
            every_state(&tx.all(text, (), count_of).await?)
        })
    }

    async fn batches(&self, task: TaskId) -> Result<Vec<Batch>> {
        read_one!(self, "reading the batches of a task", |tx| {
            let text =
                "SELECT number, operation, first_rank, row_count, state, sent, skipped_reasons,
                    rejected_reasons, refused
                 FROM batches WHERE task = $1 ORDER BY number";
            tx.all(text, task, batch_of).await?
        })
    }

    async fn add_receipt(&self, receipt: &Receipt) -> Result<()> {
        write_one!(self, Relaxed, "storing a receipt", |tx| {
            let stored = tx
                .execute(
                    "INSERT INTO receipts (task, batch, operation, row_count, received, invalid,
                        invalid_reasons, http_status, error_code, platform_ref, at)
                     SELECT task, number, $3, $4, $5, $6, $7, $8, $9, $10, $11
                     FROM batches WHERE task = $1 AND number = $2",
                    (
                        receipt.task,
                        receipt.batch,
                        receipt.operation,
                        receipt.rows,
                        receipt.received,
                        receipt.invalid,
                        json(&receipt.invalid_reasons)?,
                        receipt.http_status,
                        receipt.error_code,
                        receipt.platform_ref.as_deref(),
                        receipt.at,
                    ),
                )
                .await?;
            if stored == 0 {
                return Err(tasks::batch_not_found(receipt.task, receipt.batch).into());
            }
        })
    }

    async fn receipts(&self, task: TaskId) -> Result<Vec<Receipt>> {
        read_one!(self, "reading the receipts of a task", |tx| {
            let text =
                "SELECT task, batch, operation, row_count, received, invalid, invalid_reasons,
                    http_status, error_code, platform_ref, at
                 FROM receipts WHERE task = $1 ORDER BY id";
            tx.all(text, task, receipt_of).await?
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
            tasks::release(tx, id, now).await?;
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
        read_one!(self, "reading a platform's audience", |tx| delivered::platform_audience(
            tx, sync
        )
        .await?)
    }

    async fn put_platform_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
    ) -> Result<PlatformAudience> {
        write_tx!(self, Full, "recording a platform's audience", |tx| {
            tx.execute(
                "INSERT INTO platform_audiences (sync, platform_id) VALUES ($1, $2)
                 ON CONFLICT (sync) DO NOTHING",
                (sync, platform_id),
            )
            .await?;
            delivered::delete_foreign(tx, sync).await?;
            tx.one(platform_audiences!("WHERE sync = $1"), sync, delivered::platform_audience_of)
                .await?
        })
    }

    async fn put_foreign_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
        run: SyncRunId,
    ) -> Result<()> {
        write_tx!(self, Full, "recording a foreign audience", |tx| {
            delivered::put_foreign(tx, sync, platform_id, run).await?
        })
    }

    async fn foreign_audiences(&self) -> Result<Vec<ForeignAudience>> {
        read_one!(self, "reading the foreign audiences", |tx| delivered::foreign(tx).await?)
    }

    async fn delivered(&self) -> Result<Vec<(SyncName, PlatformAudience)>> {
        read_one!(self, "reading the delivered versions", |tx| {
            tx.all(platform_audiences!("ORDER BY sync"), (), delivered_of).await?
        })
    }

    async fn delivered_records(&self) -> Result<Vec<DeliveredRecord>> {
        read_one!(self, "reading the delivered states", |tx| delivered::all(tx).await?)
    }

    async fn delivered_record(&self, sync: &SyncName) -> Result<Option<DeliveredRecord>> {
        read_one!(self, "reading a delivered state", |tx| delivered::one(tx, sync).await?)
    }

    async fn put_delivered_record(
        &self,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<()> {
        write_tx!(self, Full, "recording a delivered state", |tx| {
            delivered::put(tx, record, recorded).await?
        })
    }

    async fn replace_delivered_record(
        &self,
        before: Option<&DeliveredRecord>,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<bool> {
        write_tx!(self, Full, "replacing a delivered state", |tx| {
            delivered::replace(tx, before, record, recorded).await?
        })
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
        write_tx!(self, Full, "recording a delivered version", |tx| {
            delivered::version(tx, sync, version, now).await?
        })
    }

    async fn forget_delivered(&self, sync: &SyncName, reason: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "forgetting a delivered state", |tx| {
            delivered::forget(tx, sync, reason, now).await?
        })
    }

    async fn put_check(&self, check: &Check) -> Result<()> {
        write_tx!(self, Relaxed, "storing a check", |tx| {
            let text = "UPDATE tasks SET checked = 1 WHERE id = $1 AND run = $2";
            if tx.execute(text, (check.task, check.run)).await? == 0 {
                let name = format!("{} of run {}", check.task, check.run);
                return Err(LedgerError::not_found("task", name).into());
            }
            let reasons = json(&check.reasons)?;
            tx.execute(
                "INSERT INTO checks (task, run, verdict, reasons, at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (task) DO UPDATE SET verdict = excluded.verdict,
                    reasons = excluded.reasons, at = excluded.at",
                (check.task, check.run, check.verdict, reasons, check.at),
            )
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
            let text = "SELECT checks.verdict FROM checks JOIN tasks ON tasks.id = checks.task
                 WHERE tasks.destination = $1 AND checks.at > $2
                 ORDER BY checks.at DESC, checks.task DESC LIMIT $3";
            let verdict_of = |row: &DbRow| Cells::new(row, "check").variant("verdict");
            tx.all(text, (destination, after, limit), verdict_of).await?
        })
    }

    async fn hold_destination(&self, destination: &DestinationName, reason: &str) -> Result<u64> {
        write_tx!(self, Full, "holding an account's tasks", |tx| {
            tx.execute(
                "UPDATE sync_runs SET state = 'held', reason = $2, hold_cause = $3
                 WHERE state = 'active' AND id IN
                    (SELECT run FROM tasks WHERE destination = $1 AND state = 'queued')",
                (destination, reason, HoldCause::Account),
            )
            .await?;
            let text =
                "UPDATE tasks SET state = 'held' WHERE destination = $1 AND state = 'queued'";
            tx.execute(text, destination).await?
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
            tx.optional(checks!("WHERE task = $1"), task, check_of).await?
        })
    }

    async fn checks(&self, limit: u32) -> Result<Vec<Check>> {
        read_one!(self, "reading the checks", |tx| {
            tx.all(checks!("ORDER BY at DESC, task DESC LIMIT $1"), limit, check_of).await?
        })
    }

    async fn unchecked_tasks(&self, limit: u32) -> Result<Vec<Task>> {
        read_one!(self, "reading the unchecked tasks", |tx| { tasks::unchecked(tx, limit).await? })
    }
}
