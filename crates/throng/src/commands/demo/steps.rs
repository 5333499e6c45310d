//! The steps of the demo, in order. Each waits for a result, never for a length of time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use throng_api::{LookupRequest, LookupResult};
use throng_demo::example;
use throng_demo::summary::{Audience, Budget, Decisions, Lookups, Outcome, Sync, Traffic};
use throng_lake::IdentifierQuery;
use throng_model::{AudienceName, Clock, Timestamp, UserHash, UserKey};
use throng_server::Node;
use throng_sim::fleet::{self, AdRequest, Delays, FleetConfig, FleetProgress, FleetReport};
use throng_store::{RefreshState, RunState, TaskState};
use tokio_util::sync::CancellationToken;

use crate::args::DemoArgs;
use crate::out;

use super::{DemoEnvironment, clock_limit};

/// The length of the logged traffic, which took a week, on the demo's clock.
const TRAFFIC_LENGTH: Duration = Duration::from_secs(40 * 60);
/// Seed of users and delays.
const SEED: u64 = 20_191_124;
/// A step that takes longer than this fails the demo.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Polls until there is a result; fails after [`TIMEOUT`].
async fn wait_for<T, F>(what: &str, mut poll: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let polling = async {
        loop {
            if let Some(result) = poll().await? {
                return Ok(result);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling)
        .await
        .with_context(|| format!("timed out after {TIMEOUT:?}: {what}"))?
}

pub(super) async fn build_audiences(environment: &DemoEnvironment) -> Result<Vec<Audience>> {
    let count = environment.spec.audiences.len();
    let bar = out::bar(count as u64, "building audiences");
    for node in [&environment.node, &environment.baseline] {
        let ledger = &node.context().ledger;
        wait_for("a snapshot of every audience", async || {
            let rows = ledger.audiences().await?;
            for row in &rows {
                if let Some(refresh) = &row.refresh
                    && matches!(refresh.state, RefreshState::Failed | RefreshState::Held)
                {
                    let reason = refresh.reason.clone().unwrap_or_default();
                    bail!("audience {} is {:?}: {reason}", row.name, refresh.state);
                }
            }
            // Those that are served: lookups come next.
            let built = node.context().membership.load().names().len();
            bar.set_position(built as u64);
            Ok((built == count).then_some(()))
        })
        .await?;
    }
    bar.finish_and_clear();
    let rows = environment.node.context().ledger.audiences().await?;
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

/// Looks up every customer over HTTP and compares the answers with the result of the SQL engine.
pub(super) async fn check_lookups(environment: &DemoEnvironment) -> Result<Lookups> {
    let (lake, seed) =
        (environment.node.context().lake.load_full(), environment.node.context().seed);
    let mut expected_members: Vec<(String, HashSet<UserHash>)> = Vec::new();
    for audience in &environment.spec.audiences {
        let key = match &audience.key {
            Some(key) => key.clone(),
            None => lake.check_model(&audience.sql, None).await?.key_column,
        };
        let mut keys = HashSet::new();
        // The whole statement runs in the engine. A build would decompose some models (ADR 4), so this also
        // checks the decomposition.
        let (sql, columns) = (audience.sql.clone(), Vec::new());
        let query = IdentifierQuery { sql, key, columns, hasher: serde_json::Value::Null };
        let mut stream = lake.identifiers(&query, seed).await?;
        while let Some(batch) = stream.next().await {
            keys.extend(batch?.into_iter().map(|(user, _)| user));
        }
        expected_members.push((audience.name.to_string(), keys));
    }
    let mut users = example::customers();
    users.push("nobody-of-this-name".to_owned());
    let bar = out::bar(users.len() as u64, "checking lookups");
    let http = reqwest::Client::new();
    let mut lookups = Lookups { checked: 0, wrong: 0 };
    for chunk in users.chunks(1_000) {
        let answer: LookupResult = http
            .post(format!("{}/v1/lookups", environment.node.url()))
            .bearer_auth(environment.tokens.node.expose())
            .json(&LookupRequest { keys: chunk.to_vec() })
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(answer.users.len() == chunk.len(), "the answer to a lookup lacks users");
        for (user, found) in chunk.iter().zip(answer.users) {
            let mut got: Vec<&str> = found.audiences.iter().map(AudienceName::as_str).collect();
            got.sort_unstable();
            let mut expected: Vec<&str> = expected_members
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
pub(super) async fn wait_for_syncs(environment: &DemoEnvironment) -> Result<Vec<Sync>> {
    let ledger = &environment.node.context().ledger;
    let bar = out::bar(0, "activating on the platform");
    let count = environment.spec.syncs.len();
    wait_for("the end of every sync", async || {
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
        Ok((done >= count && checks >= count).then_some(()))
    })
    .await?;
    bar.finish_and_clear();
    let tasks = ledger.tasks(1_000).await?;
    let checks = ledger.checks(1_000).await?;
    let mut syncs = Vec::new();
    for run in ledger.runs(None, 1_000).await? {
        let platform = ledger.platform_audience(&run.sync).await?;
        let on_platform =
            platform.map_or(0, |p| environment.sim.member_count(&p.platform_id).unwrap_or(0));
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

/// Runs the logged traffic through two fleets at once: one for the node that predicts, one for the
/// baseline node.
pub(super) async fn run_traffic(
    environment: &DemoEnvironment,
    arguments: &DemoArgs,
) -> Result<Traffic> {
    let logs = example::impression_logs()
        .into_iter()
        .map(|(prefix, text)| Ok((prefix, fleet::read_impression_log(text)?)))
        .collect::<Result<Vec<_>>>()?;
    let customers = example::customers();
    let traffic =
        fleet::traffic_from_log(&logs, &customers, TRAFFIC_LENGTH, Delays::default(), SEED)?;
    let start = environment.clock.now().plus(Duration::from_secs(20));
    environment.clock.set_limit(Some(start));
    environment.set_speed(arguments.speed)?;
    let bar = out::bar(traffic.len() as u64, "ad traffic");
    let progress = Arc::new(FleetProgress::default());
    let stop = CancellationToken::new();
    let with =
        run_fleet(environment, &environment.node, arguments, start, &traffic, &progress, &stop);
    let baseline_progress = Arc::new(FleetProgress::default());
    let without = run_fleet(
        environment,
        &environment.baseline,
        arguments,
        start,
        &traffic,
        &baseline_progress,
        &stop,
    );
    let traffic_ended = stop.child_token();
    let showing = {
        let (bar, progress, traffic_ended) =
            (bar.clone(), Arc::clone(&progress), traffic_ended.clone());
        tokio::spawn(async move {
            while !traffic_ended.is_cancelled() {
                bar.set_position(progress.requests());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let fleets = [(&environment.node, &*progress), (&environment.baseline, &*baseline_progress)];
    let clock = clock_limit::advance(environment, arguments, start, &fleets);
    let both = tokio::select! {
        both = async { tokio::try_join!(with, without) } => both,
        error = clock => Err(error),
    };
    traffic_ended.cancel();
    showing.await.context("the progress bar failed")?;
    bar.finish_and_clear();
    environment.clock.set_limit(None);
    environment.set_speed(1.0)?;
    let (report, _) = both?;
    figures(environment, &report).await
}

async fn run_fleet(
    environment: &DemoEnvironment,
    node: &Node,
    arguments: &DemoArgs,
    start: Timestamp,
    traffic: &[AdRequest],
    progress: &Arc<FleetProgress>,
    stop: &CancellationToken,
) -> Result<FleetReport> {
    // Ad servers of a deployment read the feed from its relay.
    let predicts = std::ptr::eq(node, &environment.node);
    let token = if predicts { &environment.tokens.node } else { &environment.tokens.baseline };
    let relay = environment.processes.as_ref().filter(|_| predicts);
    let feed_url = relay.map_or_else(|| node.url(), |processes| processes.relay.clone());
    let folder = if predicts { "ad-servers" } else { "ad-servers-without-prediction" };
    let cache_dir = environment.data_dir.path().join(folder);
    let config = FleetConfig {
        node_url: node.url(),
        feed_url,
        cache_dir,
        token: Some(token.expose().to_owned()),
        servers: arguments.ad_servers,
        clock: Arc::clone(&environment.clock) as Arc<dyn Clock>,
        start,
        send_interval: Duration::from_secs(2),
    };
    Ok(fleet::run(&config, traffic, Arc::clone(progress), stop.clone()).await?)
}

/// Waits until this node has received the figures of all accepted events: other processes count them and
/// publish a moment later. A difference that remains is reported by the summary.
async fn wait_until_counted(environment: &DemoEnvironment, report: &FleetReport) {
    let delivered = delivered(environment, report);
    let counting = async {
        let counted = || -> i64 {
            environment.node.context().budgets.states().iter().map(|s| s.actual.0).sum()
        };
        while delivered != counted() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(120), counting).await;
}

/// Budgets and spend of both nodes.
async fn figures(environment: &DemoEnvironment, report: &FleetReport) -> Result<Traffic> {
    wait_until_counted(environment, report).await;
    let with = environment.node.context().budgets.states();
    let without = environment.baseline.context().budgets.states();
    let mut budgets = Vec::new();
    for state in &with {
        let baseline = without
            .iter()
            .find(|other| other.name == state.name)
            .with_context(|| format!("no figures of {} without prediction", state.name))?;
        let budget = state.budget.0;
        let over = |spend: i64| (spend - budget).max(0);
        // What the traffic could have spent: what it spent without prediction, at most the budget.
        let possible = baseline.actual.0.min(budget);
        budgets.push(Budget {
            ad_group: state.name.to_string(),
            budget_micros: budget,
            without_prediction: Outcome {
                spend_micros: baseline.actual.0,
                overdelivery_micros: over(baseline.actual.0),
                underdelivery_micros: None,
            },
            with_prediction: Outcome {
                spend_micros: state.actual.0,
                overdelivery_micros: over(state.actual.0),
                underdelivery_micros: Some((possible - state.actual.0).max(0)),
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
        delivered_micros: delivered(environment, report),
        budgets,
    })
}

/// The value of the ads that were shown, from the fleet's own counts.
fn delivered(environment: &DemoEnvironment, report: &FleetReport) -> i64 {
    environment.billable_micros(|kind, ad_group| {
        let events = if kind == "click" { &report.clicks } else { &report.impressions };
        events.get(ad_group).copied().unwrap_or(0)
    })
}
