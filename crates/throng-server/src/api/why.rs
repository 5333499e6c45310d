//! The history of one object.

use axum::Json;
use axum::extract::Path;
use throng_api::History;
use throng_operations::history::of_object;

use super::error::ApiError;
use super::operations::OperationsOf;

/// The history of an audience, a sync or an ad group, newest first.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}", params(("kind" = String, Path, description = "audience, sync or ad_group"), ("name" = String, Path)), responses((status = 200, body = History, description = "`history`: what, why, at, actor"), (status = 404, description = "no such object in the applied spec, and no history of it")))]
pub(crate) async fn history(
    OperationsOf(node): OperationsOf,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<History>, ApiError> {
    Ok(Json(History { history: of_object(&node, &kind, &name).await? }))
}
