//! A node: all parts assembled in one process. The only place that chooses roles; nothing else in this crate uses
//! it.

mod access;
mod budgets;
mod config;
mod error;
mod ingest;
mod role_loops;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_access::{
    ADDRESS_FILE, Access, HostNames, LimitsChange, LimitsError, NodeLimits, write_private,
};
use throng_activation::TaskQueues;
use throng_aggregator::Budgets;
use throng_apply::{
    LakeOpener, RunningSpec, SpecApplier, expand_at_start, load_applied, open_gate,
};
use throng_backends::{
    BackendConfig, Backends, BucketCopies, DataDirLock, DataDirectory, Stamps,
    check_log_partitions, create_data_dir, open_lake, probe_writes,
};
use throng_gate::Gate;
use throng_http::{CertificateFiles, Certificates, ConnectionLimits, Server};
use throng_log::{EventLog, PartitionAssignment};
use throng_membership::MembershipIndex;
use throng_model::{Entropy, HashSeed, SystemEntropy, with_causes};
use throng_refresh::{Observer, RefreshContext, RefreshDeps};
use throng_spec::{Role, Spec, TlsSettings};
use throng_warehouse::OpenWarehouses;
use throng_worker::Landlock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Guard, PageRoutes};
use crate::metrics::{Collector, MetricSources};
use crate::reporters::CertificateProblems;
use crate::roles::refresh::NodeObserver;
use crate::{Health, NodeContext, ProblemClass, roles};
use throng_apply::changes::SpecChanges;

use budgets::Joined;
pub use config::NodeConfig;
pub use error::NodeError;

/// How long a graceful shutdown may take before the remaining work is aborted. Aborted work is not
/// lost: the next start resumes it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a node of a cluster retries at its start while a backend does not respond, and the
/// delay between two tries.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(60);
const BACKEND_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The shortest time between two polls of a role, by this process alone and where many processes poll one
/// ledger.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);
const MIN_SHARED_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The file of the data directory with the key of identifiers. Not part of backups.
const IDENTIFIERS_KEY_FILE: &str = "identifiers.key";
/// Changes that a page may lag behind. A page that lags further reads everything again.
const CHANGES_CAPACITY: usize = 256;

