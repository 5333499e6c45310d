//! Syncs of thousands of audiences to a simulated Meta with a latency, by one to eight worker processes on
//! one queue, and a run in which half of the workers are killed.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use throng_api::{AudienceList, AudienceSummary, SyncList};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSim, MetaSimConfig};

use super::Deployment;
use crate::Programs;
use crate::node::{Node, get};

const PEOPLE: u64 = 2_000;
/// The number of audiences; each is synced to every account.
const AUDIENCES: u64 = 500;
/// The environment variable of the access token, and the token.
pub(super) const TOKEN: (&str, &str) = ("THRONG_META_TOKEN", "bench");
/// Not shorter, because a response with thousands of syncs costs CPU time of the node.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1_200);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of ad accounts, each with 500 audiences
    #[arg(long, default_value_t = 6)]
    accounts: u64,
    /// Latency of the platform, in milliseconds
    #[arg(long, default_value_t = 20)]
    latency: u64,
    /// Numbers of worker processes, one run for each
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    workers: Vec<usize>,
    /// Number of workers in the last run, of which half are killed; 0: no such run
    #[arg(long, default_value_t = 4)]
    killed_of: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // The simulator runs in this process.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let slow = FaultRule {
        fault: FaultKind::Slow { millis: options.latency },
        probability: None,
        nth: Vec::new(),
        every: Some(1),
        times: None,
        method: None,
        path: None,
        call: None,
    };
    let faults = FaultScript { rules: vec![slow], ..FaultScript::default() };
    let config = MetaSimConfig {
        tokens: vec![TOKEN.1.to_owned()],
        max_audiences_per_account: 1_000,
        quota_calls_per_hour: Some(u64::MAX / 2),
        faults,
        ..MetaSimConfig::default()
    };
    let sim = MetaSim::start(config).await?;
    let more = "  activation_workers: 1\n  build_workers: 4\n";
    let deployment = Deployment::new(options.programs.throng()?, &spec(&sim, 0, options), more)?;
    people(&deployment)?;
    let mut runs: Vec<(usize, usize)> = options.workers.iter().map(|n| (*n, 0)).collect();
    if options.killed_of > 0 {
        runs.push((options.killed_of, options.killed_of / 2));
    }
    let main = deployment.start("main", "api,schedule,build", false)?;
    let http = main.http()?;
    let built = async || {
        let AudienceList { audiences, .. } =
            get(&http, &format!("{}/v1/audiences", main.url)).await?;
        let members = |audience: &AudienceSummary| Some(audience.current.as_ref()?.members);
        let built = audiences.iter().filter(|audience| members(audience) > Some(0)).count();
        anyhow::Ok(built as u64 == AUDIENCES)
    };
    wait_until(POLL_INTERVAL, built).await?;
    for (run, (workers, killed)) in runs.into_iter().enumerate() {
        let run = run as u64 + 1;
        let before = sim.requests();
        deployment.write_spec(&spec(&sim, run, options), more)?;
        let mut running: Vec<Node> = (0..workers)
            .map(|n| deployment.start(&format!("worker-{run}-{n}"), "activate", true))
            .collect::<Result<_>>()?;
        deployment.apply(&main)?;
        let started = Instant::now();
        let goal = AUDIENCES * options.accounts;
        let delivered = async || delivered(&http, &main).await;
        if killed > 0 {
            wait_until(POLL_INTERVAL, async || Ok(delivered().await? >= goal / 2)).await?;
            for worker in running.drain(..killed) {
                worker.kill()?;
            }
        }
        wait_until(POLL_INTERVAL, async || Ok(delivered().await? == goal)).await?;
        let seconds = started.elapsed().as_secs_f64();
        let after = sim.requests();
        let uploads = |counts: &throng_sim::meta::RequestCounts| {
            counts.calls.get("add_users").map_or((0, 0), |c| (c.requests, c.rows))
        };
        let (uploads, rows) =
            (uploads(&after).0 - uploads(&before).0, uploads(&after).1 - uploads(&before).1);
        let cpu: f64 = running.iter().map(Node::cpu_seconds).sum::<Result<f64>>()?;
        let line = json!({
            "figure": "syncs", "audiences": goal, "workers": workers, "killed": killed,
            "latency_ms": options.latency, "seconds": seconds,
            "audiences_per_s": goal as f64 / seconds,
            "uploads": uploads, "uploads_again": uploads - goal.min(uploads), "rows": rows,
            "workers_cpu_seconds": cpu,
        });
        println!("{line}");
    }
    Ok(())
}

/// Audiences of about two hundred people each, synced to the accounts of this run; no syncs in run 0.
fn spec(sim: &MetaSim, run: u64, options: &Options) -> String {
    let mut text = "version: 1\nsources:\n  - { name: shop, path: data }\naudiences:\n".to_owned();
    for audience in 0..AUDIENCES {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  - {{ name: a-{audience}, sql: \"SELECT id FROM shop.people WHERE (id * 7 + {audience}) % 97 < 10\" }}"
        );
    }
    if run == 0 {
        return text;
    }
    let accounts = run * 100..run * 100 + options.accounts;
    let _ = writeln!(text, "destinations:");
    for account in accounts.clone() {
        let _ = writeln!(
            text,
            "  - {{ name: meta-{account}, platform: meta, account: act_{account}, access_token: \"env:{}\", base_url: \"{}\" }}",
            TOKEN.0,
            sim.url()
        );
    }
    let _ = writeln!(text, "syncs:");
    for account in accounts {
        for audience in 0..AUDIENCES {
            let _ = writeln!(
                text,
                "  - {{ name: s-{account}-{audience}, audience: a-{audience}, destination: meta-{account}, identifiers: {{ key: id, sql: \"SELECT id, email FROM shop.people\", columns: {{ email: EMAIL }} }} }}"
            );
        }
    }
    text
}

fn people(deployment: &Deployment) -> Result<()> {
    let mut text = "id,email\n".to_owned();
    for id in 0..PEOPLE {
        writeln!(text, "{id},person-{id}@example.com")?;
    }
    let data = deployment.path().join("data");
    std::fs::create_dir_all(&data)?;
    Ok(std::fs::write(data.join("people.csv"), text)?)
}

/// Syncs of the applied spec that have delivered their audience.
async fn delivered(http: &reqwest::Client, node: &Node) -> Result<u64> {
    let SyncList { syncs, .. } = get(http, &format!("{}/v1/syncs", node.url)).await?;
    Ok(syncs.iter().filter(|sync| sync.delivered_version.is_some()).count() as u64)
}

async fn wait_until(
    poll_interval: Duration,
    mut done: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !done().await? {
        ensure!(started.elapsed() < TIMEOUT, "not finished after {TIMEOUT:?}");
        tokio::time::sleep(poll_interval).await;
    }
    Ok(())
}
