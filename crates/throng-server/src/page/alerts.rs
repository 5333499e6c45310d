//! Alerts, with the results of their deliveries.

use axum::extract::{Query, State};
use serde::Deserialize;
use throng_api::ListQuery;
use throng_operations::lists;
use throng_page::alerts::PAGE_ROWS;

use super::{Context, OperationsOf, Page, html};

/// The query of the page.
#[derive(Debug, Deserialize)]
pub(super) struct AlertsQuery {
    /// The number of alerts to skip first.
    #[serde(default)]
    from: u32,
}

pub(super) async fn page(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Query(AlertsQuery { from }): Query<AlertsQuery>,
    Query(query): Query<ListQuery>,
) -> Page {
    let rows = ListQuery { limit: Some(PAGE_ROWS), ..query.clone() };
    let list = lists::alerts(&node, &rows, from).await?;
    html(throng_page::alerts::page(list, from, query, ctx.clock.now()))
}
