//! Syncs, runs, tasks, batches, receipts, checks, sizes and removals.

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

/// The mode of a sync.
pub fn mode(mode: SyncMode) -> ActivationMode {
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

/// What is wrong with a completed run of which rows were rejected and none was accepted.
fn rejected_reason(row: &SyncRun) -> Option<String> {
    let rejected = row.rejected.values().sum::<u64>();
    let is_rejected = row.state == RunState::Completed && row.sent == 0 && rejected > 0;
    is_rejected.then(|| format!("none of its rows was accepted: {rejected} were rejected"))
}

/// A run, without the object of the plan, which is internal.
pub fn run(row: SyncRun) -> ActivationRun {
    let rejected = rejected_reason(&row);
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
        reason: row.reason.or(rejected),
        normalised: row.normalised,
    }
}

/// The state of a task.
pub fn task_state(state: TaskState) -> ActivationTaskState {
    match state {
        TaskState::Queued => ActivationTaskState::Queued,
        TaskState::Running => ActivationTaskState::Running,
        TaskState::Done => ActivationTaskState::Done,
        TaskState::Failed => ActivationTaskState::Failed,
        TaskState::Held => ActivationTaskState::Held,
    }
}

/// A task.
pub fn task(row: Task) -> ActivationTask {
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

/// A task with its progress.
pub fn task_progress(row: Task, now: Timestamp) -> ActivationTaskProgress {
    let (done, all) = (f64::from(row.batches_done), f64::from(row.batches));
    let progress = if row.state == TaskState::Done { 1.0 } else { done / all.max(1.0) };
    let task = task(row);
    let eta_seconds = task.remaining_time(now).map(|left| left.as_secs());
    ActivationTaskProgress { task, progress, eta_seconds }
}

/// A batch of a task.
pub fn batch(row: Batch) -> ActivationBatch {
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

/// The response of a platform to one request.
pub fn receipt(row: Receipt) -> ActivationReceipt {
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

/// The verdict of a check.
pub fn verdict(verdict: Verdict) -> ActivationVerdict {
    match verdict {
        Verdict::Passed => ActivationVerdict::Passed,
        Verdict::Suspect => ActivationVerdict::Suspect,
        Verdict::Failed => ActivationVerdict::Failed,
    }
}

/// The check of a task.
pub fn check(row: Check) -> ActivationCheck {
    ActivationCheck {
        run: row.run,
        task: row.task,
        verdict: verdict(row.verdict),
        reasons: row.reasons,
        at: row.at,
    }
}

/// The size of an audience on a platform.
pub fn size(row: SizeRecord) -> SyncSize {
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

/// What happens to the audience of a removed sync.
pub fn removal_rule(rule: RemovalRule) -> SyncRemovalRule {
    match rule {
        RemovalRule::Empty => SyncRemovalRule::Empty,
        RemovalRule::Delete => SyncRemovalRule::Delete,
    }
}
