//! Alerts, with the results of their deliveries.

use axum::extract::{Query, State};
use serde::Deserialize;
use throng_operations::alerts;
use throng_page::alerts::PAGE_ROWS;

use super::{Context, Page, html};

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
) -> Page {
    let list = alerts::list(&ctx.operations(), PAGE_ROWS, from).await?;
    html(throng_page::alerts::page(list, from, ctx.clock.now()))
}
