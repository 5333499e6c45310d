//! Raises alerts about the budgets of today: 80 % and 100 % of one are spent, or more than it. From the budget days in
//! the ledger, which aggregators write once a minute. And about what keeps gates from knowing them: silent gates, and
//! partitions of the feed that are stale.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use throng_model::{AdGroupName, BudgetDay, Currency, Micros, Timestamp};
use throng_spec::Spec;
use throng_store::{AlertKind, BudgetDayRow, Ledger, LedgerError};
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::deps::AlertsDeps;
use crate::feed::{self, FeedFindings, FeedWatch};
use crate::reconcile::{Cause, open_alerts, reconcile};

/// The interval in which budget days are polled: they are written once a minute.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// At this share of a budget it is nearly spent.
const NEARLY_SPENT_PERCENT: i128 = 80;
/// An ad group may spend this share of its budget past it before that is overdelivery that raises an alert.
const OVERDELIVERY_PERCENT: i128 = 1;
/// The kinds of alerts that are raised here.
const KINDS: [AlertKind; 5] = [
    AlertKind::BudgetNearlySpent,
    AlertKind::BudgetSpent,
    AlertKind::Overdelivery,
    AlertKind::GateSilent,
    AlertKind::FeedStale,
];
/// What nodes have reported earlier is not read: they, and their gates, are forgotten.
const REPORTED_SINCE: Duration = Duration::from_secs(24 * 3_600);

/// Raises and resolves alerts about budgets until `shutdown`, while this process is the leader and
/// `node.budget_alerts` is on. If it is off, open ones are resolved.
pub(crate) async fn raise_budget_alerts(deps: AlertsDeps, shutdown: CancellationToken) {
    // Whether they are off and none is open: nothing is read from the ledger until they are on.
    let mut is_idle = false;
    let mut watch = FeedWatch::default();
    loop {
        let is_on = deps.spec.load().node.budget_alerts;
        if is_on || !is_idle {
            match round(&deps, &mut watch).await {
                Ok(is_leader) => is_idle = is_leader && !is_on,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write alerts of budgets, retrying"
                ),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(deps.poll_delay(POLL_INTERVAL)) => {}
        }
    }
}

/// Returns whether this process is the leader: only that one raises and resolves.
async fn round(deps: &AlertsDeps, watch: &mut FeedWatch) -> Result<bool, LedgerError> {
    let ledger = &*deps.ledger;
    if !ledger.acquire_leadership().await? {
        // What another process watches meanwhile is not known here.
        *watch = FeedWatch::default();
        record(&FeedFindings::default());
        return Ok(false);
    }
    let (spec, now) = (deps.spec.load_full(), deps.clock.now());
    let open = open_alerts(ledger, &KINDS).await?;
    let mut wanted = BTreeMap::new();
    let mut findings = FeedFindings::default();
    if spec.node.budget_alerts {
        wanted = wanted_alerts(ledger, &spec, now).await?;
        let reports = deps.host.feed_reports(now.minus(REPORTED_SINCE)).await?;
        let silent_after = Duration::from_secs(u64::from(spec.node.gate_silent_minutes) * 60);
        findings = watch.observe(&reports, &open, silent_after, now);
        wanted.extend(feed::alerts_of(&findings));
    } else {
        *watch = FeedWatch::default();
    }
    record(&findings);
    reconcile(ledger, &open, wanted, now).await?;
    Ok(true)
}

fn record(findings: &FeedFindings) {
    metrics::gauge!(metrics::GATES_SILENT).set(findings.silent.len() as f64);
    metrics::gauge!(metrics::FEED_STALE_PARTITIONS).set(findings.stale_partitions().len() as f64);
}

async fn wanted_alerts(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
) -> Result<BTreeMap<Cause, String>, LedgerError> {
    let todays = todays(spec, now);
    let days = || todays.values().map(|(day, _)| *day);
    let (Some(from), Some(to)) = (days().min(), days().max()) else { return Ok(BTreeMap::new()) };
    let rows = ledger.budget_days_between(from, to, u32::MAX).await?;
    Ok(alerts_of(&rows, &todays))
}

/// The current day of each ad group, with the currency of its amounts.
fn todays(spec: &Spec, now: Timestamp) -> HashMap<&AdGroupName, (BudgetDay, Currency)> {
    let campaigns = spec.advertisers_of_campaigns().into_iter().map(|(campaign, advertiser)| {
        let today = BudgetDay::of(now, &advertiser.time_zone.rules());
        (campaign, (today, advertiser.currency))
    });
    let campaigns: HashMap<_, _> = campaigns.collect();
    let todays = spec
        .ad_groups
        .iter()
        .filter_map(|ad_group| Some((&ad_group.name, *campaigns.get(&ad_group.campaign)?)));
    todays.collect()
}

