//! Commands of alerts.

use clap::Subcommand;

use super::NodeArgs;
use super::list::FilterArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// List alerts, open ones first, with their deliveries
    List {
        /// The largest number of rows
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        filter: FilterArgs,
        /// The number of rows to skip; not with a search, state, sort or cursor
        #[arg(long, default_value_t = 0)]
        offset: u32,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List deliveries that have ended, newest first
    Deliveries {
        /// The largest number of rows
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Send a test event to the receivers and print their answers; exits with 1 if one does not accept it
    Test {
        /// One receiver; all if left out
        receiver: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
}
