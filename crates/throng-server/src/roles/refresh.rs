//! The role `build`: gives what the refresh runtime reports to the other parts of the node.

use std::sync::Arc;

use throng_gate::Gate;
use throng_membership::MembershipIndex;
use throng_refresh::Observer;
use tokio::sync::{Notify, broadcast};

use throng_apply::changes::{self, Change};
use throng_telemetry::{Health, ProblemClass};

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
        changes::publish(&self.changes, Change::Audiences);
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
