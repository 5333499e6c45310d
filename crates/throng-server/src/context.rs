//! The shared parts of a node.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use throng_access::{Access, NodeLimits};
use throng_activation::TaskQueues;
use throng_aggregator::Budgets;
use throng_apply::{RunningSpec, SpecApplier};
use throng_gate::Gate;
use throng_ingest::Ingest;
use throng_lake::Lake;
use throng_log::EventLog;
use throng_membership::MembershipIndex;
use throng_model::{Clock, HashSeed, Timestamp};
use throng_objects::Objects;
use throng_operations::WorkspaceSpecs;
use throng_refresh::RefreshContext;
use throng_spec::{Environment, Role, Spec};
use throng_store::Ledger;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::Health;
use crate::metrics::Collector;
use throng_apply::changes::{self, Change};

/// The shared parts of a node, for the API, the page and callers in the same process. Roles and runtimes
/// take what they need of it.
pub struct NodeContext {
    /// The folder of this process's files.
    pub data_dir: PathBuf,
    /// The roles of this process.
    pub roles: Vec<Role>,
    /// Whether a role of this process needs mapped snapshots.
    pub serves_membership: bool,
    /// The time of everything but tokens and sessions; a simulated one in the demo and in tests.
    pub clock: Arc<dyn Clock>,
    /// The applied spec; swapped when another one is applied.
    pub spec: Arc<ArcSwap<Spec>>,
    /// The same spec with its version.
    pub(crate) running: Arc<RunningSpec>,
    /// The parts of the applied spec that workspaces have.
    pub(crate) workspace_specs: WorkspaceSpecs,
    /// The URL of this node; set once it listens.
    pub url: OnceLock<String>,
    /// How alerts name this node, such as `on this node`; set once it listens.
    pub(crate) alert_place: OnceLock<String>,
    /// When this process started.
    pub started_at: Timestamp,
    /// The open problems of this node.
    pub health: Arc<Health>,
    /// Tokens, sessions and their rights.
    pub access: Arc<Access>,
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots, parts and checkpoints.
    pub objects: Arc<dyn Objects>,
    /// The queues of work.
    pub queues: TaskQueues,
    /// The file of the key of identifiers, which is created at the first use if the spec names no key.
    /// `None` if other processes need the same key.
    pub(crate) identifiers_key_file: Option<PathBuf>,
    /// The cluster's hash seed.
    pub seed: HashSeed,
    /// The name of this process in leases: process id and a random number.
    pub holder: String,
    /// SQL over the sources of the applied spec.
    pub lake: Arc<ArcSwap<Lake>>,
    /// All dictionaries and the published snapshots.
    pub membership: Arc<ArcSwap<MembershipIndex>>,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// Spend aggregation and the feed.
    pub budgets: Arc<Budgets>,
    /// The node's own gate, fed by its own feed; answers `POST /v1/decide`.
    pub gate: Arc<Gate>,
    /// Ingests batches of records; `None` without `node.lake`, or without the role api.
    pub(crate) ingest: Option<Arc<Ingest>>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// What specs that arrive over HTTP may name.
    pub(crate) limits: Arc<NodeLimits>,
    /// Applies other specs.
    pub applier: Arc<SpecApplier>,
    /// Metrics that are read at a scrape, with those of the last scrape.
    pub(crate) collector: Arc<Collector>,
    /// Cancelled when the data directory is no longer the one that was opened. Files that are
    /// written then are lost, so the node changes nothing from then on.
    pub(crate) data_directory_lost: CancellationToken,
    /// The refresh runtime.
    pub refresh: Arc<RefreshContext>,
    /// Wakes builders: a refresh may be due.
    pub wake_build: Arc<Notify>,
    /// Wakes workers: a task may be due.
    pub wake_activate: Arc<Notify>,
    /// Publishes changes to pages. A reader that lags reads everything again.
    pub changes: broadcast::Sender<Change>,
}

impl std::fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeContext").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl NodeContext {
    /// The URL of the page for a browser on this machine, or `node.public_url` for a browser
    /// anywhere; without a trailing slash.
    pub(crate) fn page_url(&self) -> String {
        let spec = self.spec.load();
        let own = self.url.get().cloned().unwrap_or_default();
        let local = own.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
        spec.node.public_url.clone().unwrap_or(local)
    }

    /// Publishes a change to pages and waiting callers. Never waits.
    pub fn publish_change(&self, change: Change) {
        changes::publish(&self.changes, change);
    }
}
