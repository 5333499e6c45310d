//! A node: all parts assembled in one process. The only place that chooses backends and roles.

mod apply;
mod lock;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_gate::Gate;
use throng_lake::{Lake, LakeError, LakeLimits};
use throng_ledger::{Ledger, LedgerError, PostgresLedger, SqliteLedger, SyncLedger as _};
use throng_log::{EventLog, FileLog, LogError};
use throng_model::{Clock, Entropy, HashSeed, Secret, SystemEntropy};
use throng_spec::{LedgerSettings, SecretError, Spec};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::roles::aggregate::{Budgets, BudgetsError};
use crate::{Change, NodeContext, roles};

pub(crate) use apply::apply_spec;
use lock::DataDirLock;

/// How long a graceful end may take before what is left is dropped. Everything that is dropped is
/// safe: it is taken up again at the next start.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(20);
/// Changes that pages have not looked at yet; whoever lags looks again anyway.
const CHANGES: usize = 256;

/// Looks up a secret by the name of an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeConfig {
    /// Where everything is kept; made if it is not there. One node at a time.
    pub data_dir: PathBuf,
    /// The spec to run. It is applied before the node answers.
    pub spec: Spec,
    /// Where to listen instead of the spec's `node.listen`; port 0 chooses a free one.
    pub listen: Option<SocketAddr>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why a node did not start, or a spec was not applied.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another node has the data directory.
    #[error(
        "{holder} uses the data directory {}: stop it, or give this node another directory",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who has it: `process 123`, or `another process`.
        holder: String,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {what}")]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// With which file, folder or address.
        what: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The API would be open to everybody.
    #[error(
        "the node would listen on {listen}, which others can reach, without a token: set node.token in the spec, or listen on 127.0.0.1"
    )]
    Unprotected {
        /// The address.
        listen: SocketAddr,
    },
    /// A secret of the node settings is missing.
    #[error("cannot read the secret node.{field}")]
    Secret {
        /// The setting.
        field: &'static str,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// Another node works with the ledger.
    #[error(
        "another node uses the ledger of node.ledger_url: stop it, or give this node another one"
    )]
    LedgerInUse,
    /// The sources.
    #[error("cannot open the sources")]
    Lake(#[from] LakeError),
    /// The event log.
    #[error("cannot use the event log")]
    Log(#[from] LogError),
    /// Budget states.
    #[error("cannot restore the budgets")]
    Budgets(#[from] BudgetsError),
    /// Snapshots or dictionaries.
    #[error("cannot map the published audiences")]
    Membership(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The spec cannot be written as JSON.
    #[error("cannot write the spec as JSON")]
    Spec(#[from] serde_json::Error),
}

impl NodeError {
    fn io(doing: &'static str, what: impl ToString) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { doing, what, source }
    }
}

/// A running node. Dropping it ends it without grace; [`Node::shutdown`] is the polite way.
pub struct Node {
    ctx: Arc<NodeContext>,
    address: SocketAddr,
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
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let dir = config.data_dir.clone();
        std::fs::create_dir_all(&dir)
            .map_err(NodeError::io("make the data directory", dir.display()))?;
        let lock = DataDirLock::take(&dir)?;
        let (listen, token) = entrance(&config)?;
        crate::api::install_metrics();
        let ctx = assemble(&config).await?;
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(NodeError::io("listen on", listen))?;
        let address = listener.local_addr().map_err(NodeError::io("listen on", listen))?;
        let stop = CancellationToken::new();
        let roles = start_roles(&ctx, &stop);
        let limits = crate::api::Limits::of(&ctx.spec.load().node);
        let router = crate::api::router(Arc::clone(&ctx), token, limits, stop.clone());
        let server = tokio::spawn(serve::serve(listener, router, stop.clone()));
        tracing::info!(%address, data_dir = %dir.display(), "the node is up");
        Ok(Self { ctx, address, stop, roles, server, _lock: lock })
    }

    /// Where the node listens, such as `http://127.0.0.1:7077`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The node's parts, for callers in the same process.
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.ctx
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
        tracing::info!("the node is down");
    }
}

/// Where to listen, and the token that callers must bring.
fn entrance(config: &NodeConfig) -> Result<(SocketAddr, Option<Secret>), NodeError> {
    let listen = config.listen.unwrap_or(config.spec.node.listen);
    let token = match &config.spec.node.token {
        Some(reference) => Some(
            reference
                .resolve(&*config.env)
                .map_err(|source| NodeError::Secret { field: "token", source })?,
        ),
        None => None,
    };
    if token.is_none() && !listen.ip().is_loopback() {
        return Err(NodeError::Unprotected { listen });
    }
    Ok((listen, token))
}

/// SQL over the sources of a spec.
fn open_lake(data_dir: &std::path::Path, spec: &Spec) -> Result<Lake, NodeError> {
    let spill_dir = spec.node.spill_dir.clone().unwrap_or_else(|| data_dir.join("spill"));
    std::fs::create_dir_all(&spill_dir)
        .map_err(NodeError::io("make the folder", spill_dir.display()))?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let limits = LakeLimits { memory_bytes: spec.node.memory_limit_bytes, spill_dir, threads };
    Ok(Lake::new(&spec.sources, limits)?)
}

/// Opens the ledger that the node settings choose.
async fn open_ledger(config: &NodeConfig) -> Result<Arc<dyn Ledger>, NodeError> {
    match &config.spec.node.ledger {
        LedgerSettings::Sqlite => {
            let ledger = SqliteLedger::open(&config.data_dir.join("ledger.db")).await?;
            // The lock of the data directory says that nobody else is at work on this file: what is
            // in hand was left by a dead process. On a server other nodes may have it; what is left
            // there is due when its lease ends.
            let left = ledger.end_leases(config.clock.now()).await?;
            if left > 0 {
                tracing::info!(left, "taking up work that a dead process left");
            }
            Ok(Arc::new(ledger))
        }
        LedgerSettings::Postgres { url, connections } => {
            let url = url
                .resolve(&*config.env)
                .map_err(|source| NodeError::Secret { field: "ledger_url", source })?;
            let ledger = PostgresLedger::open(&url, *connections).await?;
            if !ledger.take().await? {
                return Err(NodeError::LedgerInUse);
            }
            Ok(Arc::new(ledger))
        }
    }
}

/// Opens everything that is kept, and makes the context of it.
async fn assemble(config: &NodeConfig) -> Result<Arc<NodeContext>, NodeError> {
    let (dir, clock, spec) = (&config.data_dir, &config.clock, config.spec.clone());
    let objects = dir.join("objects");
    std::fs::create_dir_all(&objects)
        .map_err(NodeError::io("make the folder", objects.display()))?;
    let ledger = open_ledger(config).await?;
    let seed = ledger.hash_seed(HashSeed(SystemEntropy.next_u64())).await?;
    let lake = open_lake(dir, &spec)?;
    let membership = roles::build::load_membership(&objects, &*ledger, seed)
        .await
        .map_err(|e| NodeError::Membership(e.into()))?;
    let membership = Arc::new(membership);
    let log_dir = dir.join("log");
    // The number of partitions is fixed when the log is made; the setting counts only then.
    let partitions = FileLog::partitions_in(&log_dir)?.unwrap_or(spec.node.log_partitions);
    let log: Arc<dyn EventLog> = Arc::new(FileLog::open(&log_dir, partitions)?);
    let (budgets, applied) = open_budgets(config, &*ledger, &log).await?;
    let feed_interval = Duration::from_millis(u64::from(spec.node.feed_interval_ms));
    let gate = Gate::new(budgets.catalog().as_ref().clone(), stale_after(feed_interval));
    gate.set_membership(Arc::clone(&membership));
    let gate = Arc::new(gate);
    budgets.feed_gate(&gate);
    let process = std::process::id();
    let ctx = Arc::new(NodeContext {
        data_dir: dir.clone(),
        clock: Arc::clone(clock),
        spec: ArcSwap::from_pointee(spec),
        ledger,
        seed,
        holder: format!("{process}-{:08x}", SystemEntropy.next_u64() >> 32),
        lake: ArcSwap::from_pointee(lake),
        membership: ArcSwap::new(membership),
        log,
        budgets: Arc::new(budgets),
        gate,
        env: Arc::clone(&config.env),
        wake_build: Notify::new(),
        wake_activate: Notify::new(),
        changes: broadcast::channel(CHANGES).0,
    });
    apply::queue_refreshes(&ctx, &applied).await?;
    Ok(ctx)
}

/// Restores the budgets under the spec that the logged events came under, then applies the new one:
/// an event keeps the price that it had.
async fn open_budgets(
    config: &NodeConfig,
    ledger: &dyn Ledger,
    log: &Arc<dyn EventLog>,
) -> Result<(Budgets, apply::Applied), NodeError> {
    let (spec, clock) = (&config.spec, &config.clock);
    let checkpoints = config.data_dir.join("checkpoints");
    let Some(before) = apply::stored(ledger).await? else {
        let applied = apply::store(ledger, spec, clock.now()).await?;
        let (log, clock) = (Arc::clone(log), Arc::clone(clock));
        let (indexes, version) = (&applied.indexes, applied.version);
        let budgets = Budgets::open(checkpoints, log, clock, spec, indexes, version).await?;
        return Ok((budgets, applied));
    };
    let (old, indexes, version) = (&before.spec, &before.indexes, before.version);
    let (log, now) = (Arc::clone(log), clock.now());
    let budgets = Budgets::open(checkpoints, log, Arc::clone(clock), old, indexes, version).await?;
    budgets.checkpoint().await?;
    let applied = apply::store(ledger, spec, now).await?;
    budgets.apply_spec(spec, &applied.indexes, applied.version);
    Ok((budgets, applied))
}

/// After how long without a frame a gate's figures are stale: some frames may be late.
pub(crate) fn stale_after(feed_interval: Duration) -> Duration {
    feed_interval.saturating_mul(10).max(Duration::from_secs(10))
}

/// Starts every role. A role that ends by itself is a bug: it is told and started again.
fn start_roles(ctx: &Arc<NodeContext>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    macro_rules! role {
        ($name:literal, $run:path) => {{
            let (ctx, stop) = (Arc::clone(ctx), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let ended = tokio::spawn($run(Arc::clone(&ctx), stop.clone())).await;
                    if stop.is_cancelled() {
                        break;
                    }
                    let panicked = ended.is_err();
                    tracing::error!(role = $name, panicked, "a role ended; it is started again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })
        }};
    }
    vec![
        role!("build", roles::build::run),
        role!("schedule", roles::schedule::run),
        role!("activate", roles::activate::run),
        role!("aggregate", roles::aggregate::run),
    ]
}

/// Tells pages that another spec is applied.
fn spec_changed(ctx: &NodeContext) {
    ctx.wake_build.notify_waiters();
    ctx.wake_activate.notify_waiters();
    ctx.changed(Change::Spec);
}
