//! Syncs, runs, tasks.

use axum::extract::{Path, Query};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_activation::RunScope;
use throng_api::{
    ActivationRun, ActivationTask, ListQuery, RunList, RunRequested, RunSync, RunsApproved,
    SyncList, SyncNamed, TaskDetail, TaskList, TaskSummary, TasksEnqueued,
};
use throng_model::{SyncRunId, TaskId};
use throng_operations::{lists, runs as run_operations, syncs as operations};

use super::body::Body;
use super::error::ApiError;
use super::operations::OperationsOf;

type NamedResult = Result<Json<SyncNamed>, ApiError>;

/// The syncs of the applied spec, each with the state of its audience on the platform.
#[utoipa::path(get, path = "/v1/syncs", params(("search" = Option<String>, Query, description = "only rows whose names of sync, audience or destination contain this text"), ("state" = Option<String>, Query, description = "only rows in this state: active or paused"), ("sort" = Option<String>, Query, description = "the field to sort by: name, audience, destination or delivered_users; with `-` in front in descending order; by default the order of the spec, with a limit or cursor `name`"), ("limit" = Option<u32>, Query, description = "the number of rows, at most 1,000; all by default, with a sort or cursor 1,000"), ("cursor" = Option<String>, Query, description = "`next_cursor` or `previous_cursor` of another page, with the same search and state"), ("workspace" = Option<String>, Query, description = "only rows of objects of this workspace")), responses((status = 200, body = SyncList, description = "`syncs`: name, audience, destination, paused_at, platform_id, delivered_version, delivered_users, removals_due, removals_retry_at, waits_for_members, size; `destinations`; `next_cursor`, `previous_cursor`")))]
pub(crate) async fn list(
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Result<Json<SyncList>, ApiError> {
    Ok(Json(lists::syncs(&node, &query).await?))
}

/// Plans a run of a sync at once if it has something to send.
#[utoipa::path(post, path = "/v1/syncs/{name}/run", params(("name" = String, Path)), request_body = RunSync, responses((status = 200, body = RunRequested, description = "`sync`; `blocked`: why nothing is delivered now"), (status = 404, description = "no such sync"), (status = 409, description = "it is paused, it has an open run, its audience is being removed or has no members and no list yet, or nothing was delivered yet")))]
pub(crate) async fn run(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(RunSync { full, forget_delivered }): Body<RunSync>,
) -> Result<Json<RunRequested>, ApiError> {
    let sync = operations::declared(&node, &name)?;
    let scope = match (full, forget_delivered) {
        (_, true) => RunScope::FullWithoutRecord,
        (true, false) => RunScope::Full,
        (false, false) => RunScope::Difference,
    };
    Ok(Json(run_operations::request(&node, &sync, scope, caller.name()).await?))
}

/// Detaches a sync from its audience on the platform. The next run creates a new audience, or finds one of the
/// same name.
#[utoipa::path(post, path = "/v1/syncs/{name}/recreate", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "its audience is being removed")))]
pub(crate) async fn recreate(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> NamedResult {
    let sync = operations::declared(&node, &name)?;
    operations::recreate(&node, &sync, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// Pauses a sync: no run of it is planned and no task of it is claimed until it is resumed. The batch that is
/// being sent is completed.
#[utoipa::path(post, path = "/v1/syncs/{name}/pause", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "it is already paused")))]
pub(crate) async fn pause(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> NamedResult {
    let sync = operations::declared(&node, &name)?;
    operations::pause(&node, &sync, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// Resumes a paused sync.
#[utoipa::path(post, path = "/v1/syncs/{name}/resume", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such sync"), (status = 409, description = "it is not paused")))]
pub(crate) async fn resume(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> NamedResult {
    let sync = operations::declared(&node, &name)?;
    operations::resume(&node, &sync, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// The runs, newest first by default.
#[utoipa::path(get, path = "/v1/runs", params(("search" = Option<String>, Query, description = "only rows whose names of sync, audience or destination contain this text"), ("state" = Option<String>, Query, description = "only rows in this state: active, completed, failed or held; or rejected: completed ones of which rows were rejected and none was accepted"), ("sort" = Option<String>, Query, description = "the field to sort by: id, sync or audience; with `-` in front in descending order; `-id` by default"), ("limit" = Option<u32>, Query, description = "the number of rows, at most 1,000; 500 by default"), ("cursor" = Option<String>, Query, description = "`next_cursor` or `previous_cursor` of another page, with the same search and state"), ("workspace" = Option<String>, Query, description = "only rows of objects of this workspace")), responses((status = 200, body = RunList, description = "`runs`, `next_cursor`, `previous_cursor`")))]
pub(crate) async fn runs(
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Result<Json<RunList>, ApiError> {
    Ok(Json(lists::runs(&node, &query).await?))
}

/// Approves a held run.
#[utoipa::path(post, path = "/v1/runs/{id}/approve", params(("id" = i64, Path)), responses((status = 200, body = ActivationRun, description = "the run"), (status = 404, description = "no such run"), (status = 409, description = "it is not held, or its account is held too")))]
pub(crate) async fn approve_run(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<ActivationRun>, ApiError> {
    let run = run_operations::approve(&node, SyncRunId(id), caller.name()).await?;
    Ok(Json(run))
}

/// Approves the runs of a destination that are held because of failed checks of the account. Those that have sent nothing
/// are planned again, because the cause may be in their identifiers. Runs that are held for another cause are not approved.
#[utoipa::path(post, path = "/v1/destinations/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = RunsApproved, description = "`approved`: the number of runs"), (status = 404, description = "no such destination")))]
pub(crate) async fn approve_destination(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<RunsApproved>, ApiError> {
    let approved = run_operations::approve_destination(&node, &name, caller.name()).await?;
    Ok(Json(RunsApproved { approved }))
}

/// Tasks: by default running ones first, then queued ones, then finished ones.
#[utoipa::path(get, path = "/v1/tasks", params(("search" = Option<String>, Query, description = "only rows whose names of sync, audience or destination contain this text"), ("state" = Option<String>, Query, description = "only rows in this state: queued, running, done, failed or held"), ("sort" = Option<String>, Query, description = "the field to sort by: id, sync or audience; with `-` in front in descending order; by default running tasks come first, with another parameter than the limit `-id`"), ("limit" = Option<u32>, Query, description = "the number of rows, at most 1,000; 500 by default"), ("cursor" = Option<String>, Query, description = "`next_cursor` or `previous_cursor` of another page, with the same search and state"), ("workspace" = Option<String>, Query, description = "only rows of objects of this workspace")), responses((status = 200, body = TaskList, description = "`tasks`, `counts` of all tasks by state, `next_cursor`, `previous_cursor`")))]
pub(crate) async fn tasks(
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Result<Json<TaskList>, ApiError> {
    Ok(Json(lists::tasks(&node, &query).await?))
}

/// The numbers of tasks by destination, which is an account on a platform, and by state.
#[utoipa::path(get, path = "/v1/tasks/summary", params(("search" = Option<String>, Query, description = "only tasks whose names of sync, audience or destination contain this text"), ("state" = Option<String>, Query, description = "only tasks in this state: queued, running, done, failed or held"), ("workspace" = Option<String>, Query, description = "only tasks of this workspace")), responses((status = 200, body = TaskSummary, description = "`destinations`: destination, tasks by state, batches_left; `tasks` and `batches_left` of all of them")))]
pub(crate) async fn task_summary(
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Result<Json<TaskSummary>, ApiError> {
    Ok(Json(lists::task_summary(&node, &query).await?))
}

/// One task with its run, batches, receipts and check.
#[utoipa::path(get, path = "/v1/tasks/{id}", params(("id" = i64, Path)), responses((status = 200, body = TaskDetail, description = "`task`, `run`, `batches`, `receipts`, `check`"), (status = 404, description = "no such task")))]
pub(crate) async fn task(
    OperationsOf(node): OperationsOf,
    Path(id): Path<i64>,
) -> Result<Json<TaskDetail>, ApiError> {
    Ok(Json(run_operations::task(&node, TaskId(id)).await?))
}

/// Puts a failed task back into the queue, and ends the backoff of its account.
#[utoipa::path(post, path = "/v1/tasks/{id}/requeue", params(("id" = i64, Path)), responses((status = 200, body = ActivationTask, description = "the task"), (status = 404, description = "no such task"), (status = 409, description = "it has not failed, or its sync is paused or waits for members")))]
pub(crate) async fn requeue(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<ActivationTask>, ApiError> {
    let task = run_operations::requeue(&node, TaskId(id), caller.name()).await?;
    Ok(Json(task))
}

/// Enqueues the due tasks again, in case their messages were lost; of one account only as many as may be queued
/// at a time, the others follow. Safe at any time: a worker that receives a message reads the task in the ledger.
#[utoipa::path(post, path = "/v1/tasks/enqueue", responses((status = 200, body = TasksEnqueued, description = "`enqueued`: the number of tasks that were enqueued")))]
pub(crate) async fn enqueue_due(
    OperationsOf(node): OperationsOf,
) -> Result<Json<TasksEnqueued>, ApiError> {
    let enqueued = run_operations::enqueue_due(&node).await?;
    Ok(Json(TasksEnqueued { enqueued }))
}
