//! Syncs, runs, tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use throng_model::{SyncName, SyncRunId, TaskId, Timestamp};
use throng_store::{AlertKind, HistoryEntry, RunState, Task, TaskState};
use utoipa::ToSchema;

use crate::access::Caller;
use crate::{Change, NodeContext};

use super::body::Body;
use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;
type JsonResult = Result<Json<Value>, ApiError>;

/// The syncs of the applied spec, each with the state of its audience on the platform.
#[utoipa::path(get, path = "/v1/syncs", responses((status = 200, body = super::answers::SyncList, description = "`syncs`: name, audience, destination, paused_at, platform_id, delivered_version, delivered_users, removals_due, removals_retry_at, size")))]
pub(crate) async fn list(State(ctx): Ctx) -> JsonResult {
    let delivered: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let paused: HashMap<_, _> = ctx.ledger.paused_syncs().await?.into_iter().collect();
    let sizes = ctx.ledger.newest_sizes().await?;
    let sizes: HashMap<_, _> = sizes.into_iter().map(|size| (size.sync.clone(), size)).collect();
    let spec = ctx.spec.load();
    let syncs: Vec<Value> = spec
        .syncs
        .iter()
        .map(|sync| {
            let platform = delivered.get(&sync.name);
            let record = records.get(&sync.name);
            let size = sizes.get(&sync.name);
            json!({
                "name": sync.name,
                "audience": sync.audience,
                "destination": sync.destination,
                "mode": sync.mode,
                "paused_at": paused.get(&sync.name),
                "platform_id": platform.map(|p| &p.platform_id),
                "delivered_version": platform.and_then(|p| p.delivered_version),
                "delivered_at": platform.and_then(|p| p.delivered_at),
                "delivered_users": record.map(|r| r.users),
                "removals_due": record.map_or(0, |r| r.due),
                "removals_retry_at": record.filter(|r| r.due > 0).and_then(|r| r.retry_at),
                "size": size.filter(|s| platform.is_some_and(|p| p.platform_id == s.platform_id)),
            })
        })
        .collect();
    Ok(Json(json!({ "syncs": syncs })))
}

/// How to run a sync.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunSync {
    /// Send all users again, in a session that replaces the list of the platform.
    #[serde(default)]
    full: bool,
    /// As `full`, and discard the record of what was delivered: for a record, or its key, that is lost.
    #[serde(default)]
    forget_delivered: bool,
}

/// Plans a run of a sync at once if it has something to send.
#[utoipa::path(post, path = "/v1/syncs/{name}/run", params(("name" = String, Path)), request_body = RunSync, responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "it is paused, it has an open run, its audience is being removed, or nothing was delivered yet")))]
pub(super) async fn run(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(how): Body<RunSync>,
) -> JsonResult {
    let sync = declared_sync(&ctx, &name)?;
    refuse_paused(&ctx, &sync).await?;
    refuse_removal(&ctx, &sync).await?;
    crate::roles::activate::request_run(&ctx, &sync, how.full, how.forget_delivered).await?;
    let what = match (how.full, how.forget_delivered) {
        (_, true) => "all users are sent again; the record of what was delivered is discarded",
        (true, _) => "all users are sent again",
        _ => "it is planned again",
    };
    record_change(&ctx, &sync, &caller, "run", what.to_owned()).await
}

