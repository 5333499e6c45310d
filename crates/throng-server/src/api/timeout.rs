//! How long a request may take.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::node::BodyWait;

/// Answers 408 where a request takes longer than `limit`. The time in which the node waits for the
/// request's body does not count: that has limits of its own, which let a large body through a slow
/// link.
pub(crate) async fn within(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let wait = request.extensions().get::<BodyWait>().cloned().unwrap_or_default();
    let started = Instant::now();
    let mut deadline = started + limit;
    let mut answer = pin!(next.run(request));
    loop {
        if let Ok(response) = tokio::time::timeout_at(deadline, answer.as_mut()).await {
            return response;
        }
        let extended = started + limit + wait.total(Instant::now());
        if extended <= deadline {
            return StatusCode::REQUEST_TIMEOUT.into_response();
        }
        deadline = extended;
    }
}