/// A running node. Dropping it stops it at once; [`Node::shutdown`] stops it gracefully.
pub struct Node {
    ctx: Arc<NodeContext>,
    address: SocketAddr,
    url: String,
    /// Cancelled first: no new connections, streams end, roles stop their work.
    stop: CancellationToken,
    roles: Vec<JoinHandle<()>>,
    server: JoinHandle<()>,
    // Dropped last: nothing of this node may write when another process can take the directory.
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
    /// Starts a node: locks the data directory, opens the backends, maps the published snapshots,
    /// restores the budgets under the previous spec, applies the new one, and serves. With shared backends
    /// it retries for up to a minute if one is unavailable, and restores a partition when it is assigned.
    /// The returned node is ready.
    ///
    /// # Errors
    /// [`NodeError`]; nothing keeps running then.
    pub async fn start(mut config: NodeConfig) -> Result<Self, NodeError> {
        let dir = config.data_dir.clone();
        create_data_dir(&dir)?;
        let lock = DataDirLock::take(&dir)?;
        let listen = config.listen.unwrap_or(config.spec.node.listen);
        let tls = config.spec.node.tls.as_ref();
        if !listen.ip().is_loopback() && tls.is_none() && !config.spec.node.insecure {
            return Err(NodeError::Unencrypted { listen });
        }
        let opened = DataDirectory::opened(&dir, &config.spec.node)?;
        let roles = config.roles.clone().unwrap_or_else(|| config.spec.node.roles.clone());
        let partial = !roles.is_empty() && Role::ALL.iter().any(|role| !roles.contains(role));
        if !config.spec.node.is_shared() && partial {
            return Err(NodeError::RolesNeedSharedBackends);
        }
        let open = |tls: &TlsSettings| {
            let files = CertificateFiles {
                cert_file: tls.cert_file.clone(),
                key_file: tls.key_file.clone(),
            };
            Certificates::open(files, Arc::clone(&config.access_clock))
        };
        let certificates = tls.map(open).transpose()?.map(Arc::new);
        if let Some(warning) = Landlock::of_kernel().warning() {
            tracing::warn!(warning, "query workers are not fully confined");
        }
        crate::metrics::install();
        let shared = config.spec.node.is_shared();
        let Parts { ctx, share, stamps } = open_with_retries(&mut config, &roles).await?;
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(NodeError::io("listen on", listen))?;
        let address = listener.local_addr().map_err(NodeError::io("listen on", listen))?;
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        write_private(&dir.join(ADDRESS_FILE), &url)?;
        let place = if shared { format!("on {url}") } else { "on this node".to_owned() };
        // Only these lines set them.
        let _ = ctx.alert_place.set(place);
        let _ = ctx.url.set(url.clone());
        let stop = CancellationToken::new();
        if shared {
            throng_refresh::remove_left_builds(&ctx.refresh);
        } else if let Err(error) = throng_refresh::recover(&ctx.refresh).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to recover refreshes of the previous process"
            );
        }
        let work = stop.child_token();
        let mut roles = start_roles(&ctx, share, &work);
        roles.push(role_loops::watch_data_directory(&ctx, opened, work, stop.clone()));
        roles.push(tokio::spawn(probe_writes(role_loops::probes(&ctx), stamps, stop.clone())));
        if let Some(certificates) = &certificates {
            let sighup = Certificates::sighup();
            let reporter = Arc::new(CertificateProblems(Arc::clone(&ctx.health)));
            certificates.check_validity(&*reporter);
            let reloads = Arc::clone(certificates).reload_on_change(sighup, reporter, stop.clone());
            roles.push(tokio::spawn(reloads));
        }
        let router = guarded_router(&ctx, address, certificates.is_some(), &stop);
        let connections = ctx.spec.load().node.connections;
        let caps = ConnectionLimits {
            total: connections.total as usize,
            per_address: connections.per_address as usize,
        };
        let server = Server::new(router, caps, certificates, stop.clone());
        let server = tokio::spawn(server.serve(listener));
        let role_names = role_names(&ctx.roles);
        tracing::info!(%address, data_dir = %dir.display(), roles = %role_names, "node started");
        Ok(Self { ctx, address, url, stop, roles, server, _lock: lock })
    }

    /// Where the node listens, such as `http://127.0.0.1:7077`; `https://` with `node.tls`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The shared parts of the node, for callers in the same process.
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.ctx
    }

    /// Reads the limits file again, as on SIGHUP. Specs that are sent from now on are checked
    /// against it; the applied spec does not change.
    ///
    /// # Errors
    /// [`LimitsError`]; the limits do not change then.
    pub fn reload_limits(&self) -> Result<LimitsChange, LimitsError> {
        const KEY: &str = "limits";
        let reloaded = self.ctx.limits.reload();
        match &reloaded {
            Ok(_) => {
                self.ctx.health.clear(ProblemClass::Config, KEY);
                let beyond = self.ctx.limits.now().disallowed(&self.ctx.spec.load());
                if !beyond.is_empty() {
                    tracing::warn!(
                        ?beyond,
                        "applied spec exceeds the limits and stays applied until it is replaced"
                    );
                }
            }
            Err(error) => {
                let detail = format!("the limits do not change: {}", with_causes(error));
                self.ctx.health.report(ProblemClass::Config, KEY, detail);
            }
        }
        reloaded
    }

    /// Stops accepting connections, lets open requests end, stops the roles, and writes a
    /// checkpoint. Takes about 20 seconds at most; work that does not end by then is aborted, and
    /// the next start resumes it.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let roles = std::mem::take(&mut self.roles);
        let ending = async {
            for role in roles {
                if role.await.is_err_and(|e| e.is_panic()) {
                    tracing::error!("role panicked during shutdown");
                }
            }
            if (&mut self.server).await.is_err() {
                tracing::error!("HTTP server panicked during shutdown");
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ending).await.is_err() {
            tracing::warn!("shutdown timed out; the next start resumes unfinished work");
        }
        self.server.abort();
        if let Err(error) = self.ctx.budgets.close().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to write the last checkpoint"
            );
        }
        // Last: work that still uses the ledger fails, and the next start resumes it.
        let closing = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.ctx.ledger.close());
        if let Ok(Err(error)) = closing.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to close the ledger; the next start checks it"
            );
        }
        tracing::info!("node stopped");
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
    let limits = crate::api::RequestLimits::of(node);
    let hosts = HostNames::new(address, tls, node.public_url.as_deref(), &node.allowed_hosts);
    let guard = Arc::new(Guard::new(Arc::clone(&ctx.access), hosts));
    let page = PageRoutes { pages: crate::page::routes(), assets: crate::page::assets() };
    crate::api::router(Arc::clone(ctx), guard, limits, page, stop.clone())
}

