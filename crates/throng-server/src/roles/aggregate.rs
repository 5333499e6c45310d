//! The role `aggregate`: runs throng-aggregator with the parts of a node.

use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_aggregator::{
    AggregatorDeps, AggregatorMember, Feed, FrameSink, HealthReporter, Host, ProblemKind,
};
use throng_feed::Frame;
use throng_gate::{FrameOutcome, Gate};
use throng_log::PartitionAssignment;
use throng_store::LedgerError;
use tokio_util::sync::CancellationToken;

use super::cluster::cluster_members;
use crate::{Change, Health, NodeContext, ProblemClass};

/// A gate that applies the frames of the aggregator: borrowed or shared.
pub(crate) struct GateSink<G>(pub(crate) G);

impl<G: Deref<Target = Gate> + Send + Sync> FrameSink for GateSink<G> {
    fn apply_frame(&self, frame: &Frame) -> bool {
        self.0.apply(frame) != FrameOutcome::NeedKeyframe
    }
}

fn class_of(kind: ProblemKind) -> ProblemClass {
    match kind {
        ProblemKind::Disk => ProblemClass::Disk,
        ProblemKind::Log => ProblemClass::Log,
        ProblemKind::Objects => ProblemClass::Objects,
        ProblemKind::Partition => ProblemClass::Partition,
    }
}

impl HealthReporter for Health {
    fn report_problem(&self, kind: ProblemKind, key: &str, detail: String) {
        self.report(class_of(kind), key, detail);
    }

    fn clear_problem(&self, kind: ProblemKind, key: &str) {
        self.clear(class_of(kind), key);
    }
}

/// The node as the aggregator sees it.
struct NodeHost(Arc<NodeContext>);

#[async_trait]
impl Host for NodeHost {
    fn feed_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.0.spec.load().node.feed_interval_ms))
    }

    fn figures_changed(&self) {
        self.0.publish_change(Change::Budgets);
    }

    fn report_storage_error(&self, part: &str, error: &(dyn Error + 'static)) {
        self.0.health.report_storage_error(part, error);
    }

    async fn aggregators(&self) -> Result<Vec<AggregatorMember>, LedgerError> {
        let (members, _) = cluster_members(&self.0).await?;
        let aggregators = members
            .into_iter()
            .filter(|member| member.roles.split(", ").any(|role| role == "aggregate"))
            .map(|member| AggregatorMember {
                name: member.name,
                partitions: member.partitions,
                standby_partitions: member.stands_by,
            });
        Ok(aggregators.collect())
    }
}

fn deps(ctx: &Arc<NodeContext>) -> AggregatorDeps {
    AggregatorDeps {
        name: ctx.holder.clone(),
        budgets: Arc::clone(&ctx.budgets),
        gate: Arc::new(GateSink(Arc::clone(&ctx.gate))),
        ledger: Arc::clone(&ctx.ledger),
        clock: Arc::clone(&ctx.clock),
        host: Arc::new(NodeHost(Arc::clone(ctx))),
    }
}

/// Publishes frames and writes checkpoints until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_aggregator::run(deps(&ctx), shutdown).await;
}

/// Leads the partitions that the consumer group assigns to this node, until `shutdown`.
pub(crate) async fn follow_assignment(
    ctx: Arc<NodeContext>,
    share: PartitionAssignment,
    shutdown: CancellationToken,
) {
    throng_aggregator::follow_assignment(Arc::clone(&ctx.budgets), share, shutdown).await;
}

/// Runs the standby replicas of this node until `shutdown`.
pub(crate) async fn run_standbys(ctx: Arc<NodeContext>, feed: Feed, shutdown: CancellationToken) {
    throng_aggregator::run_standbys(deps(&ctx), feed, shutdown).await;
}

/// Applies the frames of every partition until `shutdown`.
pub(crate) async fn follow_feed(ctx: Arc<NodeContext>, feed: Feed, shutdown: CancellationToken) {
    throng_aggregator::follow_feed(deps(&ctx), feed, shutdown).await;
}
