//! The nodes of the cluster, by the status that each of them writes to the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_aggregator::{FeedPosition, GateReport};
use throng_api::{GateApplied, NodeSummary};
use throng_model::Timestamp;
use throng_store::{Ledger, LedgerError};

use crate::mapping::budgets as mapping;

/// A node whose last heartbeat is older is no longer a member.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(30);

/// The status of a node, as it is stored in the ledger.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The partitions that it leads.
    pub partitions: Vec<u32>,
    /// The partitions of which it runs the standby replica.
    #[serde(default)]
    pub stands_by: Vec<u32>,
    /// The gates that report to it.
    pub gates: Vec<GateReport>,
    /// The newest frame of each partition that it has applied.
    #[serde(default)]
    pub feed: Vec<FeedPosition>,
}

/// What nodes know of the feed.
#[derive(Debug, Default)]
pub struct FeedStatus {
    /// Every gate, with its newest report.
    pub gates: Vec<GateReport>,
    /// The newest frame of each partition.
    pub positions: Vec<FeedPosition>,
}

/// What nodes have known of the feed since a moment, those that have ended too. `own`: what this process knows.
///
/// # Errors
/// [`LedgerError`].
pub async fn feed_status(
    ledger: &dyn Ledger,
    since: Timestamp,
    own: FeedStatus,
) -> Result<FeedStatus, LedgerError> {
    let mut gates: BTreeMap<String, GateReport> = BTreeMap::new();
    let mut positions: BTreeMap<u32, FeedPosition> = BTreeMap::new();
    let mut add = |status: FeedStatus| {
        status.gates.into_iter().for_each(|gate| newest(&mut gates, gate));
        for position in status.positions {
            let known = positions.entry(position.partition).or_insert(position);
            // As gates do: the higher epoch counts, then the higher version.
            if (position.epoch, position.version) > (known.epoch, known.version) {
                *known = position;
            }
        }
    };
    for row in ledger.nodes(since).await? {
        let NodeStatus { gates, feed, .. } = serde_json::from_value(row.status).unwrap_or_default();
        add(FeedStatus { gates, positions: feed });
    }
    add(own);
    Ok(FeedStatus {
        gates: gates.into_values().collect(),
        positions: positions.into_values().collect(),
    })
}

/// The processes of the cluster, and every gate that reports to one of them. `own_gates`: those that report to
/// this process.
///
/// # Errors
/// [`LedgerError`].
pub async fn members(
    ledger: &dyn Ledger,
    now: Timestamp,
    own_gates: Vec<GateReport>,
) -> Result<(Vec<NodeSummary>, Vec<GateApplied>), LedgerError> {
    let rows = ledger.nodes(now.minus(MEMBER_TIMEOUT)).await?;
    // What a gate reports to this node is newer than what the ledger has of it.
    let mut gates: BTreeMap<String, GateReport> = BTreeMap::new();
    let mut members = Vec::with_capacity(rows.len());
    for row in rows {
        // A status of another version that cannot be read: the node is a member all the same.
        let status: NodeStatus = serde_json::from_value(row.status).unwrap_or_default();
        members.push(NodeSummary {
            name: row.name,
            roles: row.roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", "),
            url: row.url,
            started_at: row.started_at,
            seen_at: row.seen_at,
            partitions: status.partitions,
            stands_by: status.stands_by,
            gates: status.gates.len() as u64,
        });
        for gate in status.gates {
            newest(&mut gates, gate);
        }
    }
    for gate in own_gates {
        newest(&mut gates, gate);
    }
    let gates = gates.into_values().map(|gate| mapping::gate(gate, now)).collect();
    Ok((members, gates))
}

/// Keeps the newer report: a gate that moved from one relay to another is in the status of both for a while.
fn newest(gates: &mut BTreeMap<String, GateReport>, gate: GateReport) {
    match gates.get(&gate.id) {
        Some(known) if known.at >= gate.at => {}
        _ => {
            gates.insert(gate.id.clone(), gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_moved_is_listed_once_with_its_newest_report() {
        let report = |at, version| GateReport {
            id: "gate-1".to_owned(),
            versions: vec![(0, version)],
            at: Timestamp(at),
        };
        let mut gates = BTreeMap::new();
        for gate in [report(5, 2), report(9, 3), report(7, 1)] {
            newest(&mut gates, gate);
        }
        assert_eq!(gates.into_values().collect::<Vec<_>>(), [report(9, 3)]);
    }

    #[test]
    fn a_status_without_standbys_can_be_read() {
        let old = serde_json::json!({ "partitions": [1], "gates": [] });
        let status: NodeStatus = serde_json::from_value(old).unwrap();
        assert_eq!((status.partitions, status.stands_by), (vec![1], vec![]));
        assert!(status.feed.is_empty());
    }
}
