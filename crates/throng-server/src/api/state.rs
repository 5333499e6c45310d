//! What handlers take of a node: each only the parts that it needs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRef;
use throng_access::NodeLimits;
use throng_aggregator::Budgets;
use throng_apply::SpecApplier;
use throng_gate::Gate;
use throng_ingest::Ingest;
use throng_lake::Lake;
use throng_membership::MembershipIndex;
use throng_model::{Clock, HashSeed, Timestamp};
use throng_refresh::RefreshContext;
use throng_spec::Spec;
use throng_store::Ledger;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::NodeContext;
use crate::metrics::Collector;
use throng_apply::changes::Change;
use throng_telemetry::Health;

/// The open problems, and what is served.
pub(crate) struct HealthState {
    /// The problems.
    pub(super) health: Arc<Health>,
    /// The snapshots.
    pub(super) membership: Arc<ArcSwap<MembershipIndex>>,
}

impl FromRef<Arc<NodeContext>> for HealthState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { health: Arc::clone(&ctx.health), membership: Arc::clone(&ctx.membership) }
    }
}

/// Metrics that are read at a scrape.
pub(crate) struct MetricsState {
    /// Reads them.
    pub(super) collector: Arc<Collector>,
}

impl FromRef<Arc<NodeContext>> for MetricsState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { collector: Arc::clone(&ctx.collector) }
    }
}

/// Budgets, the feed, and the cluster that produces it.
pub(crate) struct BudgetsState {
    /// Stored days and nodes.
    pub(super) ledger: Arc<dyn Ledger>,
    /// The time.
    pub(super) clock: Arc<dyn Clock>,
    /// Spend and frames.
    pub(super) budgets: Arc<Budgets>,
    /// Identifies the deployment.
    pub(super) seed: HashSeed,
}

impl FromRef<Arc<NodeContext>> for BudgetsState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self {
            ledger: Arc::clone(&ctx.ledger),
            clock: Arc::clone(&ctx.clock),
            budgets: Arc::clone(&ctx.budgets),
            seed: ctx.seed,
        }
    }
}

/// Events of ad servers.
pub(crate) struct EventsState {
    /// Accepts them.
    pub(super) budgets: Arc<Budgets>,
    /// Has the newest spec.
    pub(super) ledger: Arc<dyn Ledger>,
    /// Limits the size of a request.
    pub(super) spec: Arc<ArcSwap<Spec>>,
}

impl FromRef<Arc<NodeContext>> for EventsState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self {
            budgets: Arc::clone(&ctx.budgets),
            ledger: Arc::clone(&ctx.ledger),
            spec: Arc::clone(&ctx.spec),
        }
    }
}

/// The audiences of users.
pub(crate) struct LookupState {
    /// The snapshots.
    pub(super) membership: Arc<ArcSwap<MembershipIndex>>,
}

impl FromRef<Arc<NodeContext>> for LookupState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { membership: Arc::clone(&ctx.membership) }
    }
}

/// Decisions.
pub(crate) struct DecideState {
    /// Decides.
    pub(super) gate: Arc<Gate>,
    /// Records insertions.
    pub(super) budgets: Arc<Budgets>,
    /// When the process started.
    pub(super) started_at: Timestamp,
    /// Hashes users.
    pub(super) seed: HashSeed,
    /// Insertions are not recorded when this is cancelled.
    pub(super) data_directory_lost: CancellationToken,
}

impl FromRef<Arc<NodeContext>> for DecideState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self {
            gate: Arc::clone(&ctx.gate),
            budgets: Arc::clone(&ctx.budgets),
            started_at: ctx.started_at,
            seed: ctx.seed,
            data_directory_lost: ctx.data_directory_lost.clone(),
        }
    }
}

/// Batches of records.
pub(crate) struct IngestState {
    /// Ingests them; `None` without `node.lake`.
    pub(super) ingest: Option<Arc<Ingest>>,
}

impl FromRef<Arc<NodeContext>> for IngestState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { ingest: ctx.ingest.clone() }
    }
}

/// Tables of sources.
pub(crate) struct SourcesState {
    /// Reads them.
    pub(super) lake: Arc<ArcSwap<Lake>>,
}

impl FromRef<Arc<NodeContext>> for SourcesState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { lake: Arc::clone(&ctx.lake) }
    }
}

/// The applied spec, and how another one is applied.
pub(crate) struct SpecState {
    /// Has the applied spec.
    pub(super) ledger: Arc<dyn Ledger>,
    /// Plans and applies.
    pub(super) applier: Arc<SpecApplier>,
    /// Opens warehouses.
    pub(super) refresh: Arc<RefreshContext>,
    /// What specs that arrive over HTTP may name.
    pub(super) limits: Arc<NodeLimits>,
}

impl FromRef<Arc<NodeContext>> for SpecState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self {
            ledger: Arc::clone(&ctx.ledger),
            applier: Arc::clone(&ctx.applier),
            refresh: Arc::clone(&ctx.refresh),
            limits: Arc::clone(&ctx.limits),
        }
    }
}

/// What changes.
pub(crate) struct StreamState {
    /// Publishes the changes.
    pub(super) changes: broadcast::Sender<Change>,
}

impl FromRef<Arc<NodeContext>> for StreamState {
    fn from_ref(ctx: &Arc<NodeContext>) -> Self {
        Self { changes: ctx.changes.clone() }
    }
}
