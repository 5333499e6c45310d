//! The loops of a node's roles, each with what it takes of the node.

use std::sync::Arc;

use throng_activation::{Activation, remove_stale_scans};
use throng_aggregator::AggregatorDeps;
use throng_apply::{GateSink, spill_dir};
use throng_backends::{DataDirectory, IdentifierKeySource, Probes, probe_reads};
use throng_log::PartitionAssignment;
use throng_platforms::{LakeQueries, OpenDestinations};
use throng_serving_stores::{StoreConnector, StoresDeps};
use throng_spec::Role;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::NodeContext;
use crate::reporters::BackendProblems;
use crate::roles::activate::ActivationNode;
use crate::roles::aggregate::AggregatorHost;
use crate::roles::cluster::{self, ClusterParts};

fn activation(ctx: &NodeContext) -> Activation {
    let node = ActivationNode {
        running: Arc::clone(&ctx.running),
        clock: Arc::clone(&ctx.clock),
        membership: Arc::clone(&ctx.membership),
        objects: Arc::clone(&ctx.objects),
        keys: IdentifierKeySource {
            key_file: ctx.identifiers_key_file.clone(),
            env: Arc::clone(&ctx.env),
            ledger: Arc::clone(&ctx.ledger),
        },
        wake: Arc::clone(&ctx.wake_activate),
        changes: ctx.changes.clone(),
    };
    Activation {
        ledger: Arc::clone(&ctx.ledger),
        objects: Arc::clone(&ctx.objects),
        queues: ctx.queues.clone(),
        clock: Arc::clone(&ctx.clock),
        seed: ctx.seed,
        holder: ctx.holder.clone(),
        spill_folder: spill_dir(&ctx.data_dir, &ctx.spec.load().node),
        destinations: Arc::new(OpenDestinations::new(Arc::clone(&ctx.env), Arc::clone(&ctx.clock))),
        identifiers: Arc::new(LakeQueries { lake: Arc::clone(&ctx.lake), seed: ctx.seed }),
        node: Arc::new(node),
        health: Arc::clone(&ctx.health),
    }
}

fn aggregator(ctx: &NodeContext) -> AggregatorDeps {
    AggregatorDeps {
        name: ctx.holder.clone(),
        budgets: Arc::clone(&ctx.budgets),
        gate: Arc::new(GateSink(Arc::clone(&ctx.gate))),
        ledger: Arc::clone(&ctx.ledger),
        clock: Arc::clone(&ctx.clock),
        host: Arc::new(AggregatorHost {
            spec: Arc::clone(&ctx.spec),
            changes: ctx.changes.clone(),
            health: Arc::clone(&ctx.health),
            ledger: Arc::clone(&ctx.ledger),
            budgets: Arc::clone(&ctx.budgets),
            clock: Arc::clone(&ctx.clock),
        }),
    }
}

fn stores(ctx: &NodeContext) -> StoresDeps {
    StoresDeps {
        ledger: Arc::clone(&ctx.ledger),
        objects: Arc::clone(&ctx.objects),
        clock: Arc::clone(&ctx.clock),
        spec: Arc::clone(&ctx.spec),
        membership: Arc::clone(&ctx.membership),
        seed: ctx.seed,
        holder: ctx.holder.clone(),
        min_poll_interval: ctx.running.min_poll_interval(),
        connector: Arc::new(StoreConnector::new(Arc::clone(&ctx.env), Arc::clone(&ctx.clock))),
        check_backoff: Arc::default(),
    }
}

/// What the probes of the backends take.
pub(super) fn probes(ctx: &NodeContext) -> Probes {
    Probes {
        ledger: Arc::clone(&ctx.ledger),
        // Lookups, decisions and frames are answered without brokers: where all nodes became not ready at once, none
        // would answer them.
        log: ctx.roles.contains(&Role::Api).then(|| Arc::clone(&ctx.log)),
        data_dir: ctx.data_dir.clone(),
        reporter: Arc::new(BackendProblems(Arc::clone(&ctx.health))),
    }
}

