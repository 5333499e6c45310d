//! The build role: runs the refresh runtime, and gives what it reports to the other parts of the
//! node.

use std::sync::Arc;

use throng_gate::Gate;
use throng_membership::MembershipIndex;
use throng_model::HashSeed;
use throng_objects::Objects;
use throng_refresh::{Observer, ServingFault};
use throng_spec::Spec;
use throng_store::Ledger;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::node::NodeError;
use crate::{Change, Health, NodeContext, ProblemClass};

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_refresh::run(Arc::clone(&ctx.refresh), shutdown).await;
}

/// Opens what is published, for lookups. Also returns what cannot be served as it was published.
///
/// # Errors
/// [`NodeError::Membership`] if ledger or object storage fail.
pub(crate) async fn load_membership(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    seed: HashSeed,
    spec: &Spec,
) -> Result<(MembershipIndex, Vec<ServingFault>), NodeError> {
    let loaded = throng_refresh::load_membership(objects, ledger, seed, spec).await;
    let loaded = loaded.map_err(|error| NodeError::Membership(error.into()))?;
    Ok((loaded.index, loaded.faults))
}

/// Gives what refreshes report to the node: problems to its health, changes to pages, a new index
/// to its gate, and new snapshots to the planner of syncs.
pub(crate) struct NodeObserver {
    health: Arc<Health>,
    gate: Arc<Gate>,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) wake_activate: Arc<Notify>,
}

impl NodeObserver {
    /// An observer whose changes are sent on a new channel of this capacity.
    pub(crate) fn new(health: &Arc<Health>, gate: &Arc<Gate>, capacity: usize) -> Self {
        let (health, gate) = (Arc::clone(health), Arc::clone(gate));
        let changes = broadcast::channel(capacity).0;
        Self { health, gate, changes, wake_activate: Arc::default() }
    }
}

impl Observer for NodeObserver {
    fn audiences_changed(&self) {
        // Without an open page there is no receiver.
        let _ = self.changes.send(Change::Audiences);
    }

    fn snapshot_recorded(&self) {
        self.wake_activate.notify_waiters();
    }

    fn membership_loaded(&self, index: &Arc<MembershipIndex>) {
        self.gate.set_membership(Arc::clone(index));
    }

    fn report_problem(&self, key: &str, detail: &str) {
        self.health.report(ProblemClass::Snapshot, key, detail);
    }

    fn clear_problem(&self, key: &str) {
        self.health.clear(ProblemClass::Snapshot, key);
    }

    fn report_error(&self, part: &str, error: &(dyn std::error::Error + 'static)) {
        self.health.report_storage_error(part, error);
    }
}
