//! A node: all parts assembled in one process. The only place that chooses backends and roles.

mod access;
mod apply;
mod backends;
mod connect;
mod consistency;
mod data_directory;
mod error;
mod lock;
mod serve;
mod stamps;
mod storage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_gate::Gate;
use throng_lake::{Lake, LakeLimits, Landlock, WorkerCommand};
use throng_log::{Retention, Share};
use throng_membership::MembershipIndex;
use throng_model::{
    AdGroupIndex, AdGroupName, Clock, Entropy, HashSeed, SystemEntropy, with_causes,
};
use throng_refresh::{Observer, RefreshContext, RefreshParts};
use throng_spec::{Role, Spec};
use throng_store::Ledger;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{ADDRESS_FILE, write_private};
use crate::api::{Guard, HostNames};
use crate::limits::{LimitsChange, LimitsConfig, LimitsError, NodeLimits};
use crate::metrics::Collector;
use crate::roles::aggregate::{Budgets, BudgetsParts, Feed};
use crate::{Change, Health, NodeContext, ProblemClass, roles};

pub(crate) use apply::{Refusal, apply_planned, follow_spec, plan_sent};
use backends::Backends;
pub use connect::{Finding, check_backends, migrate};
use data_directory::DataDirectory;
pub use error::NodeError;
use lock::DataDirLock;
pub use serve::TlsError;
pub(crate) use serve::{BodyWait, SlowBody};
use stamps::Stamps;
pub use stamps::{Recovery, StampError};
pub(crate) use stamps::{stamped_folders, write_stamp};

/// How long a graceful end may take before what is left is dropped. Everything that is dropped is
/// safe: it is taken up again at the next start.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(20);
/// How long a node of a deployment waits at its start for an engine that does not answer, and how
/// long between two tries.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
const ENGINE_PAUSE: Duration = Duration::from_secs(1);
/// Changes that pages have not looked at yet; whoever lags looks again anyway.
const CHANGES: usize = 256;

/// Looks up a secret by the name of an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeConfig {
    /// Where the node keeps what is its own (everything, unless the spec's node settings say
    /// otherwise); made if it is not there. One node at a time.
    pub data_dir: PathBuf,
    /// The spec to run. It is applied before the node answers.
    pub spec: Spec,
    /// Takes only the node settings from `spec`, and everything else from the ledger.
    pub join: bool,
    /// What this process does instead of the spec's `node.roles`. With an empty list it does nothing
    /// by itself, and its caller has the node's parts: a job.
    pub roles: Option<Vec<Role>>,
    /// Where to listen instead of the spec's `node.listen`; port 0 chooses a free one.
    pub listen: Option<SocketAddr>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The time by which tokens and sessions expire: the real world's, also where `clock` is that of
    /// a rehearsal.
    pub access_clock: Arc<dyn Clock>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// Partitions of the event log of which it is accepted that acknowledged records are lost: the node
    /// goes on without them instead of refusing to start.
    pub accept_log_loss: Vec<u32>,
    /// What to do where the ledger is missing, or does not belong to what lies beside it.
    pub recovery: Recovery,
    /// What specs that arrive over HTTP may name, besides what `spec` names.
    pub limits: LimitsConfig,
    /// How a query worker is started; by default the running program, which must call
    /// [`throng_lake::worker::main`] when its first argument is [`throng_lake::worker::SUBCOMMAND`].
    pub query_worker: WorkerCommand,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// A running node. Dropping it ends it without grace; [`Node::shutdown`] is the polite way.
