//! What a node starts with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use throng_access::LimitsConfig;
use throng_backends::Recovery;
use throng_lake::WorkerCommand;
use throng_model::Clock;
use throng_spec::{Environment, Role, Spec};

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeConfig {
    /// The folder of the node's files: all its state, or local copies if the spec's node settings
    /// name shared backends. Created if it does not exist. Used by one node at a time.
    pub data_dir: PathBuf,
    /// The spec to run. It is applied before the node answers.
    pub spec: Spec,
    /// Uses only the node settings of `spec`; all other sections come from the ledger.
    pub join: bool,
    /// The roles of this process instead of the spec's `node.roles`. With an empty list it runs no
    /// role, and its caller uses the node's parts: a job.
    pub roles: Option<Vec<Role>>,
    /// Where to listen instead of the spec's `node.listen`; port 0 chooses a free one.
    pub listen: Option<SocketAddr>,
    /// The time of everything but tokens and sessions.
    pub clock: Arc<dyn Clock>,
    /// The real time, by which tokens and sessions expire; `clock` may be a simulated one.
    pub access_clock: Arc<dyn Clock>,
    /// Where secrets of the kind `env:NAME` come from.
    pub env: Environment,
    /// Partitions of the event log for which the loss of acknowledged records is accepted: the node
    /// continues without them instead of refusing to start.
    pub accept_log_loss: Vec<u32>,
    /// What to do if the ledger is missing, or does not belong to log and objects.
    pub recovery: Recovery,
    /// What specs that arrive over HTTP may name, besides what `spec` names.
    pub limits: LimitsConfig,
    /// How a query worker is started; by default the running program, which must call
    /// [`throng_platforms::query_worker`] at the start of `main` if its first argument is
    /// [`throng_worker::SUBCOMMAND`].
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
