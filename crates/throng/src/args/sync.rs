//! Commands of syncs and their tasks.

use clap::Subcommand;

use super::NodeArgs;
use super::list::{ListArgs, MANY, ManyArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// List the syncs: what was delivered, the size on the platform, and removals that are due
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the sizes of a sync's audience on the platform over time, with what was delivered
    Sizes {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the runs with their counts, newest first by default
    Runs {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the tasks
    Tasks {
        /// Print the number of tasks by destination and state instead
        #[arg(long, conflicts_with_all = ["sort", "limit", "cursor", "all"])]
        summary: bool,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one task with its receipts and its check
    Task {
        /// The task's number
        id: i64,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Plan a run of a sync now if it has anything to send, also after refused removals or a failed run
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["name", "destination", "all"]))]
    Run {
        /// The sync
        name: Option<String>,
        /// Every sync of this destination that is not paused
        #[arg(long, conflicts_with = "name")]
        destination: Option<String>,
        /// Every sync that is not paused
        #[arg(long, conflicts_with_all = ["name", "destination"])]
        all: bool,
        /// Send the whole audience, in a session that replaces the platform's list
        #[arg(long, conflicts_with_all = ["destination", "all"])]
        full: bool,
        /// Like --full, for when the record of what was delivered, or its key, is lost
        #[arg(long, conflicts_with_all = ["destination", "all"])]
        forget_delivered: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Create a new audience on the platform in place of one that was deleted or renamed there
    Recreate {
        /// The sync
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop planning runs and sending for a sync, until it is resumed
    Pause {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Resume a paused sync
    Resume {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Queue a failed task again, or all that match
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "all"]))]
    Requeue {
        /// The task's number
        #[arg(conflicts_with_all = MANY)]
        id: Option<i64>,
        #[command(flatten)]
        many: ManyArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Approve a held run or all that match, the runs that are held with their destination, or a removal
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["run", "destination", "removal", "all"]))]
    Approve {
        /// The run's number
        #[arg(conflicts_with = "removal", conflicts_with_all = MANY)]
        run: Option<i64>,
        /// Every run that is held because checks of this destination failed
        #[arg(long, conflicts_with = "run", conflicts_with_all = MANY)]
        destination: Option<String>,
        /// Empty or delete the platform's audience of this sync, as its on_remove says
        #[arg(long, value_name = "SYNC", conflicts_with = "destination", conflicts_with_all = MANY)]
        removal: Option<String>,
        #[command(flatten)]
        many: ManyArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List syncs that were removed from the spec and whose audience is to be emptied or deleted
    Removals {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Keep the platform's audience of a removed sync as it is
    Keep {
        /// The removed sync
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List alerts, open ones first
    Alerts {
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// Queue a failed task again, or every task whose message was lost
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "missing"]))]
    Requeue {
        /// The task's number
        id: Option<i64>,
        /// Queue all due tasks again (of each account the 200 most urgent); safe at any time
        #[arg(long, conflicts_with = "id")]
        missing: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
}