/// The alerts that should be open, with their messages. The subject has the day: each day has alerts of its own, which
/// are resolved when it ends.
fn alerts_of(
    rows: &[BudgetDayRow],
    todays: &HashMap<&AdGroupName, (BudgetDay, Currency)>,
) -> BTreeMap<Cause, String> {
    let mut alerts = BTreeMap::new();
    for row in rows {
        let Some((_, currency)) = todays.get(&row.ad_group).filter(|(day, _)| *day == row.day)
        else {
            continue;
        };
        // The currency has been changed, and the aggregator has not written the day since.
        if row.currency.is_some_and(|of_row| of_row != *currency) {
            continue;
        }
        for kind in kinds_of(row.budget, row.actual) {
            let what = match kind {
                AlertKind::Overdelivery => "more than its budget can bill",
                AlertKind::BudgetSpent => "all of its budget",
                _ => "most of its budget",
            };
            let message = format!(
                "the ad group has spent {what}: {} of {} {currency}. `throng budget {}` shows its state",
                row.actual, row.budget, row.ad_group
            );
            alerts.insert((kind, format!("ad_group {} on {}", row.ad_group, row.day)), message);
        }
    }
    alerts
}

/// What there is to say about a day's spend.
fn kinds_of(budget: Micros, actual: Micros) -> Vec<AlertKind> {
    let (budget, actual) = (i128::from(budget.0), i128::from(actual.0));
    let reaches = |percent: i128| budget > 0 && actual * 100 >= budget * percent;
    let kinds = [
        (AlertKind::BudgetNearlySpent, reaches(NEARLY_SPENT_PERCENT)),
        (AlertKind::BudgetSpent, reaches(100)),
        (AlertKind::Overdelivery, actual * 100 > budget * (100 + OVERDELIVERY_PERCENT)),
    ];
    kinds.into_iter().filter(|(_, is_due)| *is_due).map(|(kind, _)| kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_exact() {
        let named = |budget, actual| -> Vec<&str> {
            kinds_of(Micros(budget), Micros(actual)).into_iter().map(AlertKind::name).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(named(1_000, 799), none);
        assert_eq!(named(1_000, 800), ["budget_nearly_spent"]);
        assert_eq!(named(1_000, 1_000), ["budget_nearly_spent", "budget_spent"]);
        assert_eq!(named(1_000, 1_010), ["budget_nearly_spent", "budget_spent"]);
        let all = ["budget_nearly_spent", "budget_spent", "overdelivery"];
        assert_eq!(named(1_000, 1_011), all);
        assert_eq!(named(i64::MAX, i64::MAX), all[..2]);
        assert_eq!(named(0, 0), none);
        assert_eq!(named(0, 1), all[2..]);
    }

    #[test]
    fn only_the_current_day_raises_alerts() {
        let names: [AdGroupName; 2] = ["shoes".parse().unwrap(), "hats".parse().unwrap()];
        let today = BudgetDay(20_780);
        let todays = names.iter().map(|name| (name, (today, "USD".parse().unwrap()))).collect();
        let row = |name: &str, day, actual| BudgetDayRow {
            ad_group: name.parse().unwrap(),
            day: BudgetDay(day),
            budget: Micros(1_000_000),
            actual: Micros(actual),
            prediction: None,
            currency: None,
            causes: None,
        };
        let rows = [
            row("shoes", 20_779, 2_000_000),
            row("shoes", 20_780, 900_000),
            row("shoes", 20_781, 2_000_000),
            row("hats", 20_780, 100_000),
            row("removed", 20_780, 2_000_000),
            BudgetDayRow {
                currency: Some("EUR".parse().unwrap()),
                ..row("hats", 20_780, 2_000_000)
            },
        ];
        let alerts: Vec<(Cause, String)> = alerts_of(&rows, &todays).into_iter().collect();
        let subject = "ad_group shoes on 2026-11-23".to_owned();
        let message = "the ad group has spent most of its budget: 0.90 of 1.00 USD. `throng budget shoes` shows its \
                       state";
        assert_eq!(alerts, [((AlertKind::BudgetNearlySpent, subject), message.to_owned())]);
    }
}
