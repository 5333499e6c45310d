//! The schedule role: queues refreshes that are due.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{Change, NodeContext};

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let changes = ctx.changes.subscribe();
    let is_new_spec = |change: &Change| *change == Change::Spec;
    throng_refresh::run_schedules(Arc::clone(&ctx.refresh), changes, is_new_spec, shutdown).await;
}
