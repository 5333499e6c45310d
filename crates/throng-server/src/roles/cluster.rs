//! What every node does besides its roles: it follows what other nodes apply and publish, and writes its own
//! status for them.

use std::sync::Arc;
use std::time::Duration;

use throng_api::{GateApplied, NodeSummary};
use throng_model::POLL_INTERVAL;
use throng_operations::members::{NodeStatus, members};
use throng_refresh::{declared_audiences, inspect_files, reload_membership};
use throng_store::{LedgerError, NodeRow};
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::node::{NodeError, switch_to_applied_spec};
use crate::{Change, NodeContext};

/// How often a node writes its status.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often the files that are served are inspected.
const INSPECT_INTERVAL: Duration = Duration::from_secs(30);
/// After an error of the ledger or the objects.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Runs until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut tried = Tried::default();
    let mut heartbeat_at = ctx.clock.now();
    let mut inspect_at = tokio::time::Instant::now() + INSPECT_INTERVAL;
    loop {
        if ctx.serves_membership && tokio::time::Instant::now() >= inspect_at {
            inspect_files(&ctx.refresh).await;
            inspect_at = tokio::time::Instant::now() + INSPECT_INTERVAL;
        }
        if ctx.clock.now() >= heartbeat_at {
            heartbeat_at = ctx.clock.now().plus(HEARTBEAT_INTERVAL);
            write_status(&ctx).await;
            crate::api::drain_samples();
        }
        let polled = poll(&ctx, &mut tried).await;
        let delay = match polled {
            Ok(()) => ctx.poll_delay(POLL_INTERVAL),
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
        }
    }
}

async fn write_status(ctx: &NodeContext) {
    let now = ctx.clock.now();
    let gates = ctx.budgets.gates();
    let oldest = gates.iter().map(|gate| now.since(gate.at)).max().unwrap_or_default();
    metrics::gauge!(metrics::GATES).set(gates.len() as f64);
    metrics::gauge!(metrics::GATE_REPORT_AGE_SECONDS_MAX).set(oldest.as_secs_f64());
    let (partitions, stands_by) = (ctx.budgets.led_partitions(), ctx.budgets.standby_partitions());
    let status = NodeStatus { partitions, stands_by, gates };
    let written = match serde_json::to_value(&status) {
        Ok(status) => {
            let node = NodeRow {
                name: ctx.holder.clone(),
                roles: ctx.roles.clone(),
                url: ctx.url.get().cloned().unwrap_or_default(),
                started_at: ctx.started_at,
                seen_at: now,
                status,
            };
            ctx.ledger.put_node(&node).await
        }
        Err(_) => return,
    };
    if let Err(error) = written {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to write the status of this node"
        );
    }
}

/// The processes of the cluster, and every gate that reports to one of them.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn cluster_members(
    ctx: &NodeContext,
) -> Result<(Vec<NodeSummary>, Vec<GateApplied>), LedgerError> {
    members(&*ctx.ledger, ctx.clock.now(), ctx.budgets.gates()).await
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
    ctx: &Arc<NodeContext>,
    tried: &mut Tried,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    poll_spec(ctx).await?;
    if !ctx.serves_membership {
        return Ok(());
    }
    let missing = missing(ctx).await?;
    let is_due = tried.retry_at.is_some_and(|at| at <= tokio::time::Instant::now());
    if is_due || serves_removed(ctx) || missing.iter().any(|of| !tried.versions.contains(of)) {
        *tried = Tried::default();
        let retry_after = reload_membership(&ctx.refresh).await?;
        tried.retry_at = retry_after.map(|delay| tokio::time::Instant::now() + delay);
        ctx.wake_activate.notify_waiters();
        ctx.publish_change(Change::Audiences);
    }
    tried.versions = missing;
    Ok(())
}

async fn poll_spec(ctx: &Arc<NodeContext>) -> Result<(), NodeError> {
    let applied = ctx.ledger.applied_version().await?.unwrap_or(0);
    if applied > ctx.spec_and_version().1 {
        switch_to_applied_spec(ctx).await?;
    }
    Ok(())
}

/// Whether this node serves an audience that the spec does not declare.
fn serves_removed(ctx: &NodeContext) -> bool {
    let (spec, index) = (ctx.spec.load_full(), ctx.membership.load_full());
    let declared = declared_audiences(&spec);
    index.names().any(|name| !declared.contains(name))
}

/// Versions of the spec's audiences that are published and not served by this node.
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