pub struct Node {
    ctx: Arc<NodeContext>,
    address: SocketAddr,
    url: String,
    /// Told first: no new connections, streams end, roles put their work down.
    stop: CancellationToken,
    roles: Vec<JoinHandle<()>>,
    server: JoinHandle<()>,
    // Given up last.
    _lock: DataDirLock,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Node {
    /// Starts a node: takes the data directory, applies the spec, maps what is published, replays
    /// the event log from the last checkpoint, and serves. When it returns, the node is ready.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub async fn start(mut config: NodeConfig) -> Result<Self, NodeError> {
        let dir = config.data_dir.clone();
        access::open_data_dir(&dir)?;
        let lock = DataDirLock::take(&dir)?;
        let listen = config.listen.unwrap_or(config.spec.node.listen);
        let tls = config.spec.node.tls.as_ref();
        if !listen.ip().is_loopback() && tls.is_none() && !config.spec.node.insecure {
            return Err(NodeError::Unencrypted { listen });
        }
        let opened = DataDirectory::opened(&dir)
            .map_err(NodeError::io("look at the data directory", dir.display()))?;
        let roles = config.roles.clone().unwrap_or_else(|| config.spec.node.roles.clone());
        let partial = !roles.is_empty() && Role::ALL.iter().any(|role| !roles.contains(role));
        if !config.spec.node.is_shared() && partial {
            return Err(NodeError::Alone);
        }
        let open = |tls| serve::Certificates::open(tls, Arc::clone(&config.access_clock));
        let certificates = tls.map(open).transpose()?.map(Arc::new);
        if let Some(warning) = Landlock::of_kernel().warning() {
            tracing::warn!("{warning}");
        }
        crate::api::install_metrics();
        let shared = config.spec.node.is_shared();
        let Parts { ctx, feed, share, stamps } = gather_patiently(&mut config, &roles).await?;
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(NodeError::io("listen on", listen))?;
        let address = listener.local_addr().map_err(NodeError::io("listen on", listen))?;
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        write_private(&dir.join(ADDRESS_FILE), &url)?;
        // The first to say so.
        let _ = ctx.url.set(url.clone());
        let stop = CancellationToken::new();
        if !shared && let Err(error) = throng_refresh::recover(&ctx.refresh).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what the last process left could not be put in order"
            );
        }
        let work = stop.child_token();
        let mut roles = start_roles(&ctx, feed, share, &work);
        roles.push(watch_data_directory(&ctx, opened, work, stop.clone()));
        roles.push(tokio::spawn(storage::watch(Arc::clone(&ctx), stamps, stop.clone())));
        if let Some(certificates) = &certificates {
            let hangup = serve::Certificates::hangup();
            let health = Arc::clone(&ctx.health);
            certificates.check_validity(&health);
            let follow = Arc::clone(certificates).follow(hangup, health, stop.clone());
            roles.push(tokio::spawn(follow));
        }
        let router = guarded_router(&ctx, address, certificates.is_some(), &stop);
        let connections = ctx.spec.load().node.connections;
        let server = serve::Server::new(router, &connections, certificates, stop.clone());
        let server = tokio::spawn(server.serve(listener));
        tracing::info!(%address, data_dir = %dir.display(), roles = %names(&ctx.roles), "the node is up");
        Ok(Self { ctx, address, url, stop, roles, server, _lock: lock })
    }

    /// Where the node listens, such as `http://127.0.0.1:7077`; `https://` with `node.tls`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The node's parts, for callers in the same process.
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.ctx
    }

    /// Reads the limits file again, as on SIGHUP. Specs that arrive from now on are checked against
    /// what it says; the applied one stays as it is.
    ///
    /// # Errors
    /// [`LimitsError`]; what was allowed stays allowed then.
    pub fn reload_limits(&self) -> Result<LimitsChange, LimitsError> {
        const KEY: &str = "limits";
        let reloaded = self.ctx.limits.reload();
        match &reloaded {
            Ok(_) => {
                self.ctx.health.clear(ProblemClass::Config, KEY);
                let beyond = self.ctx.limits.now().beyond(&self.ctx.spec.load());
                if !beyond.is_empty() {
                    tracing::warn!(
                        ?beyond,
                        "the applied spec names what the limits do not allow: it goes on until \
                         another spec is applied"
                    );
                }
            }
            Err(error) => {
                let detail = format!("the limits stay as they were: {}", with_causes(error));
                self.ctx.health.report(ProblemClass::Config, KEY, detail);
            }
        }
        reloaded
    }

    /// Stops accepting, lets requests in hand end, makes roles put their work down, and writes a
    /// checkpoint. Takes at most some 20 seconds; what does not end by then is dropped and taken up
    /// again at the next start.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let roles = std::mem::take(&mut self.roles);
        let ending = async {
            for role in roles {
                if role.await.is_err_and(|e| e.is_panic()) {
                    tracing::error!("a role panicked while it ended");
                }
            }
            if (&mut self.server).await.is_err() {
                tracing::error!("the server panicked while it ended");
            }
        };
        if tokio::time::timeout(SHUTDOWN_PATIENCE, ending).await.is_err() {
            tracing::warn!("not everything ended in time; it is taken up again at the next start");
        }
        self.server.abort();
        if let Err(error) = self.ctx.budgets.close().await {
            tracing::error!(error = &error as &dyn std::error::Error, "no last checkpoint");
        }
        // Last: whoever still works with the ledger fails, and is taken up at the next start.
        let closing = tokio::time::timeout(SHUTDOWN_PATIENCE, self.ctx.ledger.close());
        if let Ok(Err(error)) = closing.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger was not closed cleanly; it is checked at the next start"
            );
        }
        tracing::info!("the node is down");
    }
}

