//! The command line.

mod alerts;
mod budget;
mod gate;
mod ingest;
mod list;
mod sim;
mod store;
mod sync;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use throng_model::AudienceName;

pub(crate) use alerts::AlertsCommand;
pub(crate) use budget::{BudgetArgs, BudgetCommand, ReportArgs};
pub(crate) use gate::GateArgs;
pub(crate) use ingest::IngestArgs;
pub(crate) use list::{FilterArgs, HeldSnapshotArgs, ListArgs, ManyArgs};
pub(crate) use sim::{BigquerySimArgs, NetworkSimArgs, SimCommand};
pub(crate) use store::StoreCommand;
pub(crate) use sync::{SyncCommand, TasksCommand};

/// First-party advertising on your own machines: audiences by SQL, lookups, activation on ad
/// platforms, budgets that hold.
#[derive(Debug, Parser)]
#[command(name = "throng", version)]
#[cfg_attr(feature = "ballista", command(after_help = "Clusters: `throng ballista --help`"))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as throng_server=debug
    #[arg(long, global = true, env = "THRONG_LOG", default_value = "warn")]
    pub(crate) log: String,
    /// Log one JSON object a line
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

/// Which node to connect to.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The URL of the node: http://127.0.0.1:7077 by default, or that of the node on --dir
    #[arg(long, env = "THRONG_URL")]
    pub(crate) url: Option<String>,
    /// A PEM file of certificate authorities to trust, besides those of the system
    #[arg(long, env = "THRONG_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The file with the token; `-` reads it from the standard input. Or set THRONG_TOKEN. By default the
    /// admin token of a node on this machine is found by its address
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Send the token unencrypted to an http:// URL on another machine
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The data directory of a node on this machine, which has its address and admin token
    #[arg(long, env = "THRONG_DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all of it on the included example: audiences, activation, ad traffic, budgets
    Demo(DemoArgs),
    /// Start a node
    #[command(after_help = include_str!("../help/up.txt"))]
    Up(UpArgs),
    /// Build audiences and exit: for jobs, where each pod can build a share of them
    #[command(after_help = include_str!("../help/build.txt"))]
    Build(BuildArgs),
    /// Check a spec and report every problem in it
    #[command(after_help = include_str!("../help/check.txt"))]
    Check {
        /// A spec file, or a folder of them
        spec: PathBuf,
        /// Try the backends of the node settings and the serving stores too, and report which of them work; also check
        /// SQL that a warehouse runs
        #[arg(long)]
        connect: bool,
        /// Check the SQL of this workspace only
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
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
    /// Back up a data directory with ledger, objects and event log, also while its node runs
    #[command(after_help = include_str!("../help/backup.txt"))]
    Backup {
        /// The data directory
        #[arg(long)]
        dir: PathBuf,
        /// The destination: a new folder, or a file if the name ends in .tar or .tar.zst
        #[arg(long)]
        to: PathBuf,
    },
    /// Restore a backup to a new data directory
    Restore {
        /// The backup
        #[arg(long)]
        from: PathBuf,
        /// The data directory: new or empty
        #[arg(long)]
        dir: PathBuf,
    },
    /// Show what a spec would change
    #[command(after_help = include_str!("../help/plan.txt"))]
    Plan {
        #[command(flatten)]
        apply: ApplyArgs,
        /// Show only the changes of this workspace; with --json all are printed
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
    },
    /// Apply a spec to a running node
    #[command(after_help = include_str!("../help/plan.txt"))]
    Apply {
        #[command(flatten)]
        apply: ApplyArgs,
        /// Apply only if this is still the applied version, as printed by `throng plan`
        #[arg(long, value_name = "VERSION")]
        base_version: Option<u64>,
    },
    /// Which audiences is a user in?
    #[command(after_help = include_str!("../help/lookup.txt"))]
    Lookup {
        /// The user's key; several are looked up in one request. Give a key that begins with a hyphen and
        /// is not a number as --key, or after `--` and all options
        #[arg(required_unless_present = "keys", allow_negative_numbers = true)]
        users: Vec<String>,
        /// A user's key, whatever it begins with; repeatable
        #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true)]
        keys: Vec<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// The tables of the sources: files, rows, columns, and what is passed over
    Sources {
        /// Only those of this workspace
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Send files of records to a node: checked, anonymised, and added to the table of their schema
    #[command(after_help = include_str!("../help/ingest.txt"))]
    Ingest(IngestArgs),
    /// Audiences: list, refresh, cancel, pause, approve, roll back
    #[command(subcommand, after_help = include_str!("../help/audience.txt"))]
    Audience(AudienceCommand),
    /// Activation: runs, tasks, alerts
    #[command(subcommand, after_help = include_str!("../help/sync.txt"))]
    Sync(SyncCommand),
    /// Serving stores: what they have, write it again
    #[command(subcommand)]
    Store(StoreCommand),
    /// Tasks of activation: queue them again
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Events: records of the log that could not be applied
    #[command(subcommand)]
    Events(EventsCommand),
    /// The event log in files, without a node
    #[command(subcommand)]
    Log(LogCommand),
    /// Alerts: list them and their deliveries, test the receivers
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Budgets of the ad groups, and the report of the last days
    #[command(after_help = include_str!("../help/budget.txt"))]
    Budget(BudgetArgs),
    /// Which of these ad groups may be shown to this user now?
    #[command(after_help = include_str!("../help/decide.txt"))]
    Decide {
        /// The user's key
        #[arg(allow_negative_numbers = true)]
        user: String,
        /// The candidates
        #[arg(required = true)]
        ad_groups: Vec<String>,
        /// Record an insertion for the first one allowed
        #[arg(long)]
        record_insertion: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Start a gate beside an ad server: it follows a node and answers decisions
    #[command(after_help = include_str!("../help/gate.txt"))]
    Gate(GateArgs),
    /// The history of one object, with the reason of each change
    #[command(after_help = include_str!("../help/why.txt"))]
    Why {
        /// The kind of object
        kind: WhyKind,
        /// Its name
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Tokens: who may call a node, and what each caller may do
    #[command(subcommand, after_help = include_str!("../help/token.txt"))]
    Token(TokenCommand),
    /// Sessions of browsers
    #[command(subcommand)]
    Session(SessionCommand),
    /// Print a link that signs a browser in; it works once, within ten minutes
    SignIn {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Simulators of ad platforms and of BigQuery, to try a spec without an account
    #[command(subcommand)]
    Sim(SimCommand),
    /// Print the JSON schema of the spec, for editors
    Schema,
    /// Print completions for a shell
    #[command(after_help = include_str!("../help/completions.txt"))]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// List the records that are skipped, with the reason
    Quarantine {
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Remove damaged parts from the event log of a stopped node, and report what is lost
    Repair {
        /// The node's data directory
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WhyKind {
    Audience,
    Sync,
    // As output and API write it.
    #[value(alias = "ad_group")]
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
    /// Run to the end, print a summary, and exit: with 0 if all results are as expected
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep the files of the demo in this folder
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address of the page
    #[arg(long, default_value = "127.0.0.1:7077")]
    pub(crate) listen: SocketAddr,
    /// How many ad servers to simulate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) ad_servers: u32,
    /// How many times faster than real time the ad traffic runs
    #[arg(long, default_value_t = 40.0, value_parser = throng_demo::speed)]
    pub(crate) speed: f64,
    /// Run as thirteen processes on these engines instead of one process: `kafka,postgres,s3`.
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
    /// The data directory
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The spec to run: a file, or a folder of them. The spec that was applied last if left out
    #[arg(long)]
    pub(crate) spec: Option<PathBuf>,
    /// The address to listen on, instead of the spec's node.listen
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// Take only the node settings from the spec, and everything else from the ledger: for every
    /// node of a deployment except the one that applies specs
    #[arg(long, requires = "spec")]
    pub(crate) join: bool,
    /// The roles of this process, instead of the spec's node.roles: api, schedule, build, activate,
    /// aggregate, relay, lookup
    #[arg(long, value_delimiter = ',', value_name = "ROLE", env = "THRONG_ROLES")]
    pub(crate) roles: Option<Vec<throng_spec::Role>>,
    /// Start although acknowledged events of this partition are lost, because its event log is older than
    /// its checkpoint or is another log. Repeatable. Otherwise the node refuses to start then
    #[arg(long, value_name = "PARTITION")]
    pub(crate) accept_log_loss: Vec<u32>,
    /// The file with the simulated clock that several processes share
    #[arg(long, hide = true)]
    pub(crate) clock: Option<PathBuf>,
    /// Create a new ledger although an event log or objects exist: their audiences, runs and receipts
    /// are lost
    #[arg(long, requires = "spec", conflicts_with = "accept_mismatch")]
    pub(crate) new_ledger: bool,
    /// Start although ledger, event log and objects are copies of different times: what one of them
    /// lacks is lost. Also take over Kafka topics of another deployment
    #[arg(long)]
    pub(crate) accept_mismatch: bool,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
}

impl UpArgs {
    pub(crate) fn recovery(&self) -> throng_server::Recovery {
        match (self.new_ledger, self.accept_mismatch) {
            (true, _) => throng_server::Recovery::NewLedger,
            (_, true) => throng_server::Recovery::AcceptMismatch,
            _ => throng_server::Recovery::Refuse,
        }
    }
}

/// What a spec that is applied over HTTP may name, besides what --spec names.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitsArgs {
    /// Let specs that are applied over HTTP read sources in this folder or s3://BUCKET/PREFIX; repeatable
    #[arg(long, value_name = "DIR", value_parser = throng_spec::allowed_source)]
    pub(crate) allow_source: Vec<PathBuf>,
    /// Let them have destinations that write files in this folder; repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_destination_folder: Vec<PathBuf>,
    /// Let them send this secret to this server; repeatable. REF is env:NAME or file:PATH, without
    /// PORT it is 443
    #[arg(long, value_name = "REF@HOST[:PORT]")]
    pub(crate) allow_secret: Vec<throng_access::AllowedSecret>,
    /// Let them have destinations, sources and serving stores on this server; repeatable. --allow-secret allows
    /// its server too
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow_host: Vec<throng_spec::HostPort>,
    /// A file with more of these, reloaded on SIGHUP (limits.yaml in --dir by default, if it exists)
    #[arg(long, value_name = "FILE")]
    pub(crate) limits: Option<PathBuf>,
}

impl LimitsArgs {
    /// The limits that these flags and the file set.
    pub(crate) fn config(&self) -> throng_access::LimitsConfig {
        let mut flags = throng_spec::Limits::default();
        for folder in &self.allow_source {
            flags.allow_source(folder);
        }
        for folder in &self.allow_destination_folder {
            flags.allow_destination_folder(folder);
        }
        for throng_access::AllowedSecret { secret, host } in &self.allow_secret {
            flags.allow_secret(secret.clone(), host.clone());
        }
        for host in &self.allow_host {
            flags.allow_host(host.clone());
        }
        throng_access::LimitsConfig { flags, file: self.limits.clone() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The audiences; all of the spec if left out
    pub(crate) audiences: Vec<AudienceName>,
    /// The data directory
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The spec: a file, or a folder of them
    #[arg(long)]
    pub(crate) spec: PathBuf,
    /// Take only the node settings from the spec, and everything else from the ledger
    #[arg(long)]
    pub(crate) join: bool,
    /// The number of this process's share of the audiences, from 0; Kubernetes sets it in indexed jobs
    #[arg(long, env = "JOB_COMPLETION_INDEX", default_value_t = 0)]
    pub(crate) index: usize,
    /// The number of shares: the job's `completions`
    #[arg(long, env = "JOB_COMPLETIONS", default_value_t = 1)]
    pub(crate) completions: usize,
    /// Scan even if neither the model of an audience nor its files have changed
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A spec file, or a folder of them
    pub(crate) spec: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OneAudience {
    /// The audience
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AudienceCommand {
    /// List the audiences with size and state
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one audience with its snapshots
    Show(OneAudience),
    /// Build a new snapshot now, unless neither the model nor its files have changed
    Refresh {
        /// The audience
        name: String,
        /// Scan even if nothing has changed
        #[arg(long)]
        force: bool,
        /// Do not wait for the refresh to end
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Cancel the refresh that is queued or running
    Cancel(OneAudience),
    /// Start no refresh of an audience until it is resumed; an open one continues
    Pause(OneAudience),
    /// Resume the refreshes of a paused audience
    Resume(OneAudience),
    /// Publish a held snapshot, or all that match
    Approve(HeldSnapshotArgs),
    /// Reject a held snapshot, or all that match: they are not published, and what is served stays
    Reject(HeldSnapshotArgs),
    /// Make an older snapshot current again and pin it: no other is served until it is released
    Rollback {
        /// The audience
        name: String,
        /// The version; the one before the current one if left out
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End the pin of a rollback: the next refresh is served again; it starts at once if the model has changed
    Release(OneAudience),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it: it is shown only here
    Create {
        /// Its name: 1 to 64 letters, digits, `-`, `_` and `.`
        name: String,
        /// What it allows: events, lookup, feed, metrics, read, operate, admin
        #[arg(long = "scope", value_delimiter = ',', required = true, value_name = "SCOPE")]
        scopes: Vec<throng_access::Scope>,
        /// The time until it expires, such as 90d, 12h or 30m; it never expires if left out
        #[arg(long, value_parser = throng_model::parse_seconds)]
        expires: Option<u64>,
        /// The workspace that it is limited to
        #[arg(long)]
        workspace: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Revoke a token and end its sessions
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the sessions that have not ended
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End a session
    End {
        /// Its number
        id: i64,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[cfg(test)]
mod tests;
