//! The timeout of requests.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::body::BodyWait;

/// Responds with 408 if a request takes longer than `limit`. The time in which the server waits for the body
/// does not count: bodies have separate limits, which allow a large body over a slow connection.
pub async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let wait = request.extensions().get::<BodyWait>().cloned().unwrap_or_default();
    let started = Instant::now();
    let mut deadline = started + limit;
    let mut response = pin!(next.run(request));
    loop {
        if let Ok(done) = tokio::time::timeout_at(deadline, response.as_mut()).await {
            return done;
        }
        let extended = started + limit + wait.total(Instant::now());
        if extended <= deadline {
            return StatusCode::REQUEST_TIMEOUT.into_response();
        }
        deadline = extended;
    }
}
