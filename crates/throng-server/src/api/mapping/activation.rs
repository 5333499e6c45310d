//! Syncs, runs, tasks, batches, receipts, checks, sizes and removals.

use std::time::Duration;

use throng_api::{
    ActivationBatch, ActivationBatchState, ActivationCheck, ActivationMode, ActivationOperation,
    ActivationOutcome, ActivationReceipt, ActivationRun, ActivationRunState, ActivationTask,
    ActivationTaskProgress, ActivationTaskState, ActivationVerdict, SyncRemovalRule, SyncSize,
};
use throng_model::{SyncMode, Timestamp};
use throng_store::{
    Batch, BatchOutcome, BatchState, Check, Operation, Receipt, RemovalRule, RunState, SizeRecord,
    SyncRun, Task, TaskState, Verdict,
};

pub(in crate::api) fn mode(mode: SyncMode) -> ActivationMode {
    match mode {
        SyncMode::Mirror => ActivationMode::Mirror,
        SyncMode::Add => ActivationMode::Add,
        SyncMode::Replace => ActivationMode::Replace,
    }
}

fn operation(operation: Operation) -> ActivationOperation {
    match operation {
        Operation::Add => ActivationOperation::Add,
        Operation::Remove => ActivationOperation::Remove,
        Operation::Replace => ActivationOperation::Replace,
    }
}

/// Without the object of the plan, which is internal.
pub(in crate::api) fn run(row: SyncRun) -> ActivationRun {
    ActivationRun {
        id: row.id,
        sync: row.sync,
        audience: row.audience,
        destination: row.destination,
        mode: mode(row.mode),
        from_version: row.from_version,
        to_version: row.to_version,
        state: match row.state {
            RunState::Active => ActivationRunState::Active,
            RunState::Completed => ActivationRunState::Completed,
            RunState::Failed => ActivationRunState::Failed,
            RunState::Held => ActivationRunState::Held,
        },
        adds: row.adds,
        removes: row.removes,
        read: row.read,
        sent: row.sent,
        skipped: row.skipped,
        rejected: row.rejected,
        pending: row.pending,
        created_at: row.created_at,
        finished_at: row.finished_at,
        reason: row.reason,
        normalised: row.normalised,
    }
}

pub(in crate::api) fn task_state(state: TaskState) -> ActivationTaskState {
    match state {
        TaskState::Queued => ActivationTaskState::Queued,
        TaskState::Running => ActivationTaskState::Running,
        TaskState::Done => ActivationTaskState::Done,
        TaskState::Failed => ActivationTaskState::Failed,
        TaskState::Held => ActivationTaskState::Held,
    }
}

pub(in crate::api) fn task(row: Task) -> ActivationTask {
    ActivationTask {
        id: row.id,
        run: row.run,
        sync: row.sync,
        audience: row.audience,
        destination: row.destination,
        state: task_state(row.state),
        priority: row.priority,
        failures: row.failures,
        not_before: row.not_before,
        holder: row.holder,
        lease_until: row.lease_until,
        batches: row.batches,
        batches_done: row.batches_done,
        last_error: row.last_error,
        created_at: row.created_at,
        finished_at: row.finished_at,
    }
}

/// The estimated remaining time of a task, at its speed so far; none while there is no estimate.
pub(crate) fn task_eta(task: &Task, now: Timestamp) -> Option<Duration> {
    let (done, all) = (f64::from(task.batches_done), f64::from(task.batches));
    let is_started = task.state == TaskState::Running && task.batches_done > 0;
    (is_started && done < all).then(|| now.since(task.created_at).mul_f64((all - done) / done))
}

pub(in crate::api) fn task_progress(row: Task, now: Timestamp) -> ActivationTaskProgress {
    let (done, all) = (f64::from(row.batches_done), f64::from(row.batches));
    let eta_seconds = task_eta(&row, now).map(|left| left.as_secs());
    let progress = if row.state == TaskState::Done { 1.0 } else { done / all.max(1.0) };
    ActivationTaskProgress { task: task(row), progress, eta_seconds }
}

pub(in crate::api) fn batch(row: Batch) -> ActivationBatch {
    ActivationBatch {
        number: row.number,
        operation: operation(row.operation),
        first_rank: row.first_rank,
        rows: row.rows,
        state: match row.state {
            BatchState::Pending => ActivationBatchState::Pending,
            BatchState::Done => ActivationBatchState::Done,
        },
        outcome: row.outcome.map(outcome),
    }
}

fn outcome(outcome: BatchOutcome) -> ActivationOutcome {
    ActivationOutcome {
        sent: outcome.sent,
        skipped: outcome.skipped,
        rejected: outcome.rejected,
        refused: outcome.refused,
    }
}

pub(in crate::api) fn receipt(row: Receipt) -> ActivationReceipt {
    ActivationReceipt {
        task: row.task,
        batch: row.batch,
        operation: operation(row.operation),
        rows: row.rows,
        received: row.received,
        invalid: row.invalid,
        invalid_reasons: row.invalid_reasons,
        http_status: row.http_status,
        error_code: row.error_code,
        platform_ref: row.platform_ref,
        at: row.at,
    }
}

pub(in crate::api) fn verdict(verdict: Verdict) -> ActivationVerdict {
    match verdict {
        Verdict::Passed => ActivationVerdict::Passed,
        Verdict::Suspect => ActivationVerdict::Suspect,
        Verdict::Failed => ActivationVerdict::Failed,
    }
}

pub(in crate::api) fn check(row: Check) -> ActivationCheck {
    ActivationCheck {
        run: row.run,
        task: row.task,
        verdict: verdict(row.verdict),
        reasons: row.reasons,
        at: row.at,
    }
}

pub(in crate::api) fn size(row: SizeRecord) -> SyncSize {
    SyncSize {
        sync: row.sync,
        account: row.account,
        platform_id: row.platform_id,
        at: row.at,
        lower: row.lower,
        upper: row.upper,
        delivered: row.delivered,
        settling: row.settling,
    }
}

pub(in crate::api) fn removal_rule(rule: RemovalRule) -> SyncRemovalRule {
    match rule {
        RemovalRule::Empty => SyncRemovalRule::Empty,
        RemovalRule::Delete => SyncRemovalRule::Delete,
    }
}
