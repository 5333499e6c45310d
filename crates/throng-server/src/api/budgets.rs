//! Budgets of the ad groups.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use throng_model::AdGroupName;

use crate::NodeContext;
use crate::roles::aggregate::AdGroupState;

use super::error::ApiError;

fn view(state: &AdGroupState) -> Value {
    json!({
        "name": state.name,
        "open": state.open,
        "reason": state.reason,
        "budget_micros": state.budget,
        "actual_micros": state.actual,
        "in_flight_micros": state.in_flight,
        "projected_micros": state.projected,
    })
}

/// All ad groups.
#[utoipa::path(get, path = "/v1/budgets", responses((status = 200, body = super::answers::BudgetList, description = "`budgets`: name, open, reason and amounts in micros")))]
pub(crate) async fn list(State(ctx): State<Arc<NodeContext>>) -> Json<Value> {
    let budgets: Vec<Value> = ctx.budgets.states().iter().map(view).collect();
    Json(json!({ "budgets": budgets }))
}

/// One ad group over the day.
#[utoipa::path(get, path = "/v1/budgets/{ad_group}", params(("ad_group" = String, Path)), responses((status = 200, body = super::answers::BudgetDetail, description = "`state`, `points` (actual and in-flight over time), `intervals` (predicted against actual per 3 minutes), `days`"), (status = 404, description = "no such ad group")))]
pub(crate) async fn one(
    State(ctx): State<Arc<NodeContext>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::not_found(format!("no ad group `{name}` in the applied spec"));
    let checked = AdGroupName::new(name.as_str()).map_err(|_| missing())?;
    let states = ctx.budgets.states();
    let state = states.iter().find(|s| s.name == checked).ok_or_else(missing)?;
    let series = ctx.budgets.series(&checked).await?.unwrap_or_default();
    Ok(Json(json!({
        "state": view(state),
        "points": series.points,
        "intervals": series.intervals,
        "days": ctx.ledger.budget_days(&checked, 60).await?,
    })))
}
