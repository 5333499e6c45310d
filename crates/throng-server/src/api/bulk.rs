//! Operations on all objects that match a filter.

use axum::extract::Path;
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{BulkAnswer, BulkRequest};
use throng_operations::bulk;

use super::body::Body;
use super::error::ApiError;
use super::operations::OperationsOf;

/// Counts the failed tasks, held runs or held snapshots that match, at most 200. With `expected` of such an answer each of
/// them is queued again, approved or rejected, if the same ones still match.
#[utoipa::path(post, path = "/v1/bulk/{operation}", params(("operation" = String, Path, description = "requeue-tasks, approve-runs, approve-snapshots or reject-snapshots")), request_body = BulkRequest, responses((status = 200, body = BulkAnswer, description = "`matched`, `totals`, `digest`, `next_cursor`; `done` and `refused`: what was changed, and what was not, with the reasons; `message`"), (status = 404, description = "no such operation or workspace"), (status = 409, description = "other objects match than were confirmed; nothing was changed")))]
pub(crate) async fn act(
    OperationsOf(node): OperationsOf,
    Extension(caller): Extension<Caller>,
    Path(operation): Path<String>,
    Body(request): Body<BulkRequest>,
) -> Result<Json<BulkAnswer>, ApiError> {
    Ok(Json(bulk::act(&node, &operation, &request, caller.name()).await?))
}
