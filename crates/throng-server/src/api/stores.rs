//! Serving stores.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{RewriteStore, StoreHashSeed, StoreList, StoreRewrite, StoreWriteList};
use throng_operations::stores as operations;

use crate::NodeContext;

use super::body::Body;
use super::error::ApiError;
use super::operations::OperationsOf;

/// How many writes are listed.
const MAX_WRITES: u32 = 200;

/// The serving stores with what they have of each audience.
#[utoipa::path(get, path = "/v1/stores", responses((status = 200, body = StoreList, description = "`stores`: name, place, audiences with version, newest write and check")))]
pub(crate) async fn list(OperationsOf(node): OperationsOf) -> Result<Json<StoreList>, ApiError> {
    Ok(Json(operations::list(&node).await?))
}

/// The newest writes of a serving store, with batches, users and times.
#[utoipa::path(get, path = "/v1/stores/{name}/writes", params(("name" = String, Path)), responses((status = 200, body = StoreWriteList, description = "`writes`, newest first, at most 200"), (status = 404, description = "no such store")))]
pub(crate) async fn writes(
    OperationsOf(node): OperationsOf,
    Path(name): Path<String>,
) -> Result<Json<StoreWriteList>, ApiError> {
    Ok(Json(operations::writes(&node, &name, MAX_WRITES).await?))
}

/// Writes an audience to a serving store again, or all that the spec has in it, whatever the store has now.
#[utoipa::path(post, path = "/v1/stores/{name}/rewrite", params(("name" = String, Path)), request_body = RewriteStore, responses((status = 200, body = StoreRewrite, description = "`store`, `writes`"), (status = 404, description = "no such store or audience")))]
pub(crate) async fn rewrite(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(RewriteStore { audience }): Body<RewriteStore>,
) -> Result<Json<StoreRewrite>, ApiError> {
    let begun = operations::rewrite(&node, &name, audience.as_deref(), caller.name()).await?;
    Ok(Json(begun))
}

/// Removes an audience that the spec no longer has in a serving store from the store.
#[utoipa::path(post, path = "/v1/stores/{name}/audiences/{audience}/remove", params(("name" = String, Path), ("audience" = String, Path)), responses((status = 200, body = StoreRewrite, description = "`store`, `writes`"), (status = 404, description = "no such store, or nothing of the audience was written"), (status = 409, description = "the spec has the audience in the store")))]
pub(crate) async fn remove(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path((name, audience)): Path<(String, String)>,
) -> Result<Json<StoreRewrite>, ApiError> {
    let begun = operations::remove(&node, &name, &audience, caller.name()).await?;
    Ok(Json(begun))
}

/// The seed with which ad servers hash their users, to find them in a serving store.
#[utoipa::path(get, path = "/v1/stores/hash-seed", responses((status = 200, body = StoreHashSeed, description = "`hash_seed`: 16 hexadecimal digits")))]
pub(crate) async fn hash_seed(State(ctx): State<Arc<NodeContext>>) -> Json<StoreHashSeed> {
    Json(StoreHashSeed { hash_seed: format!("{:016x}", ctx.seed.0) })
}
