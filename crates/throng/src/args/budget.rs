//! Arguments of `throng budget`.

use clap::{Args, Subcommand};

use super::NodeArgs;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BudgetArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BudgetCommand>,
    /// One ad group; all if left out
    pub(crate) ad_group: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// What was billable, given away and left over by day, and what was predicted
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The first day, such as 2026-11-23; six days before --to by default
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<String>,
    /// The last day; by default the newest one that has begun for any advertiser
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<String>,
    /// One advertiser; all by default
    #[arg(long)]
    pub(crate) advertiser: Option<String>,
    /// Print the days of the ad groups as CSV
    #[arg(long)]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Arguments, Command};
    use super::*;

    fn budget(line: &[&str]) -> BudgetArgs {
        match Arguments::try_parse_from(line).unwrap().command {
            Command::Budget(budget) => budget,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ad_group_is_not_the_report() {
        let one = budget(&["throng", "budget", "shoes", "--url", "http://x"]);
        assert_eq!((one.ad_group.as_deref(), one.command.is_none()), (Some("shoes"), true));
        assert!(budget(&["throng", "budget"]).ad_group.is_none());
        let line =
            ["throng", "budget", "report", "--from", "2026-11-23", "--csv", "--url", "http://x"];
        let Some(BudgetCommand::Report(report)) = budget(&line).command else {
            panic!("no report")
        };
        assert_eq!((report.from.as_deref(), report.csv), (Some("2026-11-23"), true));
        assert_eq!(report.node.url.as_deref(), Some("http://x"));
    }
}
