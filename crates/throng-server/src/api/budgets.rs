//! Budgets of the ad groups.

use axum::Json;
use axum::extract::{Path, State};
use throng_api::{BudgetDetail, BudgetList};
use throng_model::AdGroupName;
use throng_operations::mapping::budgets as mapping;

use crate::api::state::BudgetsState;

use super::error::ApiError;

/// All ad groups.
#[utoipa::path(get, path = "/v1/budgets", responses((status = 200, body = BudgetList, description = "`budgets`: name, open, reason, currency and amounts in micros")))]
pub(crate) async fn list(State(ctx): State<BudgetsState>) -> Json<BudgetList> {
    Json(BudgetList { budgets: ctx.budgets.states().iter().map(mapping::state).collect() })
}

/// One ad group with its spend over the day.
#[utoipa::path(get, path = "/v1/budgets/{ad_group}", params(("ad_group" = String, Path)), responses((status = 200, body = BudgetDetail, description = "`state`, `points` (actual and in-flight over time), `intervals` (predicted against actual per 3 minutes), `days`, newest first; `slices`: spend by quarter of an hour, without those that have none, the newest 864"), (status = 404, description = "no such ad group")))]
pub(crate) async fn one(
    State(ctx): State<BudgetsState>,
    Path(name): Path<String>,
) -> Result<Json<BudgetDetail>, ApiError> {
    let missing = || ApiError::not_found(format!("no ad group `{name}` in the applied spec"));
    let checked = AdGroupName::new(name.as_str()).map_err(|_| missing())?;
    let states = ctx.budgets.states();
    let state = states.iter().find(|s| s.name == checked).ok_or_else(missing)?;
    let past = ctx.budgets.spend_history(&checked).await?.unwrap_or_default();
    let stored = ctx.ledger.budget_days(&checked, 60).await?;
    Ok(Json(BudgetDetail {
        state: mapping::state(state),
        points: past.series.points.into_iter().map(mapping::point).collect(),
        intervals: past.series.intervals.into_iter().map(mapping::interval).collect(),
        days: mapping::days(state, stored, &past.days),
        slices: past.slices,
    }))
}
