//! Sources with their tables and skipped files.

use axum::Json;
use axum::extract::State;
use throng_api::SourceList;
use throng_operations::sources as operations;

use crate::api::state::SourcesState;

use super::error::ApiError;
use super::operations::OperationsOf;

/// All tables of all sources; of those of its workspace, if the caller is limited to one.
#[utoipa::path(get, path = "/v1/sources", responses((status = 200, body = SourceList, description = "`sources`: name, path, `tables` (name, files, bytes, rows if known, columns with types, `refused` with the cause), `passed_over`: skipped files with the reason"), (status = 503, description = "the tables cannot be listed, because it takes too much memory or time")))]
pub(crate) async fn list(
    State(ctx): State<SourcesState>,
    OperationsOf(node): OperationsOf,
) -> Result<Json<SourceList>, ApiError> {
    let sources = operations::list(&node, &ctx.lake.load_full()).await.map_err(|error| {
        let response = ApiError::unavailable(throng_model::with_causes(&error));
        match error.help() {
            Some(help) => response.help(help).without_retry(),
            None => response,
        }
    })?;
    Ok(Json(SourceList { sources }))
}
