//! Budgets of the ad groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use throng_aggregator::AdGroupState;
use throng_model::{AdGroupName, BudgetDay, Micros};
use throng_store::BudgetDayRow;

use crate::NodeContext;

use super::error::ApiError;

fn view(state: &AdGroupState) -> Value {
    json!({
        "name": state.name,
        "open": state.open,
        "reason": state.reason,
        "currency": state.currency,
        "budget_micros": state.budget,
        "actual_micros": state.actual,
        "in_flight_micros": state.in_flight,
        "projected_micros": state.projected,
    })
}

/// All ad groups.
#[utoipa::path(get, path = "/v1/budgets", responses((status = 200, body = super::answers::BudgetList, description = "`budgets`: name, open, reason, currency and amounts in micros")))]
pub(crate) async fn list(State(ctx): State<Arc<NodeContext>>) -> Json<Value> {
    let budgets: Vec<Value> = ctx.budgets.states().iter().map(view).collect();
    Json(json!({ "budgets": budgets }))
}

/// Budget days, newest first: the last 8 as they are counted now, the earlier ones as they were stored.
fn days(
    state: &AdGroupState,
    stored: Vec<BudgetDayRow>,
    counted: &[(BudgetDay, Micros)],
) -> Vec<BudgetDayRow> {
    let mut days: BTreeMap<BudgetDay, BudgetDayRow> =
        stored.into_iter().map(|row| (row.day, row)).collect();
    for (day, actual) in counted {
        let row = || BudgetDayRow {
            ad_group: state.name.clone(),
            day: *day,
            budget: state.budget,
            actual: *actual,
        };
        // A stored day without spend stays: it may have had spend in the time zone of that time.
        if actual.0 != 0 || days.contains_key(day) {
            days.entry(*day).or_insert_with(row).actual = *actual;
        }
    }
    days.into_values().rev().collect()
}

/// One ad group with its spend over the day.
#[utoipa::path(get, path = "/v1/budgets/{ad_group}", params(("ad_group" = String, Path)), responses((status = 200, body = super::answers::BudgetDetail, description = "`state`, `points` (actual and in-flight over time), `intervals` (predicted against actual per 3 minutes), `days`, newest first; `slices`: spend by quarter of an hour, without those that have none, the newest 864"), (status = 404, description = "no such ad group")))]
pub(crate) async fn one(
    State(ctx): State<Arc<NodeContext>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::not_found(format!("no ad group `{name}` in the applied spec"));
    let checked = AdGroupName::new(name.as_str()).map_err(|_| missing())?;
    let states = ctx.budgets.states();
    let state = states.iter().find(|s| s.name == checked).ok_or_else(missing)?;
    let past = ctx.budgets.spend_history(&checked).await?.unwrap_or_default();
    let stored = ctx.ledger.budget_days(&checked, 60).await?;
    Ok(Json(json!({
        "state": view(state),
        "points": past.series.points,
        "intervals": past.series.intervals,
        "days": days(state, stored, &past.days),
        "slices": past.slices,
    })))
}
