//! Alerts of this node, delivered by the leader and raised by every process: what `throng-alerts` needs of them.

use std::sync::Arc;

use async_trait::async_trait;
use throng_alerts::{
    AlertsDeps, FeedReports, GateVersions, Host, HostError, NewestFrame, NodeProblem,
    PartitionQuarantine, QuarantinedRecord,
};
use throng_model::Timestamp;
use throng_operations::members::{FeedStatus, feed_status};
use throng_store::{AlertKind, LedgerError};
use tokio_util::sync::CancellationToken;

use crate::{Change, NodeContext, ProblemClass};

/// Delivers alerts until `shutdown`, while this process is the leader.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_alerts::deliver(deps(&ctx), shutdown).await;
}

/// Raises alerts for the problems of this process until `shutdown`.
pub(crate) async fn run_problems(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_alerts::raise_node_problems(deps(&ctx), shutdown).await;
}

/// Raises alerts about budgets, late audiences and quarantined records until `shutdown`, while this process is the leader.
pub(crate) async fn run_budget_alerts(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    throng_alerts::raise_leader_alerts(deps(&ctx), shutdown).await;
}

/// What alerts need of this process.
pub(crate) fn deps(ctx: &Arc<NodeContext>) -> AlertsDeps {
    AlertsDeps {
        ledger: Arc::clone(&ctx.ledger),
        clock: Arc::clone(&ctx.clock),
        spec: Arc::clone(&ctx.spec),
        env: Arc::clone(&ctx.env),
        min_poll_interval: ctx.running.min_poll_interval(),
        host: Arc::<NodeContext>::clone(ctx),
    }
}

#[async_trait]
impl Host for NodeContext {
    fn place(&self) -> String {
        self.alert_place.get().map_or("on a node", String::as_str).to_owned()
    }

    fn problems(&self) -> Vec<NodeProblem> {
        let problems = self.health.problems().into_iter().filter_map(|problem| {
            Some(NodeProblem {
                kind: alert_kind(problem.class)?,
                class: problem.class.name(),
                key: problem.key,
                detail: problem.detail,
                since: problem.since,
            })
        });
        problems.collect()
    }

    async fn feed_reports(&self, since: Timestamp) -> Result<FeedReports, LedgerError> {
        let own =
            FeedStatus { gates: self.budgets.gates(), positions: self.budgets.feed_positions() };
        let known = feed_status(&*self.ledger, since, own).await?;
        let gates = known.gates.into_iter().map(|gate| GateVersions {
            id: gate.id,
            versions: gate.versions,
            at: gate.at,
        });
        let frames = known.positions.into_iter().map(|position| NewestFrame {
            partition: position.partition,
            epoch: position.epoch,
            version: position.version,
            at: position.at,
        });
        Ok(FeedReports { gates: gates.collect(), frames: frames.collect() })
    }

    async fn quarantines(&self) -> Result<Vec<PartitionQuarantine>, HostError> {
        let lists = self.budgets.quarantine().await?.into_iter().map(|(partition, list)| {
            let records = list.records.into_iter();
            let records =
                records.map(|record| QuarantinedRecord { at: record.at, reason: record.reason });
            PartitionQuarantine { partition, total: list.total, records: records.collect() }
        });
        Ok(lists.collect())
    }

    fn deliveries_changed(&self) {
        self.publish_change(Change::Activation);
    }
}

/// The kind of the alerts of a class; `None` for the alerting itself, and for accounts: their tasks raise alerts.
fn alert_kind(class: ProblemClass) -> Option<AlertKind> {
    match class {
        ProblemClass::Disk => Some(AlertKind::DiskFull),
        ProblemClass::Ledger
        | ProblemClass::DataDirectory
        | ProblemClass::Log
        | ProblemClass::Objects => Some(AlertKind::StorageFailed),
        ProblemClass::Partition => Some(AlertKind::PartitionFailed),
        ProblemClass::Snapshot => Some(AlertKind::Damaged),
        ProblemClass::Query
        | ProblemClass::Certificate
        | ProblemClass::Config
        | ProblemClass::Clock => Some(AlertKind::NodeProblem),
        ProblemClass::Alert | ProblemClass::Account => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_but_those_of_alerts_and_accounts_raises_alerts() {
        for class in ProblemClass::ALL {
            let raises_none = [ProblemClass::Alert, ProblemClass::Account].contains(&class);
            assert_eq!(alert_kind(class).is_none(), raises_none);
        }
    }
}
