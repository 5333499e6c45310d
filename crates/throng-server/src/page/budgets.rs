//! Budgets: all ad groups, and one of them.

use axum::extract::{Path, Query, State};
use serde::Deserialize;
use throng_api::BudgetReportQuery;
use throng_operations::members::members;
use throng_operations::{budget_report, history, mapping::budgets as mapping};
use throng_page::budgets::AdGroupView;
use throng_store::SubjectKind;

use super::{Context, OperationsOf, Page, PageError, html};

/// The entries of the history.
const HISTORY_ROWS: u32 = 30;

/// The query of the page.
#[derive(Deserialize)]
pub(super) struct BudgetsQuery {
    #[serde(default)]
    search: String,
}

pub(super) async fn list(State(ctx): Context, Query(query): Query<BudgetsQuery>) -> Page {
    let states: Vec<_> = ctx.budgets.states().iter().map(mapping::state).collect();
    let (_, gates) = members(&*ctx.ledger, ctx.clock.now(), ctx.budgets.gates()).await?;
    html(throng_page::budgets::list(&states, &gates, &query.search, ctx.clock.now()))
}

pub(super) async fn report(
    OperationsOf(node): OperationsOf,
    Query(query): Query<BudgetReportQuery>,
) -> Page {
    let report = budget_report::report(&node, &query).await;
    let report = report.map_err(|error| PageError::Failed(error.into()))?;
    html(throng_page::budget_report::page(&report, query.advertiser.as_deref()))
}

pub(super) async fn one(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Path(name): Path<String>,
) -> Page {
    let states = ctx.budgets.states();
    let found = states.iter().find(|state| state.name.as_str() == name);
    let state = found.ok_or_else(|| {
        PageError::Missing(format!("There is no ad group {name} in the applied spec."))
    })?;
    let past = ctx.budgets.spend_history(&state.name).await?.unwrap_or_default();
    let series = past.series;
    let subject = (SubjectKind::AdGroup, name.as_str());
    let view = AdGroupView {
        state: mapping::state(state),
        points: series.points.into_iter().map(mapping::point).collect(),
        intervals: series.intervals.into_iter().map(mapping::interval).collect(),
        rates: mapping::rates(past.rates),
        history: history::newest(&node, Some(subject), HISTORY_ROWS).await?,
    };
    html(throng_page::budgets::one(&view))
}
