//! Activation: the node as the runtime of `throng-activation` sees it.

mod identifier_keys;
mod node_state;

use throng_activation::EnqueueError;
use throng_model::{SyncName, Timestamp};
use throng_store::LedgerError;

use crate::NodeContext;
pub(crate) use identifier_keys::IdentifierKeySource;
pub(crate) use node_state::ActivationNode;

/// Requests a run of a sync; see [`throng_activation::request_run`].
pub(crate) async fn request_run(
    ctx: &NodeContext,
    sync: &SyncName,
    full: bool,
    forget: bool,
) -> Result<(), LedgerError> {
    throng_activation::request_run(&*ctx.ledger, ctx.clock.now(), sync, full, forget).await
}

/// Enqueues tasks that are due and were not enqueued since `before`. Returns their number.
pub(crate) async fn enqueue_due_tasks(
    ctx: &NodeContext,
    before: Timestamp,
) -> Result<u64, EnqueueError> {
    let queue = &*ctx.queues.tasks;
    throng_activation::enqueue_due_tasks(&*ctx.ledger, &*ctx.clock, queue, before).await
}
