//! `/v1/audiences`.

use axum::extract::{Path, Query};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{
    AudienceDetail, AudienceList, AudienceSnapshot, AudienceSummary, CancelQuery, ListQuery,
    RefreshCancelled, RefreshQuery, RefreshQueued, SnapshotVersion,
};
use throng_operations::{audiences as operations, lists};

use super::body::Body;
use super::error::ApiError;
use super::operations::OperationsOf;

type SnapshotResult = Result<Json<AudienceSnapshot>, ApiError>;
type SummaryResult = Result<Json<AudienceSummary>, ApiError>;

/// All audiences of the applied spec.
#[utoipa::path(get, path = "/v1/audiences", params(("search" = Option<String>, Query, description = "only rows whose names contain this text"), ("state" = Option<String>, Query, description = "only rows in this state: waiting, scheduled, processing, halted, completed, unchanged, failed, held, paused or pinned"), ("sort" = Option<String>, Query, description = "the field to sort by: name, members or built_at; with `-` in front in descending order; by default the order of the spec, with a limit or cursor `name`"), ("limit" = Option<u32>, Query, description = "the number of rows, at most 1,000; all by default, with a sort or cursor 1,000"), ("cursor" = Option<String>, Query, description = "`next_cursor` or `previous_cursor` of another page, with the same search and state"), ("workspace" = Option<String>, Query, description = "only rows of objects of this workspace")), responses((status = 200, body = AudienceList, description = "`audiences`: name, current snapshot, newest refresh with ETA, paused_at, pinned_at; `next_cursor`, `previous_cursor`")))]
pub(crate) async fn list(
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Result<Json<AudienceList>, ApiError> {
    Ok(Json(lists::audiences(&node, &query).await?))
}

/// The sizes of one response.
const MAX_SIZES: u32 = 1_000;

/// One audience with its snapshots.
#[utoipa::path(get, path = "/v1/audiences/{name}", params(("name" = String, Path)), responses((status = 200, body = AudienceDetail, description = "the audience, its snapshots and size history"), (status = 404, description = "no such audience")))]
pub(crate) async fn one(
    OperationsOf(node): OperationsOf,
    Path(name): Path<String>,
) -> Result<Json<AudienceDetail>, ApiError> {
    let name = operations::declared(&node, &name)?;
    Ok(Json(operations::detail(&node, name, MAX_SIZES).await?))
}

/// Queues a refresh.
#[utoipa::path(post, path = "/v1/audiences/{name}/refresh", params(("name" = String, Path), ("force" = Option<bool>, Query, description = "whether it scans even if neither the model nor its files have changed: false by default")), responses((status = 200, body = RefreshQueued, description = "`refresh`: the id of the refresh"), (status = 404, description = "no such audience"), (status = 409, description = "it is paused or pinned")))]
pub(crate) async fn refresh(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(RefreshQuery { force }): Query<RefreshQuery>,
) -> Result<Json<RefreshQueued>, ApiError> {
    let name = operations::declared(&node, &name)?;
    let refresh = operations::refresh(&node, &name, force, caller.name()).await?;
    Ok(Json(RefreshQueued { refresh }))
}

/// Pauses an audience: no refresh starts until it is resumed. An open refresh continues.
#[utoipa::path(post, path = "/v1/audiences/{name}/pause", params(("name" = String, Path)), responses((status = 200, body = AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is already paused")))]
pub(crate) async fn pause(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> SummaryResult {
    let name = operations::declared(&node, &name)?;
    operations::pause(&node, &name, caller.name()).await?;
    Ok(Json(operations::summary(&node, name).await?))
}

/// Resumes a paused audience. It is refreshed at once if it has no snapshot of its current model.
#[utoipa::path(post, path = "/v1/audiences/{name}/resume", params(("name" = String, Path)), responses((status = 200, body = AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is not paused")))]
pub(crate) async fn resume(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> SummaryResult {
    let name = operations::declared(&node, &name)?;
    operations::resume(&node, &name, caller.name()).await?;
    Ok(Json(operations::summary(&node, name).await?))
}

/// Ends the pin that a rollback has set: new snapshots are served again.
#[utoipa::path(post, path = "/v1/audiences/{name}/release", params(("name" = String, Path)), responses((status = 200, body = AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is not pinned")))]
pub(crate) async fn release(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> SummaryResult {
    let name = operations::declared(&node, &name)?;
    operations::release(&node, &name, caller.name()).await?;
    Ok(Json(operations::summary(&node, name).await?))
}

/// Cancels the open refresh.
#[utoipa::path(post, path = "/v1/audiences/{name}/cancel", params(("name" = String, Path), ("refresh" = Option<i64>, Query, description = "the id of the refresh to cancel, which is refused if it is not the open one; by default the open one")), responses((status = 200, body = RefreshCancelled, description = "the cancelled refresh, whose state is failed"), (status = 404, description = "no such audience"), (status = 409, description = "no refresh is open, or not `refresh`")))]
pub(crate) async fn cancel(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(CancelQuery { refresh }): Query<CancelQuery>,
) -> Result<Json<RefreshCancelled>, ApiError> {
    let name = operations::declared(&node, &name)?;
    let refresh = operations::cancel(&node, &name, refresh, caller.name()).await?;
    Ok(Json(RefreshCancelled { refresh }))
}

/// Publishes a held snapshot.
#[utoipa::path(post, path = "/v1/audiences/{name}/approve", params(("name" = String, Path)), request_body = SnapshotVersion, responses((status = 200, body = AudienceSnapshot, description = "the snapshot"), (status = 404, description = "no such audience or version"), (status = 409, description = "it is not held, its file is damaged, or another version is pinned")))]
pub(crate) async fn approve(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(SnapshotVersion { version }): Body<SnapshotVersion>,
) -> SnapshotResult {
    let name = operations::declared(&node, &name)?;
    let snapshot = operations::approve(&node, &name, version, caller.name()).await?;
    Ok(Json(snapshot))
}

/// Rejects a held snapshot.
#[utoipa::path(post, path = "/v1/audiences/{name}/reject", params(("name" = String, Path)), request_body = SnapshotVersion, responses((status = 200, body = AudienceSnapshot, description = "the snapshot"), (status = 404, description = "no such audience or version"), (status = 409, description = "it is not held")))]
pub(crate) async fn reject(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(SnapshotVersion { version }): Body<SnapshotVersion>,
) -> SnapshotResult {
    let name = operations::declared(&node, &name)?;
    let snapshot = operations::reject(&node, &name, version, caller.name()).await?;
    Ok(Json(snapshot))
}

/// Rolls back to an older snapshot and pins it: no other snapshot is served until it is released. An open
/// refresh is cancelled.
#[utoipa::path(post, path = "/v1/audiences/{name}/rollback", params(("name" = String, Path)), request_body = SnapshotVersion, responses((status = 200, body = AudienceSnapshot, description = "the snapshot"), (status = 404, description = "no such audience or version"), (status = 409, description = "it was never published, or its file is damaged")))]
pub(crate) async fn rollback(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(SnapshotVersion { version }): Body<SnapshotVersion>,
) -> SnapshotResult {
    let name = operations::declared(&node, &name)?;
    let snapshot = operations::rollback(&node, &name, version, caller.name()).await?;
    Ok(Json(snapshot))
}
