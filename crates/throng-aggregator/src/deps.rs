//! What the aggregator needs from the process that runs it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_feed::Frame;
use throng_log::{EventLog, Retention};
use throng_model::Clock;
use throng_objects::Objects;
use throng_store::{Ledger, LedgerError};
use throng_telemetry::{Health, ProblemClass};

use crate::{Budgets, Feed, NewestSpec};

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// A local disk is full or fails.
    Disk,
    /// The event log cannot be read or written.
    Log,
    /// The object storage cannot be read or written.
    Objects,
    /// A partition is not aggregated here although it is assigned to this process.
    Partition,
    /// The clock of this process contradicts the event log.
    Clock,
}

/// Receives the problems of the aggregator, for the health of the process.
pub trait HealthReporter: Send + Sync {
    /// A problem is open. `key` says which one of its kind; if it is open already, it gets the new detail.
    /// `detail` says what happened and what helps, without values of the data.
    fn report_problem(&self, kind: ProblemKind, key: &str, detail: String);

    /// A problem is resolved. Does nothing if it is not open.
    fn clear_problem(&self, kind: ProblemKind, key: &str);
}

impl HealthReporter for Health {
    fn report_problem(&self, kind: ProblemKind, key: &str, detail: String) {
        self.report(class_of_kind(kind), key, detail);
    }

    fn clear_problem(&self, kind: ProblemKind, key: &str) {
        self.clear(class_of_kind(kind), key);
    }
}

fn class_of_kind(kind: ProblemKind) -> ProblemClass {
    match kind {
        ProblemKind::Disk => ProblemClass::Disk,
        ProblemKind::Log => ProblemClass::Log,
        ProblemKind::Objects => ProblemClass::Objects,
        ProblemKind::Partition => ProblemClass::Partition,
        ProblemKind::Clock => ProblemClass::Clock,
    }
}

/// Applies frames in this process: a gate.
pub trait FrameSink: Send + Sync {
    /// Applies a frame. `false` if it is a delta whose base is missing: a keyframe has to be applied first.
    #[must_use]
    fn apply_frame(&self, frame: &Frame) -> bool;
}

/// What [`Budgets`] are opened with.
pub struct BudgetsDeps {
    /// Checkpoints.
    pub objects: Arc<dyn Objects>,
    /// Events.
    pub log: Arc<dyn EventLog>,
    /// Carries frames from leaders to those who show or forward them.
    pub feed: Arc<dyn Feed>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is kept of a log in files besides what a restart needs.
    pub retention: Retention,
    /// Partitions for which the operator has accepted that records are lost.
    pub accept_log_loss: Vec<u32>,
    /// How long an event id is remembered, and how old events may be.
    pub dedupe_window: Duration,
    /// How long [`Budgets::accept`] waits until the log confirms that it has stored events.
    pub append_timeout: Duration,
    /// How long [`Budgets::accept`] waits until events are applied that are in the log;
    /// [`APPLY_TIMEOUT`](crate::APPLY_TIMEOUT).
    pub apply_timeout: Duration,
    /// Where problems are reported.
    pub health: Arc<dyn HealthReporter>,
    /// The version of the newest spec, for events that others append: see [`NewestSpec`]. `None` if only this process
    /// applies specs.
    pub newest_spec: Option<Arc<dyn NewestSpec>>,
}

/// An aggregator of the cluster, by its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorMember {
    /// The name of its process.
    pub name: String,
    /// The partitions that it leads.
    pub partitions: Vec<u32>,
    /// The partitions of which it runs the standby replica.
    pub standby_partitions: Vec<u32>,
}

/// The process that runs the aggregator.
#[async_trait]
pub trait Host: Send + Sync {
    /// The time between frames on the node's clock, by the applied spec.
    fn feed_interval(&self) -> Duration;

    /// Figures have changed: whoever shows them reads them again. Must not block.
    fn figures_changed(&self);

    /// A write of a part of the aggregator has failed; the local disk may be the cause.
    fn report_storage_error(&self, part: &str, error: &(dyn Error + 'static));

    /// The aggregators of the cluster, this process among them.
    async fn aggregators(&self) -> Result<Vec<AggregatorMember>, LedgerError>;
}

/// What the loops of the aggregator work with. Cheap to clone.
#[derive(Clone)]
pub struct AggregatorDeps {
    /// The name of this process among the members of the cluster.
    pub name: String,
    /// The budget states.
    pub budgets: Arc<Budgets>,
    /// The gate of this process.
    pub gate: Arc<dyn FrameSink>,
    /// Status transitions and budget days are written to it.
    pub ledger: Arc<dyn Ledger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The process.
    pub host: Arc<dyn Host>,
}

impl std::fmt::Debug for AggregatorDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AggregatorDeps").field("name", &self.name).finish_non_exhaustive()
    }
}