/// Every route, behind the checks of tokens and host names.
fn guarded_router(
    ctx: &Arc<NodeContext>,
    address: SocketAddr,
    tls: bool,
    stop: &CancellationToken,
) -> axum::Router {
    let spec = ctx.spec.load();
    let node = &spec.node;
    let limits = crate::api::Limits::of(node);
    let hosts = HostNames::new(address, tls, node.public_url.as_deref(), &node.allowed_hosts);
    let guard = Arc::new(Guard::new(Arc::clone(&ctx.access), hosts));
    crate::api::router(Arc::clone(ctx), guard, limits, stop.clone())
}

/// SQL over the sources of a spec.
fn open_lake(
    data_dir: &std::path::Path,
    spec: &Spec,
    worker: &WorkerCommand,
) -> Result<Lake, NodeError> {
    let spill_dir = spec.node.spill_dir.clone().unwrap_or_else(|| data_dir.join("spill"));
    std::fs::create_dir_all(&spill_dir)
        .map_err(NodeError::io("make the folder", spill_dir.display()))?;
    if spec.node.spill_dir.is_none() {
        remove_old_spill(&spill_dir);
    }
    let limits = LakeLimits::of(&spec.node, spill_dir, worker.clone());
    Ok(Lake::new(&spec.sources, limits)?)
}

/// Removes what versions spilled that ran queries in the node itself, if they were killed: folders that
/// the engine made. They hold user keys.
fn remove_old_spill(spill_dir: &std::path::Path) {
    for entry in std::fs::read_dir(spill_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("datafusion-")
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "an old spill folder stays");
        }
    }
}

fn names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    names.join(", ")
}

/// What a node is made of, before its roles start.
struct Parts {
    ctx: Arc<NodeContext>,
    feed: Option<Feed>,
    share: Option<Share>,
    stamps: Option<Stamps>,
}

