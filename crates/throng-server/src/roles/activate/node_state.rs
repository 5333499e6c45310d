//! The state of this node that activation reads.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use throng_activation::{DeliveredError, IdentifierKeys, NodeState};
use throng_apply::RunningSpec;
use throng_backends::IdentifierKeySource;
use throng_membership::{MembershipIndex, SnapshotFile};
use throng_model::{Clock, Retry};
use throng_objects::{Objects, ObjectsError};
use throng_refresh::{RefreshError, open_snapshot};
use throng_spec::Spec;
use throng_store::Snapshot;
use tokio::sync::{Notify, broadcast};

use throng_apply::changes::{self, Change};

/// The parts of a node that change while it runs.
pub(crate) struct ActivationNode {
    /// The applied spec.
    pub(crate) running: Arc<RunningSpec>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The loaded snapshots.
    pub(crate) membership: Arc<ArcSwap<MembershipIndex>>,
    /// Snapshots.
    pub(crate) objects: Arc<dyn Objects>,
    /// The keys of plans and of delivered state.
    pub(crate) keys: IdentifierKeySource,
    /// Wakes planner and workers.
    pub(crate) wake: Arc<Notify>,
    /// Publishes changed runs, tasks and checks.
    pub(crate) changes: broadcast::Sender<Change>,
}

#[async_trait]
impl NodeState for ActivationNode {
    fn spec_and_version(&self) -> (Arc<Spec>, u64) {
        self.running.with_version()
    }

    fn membership(&self) -> Arc<MembershipIndex> {
        self.membership.load_full()
    }

    async fn open_snapshot(&self, row: &Snapshot) -> Result<Option<SnapshotFile>, ObjectsError> {
        match open_snapshot(&self.objects, row).await {
            Ok(file) => Ok(Some(file)),
            Err(RefreshError::Objects(error)) if error.retry() != Retry::Never => Err(error),
            Err(error) => {
                let (audience, version) = (&row.audience, row.version);
                let error = &error as &dyn std::error::Error;
                tracing::error!(%audience, version, error, "failed to open snapshot");
                Ok(None)
            }
        }
    }

    async fn identifier_keys(&self) -> Result<IdentifierKeys, DeliveredError> {
        self.keys.keys(&self.running.load().node).await
    }

    fn poll_delay(&self, duration: Duration) -> Duration {
        self.running.poll_delay(&*self.clock, duration)
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn publish_change(&self) {
        changes::publish(&self.changes, Change::Activation);
    }
}
