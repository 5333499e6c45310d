//! Removals of syncs whose audience on the platform is to be emptied or deleted.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{RemovalList, SyncNamed};
use throng_operations::removals as operations;

use crate::NodeContext;

use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;

/// The removals that are not finished.
#[utoipa::path(get, path = "/v1/removals", responses((status = 200, body = RemovalList, description = "`removals`: sync, rule, platform_id, users, approved_by, last_error")))]
pub(crate) async fn list(State(ctx): Ctx) -> Result<Json<RemovalList>, ApiError> {
    let removals = operations::list(&ctx.operations()).await?;
    let removals = removals.into_iter().map(|(removal, _)| removal).collect();
    Ok(Json(RemovalList { removals }))
}

/// Approves a removal: the audience on the platform is emptied or deleted.
#[utoipa::path(post, path = "/v1/removals/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is already approved")))]
pub(crate) async fn approve(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::approve(&ctx.operations(), &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// Discards a removal: the audience on the platform is not changed.
#[utoipa::path(post, path = "/v1/removals/{name}/keep", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is being carried out")))]
pub(crate) async fn keep(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::discard(&ctx.operations(), &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}
