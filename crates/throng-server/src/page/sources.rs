//! Sources: tables with their files and columns, and skipped files.

use axum::extract::State;
use throng_operations::sources as operations;

use super::{Context, OperationsOf, Page, html};

pub(super) async fn page(State(ctx): Context, OperationsOf(node): OperationsOf) -> Page {
    let sources = operations::list(&node, &ctx.lake.load_full()).await;
    let sources = sources.map_err(|error| throng_model::with_causes(&error));
    html(throng_page::sources::page(sources))
}
