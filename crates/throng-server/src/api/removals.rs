//! Removals of syncs whose audience on the platform is to be emptied or deleted.

use axum::extract::Path;
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{RemovalList, SyncNamed};
use throng_operations::removals as operations;

use super::error::ApiError;
use super::operations::OperationsOf;

/// The removals that are not finished.
#[utoipa::path(get, path = "/v1/removals", responses((status = 200, body = RemovalList, description = "`removals`: sync, rule, platform_id, users, approved_by, last_error")))]
pub(crate) async fn list(OperationsOf(node): OperationsOf) -> Result<Json<RemovalList>, ApiError> {
    let removals = operations::list(&node).await?;
    let removals = removals.into_iter().map(|(removal, _)| removal).collect();
    Ok(Json(RemovalList { removals }))
}

/// Approves a removal: the audience on the platform is emptied or deleted.
#[utoipa::path(post, path = "/v1/removals/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is already approved")))]
pub(crate) async fn approve(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::approve(&node, &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// Discards a removal: the audience on the platform is not changed.
#[utoipa::path(post, path = "/v1/removals/{name}/keep", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is being carried out")))]
pub(crate) async fn keep(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::discard(&node, &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}
