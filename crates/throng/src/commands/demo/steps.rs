//! The steps of the demo, in order. Each waits for an outcome, never for a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::json;
use throng_lake::IdentifierQuery;
use throng_model::{AdGroupName, Clock, Timestamp, UserHash, UserKey};
use throng_server::Node;
use throng_sim::fleet::{self, AdRequest, Delays, FleetConfig, FleetProgress, FleetReport};
use throng_store::{RefreshState, RunState, TaskState};
use tokio_util::sync::CancellationToken;

use crate::args::DemoArgs;
use crate::{out, rehearsal};

use super::summary::{Audience, Budget, Decisions, Lookups, Outcome, Sync, Traffic};
use super::{Stage, example, pace};

/// How long the week of logged traffic lasts on the demo's clock.
const TRAFFIC_LENGTH: Duration = Duration::from_secs(40 * 60);
/// Seed of users and delays.
const SEED: u64 = 20_191_124;
/// Nothing of the demo takes longer than this; past it, something hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// Asks again and again until there is an answer, with a limit on the wall.
async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("{what} did not come about within {PATIENCE:?}"))?
}

pub(super) async fn build_audiences(stage: &Stage) -> Result<Vec<Audience>> {
    let wanted = stage.spec.audiences.len();
    let bar = out::bar(wanted as u64, "building audiences");
    for node in [&stage.node, &stage.blind] {
        let ledger = &node.context().ledger;
        until("a snapshot of every audience", async || {
            let rows = ledger.audiences().await?;
            for row in &rows {
                if let Some(refresh) = &row.refresh
                    && matches!(refresh.state, RefreshState::Failed | RefreshState::Held)
                {
                    let reason = refresh.reason.clone().unwrap_or_default();
                    bail!("audience {} is {:?}: {reason}", row.name, refresh.state);
                }
            }
            let built = rows.iter().filter(|row| row.current.is_some()).count();
            bar.set_position(built as u64);
            Ok((built == wanted).then_some(()))
        })
        .await?;
    }
    bar.finish_and_clear();
    let rows = stage.node.context().ledger.audiences().await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let current = row.current?;
            Some(Audience {
                name: row.name.to_string(),
                members: current.members,
                rows_read: current.rows_read,
                null_keys: current.null_keys,
            })
        })
        .collect())
}

