//! Sources with their tables and skipped files.

use axum::Json;
use axum::extract::State;
use throng_api::SourceList;
use throng_operations::mapping::sources as mapping;

use crate::api::state::SourcesState;

use super::error::ApiError;

/// All tables of all sources.
#[utoipa::path(get, path = "/v1/sources", responses((status = 200, body = SourceList, description = "`sources`: name, path, `tables` (name, files, bytes, rows if known, columns with types, `refused` with the cause), `passed_over`: skipped files with the reason"), (status = 503, description = "the tables cannot be listed, because it takes too much memory or time")))]
pub(crate) async fn list(State(ctx): State<SourcesState>) -> Result<Json<SourceList>, ApiError> {
    let sources = ctx.lake.load_full().list().await.map_err(|error| {
        let response = ApiError::unavailable(throng_model::with_causes(&error));
        match error.help() {
            Some(help) => response.help(help).without_retry(),
            None => response,
        }
    })?;
    Ok(Json(SourceList { sources: sources.into_iter().map(mapping::source).collect() }))
}
