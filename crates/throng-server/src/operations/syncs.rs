//! Operations on syncs.

use throng_activation::RunScope;
use throng_model::SyncName;
use throng_store::{AlertKind, HistoryEvent, SubjectKind};

use super::{OperationError, Record, Result};
use crate::{Change, NodeContext};

/// The name of a sync of the applied spec.
pub(crate) fn declared(ctx: &NodeContext, name: &str) -> Result<SyncName> {
    let spec = ctx.spec.load();
    let found = spec.syncs.iter().find(|sync| sync.name.as_str() == name);
    found
        .map(|sync| sync.name.clone())
        .ok_or_else(|| OperationError::not_found(format!("no sync `{name}` in the applied spec")))
}

/// Plans a run of a sync at once if it has something to send.
pub(crate) async fn run(
    ctx: &NodeContext,
    sync: &SyncName,
    scope: RunScope,
    actor: &str,
) -> Result<()> {
    refuse_paused(ctx, sync).await?;
    refuse_removal(ctx, sync).await?;
    crate::roles::activate::request_run(ctx, sync, scope).await?;
    let why = match scope {
        RunScope::FullWithoutRecord => {
            "all users are sent again; the record of what was delivered is discarded"
        }
        RunScope::Full => "all users are sent again",
        RunScope::Difference => "it is planned again",
    };
    finish(ctx, sync, actor, HistoryEvent::RunRequested, why.to_owned()).await
}

/// Detaches a sync from its audience on the platform. The next run creates a new audience, or finds one of the
/// same name.
pub(crate) async fn recreate(ctx: &NodeContext, sync: &SyncName, actor: &str) -> Result<()> {
    refuse_removal(ctx, sync).await?;
    let now = ctx.clock.now();
    let before = ctx.ledger.platform_audience(sync).await?;
    let reason = "the sync was recreated: another audience on the platform replaces it";
    ctx.ledger.forget_delivered(sync, reason, now).await?;
    ctx.ledger.resolve_alert(AlertKind::TaskFailed, sync.as_str(), now).await?;
    ctx.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
    let why = match before {
        Some(before) => format!(
            "audience {} stays on the platform, but is no longer updated",
            before.platform_id
        ),
        None => "it had no audience on the platform".to_owned(),
    };
    finish(ctx, sync, actor, HistoryEvent::Recreated, why).await
}

/// Pauses a sync: no run of it is planned and no task of it is claimed until it is resumed. The batch that is
/// being sent is completed.
pub(crate) async fn pause(ctx: &NodeContext, sync: &SyncName, actor: &str) -> Result<()> {
    if !ctx.ledger.pause_sync(sync, ctx.clock.now()).await? {
        return Err(paused(sync));
    }
    let why = "no run is planned and no task is claimed until it is resumed";
    finish(ctx, sync, actor, HistoryEvent::Paused, why.to_owned()).await
}

/// Resumes a paused sync.
pub(crate) async fn resume(ctx: &NodeContext, sync: &SyncName, actor: &str) -> Result<()> {
    if !ctx.ledger.resume_sync(sync).await? {
        return Err(OperationError::wrong_state(format!("sync `{sync}` is not paused")));
    }
    let why = "runs are planned and tasks are claimed again";
    finish(ctx, sync, actor, HistoryEvent::Resumed, why.to_owned()).await
}

fn paused(sync: &SyncName) -> OperationError {
    OperationError::wrong_state(format!("sync `{sync}` is paused"))
        .help(format!("`throng sync resume {sync}` resumes it"))
}

/// Refuses an operation that sends something for a paused sync.
pub(super) async fn refuse_paused(ctx: &NodeContext, sync: &SyncName) -> Result<()> {
    match ctx.ledger.is_sync_paused(sync).await? {
        true => Err(paused(sync)),
        false => Ok(()),
    }
}

/// Refuses a sync that was added to the spec again while the audience of the earlier sync of this name is being
/// removed. Both would change the same audience on the platform.
async fn refuse_removal(ctx: &NodeContext, sync: &SyncName) -> Result<()> {
    if ctx.ledger.removal(sync).await?.is_none() {
        return Ok(());
    }
    let message =
        format!("the audience of an earlier sync `{sync}` is being removed from the platform");
    Err(OperationError::wrong_state(message)
        .help("it starts after that; `throng sync removals` shows the progress"))
}

/// Records a change of a sync in its history, and wakes activation.
pub(super) async fn finish(
    ctx: &NodeContext,
    sync: &SyncName,
    actor: &str,
    what: HistoryEvent,
    why: String,
) -> Result<()> {
    let record =
        Record { subject_kind: SubjectKind::Sync, subject: sync.as_str(), what, why, actor };
    record.write(ctx).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(())
}
