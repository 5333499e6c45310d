//! Builds of the audiences of a template, which are built in one scan, compared with one audience of it on the same
//! files. The members of some of them are compared with those that DuckDB finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use throng_api::{
    AudienceList, AudienceRefreshState, AudienceSummary, LookupRequest, LookupResult,
    PublishedMembership,
};
use throng_model::{Entropy, SplitMix64, Timestamp};

use crate::Programs;
use crate::audiences::python;
use crate::node::{Node, completed, get, runtime};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of generated rows
    #[arg(long, default_value_t = 50_000_000)]
    rows: u64,
    /// Number of audiences of the template
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    audiences: u64,
    /// Number of random audiences whose members are compared with those of DuckDB
    #[arg(long, default_value_t = 20)]
    compared: u64,
    /// The memory limit of queries, in MiB
    #[arg(long, default_value_t = 4096)]
    memory_mib: u64,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The folder of the data; created if missing, and kept
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
}

/// A parameter that is compared for equality, and one that is the threshold of a sum: audiences of this form are built
/// in one scan.
const SQL: &str = "SELECT customer FROM shop.sales WHERE category = $category GROUP BY customer HAVING sum(amount) >= $minimum";
/// A node builds so many audiences in one scan, at most.
const MAX_TOGETHER: u64 = 5_000;
/// Keys of one lookup, at most.
const MAX_KEYS: usize = 10_000;
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Polls for each reading of the list of all audiences, which costs CPU time of the node.
const POLLS_PER_LIST: u64 = 5;
const TIMEOUT: Duration = Duration::from_secs(3 * 3600);
/// Until what was published can be looked up.
const SERVED_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn run(options: &Options) -> Result<()> {
    let data = generate(options)?;
    let one = category(options.audiences / 2);
    for round in 1..=options.rounds {
        let single = || build(options, &data, "one", Some(&one));
        let (of_one, of_all) = if round % 2 == 1 {
            let of_one = single()?;
            (of_one, build(options, &data, "all", None)?)
        } else {
            let of_all = build(options, &data, "all", None)?;
            (single()?, of_all)
        };
        let members = |build: &Build| build.members.get(&name(&one)).copied();
        ensure!(members(&of_one) == members(&of_all), "the template has other members of {one}");
        let line = json!({
            "figure": "templates", "round": round, "rows": options.rows,
            "audiences": options.audiences, "one": of_one.figures(), "template": of_all.figures(),
            "seconds_ratio": of_all.seconds / of_one.seconds,
            "memory_ratio": of_all.memory_kib() / of_one.memory_kib(),
        });
        println!("{line}");
    }
    Ok(())
}

/// The category of an audience, as `duckdb_peer.py` names it.
fn category(number: u64) -> String {
    format!("c{number:06}")
}

/// The name of the audience of a category.
fn name(category: &str) -> String {
    format!("{category}-buyers")
}

/// The folder of the data, which is made if it is missing.
fn generate(options: &Options) -> Result<PathBuf> {
    let (rows, audiences) = (options.rows.to_string(), options.audiences.to_string());
    let data = options.data.join(format!("templates-{rows}-{audiences}"));
    if !data.join("lake/sales").is_dir() {
        std::fs::create_dir_all(data.join("lake"))?;
        python(&options.programs, &data, &["generate-template", &rows, &audiences])?;
    }
    Ok(data)
}

/// The build of one audience, or of all.
struct Build {
    /// From the start of the first refresh to the end of the last one.
    seconds: f64,
    /// From the start of the process to the end of the last refresh, with the query of the template.
    seconds_from_start: f64,
    /// The peak of the resident memory of the node.
    peak_kib: u64,
    /// The peak of all query workers that ran at one time.
    workers_peak_kib: u64,
    /// The number of members by name.
    members: BTreeMap<String, u64>,
}

impl Build {
    /// The peaks of the node and of its query workers.
    fn memory_kib(&self) -> f64 {
        (self.peak_kib + self.workers_peak_kib) as f64
    }

    fn figures(&self) -> Value {
        json!({
            "seconds": self.seconds, "seconds_from_start": self.seconds_from_start,
            "peak_kib": self.peak_kib, "workers_peak_kib": self.workers_peak_kib,
            "members": self.members.values().sum::<u64>(),
        })
    }
}

/// Builds with a new node all audiences of the template, or the one of a category; compares the members of some.
fn build(options: &Options, data: &Path, run: &str, only: Option<&str>) -> Result<Build> {
    let (dir, spec) = (data.join(format!("node-{run}")), data.join(format!("{run}.yaml")));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let condition = only.map(|it| format!(" WHERE category = '{it}'")).unwrap_or_default();
    std::fs::write(
        &spec,
        format!(
            "version: 1\nsources:\n  - {{ name: shop, path: lake }}\naudiences:\n  - name: \"{{category}}-buyers\"\n    for_each:\n      sql: SELECT category, minimum FROM shop.segments{condition}\n      max_rows: {}\n    guard: {{ min_members: 0 }}\n    sql: {SQL}\nnode:\n  memory_limit_bytes: {}\n",
            options.audiences,
            options.memory_mib << 20
        ),
    )?;
    let started = Instant::now();
    let node = Node::start(&options.programs.throng()?, &dir, &spec)?;
    let runtime = runtime()?;
    let count = if only.is_some() { 1 } else { options.audiences };
    let refreshed = runtime.block_on(wait_for_builds(&node, count))?;
    let build = Build {
        seconds: refreshed.finished_at.since(refreshed.started_at).as_secs_f64(),
        seconds_from_start: started.elapsed().as_secs_f64(),
        peak_kib: node.peak_kib()?,
        workers_peak_kib: refreshed.workers_peak_kib,
        members: refreshed.members,
    };
    // After the measurements: lookups cost memory too.
    let categories: Vec<String> = match only {
        Some(only) => vec![only.to_owned()],
        None => random_categories(options),
    };
    let arguments: Vec<&str> =
        std::iter::once("template-members").chain(categories.iter().map(String::as_str)).collect();
    let expected = python(&options.programs, data, &arguments)?;
    let expected: BTreeMap<String, Vec<String>> = serde_json::from_value(expected)?;
    ensure!(expected.len() == categories.len(), "DuckDB returned {} audiences", expected.len());
    runtime.block_on(compare(&node, count, &build, &expected))?;
    Ok(build)
}

