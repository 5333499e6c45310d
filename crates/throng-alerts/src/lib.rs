//! Alerts to people: raised for lasting problems of a node, and for what the leader finds in the ledger and the reports
//! of nodes; delivered to the receivers of `node.alerts` as signed webhooks.
//!
//! Alerts are rows of the ledger; whoever detects a cause raises them there. [`deliver`] runs on the leader: it
//! turns raised and resolved alerts into events, which are rows too, so that a crash loses none, and sends each
//! event to every receiver until it is accepted or too old. [`raise_node_problems`] runs in every process, and
//! [`raise_leader_alerts`] on the leader.

mod budgets;
mod delivery;
mod deps;
mod event;
mod feed;
mod outcome;
mod overdue;
mod problems;
mod quarantine;
mod receiver_test;
mod reconcile;
mod webhook;

use tokio_util::sync::CancellationToken;

pub use delivery::deliver;
pub use deps::{
    AlertsDeps, FeedReports, GateVersions, Host, HostError, NewestFrame, NodeProblem,
    PartitionQuarantine, QuarantinedRecord,
};
pub use problems::raise_node_problems;
pub use receiver_test::{ReceiverTest, send_test};

/// Raises and resolves alerts about budgets, overdue audiences and quarantined records until `shutdown`, while this
/// process is the leader.
pub async fn raise_leader_alerts(deps: AlertsDeps, shutdown: CancellationToken) {
    tokio::join!(
        budgets::raise_budget_alerts(deps.clone(), shutdown.clone()),
        overdue::raise_overdue_alerts(deps.clone(), shutdown.clone()),
        quarantine::raise_quarantine_alerts(deps, shutdown),
    );
}
