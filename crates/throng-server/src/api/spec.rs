//! The applied spec, and planning and applying another one.

use axum::extract::State;
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{CurrentSpec, SentSpec, SpecChanged, SpecPlanned};
use throng_apply::{Planned, Refusal};
use throng_operations::mapping::spec as mapping;
use throng_operations::{CheckError, CheckedSql, check_sql};
use throng_spec::SpecFiles;

use crate::api::state::SpecState;

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

/// Checks a spec that was sent, as `throng check` does and against this node's limits, and compares it with the
/// applied one.
async fn plan_sent(ctx: &SpecState, files: SpecFiles) -> Result<(Planned, CheckedSql), Refusal> {
    let mut checked = ctx.applier.check(files, ctx.limits.now()).await?;
    let warehouses = Some(ctx.refresh.warehouses());
    let applied = ctx.applier.running.load();
    let sql = check_sql(&checked.lake, warehouses, &checked.spec, Some(&applied), &|_, _| {}).await;
    let sql: CheckedSql = match sql {
        Ok(sql) => sql,
        Err(CheckError::Problems(problems)) => return Err(Refusal::Problems(problems)),
        Err(CheckError::Worker(error)) => return Err(Refusal::Failed(error.into())),
    };
    checked.warnings.extend(sql.warnings());
    Ok((ctx.applier.plan(checked).await?, sql))
}

/// The applied spec; secrets are references in it.
#[utoipa::path(get, path = "/v1/spec", responses((status = 200, body = CurrentSpec, description = "`version`, `spec`, `applied_at`")))]
pub(crate) async fn current(State(ctx): State<SpecState>) -> Result<Json<CurrentSpec>, ApiError> {
    Ok(Json(mapping::current(ctx.ledger.applied_spec().await?)))
}

/// Checks a spec and returns what applying it would change. Changes nothing.
#[utoipa::path(post, path = "/v1/spec/plan", request_body = SentSpec, responses((status = 200, body = SpecPlanned, description = "`version`: the applied version; `plan`, `models`, `templates`"), (status = 400, description = "`invalid_spec`: `error.problems`: the problems of the spec, or limits of this node that it exceeds")))]
pub(crate) async fn plan(
    State(ctx): State<SpecState>,
    Body(SentSpec { base, files, .. }): Body<SentSpec>,
) -> Result<Json<SpecPlanned>, ApiError> {
    let (planned, sql) = plan_sent(&ctx, mapping::files(base, files)).await?;
    let models: Result<Vec<_>, _> = sql.models.into_iter().map(mapping::model).collect();
    Ok(Json(SpecPlanned {
        version: planned.version,
        plan: mapping::plan(planned.plan),
        models: models.map_err(|error| ApiError::internal(&error))?,
        templates: sql.templates,
    }))
}

/// Checks a spec and applies it to the running node.
#[utoipa::path(post, path = "/v1/spec/apply", request_body = SentSpec, responses((status = 200, body = SpecChanged, description = "`version`: the new version; `plan`: what changed"), (status = 400, description = "`invalid_spec`: `error.problems`: the problems of the spec, or limits of this node that it exceeds"), (status = 409, description = "`conflict`: another spec was applied since `base_version`")))]
pub(crate) async fn apply(
    State(ctx): State<SpecState>,
    Extension(caller): Extension<Caller>,
    Body(SentSpec { base, files, base_version }): Body<SentSpec>,
) -> Result<Json<SpecChanged>, ApiError> {
    let (planned, _) = plan_sent(&ctx, mapping::files(base, files)).await?;
    let (version, plan) = ctx.applier.apply(planned, base_version, caller.name()).await?;
    Ok(Json(SpecChanged { version, plan: mapping::plan(plan) }))
}
