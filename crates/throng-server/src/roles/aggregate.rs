//! The role `aggregate`: the node as throng-aggregator sees it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use throng_aggregator::{AggregatorMember, Budgets, Host};
use throng_model::Clock;
use throng_operations::members::members;
use throng_spec::Spec;
use throng_store::{Ledger, LedgerError};
use tokio::sync::broadcast;

use crate::Health;
use throng_apply::changes::{self, Change};

/// The node as the aggregator sees it.
pub(crate) struct AggregatorHost {
    /// Has the interval of frames.
    pub(crate) spec: Arc<ArcSwap<Spec>>,
    /// Publishes changed figures.
    pub(crate) changes: broadcast::Sender<Change>,
    /// Gets errors of the disk.
    pub(crate) health: Arc<Health>,
    /// Has the nodes of the cluster.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Has the gates that report to this node.
    pub(crate) budgets: Arc<Budgets>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Host for AggregatorHost {
    fn feed_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.spec.load().node.feed_interval_ms))
    }

    fn figures_changed(&self) {
        changes::publish(&self.changes, Change::Budgets);
    }

    fn report_storage_error(&self, part: &str, error: &(dyn Error + 'static)) {
        self.health.report_storage_error(part, error);
    }

    async fn aggregators(&self) -> Result<Vec<AggregatorMember>, LedgerError> {
        let (members, _) = members(&*self.ledger, self.clock.now(), self.budgets.gates()).await?;
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
