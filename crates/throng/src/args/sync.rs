//! Commands of syncs and their tasks.

use clap::Subcommand;

use super::NodeAt;

#[derive(Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// The syncs, what their platforms were given and show, and removals that are due
    List {
        #[command(flatten)]
        node: NodeAt,
    },
    /// The size of a sync's audience on the platform over time, with what was delivered
    Sizes {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
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
    /// Look at once whether a sync has anything to send, also after refused removals
    Run {
        /// The sync
        name: String,
        /// Send everything anew, in a session that replaces the platform's list
        #[arg(long)]
        full: bool,
        /// As --full, and start from nothing: the record of what was delivered, or its key, is lost
        #[arg(long)]
        forget_delivered: bool,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Let go of the platform's audience and make a new one, as after somebody deleted it there
    Recreate {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Stop planning runs and sending for a sync, until it is resumed
    Pause {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Let a paused sync go on
    Resume {
        /// The sync
        name: String,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Put a failed task back in the queue
    Requeue {
        id: i64,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Let a held run go on, or all of a destination, or a removal
    Approve {
        /// The run's number
        #[arg(required_unless_present_any = ["destination", "removal"])]
        run: Option<i64>,
        /// Every held run of this destination
        #[arg(long, conflicts_with = "run")]
        destination: Option<String>,
        /// Empty or delete the platform's audience of this sync, as its on_remove says
        #[arg(long, value_name = "SYNC", conflicts_with_all = ["run", "destination"])]
        removal: Option<String>,
        #[command(flatten)]
        node: NodeAt,
    },
    /// Syncs that were removed from the spec, and whose audience is to be emptied or deleted
    Removals {
        #[command(flatten)]
        node: NodeAt,
    },
    /// Leave the platform's audience of a removed sync as it is
    Keep {
        /// The removed sync
        name: String,
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
