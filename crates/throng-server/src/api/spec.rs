//! The applied spec.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_spec::Spec;
use utoipa::ToSchema;

use crate::NodeContext;
use crate::access::Caller;

use super::body::Body;
use super::error::ApiError;

/// A spec to apply.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Apply {
    /// A checked spec, as `throng apply` sends it.
    #[schema(value_type = Object)]
    spec: Value,
}

/// The applied spec; secrets are references in it.
#[utoipa::path(get, path = "/v1/spec", responses((status = 200, description = "`version`, `spec`, `applied_at`")))]
pub(crate) async fn current(State(ctx): State<Arc<NodeContext>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(match ctx.ledger.applied_spec().await? {
        Some(applied) => json!(applied),
        None => json!({ "version": 0, "spec": null }),
    }))
}

/// Applies a spec to the running node.
#[utoipa::path(post, path = "/v1/spec/apply", request_body = Apply, responses((status = 200, description = "`version`"), (status = 400, description = "not a spec")))]
pub(crate) async fn apply(
    State(ctx): State<Arc<NodeContext>>,
    Extension(caller): Extension<Caller>,
    Body(Apply { spec }): Body<Apply>,
) -> Result<Json<Value>, ApiError> {
    let spec: Spec = serde_json::from_value(spec).map_err(|error| {
        ApiError::bad_request(format!("this is no checked spec: {error}"))
            .help("check and send it with `throng apply`, of the same version as the node")
    })?;
    let version = crate::node::apply_spec(&ctx, spec, caller.name())
        .await
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(Json(json!({ "version": version })))
}