/// Refreshes audiences until `stop`.
pub(super) async fn build(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_refresh::run(Arc::clone(&ctx.refresh), stop).await;
}

/// Plans runs and enqueues due tasks while this process leads, until `stop`.
pub(super) async fn plan(ctx: Arc<NodeContext>, stop: CancellationToken) {
    let activation = activation(&ctx);
    // Also where scans were spilled before `node.spill_dir` was set, or by a version that did not use it.
    for folder in [&ctx.data_dir.join("spill"), &activation.spill_folder] {
        if let Err(error) = remove_stale_scans(folder) {
            tracing::warn!(%error, path = %folder.display(), "failed to remove old files of scans");
        }
    }
    throng_activation::run_leader(&activation, stop).await;
}

/// Writes and checks serving stores while this process leads, until `stop`.
pub(super) async fn write_stores(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_serving_stores::run_leader(stores(&ctx), stop).await;
}

/// Sends and checks tasks until `stop`.
pub(super) async fn activate(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_activation::run_workers(Arc::new(activation(&ctx)), stop).await;
}

/// Publishes frames and writes checkpoints until `stop`.
pub(super) async fn aggregate(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_aggregator::run(aggregator(&ctx), stop).await;
}

/// Leads the partitions that the consumer group assigns to this node, until `stop`.
pub(super) async fn follow_assignment(
    ctx: Arc<NodeContext>,
    share: PartitionAssignment,
    stop: CancellationToken,
) {
    throng_aggregator::follow_assignment(Arc::clone(&ctx.budgets), share, stop).await;
}

/// Runs the standby replicas of this node until `stop`.
pub(super) async fn run_standbys(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_aggregator::run_standbys(aggregator(&ctx), stop).await;
}

/// Applies the frames of every partition until `stop`.
pub(super) async fn follow_feed(ctx: Arc<NodeContext>, stop: CancellationToken) {
    throng_aggregator::follow_feed(aggregator(&ctx), stop).await;
}

/// Switches to what other nodes apply, until `stop`.
pub(super) async fn follow_specs(ctx: Arc<NodeContext>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let delay = ctx.applier.poll_applied().await;
        _ = tokio::time::timeout(delay, stop.cancelled()).await;
    }
}

/// Follows the other nodes until `stop`.
pub(super) async fn follow(ctx: Arc<NodeContext>, stop: CancellationToken) {
    let parts = ClusterParts {
        ledger: Arc::clone(&ctx.ledger),
        clock: Arc::clone(&ctx.clock),
        running: Arc::clone(&ctx.running),
        refresh: Arc::clone(&ctx.refresh),
        membership: Arc::clone(&ctx.membership),
        serves_membership: ctx.serves_membership,
        budgets: Arc::clone(&ctx.budgets),
        wake_activate: Arc::clone(&ctx.wake_activate),
        changes: ctx.changes.clone(),
        name: ctx.holder.clone(),
        roles: ctx.roles.clone(),
        url: ctx.url.get().cloned().unwrap_or_default(),
        started_at: ctx.started_at,
    };
    cluster::run(parts, stop).await;
}

/// Follows ledger and event log until `stop`, so that `/readyz` needs no I/O.
pub(super) async fn probe(ctx: Arc<NodeContext>, stop: CancellationToken) {
    probe_reads(probes(&ctx), stop).await;
}

/// Stops the roles, by `work`, when the data directory is lost. The node keeps answering from
/// memory, and `/readyz` reports that it should get no requests.
pub(super) fn watch_data_directory(
    ctx: &Arc<NodeContext>,
    opened: DataDirectory,
    work: CancellationToken,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        let reporter = BackendProblems(Arc::clone(&ctx.health));
        opened.watch(&reporter, &ctx.data_directory_lost, &stop).await;
        if ctx.data_directory_lost.is_cancelled() {
            work.cancel();
        }
    })
}