fn role_names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    names.join(", ")
}

/// The opened parts of a node, before its roles start.
struct Parts {
    ctx: Arc<NodeContext>,
    share: Option<PartitionAssignment>,
    stamps: Option<Stamps>,
}

/// Opens everything. A node of a cluster may start while a backend restarts, so it retries until a
/// timeout. With local backends there is no retry: nothing else brings them back.
async fn open_with_retries(config: &mut NodeConfig, roles: &[Role]) -> Result<Parts, NodeError> {
    let timeout = match config.spec.node.is_shared() {
        true => BACKEND_TIMEOUT,
        false => Duration::ZERO,
    };
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        match open_parts(config, roles).await {
            Err(error) if error.is_retryable() && tokio::time::Instant::now() < deadline => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "backend unavailable, retrying"
                );
                tokio::time::sleep(BACKEND_RETRY_DELAY).await;
            }
            other => return other,
        }
    }
}

fn lake_opener(config: &NodeConfig, roles: &[Role]) -> Result<LakeOpener, NodeError> {
    let (env, clock) = (Arc::clone(&config.env), Arc::clone(&config.clock));
    let copies = Arc::new(BucketCopies::of_node(&config.data_dir, env, clock));
    let bucket = open_lake(&config.data_dir, &config.spec.node, roles, &config.env, &copies)?;
    let (data_dir, worker) = (config.data_dir.clone(), config.query_worker.clone());
    Ok(LakeOpener { data_dir, worker, copies, bucket })
}

async fn open_parts(config: &mut NodeConfig, roles: &[Role]) -> Result<Parts, NodeError> {
    let mut backends = throng_backends::open(&BackendConfig {
        data_dir: &config.data_dir,
        settings: &config.spec.node,
        roles,
        env: &config.env,
        clock: &*config.clock,
        recovery: config.recovery,
    })
    .await?;
    let opener = lake_opener(config, roles)?;
    let mut stamps = backends.stamps.take();
    let mut joined = None;
    if config.join {
        let stored = load_applied(&*backends.ledger).await?.ok_or(NodeError::NothingToJoin)?;
        let node = std::mem::take(&mut config.spec.node);
        config.spec = Spec { node, ..stored.spec };
        joined = Some((stored.version, stored.indexes));
    } else {
        expand_at_start(&*backends.ledger, &opener, &mut config.spec).await?;
    }
    let limits = NodeLimits::open(config.limits.clone(), &config.data_dir, &mut config.spec)?;
    let (ctx, share) = assemble(config, joined, backends, limits, opener, roles.to_vec()).await?;
    if let Some(stamps) = &mut stamps {
        stamps.start_run(&*ctx.ledger).await?;
    }
    Ok(Parts { ctx, share, stamps })
}

/// The settings of roles that depend on whether other processes use the same backends.
struct RoleSettings {
    helps_others: bool,
    min_poll_interval: Duration,
    identifiers_key_file: Option<PathBuf>,
}

