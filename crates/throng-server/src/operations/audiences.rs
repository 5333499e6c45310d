//! Operations on audiences.

use std::sync::Arc;

use throng_model::{AudienceName, RefreshId, Retry, with_causes};
use throng_refresh::open_snapshot;
use throng_store::{
    AlertKind, HistoryEvent, LedgerError, Refresh, RefreshTrigger, Snapshot, SubjectKind,
};

use super::{OperationError, Record, Result};
use crate::{Change, NodeContext};

/// The name of an audience of the applied spec.
pub(crate) fn declared(ctx: &NodeContext, name: &str) -> Result<AudienceName> {
    let spec = ctx.spec.load();
    let found = spec.audiences.iter().find(|audience| audience.name.as_str() == name);
    found.map(|audience| audience.name.clone()).ok_or_else(|| {
        OperationError::not_found(format!("no audience `{name}` in the applied spec"))
            .help("`throng audience list` shows the names")
    })
}

/// Queues a refresh; returns the one that is open already, if there is one.
pub(crate) async fn refresh(
    ctx: &NodeContext,
    name: &AudienceName,
    actor: &str,
) -> Result<RefreshId> {
    let now = ctx.clock.now();
    let queued = ctx.ledger.schedule_refresh(name, RefreshTrigger::Manual, now).await;
    let id = queued.map_err(|error| with_state_help(name, error))?;
    record(ctx, name, actor, HistoryEvent::RefreshRequested, format!("refresh {id}")).await?;
    ctx.wake_build.notify_waiters();
    ctx.publish_change(Change::Audiences);
    Ok(id)
}

/// Adds to a refusal because of a paused or pinned audience how to end that state.
fn with_state_help(name: &AudienceName, error: LedgerError) -> OperationError {
    let help = match &error {
        LedgerError::WrongState { what: "audience", state, .. } if state == "paused" => {
            format!("`throng audience resume {name}` resumes its refreshes")
        }
        LedgerError::WrongState { what: "audience", .. } => {
            format!("`throng audience release {name}` ends the pin of the rollback")
        }
        _ => return error.into(),
    };
    OperationError::wrong_state(error.to_string()).help(help)
}

async fn record(
    ctx: &NodeContext,
    name: &AudienceName,
    actor: &str,
    what: HistoryEvent,
    why: String,
) -> Result<()> {
    let record =
        Record { subject_kind: SubjectKind::Audience, subject: name.as_str(), what, why, actor };
    record.write(ctx).await
}

/// Pauses an audience: no refresh starts until it is resumed. An open refresh continues.
pub(crate) async fn pause(ctx: &NodeContext, name: &AudienceName, actor: &str) -> Result<()> {
    if !ctx.ledger.pause_audience(name, ctx.clock.now()).await? {
        let error = OperationError::wrong_state(format!("audience `{name}` is already paused"));
        return Err(error.help(format!("`throng audience resume {name}` resumes its refreshes")));
    }
    let why = "no refresh starts until it is resumed";
    record(ctx, name, actor, HistoryEvent::Paused, why.to_owned()).await?;
    ctx.publish_change(Change::Audiences);
    Ok(())
}

/// Resumes a paused audience. It is refreshed at once if it has no snapshot of its current model.
pub(crate) async fn resume(ctx: &NodeContext, name: &AudienceName, actor: &str) -> Result<()> {
    if !ctx.ledger.resume_audience(name).await? {
        return Err(OperationError::wrong_state(format!("audience `{name}` is not paused")));
    }
    record(ctx, name, actor, HistoryEvent::Resumed, "it is refreshed again".to_owned()).await?;
    catch_up(ctx, name).await
}

/// Ends the pin that a rollback has set: new snapshots are served again.
pub(crate) async fn release(ctx: &NodeContext, name: &AudienceName, actor: &str) -> Result<()> {
    if !ctx.ledger.unpin_audience(name).await? {
        return Err(OperationError::wrong_state(format!("audience `{name}` is not pinned")));
    }
    record(ctx, name, actor, HistoryEvent::Released, "it is refreshed again".to_owned()).await?;
    catch_up(ctx, name).await
}

