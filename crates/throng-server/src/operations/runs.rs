//! Operations on runs and tasks.

use throng_model::{SyncName, SyncRunId, TaskId};
use throng_store::{AlertKind, HistoryEvent, RunState, SubjectKind, SyncRun, Task};

use super::{OperationError, Record, Result, syncs};
use crate::{Change, NodeContext};

/// Approves a held run.
pub(crate) async fn approve(ctx: &NodeContext, id: SyncRunId, actor: &str) -> Result<SyncRun> {
    let now = ctx.clock.now();
    ctx.ledger.approve_run(id, now).await?;
    let run = ctx.ledger.run(id).await?;
    ctx.ledger.resolve_alert(AlertKind::RunHeld, run.sync.as_str(), now).await?;
    let why = format!("run {id} with {} removals was approved", run.removes);
    syncs::finish(ctx, &run.sync, actor, HistoryEvent::Approved, why).await?;
    Ok(run)
}

/// Approves all held runs of a destination; returns how many. Runs that are held because of failed checks of
/// the account and have sent nothing are planned again, because the cause may be in their identifiers.
pub(crate) async fn approve_destination(ctx: &NodeContext, name: &str, actor: &str) -> Result<u64> {
    let spec = ctx.spec.load_full();
    let found = spec.destinations.iter().find(|destination| destination.name.as_str() == name);
    let Some(destination) = found else {
        let message = format!("no destination `{name}` in the applied spec");
        return Err(OperationError::not_found(message));
    };
    let name = &destination.name;
    let now = ctx.clock.now();
    let subject = throng_activation::account_alert_subject(name);
    let reason = throng_activation::failed_checks_reason(name);
    // First, because the planner holds new runs while this alert is open.
    ctx.ledger.resolve_alert(AlertKind::RunHeld, &subject, now).await?;
    let incomplete_syncs = ctx.ledger.incomplete_syncs().await?;
    let held = incomplete_syncs.into_iter().filter(|(_, state)| *state == RunState::Held);
    let held: Vec<SyncName> = held
        .map(|(sync, _)| sync)
        .filter(|held| spec.syncs.iter().any(|s| s.name == *held && s.destination == *name))
        .collect();
    let approved = ctx.ledger.approve_destination(name, Some(&reason), now).await?;
    for sync in &held {
        ctx.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
    }
    let record = Record {
        subject_kind: SubjectKind::Destination,
        subject: name.as_str(),
        what: HistoryEvent::Approved,
        why: format!("{approved} held runs were approved"),
        actor,
    };
    record.write(ctx).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(approved)
}

/// Puts a failed task back into the queue, and ends the backoff of its account.
pub(crate) async fn requeue(ctx: &NodeContext, id: TaskId, actor: &str) -> Result<Task> {
    let now = ctx.clock.now();
    syncs::refuse_paused(ctx, &ctx.ledger.task(id).await?.sync).await?;
    ctx.ledger.requeue_task(id, now).await?;
    let task = ctx.ledger.task(id).await?;
    ctx.ledger.end_backoff(&task.destination, now).await?;
    let why = format!("task {id} is queued again, and the backoff of its account is ended");
    syncs::finish(ctx, &task.sync, actor, HistoryEvent::Requeued, why).await?;
    Ok(task)
}

/// Enqueues the due tasks again, in case their messages were lost; returns how many.
pub(crate) async fn enqueue_due(ctx: &NodeContext) -> Result<u64> {
    let enqueued = crate::roles::activate::enqueue_due_tasks(ctx, ctx.clock.now()).await;
    enqueued.map_err(|error| OperationError::Component(error.into()))
}