fn random_categories(options: &Options) -> Vec<String> {
    let mut random = SplitMix64::new(options.rows);
    let mut numbers = BTreeSet::new();
    while (numbers.len() as u64) < options.compared.min(options.audiences) {
        numbers.insert(random.below(options.audiences));
    }
    numbers.into_iter().map(category).collect()
}

/// Refreshes that have ended.
struct Refreshed {
    /// When the first one was started.
    started_at: Timestamp,
    /// When the last one ended.
    finished_at: Timestamp,
    workers_peak_kib: u64,
    members: BTreeMap<String, u64>,
}

/// Waits until so many audiences are published.
async fn wait_for_builds(node: &Node, count: u64) -> Result<Refreshed> {
    let (http, url, begun) = (node.http()?, format!("{}/v1/audiences", node.url), Instant::now());
    let polls_per_list = if count > 1 { POLLS_PER_LIST } else { 1 };
    let (mut workers_peak_kib, mut is_first) = (0, true);
    for poll in 1_u64.. {
        ensure!(begun.elapsed() < TIMEOUT, "not built after {TIMEOUT:?}");
        workers_peak_kib = workers_peak_kib.max(node.workers_peak_kib()?);
        tokio::time::sleep(POLL_INTERVAL).await;
        if poll % polls_per_list != 0 {
            continue;
        }
        let AudienceList { audiences, .. } = get(&http, &url).await?;
        let mut ended = 0;
        for audience in &audiences {
            ended += u64::from(completed(audience)?.is_some());
        }
        if ended > 0 && std::mem::take(&mut is_first) && count <= MAX_TOGETHER {
            // Those of one scan are claimed before it, and end after it.
            let waiting = audiences.iter().filter(|audience| is_waiting(audience)).count();
            ensure!(
                waiting == 0,
                "{waiting} refreshes were waiting when the first had ended: it was not one scan"
            );
        }
        if ended == count {
            return refreshed(&audiences, workers_peak_kib);
        }
    }
    anyhow::bail!("not built")
}

/// Whether an audience has neither a version nor a builder.
pub(crate) fn is_waiting(audience: &AudienceSummary) -> bool {
    let state = audience.refresh.as_ref().map(|newest| newest.refresh.state);
    matches!(state, None | Some(AudienceRefreshState::Scheduled | AudienceRefreshState::Halted))
}

fn refreshed(audiences: &[AudienceSummary], workers_peak_kib: u64) -> Result<Refreshed> {
    let (mut starts, mut ends, mut members) = (Vec::new(), Vec::new(), BTreeMap::new());
    for audience in audiences {
        let refresh = completed(audience)?.context("a refresh has not ended")?;
        starts.push(refresh.started_at.context("a completed refresh has no start")?);
        ends.push(refresh.finished_at.context("a completed refresh has no end")?);
        let current = audience.current.as_ref().context("no snapshot")?;
        members.insert(audience.name.to_string(), current.members);
    }
    Ok(Refreshed {
        started_at: starts.into_iter().min().context("no audience")?,
        finished_at: ends.into_iter().max().context("no audience")?,
        workers_peak_kib,
        members,
    })
}

/// Compares members with those that are expected, by category: as many, and each of them is found.
async fn compare(
    node: &Node,
    count: u64,
    build: &Build,
    expected: &BTreeMap<String, Vec<String>>,
) -> Result<()> {
    let http = node.http()?;
    wait_until_served(node, &http, count).await?;
    for (category, keys) in expected {
        let name = name(category);
        let members = build.members.get(&name).copied();
        let distinct = keys.iter().collect::<BTreeSet<_>>().len() as u64;
        ensure!(members == Some(distinct), "{name}: {members:?} members, DuckDB: {distinct}");
        for keys in keys.chunks(MAX_KEYS) {
            let request = LookupRequest { keys: keys.to_vec() };
            let response = http.post(format!("{}/v1/lookups", node.url)).json(&request).send();
            let response = response.await?;
            ensure!(response.status().is_success(), "lookups: {}", response.status());
            let LookupResult { users } = response.json().await?;
            let is_member = |names: &[throng_model::AudienceName]| {
                names.iter().any(|found| found.as_str() == name)
            };
            let found = users.iter().filter(|user| is_member(&user.audiences)).count();
            ensure!(found == keys.len(), "{name}: {found} of {} are members", keys.len());
        }
    }
    Ok(())
}

/// Waits until lookups have all audiences.
async fn wait_until_served(node: &Node, http: &reqwest::Client, count: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let url = format!("{}/v1/membership", node.url);
        let PublishedMembership { snapshots, .. } = get(http, &url).await?;
        if snapshots.len() as u64 == count {
            return Ok(());
        }
        ensure!(begun.elapsed() < SERVED_TIMEOUT, "{} of {count} are served", snapshots.len());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
