//! The applied spec, and planning and applying another one.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_spec::{SpecFile, SpecFiles};
use utoipa::ToSchema;

use crate::NodeContext;
use crate::access::Caller;
use crate::node::{Refusal, apply_planned, plan_sent};

use super::body::Body;
use super::error::ApiError;

/// The files of a spec, as `throng plan` and `throng apply` send them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SentSpec {
    /// The absolute folder on the node that relative paths in the spec are relative to.
    #[schema(value_type = String)]
    base: PathBuf,
    /// The files: `path` is the name of a file in problems, `text` is its content.
    #[schema(value_type = Vec<Object>)]
    files: Vec<SpecFile>,
    /// Apply only if this is the applied version, as `GET /v1/spec` returns it; 0 if no spec is applied.
    /// `plan` ignores it.
    base_version: Option<u64>,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Problems(problems) => Self::invalid_spec(problems),
            Refusal::Superseded { version } => Self::conflict(format!(
                "another spec was applied in the meantime: the applied version is now {version}"
            ))
            .help("run `throng plan` to see what would change now, and apply again"),
            Refusal::Failed(error) => Self::of(&error),
        }
    }
}

/// The applied spec; secrets are references in it.
#[utoipa::path(get, path = "/v1/spec", responses((status = 200, body = super::answers::SpecApplied, description = "`version`, `spec`, `applied_at`")))]
pub(crate) async fn current(State(ctx): State<Arc<NodeContext>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(match ctx.ledger.applied_spec().await? {
        Some(applied) => json!(applied),
        None => json!({ "version": 0, "spec": null }),
    }))
}

/// Checks a spec and returns what applying it would change. Changes nothing.
#[utoipa::path(post, path = "/v1/spec/plan", request_body = SentSpec, responses((status = 200, body = super::answers::SpecPlanned, description = "`version`: the applied version; `plan`, `models`"), (status = 400, description = "`error.problems`: the problems of the spec, or limits of this node that it exceeds")))]
pub(crate) async fn plan(
    State(ctx): State<Arc<NodeContext>>,
    Body(SentSpec { base, files, .. }): Body<SentSpec>,
) -> Result<Json<Value>, ApiError> {
    let planned = plan_sent(&ctx, SpecFiles { base, files }).await?;
    let (version, plan, models) = (planned.version, planned.plan, planned.models);
    Ok(Json(json!({ "version": version, "plan": plan, "models": models })))
}

/// Checks a spec and applies it to the running node.
#[utoipa::path(post, path = "/v1/spec/apply", request_body = SentSpec, responses((status = 200, body = super::answers::SpecChanged, description = "`version`: the new version; `plan`: what changed"), (status = 400, description = "`error.problems`: the problems of the spec, or limits of this node that it exceeds"), (status = 409, description = "another spec was applied since `base_version`")))]
pub(crate) async fn apply(
    State(ctx): State<Arc<NodeContext>>,
    Extension(caller): Extension<Caller>,
    Body(SentSpec { base, files, base_version }): Body<SentSpec>,
) -> Result<Json<Value>, ApiError> {
    let planned = plan_sent(&ctx, SpecFiles { base, files }).await?;
    // In a separate task, so that it ends also if the client disconnects: a spec must not be applied in part.
    let applying =
        tokio::spawn(
            async move { apply_planned(&ctx, planned, base_version, caller.name()).await },
        );
    match applying.await {
        Ok(applied) => {
            let (version, plan) = applied?;
            Ok(Json(json!({ "version": version, "plan": plan })))
        }
        Err(panicked) => Err(ApiError::internal(&panicked)),
    }
}
