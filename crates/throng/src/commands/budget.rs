//! `throng budget`: the state of the ad groups, and the report of the last days.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{BudgetDetail, BudgetList, BudgetReport};
use throng_model::Micros;

use crate::args::{BudgetArgs, BudgetCommand, NodeArgs, ReportArgs};
use crate::client::{Client, segment};
use crate::commands::inspect::print_rates;
use crate::failure::Failure;
use crate::out::{self, Output};

pub(crate) async fn run(budget: BudgetArgs, output: Output) -> Result<ExitCode> {
    match budget.command {
        Some(BudgetCommand::Report(arguments)) => report(&arguments, output).await,
        None => states(budget.ad_group.as_deref(), &budget.node, output).await,
    }
}

/// Prints the current state of one ad group, or of all.
async fn states(ad_group: Option<&str>, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let answer = match ad_group {
        Some(name) => client.get(&format!("/v1/budgets/{}", segment(name))).await?,
        None => client.get("/v1/budgets").await?,
    };
    if output.is_json() {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let (states, rates) = match ad_group {
        Some(_) => {
            let BudgetDetail { state, rates, .. } = answer.read()?;
            (vec![state], Some(rates))
        }
        None => (answer.read::<BudgetList>()?.budgets, None),
    };
    let rows = states.into_iter().map(|state| {
        let amount = |micros: Micros| format!("{micros} {}", state.currency).trim_end().to_owned();
        let spent = [state.actual_micros, state.in_flight_micros, state.projected_micros];
        let spent =
            spent.map(|micros| if state.is_known { amount(micros) } else { "-".to_owned() });
        let open = match (state.is_known, state.open) {
            (false, _) => "unknown",
            (true, true) => "open",
            (true, false) => "closed",
        };
        let mut row = vec![state.name.to_string(), open.to_owned(), amount(state.budget_micros)];
        row.extend(spent);
        row.push(state.reason.clone());
        row
    });
    let header = ["AD GROUP", "STATE", "BUDGET", "ACTUAL", "IN FLIGHT", "PROJECTED", "WHY"];
    out::table(&header, rows.collect());
    rates.iter().for_each(print_rates);
    Ok(ExitCode::SUCCESS)
}

/// Prints the report: the days of the ad groups, then the sums of each currency.
async fn report(arguments: &ReportArgs, output: Output) -> Result<ExitCode> {
    if arguments.csv && output.is_json() {
        return Err(Failure::wrong_input("the report has one format: --json or --csv")
            .help("leave one of them out")
            .into());
    }
    let fields =
        [("from", &arguments.from), ("to", &arguments.to), ("advertiser", &arguments.advertiser)];
    let fields = fields.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let fields: Vec<String> =
        fields.map(|(name, value)| format!("{name}={}", segment(value))).collect();
    let path = match fields.is_empty() {
        true => "/v1/budgets/report".to_owned(),
        false => format!("/v1/budgets/report?{}", fields.join("&")),
    };
    let answer = Client::new(&arguments.node)?.get(&path).await?;
    if output.is_json() {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let report: BudgetReport = answer.read()?;
    if arguments.csv {
        out::text(&throng_report::csv(&report));
        return Ok(ExitCode::SUCCESS);
    }
    if report.days.is_empty() {
        out::line(format!("no figures from {} to {}", report.from, report.to));
        return Ok(ExitCode::SUCCESS);
    }
    let lines = report.days.iter().chain(&report.totals);
    out::table(&throng_report::COLUMNS, lines.map(throng_report::row).collect());
    Ok(ExitCode::SUCCESS)
}
