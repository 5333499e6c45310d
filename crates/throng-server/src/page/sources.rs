//! Sources: tables with their files and columns, and skipped files.

use axum::extract::State;
use throng_operations::mapping::sources as mapping;

use super::{Context, Page, html};

pub(super) async fn page(State(ctx): Context) -> Page {
    let sources = match ctx.lake.load_full().list().await {
        Ok(sources) => Ok(sources.into_iter().map(mapping::source).collect()),
        Err(error) => Err(throng_model::with_causes(&error)),
    };
    html(throng_page::sources::page(sources))
}
