//! Changes as server-sent events: `audiences`, `activation`, `budgets`, `spec`. A page reloads when it receives
//! one. A reader that lags loses only repeated events, because an event has no content but its name.

use std::convert::Infallible;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::api::state::StreamState;
use crate::changes::Change;

fn event_name(change: Change) -> &'static str {
    match change {
        Change::Audiences => "audiences",
        Change::Activation => "activation",
        Change::Budgets => "budgets",
        Change::Spec => "spec",
    }
}

/// Streams what has changed.
#[utoipa::path(get, path = "/v1/stream", responses((status = 200, body = String, description = "server-sent events", content_type = "text/event-stream")))]
pub(crate) async fn changes(
    State(ctx): State<StreamState>,
    Extension(stop): Extension<CancellationToken>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = BroadcastStream::new(ctx.changes.subscribe())
        .filter_map(async |change| change.ok().map(|c| Ok(Event::default().data(event_name(c)))))
        .take_until(stop.cancelled_owned());
    Sse::new(changes).keep_alive(KeepAlive::default())
}
