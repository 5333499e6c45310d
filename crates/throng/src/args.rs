//! The command line.

mod sync;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use throng_model::AudienceName;

pub(crate) use sync::{SyncCommand, TasksCommand};

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
    /// Where the node answers: http://127.0.0.1:7077, or what the node of --dir says
    #[arg(long, env = "THRONG_URL")]
    pub(crate) url: Option<String>,
    /// A PEM file of authorities that the node's certificate may come from, besides the system's
    #[arg(long, env = "THRONG_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The file with the token; `-` reads it from the standard input. Or set THRONG_TOKEN. Without
    /// either, the admin token of a node on this machine is found by its address
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The data directory of a node on this machine: its address and its admin token are there
    #[arg(long, env = "THRONG_DIR")]
    pub(crate) dir: Option<PathBuf>,
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
    /// Copy a data directory with ledger, objects and event log, also while its node runs
    Backup {
        /// The data directory
        #[arg(long)]
        dir: PathBuf,
        /// Where to: a new folder, or a file if the name ends in .tar or .tar.zst
        #[arg(long)]
        to: PathBuf,
    },
    /// Bring a backup into a new data directory
    Restore {
        /// The backup
        #[arg(long)]
        from: PathBuf,
        /// The data directory: new or empty
        #[arg(long)]
        dir: PathBuf,
    },
    /// Show what applying a spec would change
    Plan(ApplyArgs),
    /// Apply a spec to a running node
    Apply {
        #[command(flatten)]
        apply: ApplyArgs,
        /// Apply only if this version is still the applied one, as `throng plan` says it
        #[arg(long, value_name = "VERSION")]
        base_version: Option<u64>,
    },
    /// Which audiences is a user in?
    Lookup {
        /// The user's key; several are looked up in one request. One that begins with a hyphen and is
        /// no number: as --key, or after `--` behind all options
        #[arg(required_unless_present = "keys", allow_negative_numbers = true)]
        users: Vec<String>,
        /// A user's key, whatever it begins with; repeatable
        #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true)]
        keys: Vec<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// The tables of the sources: files, rows, columns, and what is passed over
    Sources {
        #[command(flatten)]
        node: NodeAt,
    },
    /// Audiences: list, refresh, cancel, pause, approve, roll back
    #[command(subcommand)]
    Audience(AudienceCommand),
    /// Activation: runs, tasks, alerts
    #[command(subcommand)]
    Sync(SyncCommand),
    /// Tasks of activation: put them on the queue again
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Events: records of the log that could not be applied
    #[command(subcommand)]
    Events(EventsCommand),
    /// The event log in files, without a node
    #[command(subcommand)]
    Log(LogCommand),
    /// Alerts: list, see whether they were delivered, test the receivers
    #[command(subcommand)]
    Alerts(AlertsCommand),
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
        #[arg(allow_negative_numbers = true)]
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
    /// Tokens: who may call a node, and what each caller may do
    #[command(subcommand)]
    Token(TokenCommand),
    /// Sessions of browsers
    #[command(subcommand)]
    Session(SessionCommand),
    /// Print a link that signs a browser in, once, within ten minutes
    SignIn {
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

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// List the records that are passed over, with the reason
    Quarantine {
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Take what is damaged out of the event log of a stopped node, and say what is lost
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
    /// Go on although acknowledged events of this partition are lost, as its event log is older than its
    /// checkpoint or another one. Repeat it for each partition. Without it the node refuses to start then
    #[arg(long, value_name = "PARTITION")]
    pub(crate) accept_log_loss: Vec<u32>,
    /// The file with the clock of a rehearsal that several processes share
    #[arg(long, hide = true)]
    pub(crate) clock: Option<PathBuf>,
    /// Make a new ledger although an event log or objects are there: their audiences, runs and
    /// receipts are lost
    #[arg(long, requires = "spec", conflicts_with = "accept_mismatch")]
    pub(crate) new_ledger: bool,
    /// Start although ledger, event log and objects are copies of different moments: what one of
    /// them lacks is lost
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
    /// Let specs that are applied over HTTP read sources in this folder; repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_source: Vec<PathBuf>,
    /// Let them have destinations that write files in this folder; repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_destination_folder: Vec<PathBuf>,
    /// Let them send this secret to this server; repeatable. REF is env:NAME or file:PATH, without
    /// PORT it is 443
    #[arg(long, value_name = "REF@HOST[:PORT]")]
    pub(crate) allow_secret: Vec<SecretAt>,
    /// Let them have destinations on this server; repeatable. --allow-secret allows its server, too
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow_host: Vec<throng_spec::HostPort>,
    /// A file with more of these, read again on SIGHUP (limits.yaml in --dir, if it is there)
    #[arg(long, value_name = "FILE")]
    pub(crate) limits: Option<PathBuf>,
}

/// A secret and the server that it may be sent to.
#[derive(Debug, Clone)]
pub(crate) struct SecretAt {
    secret: throng_spec::SecretRef,
    host: throng_spec::HostPort,
}

impl std::str::FromStr for SecretAt {
    type Err = &'static str;

    /// The text is not repeated in errors: it may be the secret itself.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write env:NAME@HOST or file:PATH@HOST, with :PORT if it is not 443";
        // A path may hold an @, a server does not.
        let (secret, host) = text.rsplit_once('@').ok_or(wrong)?;
        let secret = secret.parse().map_err(|_| wrong)?;
        let host = host.parse().map_err(|_| wrong)?;
        Ok(Self { secret, host })
    }
}

impl LimitsArgs {
    /// What they allow.
    pub(crate) fn config(&self) -> throng_server::LimitsConfig {
        let mut flags = throng_spec::Limits::default();
        for folder in &self.allow_source {
            flags.allow_source(folder);
        }
        for folder in &self.allow_destination_folder {
            flags.allow_destination_folder(folder);
        }
        for SecretAt { secret, host } in &self.allow_secret {
            flags.allow_secret(secret.clone(), host.clone());
        }
        for host in &self.allow_host {
            flags.allow_host(host.clone());
        }
        throng_server::LimitsConfig { flags, file: self.limits.clone() }
    }
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
    /// End the refresh that waits or is at work
    Cancel {
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Start no refresh of an audience until it is resumed; one that is open goes on
    Pause {
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Let a paused audience be refreshed again
    Resume {
        name: String,
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
    /// Make an older snapshot current again and pin it: nothing else is served until it is released
    Rollback {
        name: String,
        /// The version; the one before the current one if left out
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// End the pin of a rollback: what is refreshed is served again
    Release {
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it: it is shown only here
    Create {
        /// Its name: 1 to 64 letters, digits, `-`, `_` and `.`
        name: String,
        /// What it allows: events, lookup, feed, metrics, read, operate, admin
        #[arg(long = "scope", value_delimiter = ',', required = true, value_name = "SCOPE")]
        scopes: Vec<throng_server::access::Scope>,
        /// After how long it expires, such as 90d, 12h or 30m; never if left out
        #[arg(long, value_parser = crate::commands::access::seconds)]
        expires: Option<u64>,
        /// The workspace that it is limited to
        #[arg(long)]
        workspace: Option<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// All tokens, without their secrets
    List {
        #[command(flatten)]
        node: NodeAt,
    },
    /// Revoke a token and end its sessions
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// The sessions that are alive
    List {
        #[command(flatten)]
        node: NodeAt,
    },
    /// End a session
    End {
        /// Its number
        id: i64,
        #[command(flatten)]
        node: NodeAt,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// Alerts, open ones first, and whether they were delivered or why not
    List {
        /// How many, at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// How many to leave out at the beginning
        #[arg(long, default_value_t = 0)]
        offset: u32,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Deliveries that have ended, newest first
    Deliveries {
        /// How many, at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Send a test to the receivers and print their answers; exits with 1 if one does not accept it
    Test {
        /// One receiver; all if left out
        receiver: Option<String>,
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
        /// The file with the access token that it accepts; `-` reads it from the standard input. Or
        /// set THRONG_SIM_TOKEN. Without either, any token is accepted
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser as _};

    #[test]
    fn every_subcommand_is_well_formed() {
        super::Arguments::command().debug_assert();
    }

    fn looked_up(line: &[&str]) -> (Vec<String>, Vec<String>) {
        let arguments = super::Arguments::try_parse_from(line).unwrap();
        match arguments.command {
            super::Command::Lookup { users, keys, node } => {
                assert_eq!(node.url.as_deref(), Some("http://x"), "{line:?}");
                (users, keys)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_may_begin_with_a_hyphen() {
        let (users, keys) = looked_up(&["throng", "lookup", "-7", "-8.5", "--url", "http://x"]);
        assert_eq!((users, keys.len()), (vec!["-7".to_owned(), "-8.5".to_owned()], 0));
        let line = ["throng", "lookup", "--key", "-a", "--key=", "--key=--b", "--url", "http://x"];
        assert_eq!(looked_up(&line), (vec![], vec!["-a".into(), String::new(), "--b".into()]));
        let (users, _) = looked_up(&["throng", "lookup", "--url", "http://x", "--", "-a", "id="]);
        assert_eq!(users, ["-a", "id="]);
        let (users, _) = looked_up(&["throng", "lookup", "a b", "", "--url", "http://x"]);
        assert_eq!(users, ["a b", ""]);
    }
}
