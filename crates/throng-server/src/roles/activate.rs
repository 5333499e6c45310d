//! Activation: assembles the parts of this node for the runtime of `throng-activation`, and starts the leader and the
//! workers.

mod destinations;
mod hashing;
mod identifier_keys;
mod identifiers;
mod node_state;

use std::sync::Arc;

use throng_activation::{Activation, EnqueueError, run_workers};
use throng_model::{SyncName, Timestamp};
use throng_store::LedgerError;
use tokio_util::sync::CancellationToken;

use crate::NodeContext;
use destinations::OpenDestinations;
pub use hashing::query_worker;
use node_state::ActivationNode;

/// Sends and checks tasks until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    run_workers(Arc::new(activation(&ctx)), shutdown).await;
}

/// Plans runs and enqueues due tasks while this process leads, until `shutdown`.
pub async fn run_leader(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_activation::run_leader(&activation(&ctx), shutdown).await;
}

fn activation(ctx: &Arc<NodeContext>) -> Activation {
    let node = Arc::new(ActivationNode { ctx: Arc::clone(ctx) });
    Activation {
        ledger: Arc::clone(&ctx.ledger),
        objects: Arc::clone(&ctx.objects),
        queues: ctx.queues.clone(),
        clock: Arc::clone(&ctx.clock),
        seed: ctx.seed,
        holder: ctx.holder.clone(),
        spill_folder: ctx.data_dir.join("spill"),
        destinations: Arc::new(OpenDestinations::new(Arc::clone(&ctx.env))),
        identifiers: Arc::clone(&node) as Arc<dyn throng_activation::IdentifierQueries>,
        node,
    }
}

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
