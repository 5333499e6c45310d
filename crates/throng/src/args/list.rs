//! Options of commands that list objects.

use clap::Args;

use super::NodeArgs;

/// Which rows of a list, and in which order.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only rows that contain this text in their names (alerts: kind, subject or message)
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,
    /// Only rows in this state; an unknown one prints the known ones
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Sort by this field, with `-` in front in descending order; an unknown one prints the known ones
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// Continue from another page: the cursor that was printed after it
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Only rows of objects of this workspace
    #[arg(long, value_name = "NAME")]
    pub(crate) workspace: Option<String>,
    /// List the rows of all pages
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    pub(crate) all: bool,
}

impl FilterArgs {
    /// Whether any of the options is set.
    pub(crate) fn is_set(&self) -> bool {
        let texts = [&self.search, &self.state, &self.sort, &self.cursor, &self.workspace];
        self.all || texts.into_iter().any(Option::is_some)
    }
}

/// Which rows of a list, and how many.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// The largest number of rows
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: Option<u32>,
}

/// [`ManyArgs`], with which an argument for one object conflicts: clap does not demand their `all` beside that.
pub(super) const MANY: [&str; 4] = ["all", "search", "workspace", "yes"];

/// All objects that wait for a command, instead of one.
#[derive(Debug, Args)]
pub(crate) struct ManyArgs {
    /// All that wait for it: failed tasks, held runs or held snapshots. Prints their number and asks
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all: only those that contain this text in their names
    #[arg(long, value_name = "TEXT", requires = "all")]
    pub(crate) search: Option<String>,
    /// With --all: only those of this workspace
    #[arg(long, value_name = "NAME", requires = "all")]
    pub(crate) workspace: Option<String>,
    /// Do not ask
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
}

/// A held snapshot, or all of them.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["name", "all"]))]
pub(crate) struct HeldSnapshotArgs {
    /// The audience
    #[arg(conflicts_with_all = MANY)]
    pub(crate) name: Option<String>,
    /// The version; the newest held one if left out
    #[arg(long, conflicts_with_all = MANY)]
    pub(crate) version: Option<u64>,
    #[command(flatten)]
    pub(crate) many: ManyArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}