impl RoleSettings {
    fn of(config: &NodeConfig) -> Self {
        match config.spec.node.is_shared() {
            true => Self {
                helps_others: true,
                min_poll_interval: MIN_SHARED_POLL_INTERVAL,
                identifiers_key_file: None,
            },
            false => Self {
                helps_others: false,
                min_poll_interval: MIN_POLL_INTERVAL,
                identifiers_key_file: Some(config.data_dir.join(IDENTIFIERS_KEY_FILE)),
            },
        }
    }
}

/// Whether one of these roles needs the published snapshots.
fn serves_membership(roles: &[Role]) -> bool {
    let serving = [Role::Api, Role::Build, Role::Activate, Role::Schedule, Role::Lookup];
    serving.iter().any(|role| roles.contains(role))
}

/// Builds the context from what was opened.
async fn assemble(
    config: &NodeConfig,
    joined: Joined,
    backends: Backends,
    limits: NodeLimits,
    opener: LakeOpener,
    roles: Vec<Role>,
) -> Result<(Arc<NodeContext>, Option<PartitionAssignment>), NodeError> {
    let (clock, spec) = (&config.clock, config.spec.clone());
    let access = access::open(config, &backends.ledger).await?;
    let (ledger, objects) = (Arc::clone(&backends.ledger), Arc::clone(&backends.objects));
    let seed = ledger.hash_seed(HashSeed(SystemEntropy.next_u64())).await?;
    check_log_partitions(&*ledger, &*backends.log).await?;
    let lake = opener.open_first(&spec).await?;
    let (serves_membership, settings) = (serves_membership(&roles), RoleSettings::of(config));
    let (membership, faults) = match serves_membership {
        true => {
            let loaded = throng_refresh::load_membership(&objects, &*ledger, seed, &spec).await;
            let loaded = loaded.map_err(|error| NodeError::Membership(error.into()))?;
            (loaded.index, loaded.faults)
        }
        false => (MembershipIndex::empty(seed), Vec::new()),
    };
    let membership = Arc::new(membership);
    let health = Arc::new(Health::new(Arc::clone(clock)));
    let (budgets, applied) = budgets::open(config, joined, &backends, &health).await?;
    let gate = open_gate(&budgets, &spec, &membership);
    let observer = Arc::new(NodeObserver::new(&health, &gate, CHANGES_CAPACITY));
    let refresh = RefreshDeps {
        clock: Arc::clone(clock),
        ledger,
        objects,
        seed,
        holder: format!("{}-{:08x}", std::process::id(), SystemEntropy.next_u64() >> 32),
        serves_membership,
        helps_others: settings.helps_others,
        min_poll_interval: settings.min_poll_interval,
        spec: Arc::new(ArcSwap::from_pointee(spec)),
        lake: Arc::new(ArcSwap::from_pointee(lake)),
        warehouses: Arc::new(OpenWarehouses::new(Arc::clone(&config.env), Arc::clone(clock))),
        membership: Arc::new(ArcSwap::new(membership)),
        wake: Arc::default(),
        observer: Arc::clone(&observer) as Arc<dyn Observer>,
    };
    let Backends { log, queues, share, .. } = backends;
    let key_file = settings.identifiers_key_file;
    let opened =
        Opened { access, log, queues, health, budgets, gate, observer, refresh, opener, key_file };
    let ctx = Arc::new(connect(config, roles, limits, opened));
    if let Some(applied) = applied {
        ctx.applier.queue_refreshes_at_start(&applied).await?;
    }
    throng_refresh::report_faults(&ctx.refresh, &faults).await;
    Ok((ctx, share))
}

/// Opened parts of a node that do not have each other yet.
struct Opened {
    access: Access,
    log: Arc<dyn EventLog>,
    queues: TaskQueues,
    health: Arc<Health>,
    budgets: Budgets,
    gate: Arc<Gate>,
    observer: Arc<NodeObserver>,
    refresh: RefreshDeps,
    opener: LakeOpener,
    key_file: Option<PathBuf>,
}

