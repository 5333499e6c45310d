//! The applied spec, and planning and applying another one.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{CurrentSpec, SentSpec, SpecChanged, SpecPlanned};
use throng_operations::mapping::spec as mapping;
use throng_spec::{Plan, SpecFiles};

use crate::node::{Refusal, apply_planned, plan_sent};
use crate::{NodeContext, NodeError};

use super::body::Body;
use super::error::ApiError;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Problems(problems) => {
                Self::invalid_spec(problems.into_iter().map(mapping::problem).collect())
            }
            Refusal::Superseded { version } => Self::conflict(format!(
                "another spec was applied in the meantime: the applied version is now {version}"
            ))
            .help("run `throng plan` to see what would change now, and apply again"),
            Refusal::Failed(error) => Self::of(&error),
        }
    }
}

/// The applied spec; secrets are references in it.
#[utoipa::path(get, path = "/v1/spec", responses((status = 200, body = CurrentSpec, description = "`version`, `spec`, `applied_at`")))]
pub(crate) async fn current(
    State(ctx): State<Arc<NodeContext>>,
) -> Result<Json<CurrentSpec>, ApiError> {
    Ok(Json(mapping::current(ctx.ledger.applied_spec().await?)))
}

/// Checks a spec and returns what applying it would change. Changes nothing.
#[utoipa::path(post, path = "/v1/spec/plan", request_body = SentSpec, responses((status = 200, body = SpecPlanned, description = "`version`: the applied version; `plan`, `models`"), (status = 400, description = "`invalid_spec`: `error.problems`: the problems of the spec, or limits of this node that it exceeds")))]
pub(crate) async fn plan(
    State(ctx): State<Arc<NodeContext>>,
    Body(SentSpec { base, files, .. }): Body<SentSpec>,
) -> Result<Json<SpecPlanned>, ApiError> {
    let planned = plan_sent(&ctx, mapping::files(base, files)).await?;
    let models: Result<Vec<_>, _> = planned.models.into_iter().map(mapping::model).collect();
    Ok(Json(SpecPlanned {
        version: planned.version,
        plan: mapping::plan(planned.plan),
        models: models.map_err(|error| ApiError::internal(&error))?,
    }))
}

/// Checks a spec and applies it to the running node.
#[utoipa::path(post, path = "/v1/spec/apply", request_body = SentSpec, responses((status = 200, body = SpecChanged, description = "`version`: the new version; `plan`: what changed"), (status = 400, description = "`invalid_spec`: `error.problems`: the problems of the spec, or limits of this node that it exceeds"), (status = 409, description = "`conflict`: another spec was applied since `base_version`")))]
pub(crate) async fn apply(
    State(ctx): State<Arc<NodeContext>>,
    Extension(caller): Extension<Caller>,
    Body(SentSpec { base, files, base_version }): Body<SentSpec>,
) -> Result<Json<SpecChanged>, ApiError> {
    let files = mapping::files(base, files);
    let (version, plan) = apply_sent(&ctx, files, base_version, caller.name()).await?;
    Ok(Json(SpecChanged { version, plan: mapping::plan(plan) }))
}

/// Checks the files of a spec and applies it to the running node; with a `base`, only over that version.
/// Returns the new version and what changed.
async fn apply_sent(
    ctx: &Arc<NodeContext>,
    files: SpecFiles,
    base: Option<u64>,
    actor: &str,
) -> Result<(u64, Plan), Refusal> {
    let planned = plan_sent(ctx, files).await?;
    let (ctx, actor) = (Arc::clone(ctx), actor.to_owned());
    // In a separate task, so that it ends also if the client disconnects: a spec must not be applied in part.
    let applying = tokio::spawn(async move { apply_planned(&ctx, planned, base, &actor).await });
    match applying.await {
        Ok(applied) => applied,
        Err(panicked) => Err(Refusal::Failed(NodeError::Io {
            doing: "apply",
            what: "the spec".to_owned(),
            source: std::io::Error::other(panicked),
        })),
    }
}