/// Opens everything. A process of a deployment may start while an engine that it needs starts again:
/// it says so and waits, and gives up only when that lasts.
async fn gather_patiently(config: &mut NodeConfig, roles: &[Role]) -> Result<Parts, NodeError> {
    let patience = match config.spec.node.is_shared() {
        true => ENGINE_PATIENCE,
        false => Duration::ZERO,
    };
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match gather(config, roles).await {
            Err(error) if error.may_pass() && tokio::time::Instant::now() < deadline => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an engine that this node needs does not answer; it is asked again"
                );
                tokio::time::sleep(ENGINE_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn gather(config: &mut NodeConfig, roles: &[Role]) -> Result<Parts, NodeError> {
    let mut backends = backends::open(config, roles).await?;
    let mut stamps = backends.stamps.take();
    let mut joined = None;
    if config.join {
        let stored = apply::stored(&*backends.ledger).await?.ok_or(NodeError::NothingToJoin)?;
        let node = std::mem::take(&mut config.spec.node);
        config.spec = Spec { node, ..stored.spec };
        joined = Some((stored.version, stored.indexes));
    }
    let feed = backends.feed.clone();
    let limits = NodeLimits::open(config.limits.clone(), &config.data_dir, &mut config.spec)?;
    let (ctx, share) = assemble(config, joined, backends, limits, roles.to_vec()).await?;
    if let Some(stamps) = &mut stamps {
        stamps.start_run(&*ctx.ledger).await?;
    }
    Ok(Parts { ctx, feed, share, stamps })
}

/// The version of the spec that a process joined, with the feed's numbers of its ad groups.
type Joined = Option<(u64, Vec<(AdGroupName, AdGroupIndex)>)>;

/// Makes the context of everything that was opened.
async fn assemble(
    config: &NodeConfig,
    joined: Joined,
    backends: Backends,
    limits: NodeLimits,
    roles: Vec<Role>,
) -> Result<(Arc<NodeContext>, Option<Share>), NodeError> {
    let (dir, clock, spec) = (&config.data_dir, &config.clock, config.spec.clone());
    let access = access::open(config, &backends.ledger).await?;
    let Backends { ledger, objects, log, feed, intake, queues, share, .. } = backends;
    let seed = ledger.hash_seed(HashSeed(SystemEntropy.next_u64())).await?;
    let found = log.partitions();
    let stored = ledger.log_partitions(Some(found)).await?.unwrap_or(found);
    if found != stored {
        return Err(NodeError::LogPartitions { found, stored });
    }
    let lake = open_lake(dir, &spec, &config.query_worker)?;
    let has = |any: &[Role]| any.iter().any(|role| roles.contains(role));
    let serves_membership =
        has(&[Role::Api, Role::Build, Role::Activate, Role::Schedule, Role::Lookup]);
    let (membership, faults) = match serves_membership {
        true => roles::refresh::load_membership(&objects, &*ledger, seed, &spec).await?,
        false => (MembershipIndex::empty(seed), Vec::new()),
    };
    let membership = Arc::new(membership);
    let health = Arc::new(Health::new(Arc::clone(clock)));
    let parts = BudgetsParts {
        objects: Arc::clone(&objects),
        log: Arc::clone(&log),
        feed,
        intake,
        clock: Arc::clone(clock),
        retention: Retention {
            bytes: spec.node.log_retention.bytes,
            age: Duration::from_secs(u64::from(spec.node.log_retention.hours) * 3_600),
        },
        accept_log_loss: config.accept_log_loss.clone(),
        promise: Duration::from_secs(u64::from(spec.node.dedupe_hours) * 3_600),
        health: Arc::clone(&health),
    };
    let (budgets, applied) = open_budgets(config, joined, &*ledger, parts).await?;
    let feed_interval = Duration::from_millis(u64::from(spec.node.feed_interval_ms));
    let gate = Gate::new(budgets.catalog().as_ref().clone(), stale_after(feed_interval));
    gate.set_membership(Arc::clone(&membership));
    let gate = Arc::new(gate);
    budgets.feed_gate(&gate);
    let observer = Arc::new(roles::refresh::NodeObserver::new(&health, &gate, CHANGES));
    let refresh = RefreshParts {
        clock: Arc::clone(clock),
        ledger: Arc::clone(&ledger),
        objects: Arc::clone(&objects),
        seed,
        holder: format!("{}-{:08x}", std::process::id(), SystemEntropy.next_u64() >> 32),
        serves_membership,
        spec: Arc::new(ArcSwap::from_pointee(spec)),
        lake: Arc::new(ArcSwap::from_pointee(lake)),
        membership: Arc::new(ArcSwap::new(membership)),
        wake: Arc::default(),
        observer: Arc::clone(&observer) as Arc<dyn Observer>,
    };
    let ctx = Arc::new(NodeContext {
        data_dir: dir.clone(),
        roles,
        serves_membership,
        url: OnceLock::new(),
        started_at: clock.now(),
        clock: Arc::clone(clock),
        spec: Arc::clone(&refresh.spec),
        spec_version: AtomicU64::new(budgets.catalog().version),
        spec_turn: tokio::sync::Mutex::default(),
        health,
        access: Arc::new(access),
        ledger,
        objects,
        queues,
        seed,
        holder: refresh.holder.clone(),
        lake: Arc::clone(&refresh.lake),
        query_worker: config.query_worker.clone(),
        membership: Arc::clone(&refresh.membership),
        log,
        budgets: Arc::new(budgets),
        gate,
        env: Arc::clone(&config.env),
        limits,
        collector: Collector::default(),
        data_directory_lost: CancellationToken::new(),
        wake_build: Arc::clone(&refresh.wake),
        wake_activate: Arc::clone(&observer.wake_activate),
        changes: observer.changes.clone(),
        refresh: Arc::new(RefreshContext::new(refresh)),
    });
    if let Some(applied) = applied {
        apply::queue_refreshes(&ctx, &applied, None).await?;
    }
    throng_refresh::report_faults(&ctx.refresh, &faults).await;
    Ok((ctx, share))
}

/// Applies the spec, and opens the budgets under it. A node that has the log to itself restores them
/// under the spec that the logged events came under, and applies the new one then: an event keeps
/// the price that it had. Where nodes share a log, others may be at work on it already.
async fn open_budgets(
    config: &NodeConfig,
    joined: Joined,
    ledger: &dyn Ledger,
    parts: BudgetsParts,
) -> Result<(Budgets, Option<apply::Applied>), NodeError> {
    let (spec, clock) = (&config.spec, Arc::clone(&config.clock));
    let all: Vec<u32> = (0..parts.log.partitions()).collect();
    // Not read anew: a spec that was applied meanwhile must be noticed as a newer one.
    if let Some((version, indexes)) = joined {
        return Ok((Budgets::new(parts, spec, &indexes, version), None));
    }
    if spec.node.is_shared() {
        let applied = apply::store(ledger, spec, clock.now()).await?;
        let budgets = Budgets::new(parts, spec, &applied.indexes, applied.version);
        return Ok((budgets, Some(applied)));
    }
    let Some(before) = apply::replaced(ledger).await? else {
        let applied = apply::store(ledger, spec, clock.now()).await?;
        let budgets = Budgets::new(parts, spec, &applied.indexes, applied.version);
        budgets.own(&all).await?;
        return Ok((budgets, Some(applied)));
    };
    let budgets = Budgets::new(parts, &before.spec, &before.indexes, before.version);
    budgets.own(&all).await?;
    budgets.checkpoint().await?;
    let applied = apply::store(ledger, spec, clock.now()).await?;
    budgets.apply_spec(spec, &applied.indexes, applied.version);
    if applied.version != before.version {
        // With the time since when its prices count: the next start restores under this spec.
        budgets.checkpoint().await?;
    }
    Ok((budgets, Some(applied)))
}

/// After how long without a frame a gate's figures are stale: some frames may be late.
pub(crate) fn stale_after(feed_interval: Duration) -> Duration {
    feed_interval.saturating_mul(10).max(Duration::from_secs(10))
}

/// Starts the roles of this node. One that ends by itself is a bug: it is told and started again.
fn start_roles(
    ctx: &Arc<NodeContext>,
    feed: Option<Feed>,
    share: Option<Share>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let mut running = Vec::new();
    macro_rules! start {
        ($name:literal, $run:path) => {{
            let (ctx, stop) = (Arc::clone(ctx), stop.clone());
            running.push(tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let ended = tokio::spawn($run(Arc::clone(&ctx), stop.clone())).await;
                    if stop.is_cancelled() {
                        break;
                    }
                    let panicked = ended.is_err();
                    tracing::error!(role = $name, panicked, "a role ended; it is started again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
        }};
    }
    let has = |role| ctx.roles.contains(&role);
    if has(Role::Build) {
        start!("build", roles::refresh::run);
    }
    if has(Role::Schedule) {
        start!("schedule", roles::schedule::run);
        start!("plan", roles::activate::lead);
        start!("notify", roles::notify::run);
    }
    if has(Role::Activate) {
        start!("activate", roles::activate::run);
    }
    if has(Role::Aggregate) {
        start!("aggregate", roles::aggregate::run);
    }
    start!("follow", roles::follow::run);
    start!("probe", roles::probe::run);
    running.push(tokio::spawn(Arc::clone(&ctx.access).run(stop.clone())));
    start!("problems", roles::notify::problems::run);
    if let Some(share) = share {
        let (ctx, stop) = (Arc::clone(ctx), stop.clone());
        running.push(tokio::spawn(roles::aggregate::share(ctx, share, stop)));
    }
    if let Some(feed) = &feed
        && has(Role::Aggregate)
    {
        let (ctx, feed, stop) = (Arc::clone(ctx), feed.clone(), stop.clone());
        running.push(tokio::spawn(roles::aggregate::stand_by(ctx, feed, stop)));
    }
    if let Some(feed) = feed
        && [Role::Api, Role::Relay, Role::Lookup, Role::Aggregate].into_iter().any(has)
    {
        let (ctx, stop) = (Arc::clone(ctx), stop.clone());
        running.push(tokio::spawn(roles::aggregate::follow_feed(ctx, feed, stop)));
    }
    running
}

/// Ends the roles, by `work`, when the data directory is lost. The node goes on answering what it
/// knows, and `/readyz` says that it should not be asked.
fn watch_data_directory(
    ctx: &Arc<NodeContext>,
    opened: DataDirectory,
    work: CancellationToken,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        opened.watch(&ctx.health, &ctx.data_directory_lost, &stop).await;
        if ctx.data_directory_lost.is_cancelled() {
            work.cancel();
        }
    })
}

/// Tells pages that another spec is applied.
fn spec_changed(ctx: &NodeContext) {
    ctx.wake_build.notify_waiters();
    ctx.wake_activate.notify_waiters();
    ctx.changed(Change::Spec);
}