/// Gives the opened parts to each other.
fn connect(
    config: &NodeConfig,
    roles: Vec<Role>,
    limits: NodeLimits,
    opened: Opened,
) -> NodeContext {
    let Opened { access, log, queues, health, budgets, gate, observer, refresh, opener, key_file } =
        opened;
    let budgets = Arc::new(budgets);
    let (version, min_poll_interval) = (budgets.catalog().version, refresh.min_poll_interval);
    let running = RunningSpec::new(Arc::clone(&refresh.spec), version, min_poll_interval);
    let running = Arc::new(running);
    let ingest = ingest::of_node(config, &roles, opener.bucket.clone());
    let applier = SpecApplier {
        ledger: Arc::clone(&refresh.ledger),
        clock: Arc::clone(&refresh.clock),
        opener,
        running: Arc::clone(&running),
        lake: Arc::clone(&refresh.lake),
        budgets: Arc::clone(&budgets),
        gate: Arc::clone(&gate),
        observer: Arc::new(SpecChanges {
            wake_build: Arc::clone(&refresh.wake),
            wake_activate: Arc::clone(&observer.wake_activate),
            changes: observer.changes.clone(),
        }),
    };
    let sources = MetricSources {
        ledger: Arc::clone(&refresh.ledger),
        spec: Arc::clone(&refresh.spec),
        clock: Arc::clone(&refresh.clock),
        data_dir: config.data_dir.clone(),
        budgets: Arc::clone(&budgets),
    };
    NodeContext {
        data_dir: config.data_dir.clone(),
        ingest,
        roles,
        serves_membership: refresh.serves_membership,
        url: OnceLock::new(),
        alert_place: OnceLock::new(),
        started_at: refresh.clock.now(),
        clock: Arc::clone(&refresh.clock),
        spec: Arc::clone(&refresh.spec),
        workspace_specs: Default::default(),
        running,
        health,
        access: Arc::new(access),
        ledger: Arc::clone(&refresh.ledger),
        objects: Arc::clone(&refresh.objects),
        queues,
        identifiers_key_file: key_file,
        seed: refresh.seed,
        holder: refresh.holder.clone(),
        lake: Arc::clone(&refresh.lake),
        membership: Arc::clone(&refresh.membership),
        log,
        budgets,
        gate,
        env: Arc::clone(&config.env),
        limits: Arc::new(limits),
        applier: Arc::new(applier),
        collector: Arc::new(Collector::new(sources)),
        data_directory_lost: CancellationToken::new(),
        wake_build: Arc::clone(&refresh.wake),
        wake_activate: Arc::clone(&observer.wake_activate),
        changes: observer.changes.clone(),
        refresh: Arc::new(RefreshContext::new(refresh)),
    }
}

/// Starts the roles. One that exits by itself is a bug: it is logged and restarted.
fn start_roles(
    ctx: &Arc<NodeContext>,
    share: Option<PartitionAssignment>,
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
                    tracing::error!(role = $name, panicked, "role exited, restarting");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
        }};
    }
    let has = |role| ctx.roles.contains(&role);
    if has(Role::Build) {
        start!("build", role_loops::build);
    }
    if has(Role::Schedule) {
        start!("schedule", roles::schedule::run);
        start!("plan", role_loops::plan);
        start!("notify", roles::notify::run);
        start!("budget_alerts", roles::notify::run_budget_alerts);
        start!("stores", role_loops::write_stores);
    }
    if has(Role::Activate) {
        start!("activate", role_loops::activate);
    }
    if has(Role::Aggregate) {
        start!("aggregate", role_loops::aggregate);
        start!("standby", role_loops::run_standbys);
    }
    if [Role::Api, Role::Relay, Role::Lookup, Role::Aggregate].into_iter().any(has) {
        start!("feed", role_loops::follow_feed);
    }
    start!("follow_specs", role_loops::follow_specs);
    start!("follow", role_loops::follow);
    start!("probe", role_loops::probe);
    running.push(tokio::spawn(Arc::clone(&ctx.access).run(stop.clone())));
    start!("problems", roles::notify::run_problems);
    start!("quarantine", ingest::expire_quarantine);
    if let Some(share) = share {
        let (ctx, stop) = (Arc::clone(ctx), stop.clone());
        running.push(tokio::spawn(role_loops::follow_assignment(ctx, share, stop)));
    }
    running
}
