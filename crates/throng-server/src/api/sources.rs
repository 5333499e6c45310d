//! Sources: their tables, and what is passed over.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::NodeContext;

use super::error::ApiError;

/// Every table of every source.
#[utoipa::path(get, path = "/v1/sources", responses((status = 200, body = super::answers::SourceList, description = "`sources`: name, path, `tables` (name, files, bytes, rows if they are known, columns with types, `refused` with the cause), `passed_over` with the reason"), (status = 503, description = "the tables cannot be listed: too much memory or time")))]
pub(crate) async fn list(State(ctx): State<Arc<NodeContext>>) -> Result<Json<Value>, ApiError> {
    let listed = ctx.lake.load_full().list().await.map_err(|error| {
        let said = ApiError::unavailable(throng_model::with_causes(&error));
        match error.help() {
            Some(help) => said.help(help).without_retry(),
            None => said,
        }
    })?;
    Ok(Json(json!({ "sources": listed })))
}