/// Looks every customer up over HTTP and compares with what the SQL engine says.
pub(super) async fn check_lookups(stage: &Stage) -> Result<Lookups> {
    let (lake, seed) = (stage.node.context().lake.load_full(), stage.node.context().seed);
    let mut truth: Vec<(String, HashSet<UserHash>)> = Vec::new();
    for audience in &stage.spec.audiences {
        let key = match &audience.key {
            Some(key) => key.clone(),
            None => lake.check_model(&audience.sql, None).await?.key_column,
        };
        let mut keys = HashSet::new();
        // The whole statement in the engine, without what a build takes apart.
        let (sql, columns) = (audience.sql.clone(), Vec::new());
        let query = IdentifierQuery { sql, key, columns, hasher: serde_json::Value::Null };
        let mut stream = lake.identifiers(&query, seed).await?;
        while let Some(batch) = stream.next().await {
            keys.extend(batch?.into_iter().map(|(user, _)| user));
        }
        truth.push((audience.name.to_string(), keys));
    }
    let mut users = example::customers();
    users.push("nobody-of-this-name".to_owned());
    let bar = out::bar(users.len() as u64, "checking lookups");
    let http = reqwest::Client::new();
    let mut lookups = Lookups { checked: 0, wrong: 0 };
    for chunk in users.chunks(1_000) {
        let answer: serde_json::Value = http
            .post(format!("{}/v1/lookups", stage.node.url()))
            .bearer_auth(stage.tokens.node.expose())
            .json(&json!({ "keys": chunk }))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let found = answer["users"].as_array().context("lookups answer without users")?;
        for (user, answer) in chunk.iter().zip(found) {
            let mut got: Vec<&str> = answer["audiences"]
                .as_array()
                .map(|list| list.iter().filter_map(|a| a.as_str()).collect())
                .unwrap_or_default();
            got.sort_unstable();
            let mut expected: Vec<&str> = truth
                .iter()
                .filter(|(_, keys)| keys.contains(&UserKey::text(user.clone()).hash(seed)))
                .map(|(name, _)| name.as_str())
                .collect();
            expected.sort_unstable();
            lookups.checked += 1;
            lookups.wrong += u64::from(got != expected);
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(lookups)
}

/// Waits until every sync is delivered and checked.
pub(super) async fn wait_for_syncs(stage: &Stage) -> Result<Vec<Sync>> {
    let ledger = &stage.node.context().ledger;
    let bar = out::bar(0, "activating on the platform");
    let wanted = stage.spec.syncs.len();
    until("the end of every sync", async || {
        let runs = ledger.runs(None, 1_000).await?;
        bar.set_length(runs.iter().map(|r| r.read).sum());
        bar.set_position(runs.iter().map(|r| r.read - r.pending).sum());
        for run in &runs {
            if matches!(run.state, RunState::Failed | RunState::Held) {
                let reason = run.reason.clone().unwrap_or_default();
                bail!("sync {} is {:?}: {reason}", run.sync, run.state);
            }
        }
        let done = runs.iter().filter(|r| r.state == RunState::Completed).count();
        let checks = ledger.checks(1_000).await?.len();
        Ok((done >= wanted && checks >= wanted).then_some(()))
    })
    .await?;
    bar.finish_and_clear();
    let tasks = ledger.tasks(1_000).await?;
    let checks = ledger.checks(1_000).await?;
    let mut syncs = Vec::new();
    for run in ledger.runs(None, 1_000).await? {
        let platform = ledger.platform_audience(&run.sync).await?;
        let on_platform =
            platform.map_or(0, |p| stage.sim.member_count(&p.platform_id).unwrap_or(0));
        let done = tasks.iter().find(|t| t.run == run.id && t.state == TaskState::Done);
        let check = done.and_then(|task| checks.iter().find(|c| c.task == task.id));
        syncs.push(Sync {
            sync: run.sync.to_string(),
            read: run.read,
            sent: run.sent,
            skipped: run.skipped.values().sum(),
            rejected: run.rejected.values().sum(),
            pending: run.pending,
            on_platform,
            verdict: check
                .map_or_else(|| "none".to_owned(), |c| format!("{:?}", c.verdict).to_lowercase()),
        });
    }
    syncs.sort_by(|a, b| a.sync.cmp(&b.sync));
    Ok(syncs)
}

/// Runs the logged traffic through two fleets at once: one at the node that predicts, one at the
/// node that does not.
pub(super) async fn run_traffic(stage: &Stage, arguments: &DemoArgs) -> Result<Traffic> {
    let logs = example::impression_logs()
        .into_iter()
        .map(|(prefix, text)| Ok((prefix, fleet::read_impression_log(text)?)))
        .collect::<Result<Vec<_>>>()?;
    let customers = example::customers();
    let traffic =
        fleet::traffic_from_log(&logs, &customers, TRAFFIC_LENGTH, Delays::default(), SEED)?;
    let start = stage.clock.now().plus(Duration::from_secs(20));
    stage.clock.set_limit(Some(start));
    set_speed(stage, arguments.speed)?;
    let bar = out::bar(traffic.len() as u64, "ad traffic");
    let progress = Arc::new(FleetProgress::default());
    let stop = CancellationToken::new();
    let with = run_fleet(stage, &stage.node, arguments, start, &traffic, &progress, &stop);
    let blind_progress = Arc::new(FleetProgress::default());
    let without =
        run_fleet(stage, &stage.blind, arguments, start, &traffic, &blind_progress, &stop);
    let watching = stop.child_token();
    let shown = {
        let (bar, progress, watching) = (bar.clone(), Arc::clone(&progress), watching.clone());
        tokio::spawn(async move {
            while !watching.is_cancelled() {
                bar.set_position(progress.requests());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let fleets = [(&stage.node, &*progress), (&stage.blind, &*blind_progress)];
    let pace = pace::keep(stage, arguments, start, &fleets);
    let both = tokio::select! {
        both = async { tokio::try_join!(with, without) } => both,
        error = pace => Err(error),
    };
    watching.cancel();
    shown.await.context("the progress bar stopped")?;
    bar.finish_and_clear();
    stage.clock.set_limit(None);
    set_speed(stage, 1.0)?;
    let (report, _) = both?;
    figures(stage, &report).await
}

/// Sets the demo's clock, for all of its processes.
fn set_speed(stage: &Stage, speed: f64) -> Result<()> {
    stage.clock.set_speed(speed);
    publish(stage)
}

/// Lets the demo's clock run up to an instant, for all of its processes.
pub(super) fn set_limit(stage: &Stage, limit: Timestamp) -> Result<()> {
    stage.clock.set_limit(Some(limit));
    publish(stage)
}

fn publish(stage: &Stage) -> Result<()> {
    rehearsal::publish(&stage.clock, &stage.clock_file).context("cannot write the demo's clock")
}

async fn run_fleet(
    stage: &Stage,
    node: &Node,
    arguments: &DemoArgs,
    start: Timestamp,
    traffic: &[AdRequest],
    progress: &Arc<FleetProgress>,
    stop: &CancellationToken,
) -> Result<FleetReport> {
    // Ad servers of a deployment follow its relay.
    let predicts = std::ptr::eq(node, &stage.node);
    let token = if predicts { &stage.tokens.node } else { &stage.tokens.blind };
    let relay = stage.processes.as_ref().filter(|_| predicts);
    let feed_url = relay.map_or_else(|| node.url(), |processes| processes.relay.clone());
    let config = FleetConfig {
        node_url: node.url(),
        feed_url,
        token: Some(token.expose().to_owned()),
        servers: arguments.ad_servers,
        clock: Arc::clone(&stage.clock) as Arc<dyn Clock>,
        start,
        membership: node.context().membership.load_full(),
        send_every: Duration::from_secs(2),
    };
    Ok(fleet::run(&config, traffic, Arc::clone(progress), stop.clone()).await?)
}

/// Waits until what was accepted is told: other processes count it, and say so a moment later. A
/// difference that stays is for the summary to report.
async fn counted(stage: &Stage, report: &FleetReport) {
    let delivered = delivered(stage, report);
    let counting = async {
        let counted =
            || -> i64 { stage.node.context().budgets.states().iter().map(|s| s.actual.0).sum() };
        while delivered != counted() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(20), counting).await;
}

/// Budgets and spend of both nodes, side by side.
async fn figures(stage: &Stage, report: &FleetReport) -> Result<Traffic> {
    counted(stage, report).await;
    let with = stage.node.context().budgets.states();
    let without = stage.blind.context().budgets.states();
    let mut budgets = Vec::new();
    for state in &with {
        let blind = without
            .iter()
            .find(|other| other.name == state.name)
            .with_context(|| format!("no figures of {} without prediction", state.name))?;
        let budget = state.budget.0;
        let used = |spend: i64| (spend - budget).max(0);
        // What the traffic could have used: what it used when nothing held it back but the budget.
        let wanted = blind.actual.0.min(budget);
        budgets.push(Budget {
            ad_group: state.name.to_string(),
            budget_micros: budget,
            without_prediction: Outcome {
                spend_micros: blind.actual.0,
                overdelivery_micros: used(blind.actual.0),
                underdelivery_micros: None,
            },
            with_prediction: Outcome {
                spend_micros: state.actual.0,
                overdelivery_micros: used(state.actual.0),
                underdelivery_micros: Some((wanted - state.actual.0).max(0)),
            },
        });
    }
    Ok(Traffic {
        decisions: Decisions {
            requests: report.requests,
            allowed: report.allowed,
            refused: report.refused,
            reasons: report.reasons.clone(),
        },
        counted_micros: with.iter().map(|s| s.actual.0).sum(),
        delivered_micros: delivered(stage, report),
        budgets,
    })
}

/// What the ads that were shown are worth, by the fleet's own count.
fn delivered(stage: &Stage, report: &FleetReport) -> i64 {
    worth(stage, |kind, ad_group| {
        let events = if kind == "click" { &report.clicks } else { &report.impressions };
        events.get(ad_group).copied().unwrap_or(0)
    })
}

/// What so many billable events (`impression` or `click`) of each ad group are worth, in micros.
pub(super) fn worth(stage: &Stage, count: impl Fn(&'static str, &AdGroupName) -> u64) -> i64 {
    let ad_groups = stage.spec.ad_groups.iter();
    let amounts = ad_groups.map(|ad_group| {
        let kind = match ad_group.pricing {
            throng_spec::Pricing::PerImpression | throng_spec::Pricing::PerThousand => "impression",
            throng_spec::Pricing::PerClick => "click",
        };
        let count = i64::try_from(count(kind, &ad_group.name)).unwrap_or(i64::MAX);
        let amount = ad_group.price.0.saturating_mul(count);
        if ad_group.pricing == throng_spec::Pricing::PerThousand { amount / 1_000 } else { amount }
    });
    amounts.sum()
}
