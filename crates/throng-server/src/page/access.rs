//! Tokens and sessions, for administrators.

use axum::extract::State;

use super::{Context, Page, html};
use crate::api::tokens::{all_sessions, all_tokens};

pub(super) async fn page(State(ctx): Context) -> Page {
    let tokens = all_tokens(&ctx).await?;
    html(throng_page::access::page(tokens, all_sessions(&ctx).await?))
}
