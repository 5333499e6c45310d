//! The decision records of one object.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::NodeContext;

use super::error::ApiError;

/// The history of an audience, a sync or an ad group, newest first.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}", params(("kind" = String, Path, description = "audience, sync or ad_group"), ("name" = String, Path)), responses((status = 200, description = "`history`: what, why, at")))]
pub(crate) async fn history(
    State(ctx): State<Arc<NodeContext>>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    if !["audience", "sync", "ad_group"].contains(&kind.as_str()) {
        return Err(ApiError::bad_request(format!("`{kind}` is no kind of object"))
            .help("use audience, sync or ad_group"));
    }
    let history = ctx.ledger.history(Some((&kind, &name)), 200).await?;
    Ok(Json(json!({ "history": history })))
}
