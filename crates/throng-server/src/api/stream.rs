//! Changes as server-sent events: `audiences`, `activation`, `budgets`, `spec`. A page reloads when it receives
//! one. A reader that lags loses only repeated events, because an event has no content but its name.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use throng_access::Caller;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::api::state::StreamState;
use throng_apply::changes::Change;

fn event_name(change: Change) -> &'static str {
    match change {
        Change::Audiences => "audiences",
        Change::Activation => "activation",
        Change::Budgets => "budgets",
        Change::Spec => "spec",
    }
}

/// How often a caller of a workspace gets events.
const WORKSPACE_INTERVAL: Duration = Duration::from_secs(5);

/// Events for a caller of a workspace, at intervals whether or not something has changed: an event after each change
/// would show when objects of other workspaces change.
fn at_intervals() -> impl Stream<Item = Change> {
    const KINDS: [Change; 3] = [Change::Audiences, Change::Activation, Change::Spec];
    let ticks = unfold((), |()| async {
        tokio::time::sleep(WORKSPACE_INTERVAL).await;
        Some((futures::stream::iter(KINDS), ()))
    });
    ticks.flatten()
}

/// Streams what has changed. A caller that is limited to a workspace gets events at intervals.
#[utoipa::path(get, path = "/v1/stream", responses((status = 200, body = String, description = "server-sent events", content_type = "text/event-stream")))]
pub(crate) async fn changes(
    State(ctx): State<StreamState>,
    Extension(caller): Extension<Caller>,
    Extension(stop): Extension<CancellationToken>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = match caller.workspace() {
        Some(_) => at_intervals().left_stream(),
        None => BroadcastStream::new(ctx.changes.subscribe())
            .filter_map(async |change| change.ok())
            .right_stream(),
    };
    let events = changes.map(|change| Ok(Event::default().data(event_name(change))));
    let events = events.take_until(stop.cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default())
}
