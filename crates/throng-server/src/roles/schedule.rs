//! The schedule role: queues refreshes that are due, and expands templates that are due.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::templates;
use crate::{Change, NodeContext};

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let changes = ctx.changes.subscribe();
    let kinds = [Change::Spec, Change::Audiences];
    let refresh = Arc::clone(&ctx.refresh);
    let refreshes = throng_refresh::run_schedules(refresh, changes, kinds, shutdown.clone());
    tokio::join!(refreshes, templates::run(ctx, shutdown));
}
