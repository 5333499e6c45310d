//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use throng_model::AudienceName;

/// First-party advertising on your own machines: audiences by SQL, lookups, activation on ad
/// platforms, budgets that hold.
#[derive(Debug, Parser)]
#[command(name = "throng", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How much to log (error, warn, info, debug, trace, or a filter such as throng_server=debug)
    #[arg(long, global = true, env = "THRONG_LOG", default_value = "warn")]
    pub(crate) log: String,
    /// Log one JSON object a line
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

/// Which node to talk to.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeAt {
    /// Where the node listens
    #[arg(long, env = "THRONG_URL", default_value = "http://127.0.0.1:7077")]
    pub(crate) url: String,
    /// A PEM file of authorities that the node's certificate may come from, besides the system's
    #[arg(long, env = "THRONG_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The node's token, if it wants one
    #[arg(long, env = "THRONG_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on the shipped example: audiences, activation, ad traffic, budgets
    Demo(DemoArgs),
    /// Start a node
    Up(UpArgs),
    /// Build audiences and end: for jobs, also a share of them for each pod
    Build(BuildArgs),
    /// Check a spec and report every problem in it
    Check {
        /// A spec file, or a folder of them
        spec: PathBuf,
        /// Try the backends of the node settings too, and say what works and what does not
        #[arg(long)]
        connect: bool,
    },
    /// Bring the ledger's tables up to date without starting a node
    Migrate {
        /// The spec with the node settings: a file, or a folder of them
        #[arg(long)]
        spec: PathBuf,
        /// The data directory, for a ledger in SQLite
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Show what applying a spec would change
    Plan(ApplyArgs),
    /// Apply a spec to a running node
    Apply(ApplyArgs),
    /// Which audiences is a user in?
    Lookup {
        /// The user's key; several are looked up in one request
        #[arg(required = true)]
        users: Vec<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Audiences: list, refresh, approve, roll back
    #[command(subcommand)]
    Audience(AudienceCommand),
    /// Activation: runs, tasks, alerts
    #[command(subcommand)]
    Sync(SyncCommand),
    /// Tasks of activation: put them on the queue again
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Budgets of the ad groups
    Budget {
        /// One ad group; all if left out
        ad_group: Option<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Which of these ad groups may be shown to this user now?
    Decide {
        /// The user's key
        user: String,
        /// The candidates
        #[arg(required = true)]
        ad_groups: Vec<String>,
        /// Record an insertion for the first one allowed
        #[arg(long)]
        record_insertion: bool,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Why is something as it is? The history of one object in plain words
    Why {
        /// The kind of object
        kind: WhyKind,
        /// Its name
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Simulators of ad platforms, to rehearse without an account
    #[command(subcommand)]
    Sim(SimCommand),
    /// Print the JSON schema of the spec, for editors
    Schema,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WhyKind {
    Audience,
    Sync,
    AdGroup,
}

impl WhyKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Audience => "audience",
            Self::Sync => "sync",
            Self::AdGroup => "ad_group",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Run to the end, print a summary, and exit: 0 if everything was as expected
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep what the demo makes in this folder
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the page listens
    #[arg(long, default_value = "127.0.0.1:7077")]
    pub(crate) listen: SocketAddr,
    /// How many ad servers to simulate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) ad_servers: u32,
    /// How many times faster than life the ad traffic runs
    #[arg(long, default_value_t = 40.0)]
    pub(crate) speed: f64,
    /// Run as thirteen processes on these engines instead of one process: `kafka,postgres,s3`, as
    /// `cargo xtask services up` starts them
    #[arg(long, value_delimiter = ',', value_name = "ENGINE")]
    pub(crate) on: Vec<Engine>,
}

/// An engine that processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Event log, feed and queues
    Kafka,
    /// Ledger
    Postgres,
    /// Snapshots, parts and checkpoints
    S3,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where the node keeps everything
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The spec to run: a file, or a folder of them. Without it, the spec applied last
    #[arg(long)]
    pub(crate) spec: Option<PathBuf>,
    /// Where to listen, instead of the spec's node.listen
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// Take only the node settings from the spec, and everything else from the ledger: for all
    /// nodes of a deployment but the one that applies specs
    #[arg(long, requires = "spec")]
    pub(crate) join: bool,
    /// What this process does, instead of the spec's node.roles: api, schedule, build, activate,
    /// aggregate, relay, lookup
    #[arg(long, value_delimiter = ',', value_name = "ROLE", env = "THRONG_ROLES")]
    pub(crate) roles: Option<Vec<throng_spec::Role>>,
    /// The file with the clock of a rehearsal that several processes share
    #[arg(long, hide = true)]
    pub(crate) clock: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The audiences; all of the spec if left out
    pub(crate) audiences: Vec<AudienceName>,
    /// Where the node keeps what is its own
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The spec: a file, or a folder of them
    #[arg(long)]
    pub(crate) spec: PathBuf,
    /// Take only the node settings from the spec, and everything else from the ledger
    #[arg(long)]
    pub(crate) join: bool,
    /// Which share of the audiences this process builds, from 0; Kubernetes sets it in indexed jobs
    #[arg(long, env = "JOB_COMPLETION_INDEX", default_value_t = 0)]
    pub(crate) index: usize,
    /// How many shares there are: the job's `completions`
    #[arg(long, env = "JOB_COMPLETIONS", default_value_t = 1)]
    pub(crate) completions: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A spec file, or a folder of them
    pub(crate) spec: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeAt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AudienceCommand {
    /// All audiences with size and state
    List {
        #[command(flatten)]
        node: NodeAt,
    },
    /// One audience with its snapshots
    Show {
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Build a new snapshot now
    Refresh {
        name: String,
        /// Do not wait for it
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Publish a held snapshot
    Approve {
        name: String,
        /// The version; the newest held one if left out
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Make an older snapshot current again
    Rollback {
        name: String,
        /// The version; the one before the current one if left out
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// The newest runs with their counts
    Runs {
        #[command(flatten)]
        node: NodeAt,
    },
    /// The tasks
    Tasks {
        #[command(flatten)]
        node: NodeAt,
    },
    /// One task with its batches, receipts and check
    Task {
        id: i64,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Put a failed task back in the queue
    Requeue {
        id: i64,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Let a held run go on, or all of a destination
    Approve {
        /// The run's number
        #[arg(required_unless_present = "destination")]
        run: Option<i64>,
        /// Every held run of this destination
        #[arg(long, conflicts_with = "run")]
        destination: Option<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Alerts, open ones first
    Alerts {
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// Queue a failed task again, or every task whose message was lost
    Requeue {
        /// The task's number
        #[arg(required_unless_present = "missing")]
        id: Option<i64>,
        /// Put due tasks (of each account the 200 most urgent) on the queue once more; safe at any time
        #[arg(long, conflicts_with = "id")]
        missing: bool,
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// A simulator of Meta's custom audiences
    Meta {
        /// The port on 127.0.0.1; 0 chooses a free one
        #[arg(long, default_value_t = 7078)]
        port: u16,
        /// The access token that it accepts; any if left out
        #[arg(long)]
        token: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_subcommand_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
