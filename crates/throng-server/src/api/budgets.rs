//! Budgets of the ad groups.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use throng_api::{BudgetDetail, BudgetList, BudgetReport, BudgetReportFormat, BudgetReportQuery};
use throng_model::AdGroupName;
use throng_operations::budget_report::{BudgetReportError, report as report_of};
use throng_operations::mapping::budgets as mapping;

use crate::api::state::BudgetsState;

use super::error::ApiError;
use super::operations::OperationsOf;

/// All ad groups.
#[utoipa::path(get, path = "/v1/budgets", responses((status = 200, body = BudgetList, description = "`budgets`: name, open, is_known, reason, currency and amounts in micros")))]
pub(crate) async fn list(State(ctx): State<BudgetsState>) -> Json<BudgetList> {
    Json(BudgetList { budgets: ctx.budgets.states().iter().map(mapping::state).collect() })
}

/// Billable spend, overdelivery and what is left over by day, with predicted against actual spend.
#[utoipa::path(get, path = "/v1/budgets/report", params(("from" = Option<String>, Query, description = "the first day, such as 2026-11-23: six days before `to` by default"), ("to" = Option<String>, Query, description = "the last day: by default the newest one that has begun for any advertiser"), ("advertiser" = Option<String>, Query, description = "one advertiser; all by default"), ("format" = Option<String>, Query, description = "`json` (default) or `csv`, which has the days")), responses((status = 200, description = "`days`, each of an ad group, and sums: `advertiser_days`, `ad_groups`, `totals` by currency; amounts in micros, at most a minute old", content((BudgetReport = "application/json"), (String = "text/csv"))), (status = 400, description = "not a day, the wrong order, or too many days"), (status = 404, description = "no such advertiser")))]
pub(crate) async fn report(
    OperationsOf(node): OperationsOf,
    Query(query): Query<BudgetReportQuery>,
) -> Result<Response, ApiError> {
    let report = report_of(&node, &query).await?;
    if query.format != Some(BudgetReportFormat::Csv) {
        return Ok(Json(report).into_response());
    }
    let content_type = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    Ok((content_type, throng_report::csv(&report)).into_response())
}

impl From<BudgetReportError> for ApiError {
    fn from(error: BudgetReportError) -> Self {
        let (message, help) = (error.to_string(), error.help());
        match error {
            BudgetReportError::Ledger(error) => error.into(),
            BudgetReportError::NoAdvertiser { .. } => Self::not_found(message).help(help),
            _ => Self::bad_request(message).help(help),
        }
    }
}

/// One ad group with its spend over the day.
#[utoipa::path(get, path = "/v1/budgets/{ad_group}", params(("ad_group" = String, Path)), responses((status = 200, body = BudgetDetail, description = "`state`, `points` (actual and in-flight over time), `intervals` (predicted against actual per 3 minutes), `days`, newest first; `slices`: spend by quarter of an hour, without those that have none, the newest 864; `rates`: declared and learned, with intervals, also by placement"), (status = 404, description = "no such ad group")))]
pub(crate) async fn one(
    State(ctx): State<BudgetsState>,
    Path(name): Path<String>,
) -> Result<Json<BudgetDetail>, ApiError> {
    let missing = || {
        ApiError::not_found(format!("no ad group `{name}` in the applied spec"))
            .help("`throng budget` shows the names")
    };
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
        rates: mapping::rates(past.rates),
    }))
}
