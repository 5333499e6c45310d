//! `throng sim network`: a day of ad servers in virtual time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use throng_api::GivenAwayByCause;
use throng_model::Micros;
use throng_sim::network::{NetworkAdGroup, NetworkConfig, NetworkReport, run as simulate};

use crate::args::NetworkSimArgs;
use crate::failure::{Failure, report_problems};
use crate::out::{self, Output};

pub(super) fn run(arguments: &NetworkSimArgs, output: Output) -> Result<ExitCode> {
    let spec = match throng_spec::load(&arguments.spec) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, output)),
    };
    let (ad_groups, catalog) = throng_aggregator::ad_groups_of(&spec);
    if ad_groups.is_empty() {
        return Err(Failure::wrong_input("the spec has no ad groups")
            .help("declare `ad_groups`: see docs/spec.md")
            .into());
    }
    let config = NetworkConfig {
        ad_groups,
        catalog,
        gates: arguments.gates,
        feed_interval: Duration::from_millis(u64::from(spec.node.feed_interval_ms)),
        length: Duration::from_secs(u64::from(arguments.hours) * 3_600),
        requests_per_minute: f64::from(arguments.requests_per_minute),
        seed: arguments.seed,
    };
    let report = simulate(&config).context("the ad groups cannot be simulated")?;
    if output.is_json() {
        out::json(&report);
    } else {
        print(&report, arguments.hours);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &NetworkReport, hours: u32) {
    let header = [
        "AD GROUP",
        "BUDGET",
        "SPENT",
        "GIVEN AWAY",
        "BY CAUSE",
        "PREDICTED",
        "EARNED",
        "DECLARED RATE",
        "RATE",
    ];
    out::table(&header, report.ad_groups.iter().map(row).collect());
    let NetworkReport { gates, requests, insertions, frames, frame_bytes, .. } = report;
    let bytes = frame_bytes.checked_div(*frames).unwrap_or_default();
    out::line(format!(
        "{gates} gates, {hours} hours, {requests} requests, {insertions} ads; {frames} frames of {bytes} bytes on \
         average, in every gate after {:.1} s at most",
        report.slowest_feed_ms as f64 / 1_000.0
    ));
}

fn row(ad_group: &NetworkAdGroup) -> Vec<String> {
    let rate = |rate: f64| format!("{rate:.4}");
    let amount = |amount: Micros| amount.to_string();
    vec![
        ad_group.name.to_string(),
        amount(ad_group.budget_micros),
        amount(ad_group.actual_micros),
        amount(ad_group.given_away_micros),
        causes(&ad_group.given_away_by_cause),
        amount(ad_group.predicted_micros),
        amount(ad_group.earned_micros),
        rate(ad_group.declared_rate),
        rate(ad_group.rate),
    ]
}

fn causes(by_cause: &GivenAwayByCause) -> String {
    let texts: Vec<String> =
        by_cause.named().map(|(name, amount)| format!("{name} {amount}")).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}
