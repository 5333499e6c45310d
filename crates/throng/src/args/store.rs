//! Commands of serving stores.

use clap::Subcommand;

use super::NodeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List the stores with what they have of each audience, and the newest checks
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the newest writes of a store: batches, users, times
    Writes {
        /// The store
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the seed with which ad servers hash their users
    HashSeed {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Write all audiences of a store again, whatever it has now
    Rewrite {
        /// The store
        name: String,
        /// Only this audience
        #[arg(long)]
        audience: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Remove an audience from a store that the spec no longer has there
    Remove {
        /// The store
        name: String,
        /// The audience
        audience: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}
