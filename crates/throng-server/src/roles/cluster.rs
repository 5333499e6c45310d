//! What every node does besides its roles: it follows what other nodes publish, and writes its own status for
//! them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_aggregator::Budgets;
use throng_apply::RunningSpec;
use throng_membership::MembershipIndex;
use throng_model::{Clock, POLL_INTERVAL, Timestamp};
use throng_operations::members::NodeStatus;
use throng_refresh::{RefreshContext, declared_audiences, inspect_files, reload_membership};
use throng_spec::Role;
use throng_store::{Ledger, LedgerError, NodeRow};
use throng_telemetry::metrics;
use tokio::sync::{Notify, broadcast};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use throng_apply::changes::{self, Change};

/// How often a node writes its status.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often the files that are served are inspected.
const INSPECT_INTERVAL: Duration = Duration::from_secs(30);
/// After an error of the ledger or the objects.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// What a node needs to follow the others, and to report its own status.
pub(crate) struct ClusterParts {
    /// What other nodes published, and the status of each node.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The spec of this process.
    pub(crate) running: Arc<RunningSpec>,
    /// Loads published snapshots.
    pub(crate) refresh: Arc<RefreshContext>,
    /// The loaded snapshots.
    pub(crate) membership: Arc<ArcSwap<MembershipIndex>>,
    /// Whether a role of this process needs them.
    pub(crate) serves_membership: bool,
    /// Has the partitions and gates of this process.
    pub(crate) budgets: Arc<Budgets>,
    /// Wakes workers of syncs after new snapshots.
    pub(crate) wake_activate: Arc<Notify>,
    /// Publishes new snapshots.
    pub(crate) changes: broadcast::Sender<Change>,
    /// The name of this process, as in leases.
    pub(crate) name: String,
    /// Its roles.
    pub(crate) roles: Vec<Role>,
    /// The address of its API.
    pub(crate) url: String,
    /// When it started.
    pub(crate) started_at: Timestamp,
}

/// Runs until `shutdown`.
pub(crate) async fn run(node: ClusterParts, shutdown: CancellationToken) {
    let mut tried = Tried::default();
    let mut heartbeat_at = node.clock.now();
    // On the machine's timer: the node's clock may run fast, and may stand still.
    let mut inspections = tokio::time::interval(INSPECT_INTERVAL);
    inspections.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is due at once, when the files have just been mapped.
    inspections.tick().await;
    loop {
        if node.clock.now() >= heartbeat_at {
            heartbeat_at = node.clock.now().plus(HEARTBEAT_INTERVAL);
            write_status(&node).await;
            crate::metrics::drain_samples();
        }
        let started = tokio::time::Instant::now();
        let polled = poll(&node, &mut tried).await;
        // A reload takes a good part of a second where thousands of audiences are published one after the other.
        let pause = (4 * started.elapsed()).min(RETRY_DELAY);
        let delay = match polled {
            Ok(()) => node.running.poll_delay(&*node.clock, POLL_INTERVAL).max(pause),
            Err(error) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "failed to follow other nodes"
                );
                RETRY_DELAY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
            _ = inspections.tick(), if node.serves_membership => {
                inspect_files(&node.refresh).await;
            }
        }
    }
}

async fn write_status(node: &ClusterParts) {
    let now = node.clock.now();
    let gates = node.budgets.gates();
    let oldest = gates.iter().map(|gate| now.since(gate.at)).max().unwrap_or_default();
    metrics::gauge!(metrics::GATES).set(gates.len() as f64);
    metrics::gauge!(metrics::GATE_REPORT_AGE_SECONDS_MAX).set(oldest.as_secs_f64());
    let (partitions, stands_by) =
        (node.budgets.led_partitions(), node.budgets.standby_partitions());
    let feed = node.budgets.feed_positions();
    let status = NodeStatus { partitions, stands_by, gates, feed };
    let Ok(status) = serde_json::to_value(&status) else { return };
    let row = NodeRow {
        name: node.name.clone(),
        roles: node.roles.clone(),
        url: node.url.clone(),
        started_at: node.started_at,
        seen_at: now,
        status,
    };
    if let Err(error) = node.ledger.put_node(&row).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to write the status of this node"
        );
    }
}

type Versions = Vec<(throng_model::AudienceName, u64)>;

/// Versions for which a reload was tried, so that a damaged snapshot is not read again with each poll.
#[derive(Default)]
struct Tried {
    versions: Versions,
    /// When to try again: what was missing may be there then.
    retry_at: Option<tokio::time::Instant>,
}

async fn poll(
    node: &ClusterParts,
    tried: &mut Tried,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if !node.serves_membership {
        return Ok(());
    }
    let missing = missing(node).await?;
    let is_due = tried.retry_at.is_some_and(|at| at <= tokio::time::Instant::now());
    if is_due || serves_removed(node) || missing.iter().any(|of| !tried.versions.contains(of)) {
        *tried = Tried::default();
        let retry_after = reload_membership(&node.refresh).await?;
        tried.retry_at = retry_after.map(|delay| tokio::time::Instant::now() + delay);
        node.wake_activate.notify_waiters();
        changes::publish(&node.changes, Change::Audiences);
    }
    tried.versions = missing;
    Ok(())
}

/// Whether this node serves an audience that the spec does not declare.
fn serves_removed(node: &ClusterParts) -> bool {
    let (spec, index) = (node.running.load(), node.membership.load_full());
    let declared = declared_audiences(&spec);
    index.names().any(|name| !declared.contains(name))
}

/// Versions of the spec's audiences that are published and not served by this node.
async fn missing(node: &ClusterParts) -> Result<Versions, LedgerError> {
    let served = node.ledger.served_versions().await?;
    let (spec, index) = (node.running.load(), node.membership.load_full());
    let declared = declared_audiences(&spec);
    Ok(served
        .into_iter()
        .filter(|(name, _)| declared.contains(name))
        .filter(|(name, version)| {
            index.snapshot(name).map(|file| file.meta().version) != Some(*version)
        })
        .collect())
}
