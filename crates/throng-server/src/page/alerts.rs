//! Alerts, with the results of their deliveries.

use axum::extract::{Query, State};
use serde::Deserialize;
use throng_api::ListQuery;
use throng_operations::{alerts, lists};
use throng_page::alerts::PAGE_ROWS;

use super::{Context, Page, html, one_page};

/// The query of the page.
#[derive(Debug, Deserialize)]
pub(super) struct AlertsQuery {
    /// The number of alerts to skip first.
    #[serde(default)]
    from: u32,
}

pub(super) async fn page(
    State(ctx): Context,
    Query(AlertsQuery { from }): Query<AlertsQuery>,
    Query(query): Query<ListQuery>,
) -> Page {
    let (node, now) = (ctx.operations(), ctx.clock.now());
    if !query.is_unfiltered() {
        let list = lists::alerts(&node, &one_page(&query)).await?;
        return html(throng_page::alerts::matching(list, query, now));
    }
    let list = alerts::list(&node, PAGE_ROWS, from).await?;
    html(throng_page::alerts::page(list, from, now))
}