/// Detaches a sync from its audience on the platform. The next run creates a new audience, or finds one of the
/// same name.
#[utoipa::path(post, path = "/v1/syncs/{name}/recreate", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "its audience is being removed")))]
pub(crate) async fn recreate(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> JsonResult {
    let sync = declared_sync(&ctx, &name)?;
    refuse_removal(&ctx, &sync).await?;
    let now = ctx.clock.now();
    let before = ctx.ledger.platform_audience(&sync).await?;
    let reason = "the sync was recreated: another audience on the platform replaces it";
    ctx.ledger.forget_delivered(&sync, reason, now).await?;
    ctx.ledger.resolve_alert(AlertKind::TaskFailed, sync.as_str(), now).await?;
    ctx.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
    let why = match before {
        Some(before) => {
            format!(
                "audience {} stays on the platform, but is no longer updated",
                before.platform_id
            )
        }
        None => "it had no audience on the platform".to_owned(),
    };
    record_change(&ctx, &sync, &caller, "recreated", why).await
}

/// Pauses a sync: no run of it is planned and no task of it is claimed until it is resumed. The batch that is
/// being sent is completed.
#[utoipa::path(post, path = "/v1/syncs/{name}/pause", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "it is already paused")))]
pub(crate) async fn pause(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> JsonResult {
    let sync = declared_sync(&ctx, &name)?;
    if !ctx.ledger.pause_sync(&sync, ctx.clock.now()).await? {
        return Err(already_paused(&sync));
    }
    let why = "no run is planned and no task is claimed until it is resumed";
    record_change(&ctx, &sync, &caller, "paused", why.to_owned()).await
}

/// Resumes a paused sync.
#[utoipa::path(post, path = "/v1/syncs/{name}/resume", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "it is not paused")))]
pub(crate) async fn resume(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> JsonResult {
    let sync = declared_sync(&ctx, &name)?;
    if !ctx.ledger.resume_sync(&sync).await? {
        return Err(ApiError::wrong_state(format!("sync `{sync}` is not paused")));
    }
    let why = "runs are planned and tasks are claimed again";
    record_change(&ctx, &sync, &caller, "resumed", why.to_owned()).await
}

fn already_paused(sync: &SyncName) -> ApiError {
    ApiError::wrong_state(format!("sync `{sync}` is paused"))
        .help(format!("`throng sync resume {sync}` resumes it"))
}

async fn refuse_paused(ctx: &NodeContext, sync: &SyncName) -> Result<(), ApiError> {
    match ctx.ledger.is_sync_paused(sync).await? {
        true => Err(already_paused(sync)),
        false => Ok(()),
    }
}

/// Refuses a sync that was added to the spec again while the audience of the earlier sync of this name is
/// being removed. Both would change the same audience on the platform.
async fn refuse_removal(ctx: &NodeContext, sync: &SyncName) -> Result<(), ApiError> {
    match ctx.ledger.removal(sync).await? {
        Some(_) => Err(ApiError::wrong_state(format!(
            "the audience of an earlier sync `{sync}` is being removed from the platform"
        ))
        .help("it starts after that; `throng sync removals` shows the progress")),
        None => Ok(()),
    }
}

/// The name of a sync of the applied spec.
pub(super) fn declared_sync(ctx: &NodeContext, name: &str) -> Result<SyncName, ApiError> {
    let spec = ctx.spec.load();
    let found = spec.syncs.iter().find(|sync| sync.name.as_str() == name);
    found
        .map(|sync| sync.name.clone())
        .ok_or_else(|| ApiError::not_found(format!("no sync `{name}` in the applied spec")))
}

/// Records a change that a person made in the history of the sync, wakes activation, and responds with the name.
pub(super) async fn record_change(
    ctx: &NodeContext,
    sync: &SyncName,
    caller: &Caller,
    what: &str,
    why: String,
) -> JsonResult {
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: sync.to_string(),
        what: what.to_owned(),
        why,
        at: ctx.clock.now(),
        actor: Some(caller.name().to_owned()),
    };
    ctx.ledger.record_history(&[entry]).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(Json(json!({ "sync": sync })))
}

/// The newest 500 runs.
#[utoipa::path(get, path = "/v1/runs", responses((status = 200, body = super::answers::RunList, description = "`runs`, newest first")))]
pub(crate) async fn runs(State(ctx): Ctx) -> JsonResult {
    Ok(Json(json!({ "runs": ctx.ledger.runs(None, 500).await? })))
}

/// Approves a held run.
#[utoipa::path(post, path = "/v1/runs/{id}/approve", params(("id" = i64, Path)), responses((status = 200, body = super::answers::ActivationRun, description = "the run"), (status = 409, description = "it is not held")))]
pub(crate) async fn approve_run(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> JsonResult {
    let now = ctx.clock.now();
    ctx.ledger.approve_run(SyncRunId(id), now).await?;
    let run = ctx.ledger.run(SyncRunId(id)).await?;
    ctx.ledger.resolve_alert(AlertKind::RunHeld, run.sync.as_str(), now).await?;
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: run.sync.to_string(),
        what: "approved".to_owned(),
        why: format!("run {id} with {} removals was approved", run.removes),
        at: now,
        actor: Some(caller.name().to_owned()),
    };
    ctx.ledger.record_history(&[entry]).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(Json(json!(run)))
}

/// Approves all held runs of a destination. Runs that are held because of failed checks of the account and have
/// sent nothing are planned again, because the cause may be in their identifiers.
#[utoipa::path(post, path = "/v1/destinations/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = super::answers::RunsApproved, description = "`approved`: the number of runs"), (status = 404, description = "no such destination")))]
pub(crate) async fn approve_destination(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> JsonResult {
    let spec = ctx.spec.load_full();
    let found = spec.destinations.iter().find(|d| d.name.as_str() == name);
    let name = &found
        .ok_or_else(|| ApiError::not_found(format!("no destination `{name}` in the applied spec")))?
        .name;
    let now = ctx.clock.now();
    let subject = crate::roles::activate::account_alert_subject(name);
    let reason = crate::roles::activate::failed_checks_reason(name);
    // First, because the planner holds new runs while this alert is open.
    ctx.ledger.resolve_alert(AlertKind::RunHeld, &subject, now).await?;
    let held = ctx.ledger.incomplete_syncs().await?;
    let held = held.iter().filter(|(_, state)| *state == RunState::Held).map(|(sync, _)| sync);
    let held: Vec<SyncName> = held
        .filter(|held| spec.syncs.iter().any(|s| s.name == **held && s.destination == *name))
        .cloned()
        .collect();
    let approved = ctx.ledger.approve_destination(name, Some(&reason), now).await?;
    for sync in &held {
        ctx.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
    }
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Destination,
        subject: name.to_string(),
        what: "approved".to_owned(),
        why: format!("{approved} held runs were approved"),
        at: now,
        actor: Some(caller.name().to_owned()),
    };
    ctx.ledger.record_history(&[entry]).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(Json(json!({ "approved": approved })))
}

/// A task with its progress.
#[derive(Serialize)]
struct TaskView {
    #[serde(flatten)]
    task: Task,
    /// The share of batches that are done, 0 to 1.
    progress: f64,
    /// Estimated from the speed so far; null while there is no estimate.
    eta_seconds: Option<u64>,
}

/// The estimated remaining time of a task, at its speed so far; none while there is no estimate.
pub(crate) fn eta(task: &Task, now: Timestamp) -> Option<Duration> {
    let (done, all) = (f64::from(task.batches_done), f64::from(task.batches));
    let is_started = task.state == TaskState::Running && task.batches_done > 0;
    (is_started && done < all).then(|| now.since(task.created_at).mul_f64((all - done) / done))
}

fn view(task: Task, now: Timestamp) -> TaskView {
    let (done, all) = (f64::from(task.batches_done), f64::from(task.batches));
    let eta_seconds = eta(&task, now).map(|left| left.as_secs());
    let progress = if task.state == TaskState::Done { 1.0 } else { done / all.max(1.0) };
    TaskView { task, progress, eta_seconds }
}

/// Tasks: running ones first, then queued ones, then finished ones.
#[utoipa::path(get, path = "/v1/tasks", responses((status = 200, body = super::answers::TaskList, description = "`tasks` and `counts` by state")))]
pub(crate) async fn tasks(State(ctx): Ctx) -> JsonResult {
    let now = ctx.clock.now();
    let tasks: Vec<TaskView> =
        ctx.ledger.tasks(500).await?.into_iter().map(|task| view(task, now)).collect();
    Ok(Json(json!({ "tasks": tasks, "counts": ctx.ledger.task_counts().await? })))
}

/// One task with its run, batches, receipts and check.
#[utoipa::path(get, path = "/v1/tasks/{id}", params(("id" = i64, Path)), responses((status = 200, body = super::answers::TaskDetail, description = "`task`, `run`, `batches`, `receipts`, `check`"), (status = 404, description = "no such task")))]
pub(crate) async fn task(State(ctx): Ctx, Path(id): Path<i64>) -> JsonResult {
    let task = ctx.ledger.task(TaskId(id)).await?;
    let check = ctx.ledger.check_of(task.id).await?;
    Ok(Json(json!({
        "run": ctx.ledger.run(task.run).await?,
        "batches": ctx.ledger.batches(task.id).await?,
        "receipts": ctx.ledger.receipts(task.id).await?,
        "check": check,
        "task": view(task, ctx.clock.now()),
    })))
}

/// Puts a failed task back into the queue, and ends the backoff of its account.
#[utoipa::path(post, path = "/v1/tasks/{id}/requeue", params(("id" = i64, Path)), responses((status = 200, body = super::answers::ActivationTask, description = "the task"), (status = 409, description = "it has not failed, or its sync is paused")))]
pub(crate) async fn requeue(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> JsonResult {
    let now = ctx.clock.now();
    refuse_paused(&ctx, &ctx.ledger.task(TaskId(id)).await?.sync).await?;
    ctx.ledger.requeue_task(TaskId(id), now).await?;
    let task = ctx.ledger.task(TaskId(id)).await?;
    ctx.ledger.end_backoff(&task.destination, now).await?;
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: ctx.ledger.run(task.run).await?.sync.to_string(),
        what: "requeued".to_owned(),
        why: format!("task {id} is queued again, and the backoff of its account is ended"),
        at: now,
        actor: Some(caller.name().to_owned()),
    };
    ctx.ledger.record_history(&[entry]).await?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Activation);
    Ok(Json(json!(task)))
}

/// Enqueues the due tasks again, in case their messages were lost; of one account only as many as may be queued
/// at a time, the others follow. Safe at any time: a worker that receives a message reads the task in the ledger.
#[utoipa::path(post, path = "/v1/tasks/enqueue", responses((status = 200, body = super::answers::TasksEnqueued, description = "`enqueued`: the number of tasks that were enqueued")))]
pub(crate) async fn enqueue_due(State(ctx): Ctx) -> JsonResult {
    let enqueued = crate::roles::activate::enqueue_due_tasks(&ctx, ctx.clock.now()).await;
    let enqueued = enqueued.map_err(|error| ApiError::of(&error))?;
    Ok(Json(json!({ "enqueued": enqueued })))
}
