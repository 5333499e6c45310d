//! Sizes of audiences on platforms over time.

use axum::Json;
use axum::extract::Path;
use throng_api::SyncSizes;
use throng_operations::syncs as operations;

use super::error::ApiError;
use super::operations::OperationsOf;

/// The sizes that the platform reported for the audience of a sync over the last 30 days, each with the
/// number of users that were delivered.
#[utoipa::path(get, path = "/v1/syncs/{name}/sizes", params(("name" = String, Path)), responses((status = 200, body = SyncSizes, description = "`sizes`, oldest first: at, delivered, lower, upper, settling; `verdict` and `reason` of the whole series"), (status = 404, description = "no such sync")))]
pub(crate) async fn of_sync(
    OperationsOf(node): OperationsOf,
    Path(name): Path<String>,
) -> Result<Json<SyncSizes>, ApiError> {
    let sync = operations::declared(&node, &name)?;
    Ok(Json(operations::sizes(&node, sync).await?))
}
