//! What every node does besides its roles: notice what other nodes applied and published, and say
//! what it is doing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use throng_store::{LedgerError, NodeRow};
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;

use super::aggregate::GateReport;
use super::build::{declared_audiences, inspect_files, reload_membership};
use crate::node::{NodeError, follow_spec};
use crate::{Change, NodeContext};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a node says that it is there.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A node that was silent for longer is not shown any more.
const SHOWN_FOR: Duration = Duration::from_secs(30);
/// How often the files that are served are looked at.
const INSPECT_INTERVAL: Duration = Duration::from_secs(30);
/// After the ledger or the objects failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// Runs until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut tried = Tried::default();
    let mut tell_at = ctx.clock.now();
    let mut inspect_at = tokio::time::Instant::now() + INSPECT_INTERVAL;
    loop {
        if ctx.serves_membership && tokio::time::Instant::now() >= inspect_at {
            inspect_files(&ctx).await;
            inspect_at = tokio::time::Instant::now() + INSPECT_INTERVAL;
        }
        if ctx.clock.now() >= tell_at {
            tell_at = ctx.clock.now().plus(TELL_EVERY);
            tell(&ctx).await;
            crate::api::drain_samples();
        }
        let looked = look(&ctx, &mut tried).await;
        let pause = match looked {
            Ok(()) => ctx.pause(LOOK_EVERY),
            Err(error) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "what other nodes did cannot be followed"
                );
                AFTER_TROUBLE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What a node says about itself.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Status {
    /// The partitions that it aggregates.
    partitions: Vec<u32>,
    /// The partitions that it stands in for.
    #[serde(default)]
    stands_by: Vec<u32>,
    /// The gates that report to it.
    gates: Vec<GateReport>,
}

async fn tell(ctx: &NodeContext) {
    let now = ctx.clock.now();
    let gates = ctx.budgets.gates();
    let oldest = gates.iter().map(|gate| now.since(gate.at)).max().unwrap_or_default();
    metrics::gauge!(metrics::GATES).set(gates.len() as f64);
    metrics::gauge!(metrics::GATE_REPORT_AGE_SECONDS_MAX).set(oldest.as_secs_f64());
    let (partitions, stands_by) = (ctx.budgets.owned(), ctx.budgets.standing_by());
    let status = Status { partitions, stands_by, gates };
    let roles: Vec<&str> = ctx.roles.iter().map(|role| role.name()).collect();
    let told = match serde_json::to_value(&status) {
        Ok(status) => {
            let node = NodeRow {
                name: ctx.holder.clone(),
                roles: roles.join(", "),
                url: ctx.url.get().cloned().unwrap_or_default(),
                started_at: ctx.started_at,
                seen_at: now,
                status,
            };
            ctx.ledger.put_node(&node).await
        }
        Err(_) => return,
    };
    if let Err(error) = told {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "other nodes do not hear of this one"
        );
    }
}

/// A process of the deployment, as it said itself within the last half minute.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// Who it is in leases.
    pub name: String,
    /// Its roles.
    pub roles: String,
    /// Where it answers.
    pub url: String,
    /// Since when it is up.
    pub started_at: Timestamp,
    /// When it was heard of.
    pub seen_at: Timestamp,
    /// The partitions that it aggregates.
    pub partitions: Vec<u32>,
    /// The partitions that it stands in for.
    pub stands_by: Vec<u32>,
    /// How many gates report to it.
    pub gates: usize,
}

/// The processes of the deployment, and every gate that reports to one of them.
///
/// # Errors
/// [`LedgerError`].
pub async fn deployment(ctx: &NodeContext) -> Result<(Vec<Peer>, Vec<GateReport>), LedgerError> {
    let rows = ctx.ledger.nodes(ctx.clock.now().minus(SHOWN_FOR)).await?;
    // What reports here is known better than what was last told about it.
    let mut gates: BTreeMap<String, GateReport> = BTreeMap::new();
    let mut peers = Vec::with_capacity(rows.len());
    for row in rows {
        // Of another version: it is there all the same.
        let status: Status = serde_json::from_value(row.status).unwrap_or_default();
        peers.push(Peer {
            name: row.name,
            roles: row.roles,
            url: row.url,
            started_at: row.started_at,
            seen_at: row.seen_at,
            partitions: status.partitions,
            stands_by: status.stands_by,
            gates: status.gates.len(),
        });
        for gate in status.gates {
            newest(&mut gates, gate);
        }
    }
    for gate in ctx.budgets.gates() {
        newest(&mut gates, gate);
    }
    Ok((peers, gates.into_values().collect()))
}

/// A gate that moved from one relay to another is reported by both for a while.
fn newest(gates: &mut BTreeMap<String, GateReport>, gate: GateReport) {
    match gates.get(&gate.id) {
        Some(known) if known.at >= gate.at => {}
        _ => {
            gates.insert(gate.id.clone(), gate);
        }
    }
}

type Versions = Vec<(throng_model::AudienceName, u64)>;

/// Versions for which a reload was tried, so that a damaged snapshot is not tried for ever.
#[derive(Default)]
struct Tried {
    versions: Versions,
    /// When it is worth trying again: what was missing may have come.
    again: Option<tokio::time::Instant>,
}

async fn look(
    ctx: &Arc<NodeContext>,
    tried: &mut Tried,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    spec(ctx).await?;
    if !ctx.serves_membership {
        return Ok(());
    }
    let missing = missing(ctx).await?;
    let again = tried.again.is_some_and(|at| at <= tokio::time::Instant::now());
    if again || serves_removed(ctx) || missing.iter().any(|of| !tried.versions.contains(of)) {
        *tried = Tried::default();
        let again = reload_membership(ctx).await?;
        tried.again = again.map(|delay| tokio::time::Instant::now() + delay);
        ctx.wake_activate.notify_waiters();
        ctx.changed(Change::Audiences);
    }
    tried.versions = missing;
    Ok(())
}

async fn spec(ctx: &Arc<NodeContext>) -> Result<(), NodeError> {
    let applied = ctx.ledger.applied_version().await?.unwrap_or(0);
    if applied > ctx.spec_and_version().1 {
        follow_spec(ctx).await?;
    }
    Ok(())
}

/// Whether an audience is served here that the spec does not declare.
fn serves_removed(ctx: &NodeContext) -> bool {
    let (spec, index) = (ctx.spec.load_full(), ctx.membership.load_full());
    let declared = declared_audiences(&spec);
    index.names().any(|name| !declared.contains(name))
}

/// Versions of the spec's audiences that are published but not served here.
async fn missing(ctx: &NodeContext) -> Result<Versions, LedgerError> {
    let served = ctx.ledger.served_versions().await?;
    let (spec, index) = (ctx.spec.load_full(), ctx.membership.load_full());
    let declared = declared_audiences(&spec);
    Ok(served
        .into_iter()
        .filter(|(name, _)| declared.contains(name))
        .filter(|(name, version)| {
            index.snapshot(name).map(|file| file.meta().version) != Some(*version)
        })
        .collect())
}
