//! Syncs of many audiences of one template to a simulated Meta without a quota, in real time: rows that are read, hashed and
//! sent by a core in a second, and the CPU time of node, query workers and simulator. Fails if a list on the platform is
//! not that of its audience.
//!
//! The audiences are ranges of ids that overlap, so that few people make many rows. Such audiences are built in one scan,
//! and the identifiers of all syncs whose audiences are published together are read at once. A row is one hash, of an
//! e-mail address: the simulator keeps about 100 bytes of it in this process.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use throng_api::AudienceList;
use throng_sim::meta::{MetaSim, MetaSimConfig};

use crate::Programs;
use crate::lists::{self, TOKEN, email};
use crate::node::{CpuTime, Node, completed, get, own_cpu};
use crate::shared::metric;
use crate::templates::is_waiting;

/// Lists of an ad account, at most: the limit of the platform.
const MAX_PER_ACCOUNT: u64 = 500;
/// Files of the table of people: each is a part of the scan.
const FILES: u64 = 8;
/// Rows of 3,000 audiences of a million users.
const THREE_BILLION: f64 = 3e9;
/// Not shorter, because a response with thousands of audiences costs CPU time of the node.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Of the builds, and of the uploads.
const TIMEOUT: Duration = Duration::from_secs(3 * 3600);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of audiences, with at most 500 in each ad account
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    audiences: u64,
    /// Records of each audience
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// People of whom the audiences are parts that overlap
    #[arg(long, default_value_t = 2_000_000)]
    people: u64,
    /// Rows of a request
    #[arg(long, default_value_t = 10_000)]
    batch_rows: u64,
    /// Number of tasks that are sent at the same time
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// The folder of the data; replaced
    #[arg(long, default_value = "target/bench-uploads")]
    data: PathBuf,
}

impl Options {
    fn accounts(&self) -> u64 {
        self.audiences.div_ceil(MAX_PER_ACCOUNT)
    }

    /// The ids of the users of an audience: the first one has the lowest, the last one the highest.
    fn users(&self, audience: u64) -> Range<u64> {
        let shift = (self.people - self.records) / self.audiences.saturating_sub(1).max(1);
        audience * shift..audience * shift + self.records
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.people >= options.records, "--people is below --records");
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data)?;
    }
    write_tables(options)?;
    // The simulator runs in this process.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let config = MetaSimConfig {
        tokens: vec![TOKEN.1.to_owned()],
        // More than can be called.
        quota_calls_per_hour: Some(u64::MAX / 2),
        ..MetaSimConfig::default()
    };
    let sim = MetaSim::start(config).await?;
    let spec = options.data.join("throng.yaml");
    std::fs::write(&spec, spec_text(options, &sim))?;
    let (dir, throng) = (options.data.join("node"), options.programs.throng()?);
    let variables = [(TOKEN.0, TOKEN.1.to_owned())];
    let begun = Sample::before_start()?;
    let node = Node::start_with(&throng, &dir, &spec, &[], &variables)?;
    let http = node.http()?;
    let mut workers_peak_kib = 0;
    let is_one_scan = wait_for_builds(options, &node, &http, &mut workers_peak_kib).await?;
    let built = Sample::read(&node)?;
    let of_build = json!({
        "figure": "uploads_build", "audiences": options.audiences, "one_scan": is_one_scan,
        "build": built.since(&begun).figures(),
    });
    println!("{of_build}");
    wait_for_deliveries(options, &node, &http, &sim, &mut workers_peak_kib).await?;
    let delivered = Sample::read(&node)?;
    let (uploads, rows) = sent(&sim);
    let scans = metric(&http, &node.url, "throng_identifier_scans_total").await?;
    let (upload, all) = (delivered.since(&built), delivered.since(&begun));
    let rows_per_second = rows as f64 / all.seconds;
    let line = json!({
        "figure": "uploads", "audiences": options.audiences, "records": options.records,
        "people": options.people, "accounts": options.accounts(),
        "batch_rows": options.batch_rows, "workers": options.workers, "one_scan": is_one_scan,
        "identifier_scans": scans, "uploads": uploads, "rows": rows,
        "build": built.since(&begun).figures(), "upload": upload.figures(), "all": all.figures(),
        "rates": {
            "rows_per_second": rows_per_second,
            "rows_per_core_second": rows as f64 / all.core_seconds(),
            "rows_per_core_second_of_upload": rows as f64 / upload.core_seconds(),
            "hours_of_3_billion_rows": THREE_BILLION / rows_per_second / 3_600.0,
        },
        "peak_kib": node.peak_kib()?, "workers_peak_kib": workers_peak_kib,
    });
    println!("{line}");
    let expected: Vec<(String, Range<u64>)> =
        (0..options.audiences).map(|n| (format!("list {n}"), options.users(n))).collect();
    lists::compare(&sim, &expected)
}

