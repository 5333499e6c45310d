//! The parts of a node that activation uses. The node assembles them; platforms, SQL and HTTP are behind traits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_log::Queue;
use throng_membership::{MembershipIndex, SnapshotFile};
use throng_model::{Clock, DestinationName, HashSeed};
use throng_objects::{Objects, ObjectsError};
use throng_spec::Spec;
use throng_store::{Ledger, Snapshot};
use throng_telemetry::Health;
use tokio::sync::Notify;

use super::errors::DeliveredError;
use crate::{Destination, IdentifierKeys, IdentifierSource, Reasons, SendError};

/// The parts of a node that activation uses.
pub struct Activation {
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Plans, delivered states and snapshots.
    pub objects: Arc<dyn Objects>,
    /// The queues between the leader and the workers.
    pub queues: TaskQueues,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
    /// Identifies this process in leases.
    pub holder: String,
    /// The folder for encrypted temporary files; other processes may use it too.
    pub spill_folder: PathBuf,
    /// The state of this process that other parts of the node change.
    pub node: Arc<dyn NodeState>,
    /// The accounts on platforms.
    pub destinations: Arc<dyn Destinations>,
    /// The identifier queries.
    pub identifiers: Arc<dyn IdentifierQueries>,
    /// The open problems of this node.
    pub health: Arc<Health>,
}

/// The queues of task messages.
#[derive(Debug, Clone)]
pub struct TaskQueues {
    /// Tasks that are due.
    pub tasks: Arc<dyn Queue>,
    /// Tasks to check.
    pub checks: Arc<dyn Queue>,
    /// Failed tasks and invalid messages, for other programs; `None` if there is no such queue.
    pub dead_letters: Option<Arc<dyn Queue>>,
}

/// The state of this process that other parts of the node change.
#[async_trait]
pub trait NodeState: Send + Sync {
    /// The applied spec as this process knows it.
    fn spec(&self) -> Arc<Spec> {
        self.spec_and_version().0
    }

    /// The spec with its version. The spec is at least as new as the version.
    fn spec_and_version(&self) -> (Arc<Spec>, u64);

    /// All dictionaries and current snapshots.
    fn membership(&self) -> Arc<MembershipIndex>;

    /// Opens a snapshot. `None` if it cannot be read, which is permanent.
    ///
    /// # Errors
    /// Only transient ones of the object store.
    async fn open_snapshot(&self, row: &Snapshot) -> Result<Option<SnapshotFile>, ObjectsError>;

    /// The keys that identifiers are encrypted with.
    ///
    /// # Errors
    /// If there is no key, or if it cannot be read.
    async fn identifier_keys(&self) -> Result<IdentifierKeys, DeliveredError>;

    /// The duration on the wall clock for a duration on the node's clock, with a lower limit: a fast clock must not
    /// poll a shared ledger without a pause.
    fn poll_delay(&self, duration: Duration) -> Duration;

    /// Notified when a run may have to be planned, or a task may be due.
    fn wake(&self) -> &Notify;

    /// Reports a changed run, task, check or alert to whoever shows them.
    fn publish_change(&self);
}

/// The accounts on platforms.
pub trait Destinations: Send + Sync {
    /// Opens the account of a destination. Secrets are resolved on every call; the connections of an account with
    /// the same settings are reused.
    ///
    /// # Errors
    /// `StopAccount` if a secret is missing or the settings are invalid.
    fn open(&self, declared: &throng_spec::Destination) -> Result<Arc<dyn Destination>, SendError>;

    /// The maximum number of running tasks of an account.
    fn max_tasks(&self, name: &DestinationName) -> u32;

    /// All reasons of a platform; `None` if the platform is not known.
    fn reasons(&self, platform: &str) -> Option<Reasons>;

    /// The keys of a platform of which each identifies one person: only these may be named in a removal.
    fn strong_keys(&self, platform: &str) -> &'static [&'static str];
}

/// Opens the identifier queries of syncs. A trait, so that activation depends on no query engine.
pub trait IdentifierQueries: Send + Sync {
    /// The identifier query of a sync, which hashes rows for a platform. Queries the sources of the applied spec.
    fn query_of(&self, sync: &throng_spec::Sync, platform: &str) -> Arc<dyn IdentifierSource>;
}