/// Brings an audience up to date that is no longer paused or pinned.
async fn catch_up(ctx: &NodeContext, name: &AudienceName) -> Result<()> {
    match crate::roles::schedule::refresh_if_stale(ctx, name).await {
        Ok(_) => {}
        // It was paused again in the meantime.
        Err(error) if error.is_wrong_state() => {}
        Err(error) => return Err(error.into()),
    }
    ctx.publish_change(Change::Audiences);
    Ok(())
}

/// Cancels the open refresh.
pub(crate) async fn cancel(
    ctx: &Arc<NodeContext>,
    name: &AudienceName,
    actor: &str,
) -> Result<Refresh> {
    let cancelled = throng_refresh::cancel(&ctx.refresh, name, actor).await?;
    cancelled.ok_or_else(|| {
        OperationError::wrong_state(format!("audience `{name}` has no open refresh"))
            .help("`throng audience list` shows the states")
    })
}

/// Refuses a version whose file is damaged or missing. Otherwise it would become the current version, and no
/// node could serve it.
async fn check_can_be_served(ctx: &NodeContext, name: &AudienceName, version: u64) -> Result<()> {
    let row = match ctx.ledger.snapshot(name, version).await {
        Ok(row) => row,
        // The write that follows fails with the right error.
        Err(LedgerError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match open_snapshot(&ctx.objects, &row).await {
        Ok(_) => Ok(()),
        Err(error) if error.retry() == Retry::Never => {
            let why = with_causes(&error);
            let message = format!("version {version} of `{name}` cannot be served: {why}");
            Err(OperationError::wrong_state(message)
                .help(format!("`throng audience refresh {name}` builds another version")))
        }
        Err(error) => Err(OperationError::Unavailable { message: with_causes(&error) }),
    }
}

/// Publishes a held snapshot.
pub(crate) async fn approve(
    ctx: &Arc<NodeContext>,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<Snapshot> {
    check_can_be_served(ctx, name, version).await?;
    let approved = ctx.ledger.approve(name, version, ctx.clock.now()).await;
    let snapshot = approved.map_err(|error| with_state_help(name, error))?;
    resolve_held(ctx, name).await?;
    record_snapshot(
        ctx,
        &snapshot,
        actor,
        HistoryEvent::Approved,
        "the held snapshot was approved",
    )
    .await?;
    serve_current(ctx).await?;
    Ok(snapshot)
}

/// Rejects a held snapshot.
pub(crate) async fn reject(
    ctx: &NodeContext,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<Snapshot> {
    let snapshot = ctx.ledger.reject(name, version, ctx.clock.now()).await?;
    resolve_held(ctx, name).await?;
    record_snapshot(
        ctx,
        &snapshot,
        actor,
        HistoryEvent::Rejected,
        "the held snapshot was rejected",
    )
    .await?;
    ctx.publish_change(Change::Audiences);
    Ok(snapshot)
}

/// Rolls back to an older snapshot and pins it: no other snapshot is served until it is released. An open
/// refresh is cancelled.
pub(crate) async fn rollback(
    ctx: &Arc<NodeContext>,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<Snapshot> {
    check_can_be_served(ctx, name, version).await?;
    let snapshot = ctx.ledger.rollback(name, version, ctx.clock.now()).await?;
    throng_refresh::cancel(&ctx.refresh, name, actor).await?;
    let why = "this version is current again and pinned: no refresh starts until it is released";
    record_snapshot(ctx, &snapshot, actor, HistoryEvent::RolledBack, why).await?;
    serve_current(ctx).await?;
    Ok(snapshot)
}

/// Resolves the alert that a snapshot is held.
async fn resolve_held(ctx: &NodeContext, name: &AudienceName) -> Result<()> {
    let now = ctx.clock.now();
    Ok(ctx.ledger.resolve_alert(AlertKind::SnapshotHeld, name.as_str(), now).await?)
}

async fn record_snapshot(
    ctx: &NodeContext,
    snapshot: &Snapshot,
    actor: &str,
    what: HistoryEvent,
    why: &str,
) -> Result<()> {
    let why = format!("version {} with {} members: {why}", snapshot.version, snapshot.members);
    record(ctx, &snapshot.audience, actor, what, why).await
}

/// After another snapshot became current: serves it, and lets activation deliver it.
async fn serve_current(ctx: &Arc<NodeContext>) -> Result<()> {
    throng_refresh::reload_membership(&ctx.refresh)
        .await
        .map_err(|error| OperationError::Component(error.into()))?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Audiences);
    Ok(())
}