/// The people, and a row for each audience.
fn write_tables(options: &Options) -> Result<()> {
    let people = options.data.join("lake/people");
    std::fs::create_dir_all(&people)?;
    let per_file = options.people.div_ceil(FILES);
    for file in 0..FILES {
        let mut rows = BufWriter::new(File::create(people.join(format!("{file}.csv")))?);
        writeln!(rows, "id,email")?;
        for user in file * per_file..((file + 1) * per_file).min(options.people) {
            writeln!(rows, "{user},{}", email(user))?;
        }
        rows.flush()?;
    }
    let mut segments = BufWriter::new(File::create(options.data.join("lake/segments.csv"))?);
    writeln!(segments, "segment,low,high,account")?;
    for audience in 0..options.audiences {
        let (users, account) = (options.users(audience), audience / MAX_PER_ACCOUNT);
        writeln!(segments, "{audience},{},{},meta-{account}", users.start, users.end)?;
    }
    Ok(segments.flush()?)
}

/// The audiences and syncs are from one template each.
fn spec_text(options: &Options, sim: &MetaSim) -> String {
    let Options { audiences, batch_rows, workers, .. } = options;
    let (token, url) = (TOKEN.0, sim.url());
    let destinations: String = (0..options.accounts())
        .map(|account| {
            format!(
                "  - {{ name: meta-{account}, platform: meta, account: act_{}, access_token: \"env:{token}\", base_url: \"{url}\" }}\n",
                account + 1
            )
        })
        .collect();
    format!(
        "version: 1
sources:
  - {{ name: shop, path: lake }}
audiences:
  - name: \"a-{{segment}}\"
    for_each: {{ sql: \"SELECT segment, low, high FROM shop.segments\", max_rows: {audiences} }}
    sql: \"SELECT id FROM shop.people WHERE id >= $low AND id < $high\"
destinations:
{destinations}syncs:
  - name: \"s-{{segment}}\"
    for_each: {{ sql: \"SELECT segment, account FROM shop.segments\", max_rows: {audiences} }}
    audience: \"a-{{segment}}\"
    destination: \"{{account}}\"
    platform_name: \"list {{segment}}\"
    batch_rows: {batch_rows}
    identifiers: {{ key: id, sql: \"SELECT id, email FROM shop.people\", columns: {{ email: EMAIL }} }}
node:
  activation_workers: {workers}
"
    )
}

/// Waits until all audiences are published. Returns whether they were built in one scan: those of one scan are claimed
/// before it, and end after it.
async fn wait_for_builds(
    options: &Options,
    node: &Node,
    http: &reqwest::Client,
    workers_peak_kib: &mut u64,
) -> Result<bool> {
    let (url, begun) = (format!("{}/v1/audiences", node.url), Instant::now());
    let mut is_one_scan = None;
    loop {
        ensure!(begun.elapsed() < TIMEOUT, "not built after {TIMEOUT:?}");
        *workers_peak_kib = node.workers_peak_kib()?.max(*workers_peak_kib);
        let AudienceList { audiences, .. } = get(http, &url).await?;
        let mut ended = 0;
        for audience in &audiences {
            ended += u64::from(completed(audience)?.is_some());
        }
        if ended > 0 && is_one_scan.is_none() {
            is_one_scan = Some(!audiences.iter().any(is_waiting));
        }
        if ended == options.audiences {
            return Ok(is_one_scan == Some(true));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until all syncs have delivered their audience.
async fn wait_for_deliveries(
    options: &Options,
    node: &Node,
    http: &reqwest::Client,
    sim: &MetaSim,
    workers_peak_kib: &mut u64,
) -> Result<()> {
    let (rows, begun) = (options.audiences * options.records, Instant::now());
    loop {
        ensure!(begun.elapsed() < TIMEOUT, "not delivered after {TIMEOUT:?}");
        *workers_peak_kib = node.workers_peak_kib()?.max(*workers_peak_kib);
        // The counts of the simulator cost the node nothing.
        if sent(sim).1 >= rows && lists::delivered(http, node).await? == options.audiences {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The uploads that the simulator has counted, and their rows.
fn sent(sim: &MetaSim) -> (u64, u64) {
    let counts = sim.requests();
    counts.calls.get("add_users").map_or((0, 0), |calls| (calls.requests, calls.rows))
}

/// The CPU times until a moment.
struct Sample {
    at: Instant,
    node: CpuTime,
    workers: CpuTime,
    /// Of this process: the simulator, and the polls.
    simulator: CpuTime,
}

impl Sample {
    /// The moment before the node is started.
    fn before_start() -> Result<Self> {
        let (node, workers) = Default::default();
        Ok(Self { at: Instant::now(), node, workers, simulator: own_cpu()? })
    }

    fn read(node: &Node) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            node: node.cpu()?,
            workers: node.workers_cpu()?,
            simulator: own_cpu()?,
        })
    }

    fn since(&self, earlier: &Self) -> Phase {
        Phase {
            seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            node: self.node.since(earlier.node),
            workers: self.workers.since(earlier.workers),
            simulator: self.simulator.since(earlier.simulator),
        }
    }
}

/// The time between two moments.
struct Phase {
    seconds: f64,
    node: CpuTime,
    workers: CpuTime,
    simulator: CpuTime,
}

impl Phase {
    /// The CPU time of the node and of its query workers.
    fn core_seconds(&self) -> f64 {
        self.node.plus(self.workers).seconds()
    }

    fn figures(&self) -> Value {
        json!({
            "seconds": self.seconds, "core_seconds": self.core_seconds(), "node_cpu": self.node,
            "workers_cpu": self.workers, "simulator_cpu": self.simulator,
        })
    }
}
