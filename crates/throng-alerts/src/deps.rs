//! What alerts need from the process that runs them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use throng_model::{Clock, Timestamp, poll_delay};
use throng_spec::{Environment, Spec};
use throng_store::{AlertKind, Ledger, LedgerError};

/// An open problem of a process, of a class that raises alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProblem {
    /// The kind of its alert.
    pub kind: AlertKind,
    /// The name of its class, such as `partition`.
    pub class: &'static str,
    /// Which one of its class, such as the number of a partition; empty if there can be only one.
    pub key: String,
    /// What happened and how to fix it, without values of the data: the message of its alert.
    pub detail: String,
    /// Since when it is open.
    pub since: Timestamp,
}

/// What a gate has reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateVersions {
    /// Its name.
    pub id: String,
    /// Partition and version of the last frame applied.
    pub versions: Vec<(u32, u64)>,
    /// When.
    pub at: Timestamp,
}

/// The newest frame of a partition that any node has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestFrame {
    /// The partition.
    pub partition: u32,
    /// The epoch of the replica that published it.
    pub epoch: u64,
    /// Its version.
    pub version: u64,
    /// The time of its figures.
    pub at: Timestamp,
}

/// What is known of the feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedReports {
    /// Every gate that has reported to any node, each once.
    pub gates: Vec<GateVersions>,
    /// Each partition once.
    pub frames: Vec<NewestFrame>,
}

/// A record of the event log that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRecord {
    /// When it failed first.
    pub at: Timestamp,
    /// Why it cannot be applied: its class, and what differs from record to record after a colon. Nothing of its
    /// contents.
    pub reason: String,
}

/// The records of a partition that are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionQuarantine {
    /// The partition.
    pub partition: u32,
    /// How many there are.
    pub total: u64,
    /// The first 1,000 of them.
    pub records: Vec<QuarantinedRecord>,
}

/// Why the process could not say what was asked of it.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// The process that runs alerts.
#[async_trait]
pub trait Host: Send + Sync {
    /// How alerts name this node, such as `on this node`.
    fn place(&self) -> String;

    /// The open problems of this process that raise alerts.
    fn problems(&self) -> Vec<NodeProblem>;

    /// What gates have reported to any node since a moment, and the newest frames that nodes have applied since then.
    async fn feed_reports(&self, since: Timestamp) -> Result<FeedReports, LedgerError>;

    /// The partitions that have quarantined records, whoever leads them.
    async fn quarantines(&self) -> Result<Vec<PartitionQuarantine>, HostError>;

    /// A delivery has ended: whoever shows deliveries reads them again. Must not block.
    fn deliveries_changed(&self);
}

/// What the functions of this crate work with. Cheap to clone.
#[derive(Clone)]
pub struct AlertsDeps {
    /// Alerts, their events and their receivers.
    pub ledger: Arc<dyn Ledger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The applied spec, shared with the process, which swaps it when another one is applied.
    pub spec: Arc<ArcSwap<Spec>>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// The shortest time between two polls.
    pub min_poll_interval: Duration,
    /// The process.
    pub host: Arc<dyn Host>,
}

impl std::fmt::Debug for AlertsDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlertsDeps").finish_non_exhaustive()
    }
}

impl AlertsDeps {
    /// See [`poll_delay`].
    pub(crate) fn poll_delay(&self, interval: Duration) -> Duration {
        poll_delay(&*self.clock, interval, self.min_poll_interval)
    }
}
