//! What the roles of a node share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_gate::Gate;
use throng_lake::{Lake, WorkerCommand};
use throng_log::{EventLog, Queue};
use throng_membership::MembershipIndex;
use throng_model::{Clock, HashSeed, StorageProblem, Timestamp, poll_delay};
use throng_objects::Objects;
use throng_refresh::RefreshContext;
use throng_spec::{Role, Spec};
use throng_store::Ledger;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::limits::NodeLimits;
use crate::metrics::Collector;
use crate::node::Environment;
use crate::roles::aggregate::Budgets;
use crate::{Health, Impact, ProblemClass};

/// Begins the keys of problems that a part of the node met while it worked.
const DISK_PROBLEM: &str = "while working: ";

/// Something that pages and waiting callers may want to look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An audience, a refresh or a snapshot.
    Audiences,
    /// A run, a task, a check or an alert.
    Activation,
    /// Budget figures.
    Budgets,
    /// The applied spec.
    Spec,
}

/// Queues of work.
#[derive(Debug)]
pub struct Queues {
    /// Tasks that are due.
    pub tasks: Arc<dyn Queue>,
    /// Tasks that are to be checked.
    pub checks: Arc<dyn Queue>,
    /// Tasks that gave up, with the reason, for other programs; `None` where none could read it.
    pub dead: Option<Arc<dyn Queue>>,
}

/// The shared parts of a node. Roles hold it as `Arc<NodeContext>`.
pub struct NodeContext {
    /// Where this process keeps what is its own.
    pub data_dir: PathBuf,
    /// What this process does.
    pub roles: Vec<Role>,
    /// Whether snapshots are mapped here.
    pub serves_membership: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The applied spec; swapped when another one is applied.
    pub spec: Arc<ArcSwap<Spec>>,
    /// Its version in the ledger, or that of the one before while it is swapped.
    pub(crate) spec_version: AtomicU64,
    /// Held by whoever swaps it: one at a time, so that an older one never replaces a newer one.
    pub(crate) spec_turn: tokio::sync::Mutex<()>,
    /// Where this node answers, once it does.
    pub url: OnceLock<String>,
    /// Since when it is up.
    pub started_at: Timestamp,
    /// What is wrong with this node now.
    pub health: Arc<Health>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots, parts and checkpoints.
    pub objects: Arc<dyn Objects>,
    /// How work reaches workers.
    pub queues: Queues,
    /// The deployment's hash seed.
    pub seed: HashSeed,
    /// Who this process is in leases: host, process id and a random number.
    pub holder: String,
    /// SQL over the sources of the applied spec.
    pub lake: Arc<ArcSwap<Lake>>,
    /// How query workers are started.
    pub query_worker: WorkerCommand,
    /// What is published: all dictionaries and current snapshots.
    pub membership: Arc<ArcSwap<MembershipIndex>>,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// Spend aggregation and the feed.
    pub budgets: Arc<Budgets>,
    /// The node's own gate, fed by its own feed; answers `POST /v1/decide`.
    pub gate: Arc<Gate>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// What specs that arrive over HTTP may name.
    pub(crate) limits: NodeLimits,
    /// What was read for the last scrape of metrics.
    pub(crate) collector: Collector,
    /// Cancelled when the data directory is no longer the one that was opened: nothing that is
    /// written is kept, so the node changes nothing more.
    pub(crate) data_directory_lost: CancellationToken,
    /// The refresh runtime.
    pub refresh: Arc<RefreshContext>,
    /// Tells builders that a refresh may be due.
    pub wake_build: Arc<Notify>,
    /// Tells workers that a task may be due.
    pub wake_activate: Arc<Notify>,
    /// Tells pages what changed. Lagging readers just look again.
    pub changes: broadcast::Sender<Change>,
}

impl std::fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeContext").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl NodeContext {
    /// Goes on with another spec. The caller holds `spec_turn`.
    pub(crate) fn set_spec(&self, spec: Spec, version: u64) {
        self.spec.store(Arc::new(spec));
        self.spec_version.store(version, Ordering::Release);
    }

    /// The applied spec as this process knows it, which is at least as new as the version.
    pub(crate) fn spec_and_version(&self) -> (Arc<Spec>, u64) {
        let version = self.spec_version.load(Ordering::Acquire);
        (self.spec.load_full(), version)
    }

    /// How long a role really waits for so much of the node's clock. However fast that runs, nobody
    /// looks without end: least of all at a ledger that many processes share.
    pub(crate) fn pause(&self, duration: Duration) -> Duration {
        poll_delay(&*self.clock, duration, self.spec.load().node.is_shared())
    }

    /// Where a browser on this machine, or by `node.public_url` on any, finds the page; without a
    /// slash at its end.
    pub(crate) fn page_url(&self) -> String {
        let spec = self.spec.load();
        let own = self.url.get().cloned().unwrap_or_default();
        let local = own.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
        spec.node.public_url.clone().unwrap_or(local)
    }

    /// Reports an error of a part of this node if a disk is the cause: `/readyz` names the class, and
    /// the problem is cleared when a write to the data directory succeeds. The part tries again on
    /// its own.
    pub(crate) fn note_storage(&self, part: &str, error: &(dyn std::error::Error + 'static)) {
        note_storage(&self.health, part, error);
    }

    /// Clears what [`note_storage`](Self::note_storage) reported.
    pub(crate) fn storage_recovered(&self) {
        for problem in self.health.problems() {
            if problem.class == ProblemClass::Disk && problem.key.starts_with(DISK_PROBLEM) {
                self.health.clear(problem.class, &problem.key);
            }
        }
    }

    /// Tells pages that something changed. Never waits.
    pub fn changed(&self, change: Change) {
        // No page open is no error.
        let _ = self.changes.send(change);
    }
}

/// See [`NodeContext::note_storage`].
pub(crate) fn note_storage(health: &Health, part: &str, error: &(dyn std::error::Error + 'static)) {
    let Some(problem) = StorageProblem::in_causes(error) else { return };
    if !matches!(problem, StorageProblem::DiskFull | StorageProblem::ReadOnly | StorageProblem::Io)
    {
        return;
    }
    let words = throng_model::with_causes(error);
    let detail = format!("{part}: {problem} ({words}); {}", problem.hint());
    let key = format!("{DISK_PROBLEM}{part}");
    health.report_as(ProblemClass::Disk, Impact::Degraded, &key, detail);
}
