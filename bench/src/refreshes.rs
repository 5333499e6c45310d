//! Thousands of small refreshes of one node. Reports memory, threads, file descriptors and disk usage,
//! compared with those after the first hundred refreshes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use throng_api::AudienceList;
use throng_model::{Entropy, SplitMix64};

use crate::Programs;
use crate::node::{Node, Usage, completed, disk_kib, get, runtime, served_version};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of refreshes of all audiences
    #[arg(long, default_value_t = 10_000)]
    refreshes: u64,
    /// Number of audiences, refreshed in turn
    #[arg(long, default_value_t = 10)]
    audiences: u64,
    /// Number of rows that each refresh reads
    #[arg(long, default_value_t = 60_000)]
    rows: u64,
    /// The folder of the data; replaced
    #[arg(long, default_value = "target/bench-refreshes")]
    data: PathBuf,
}

/// The numbers of refreshes after which the node is measured.
const MEASURED_AFTER: [u64; 9] = [100, 200, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000];
/// The allowed growth of memory from the first measurement to the last one.
const MAX_GROWTH: f64 = 1.2;
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The least interval between polls, as a multiple of the time that the last one took: lists of thousands of audiences
/// would otherwise take most of the time of the node that is measured.
const POLL_COSTS: u32 = 30;

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data)?;
    }
    std::fs::create_dir_all(options.data.join("lake"))?;
    write_rows(options)?;
    let spec = write_spec(options)?;
    let dir = options.data.join("node");
    let node = Node::start(&options.programs.throng()?, &dir, &spec)?;
    runtime()?.block_on(refresh(options, &node, &dir))
}

fn write_rows(options: &Options) -> Result<()> {
    let mut random = SplitMix64::new(1);
    let mut text = String::from("customer,amount\n");
    for _ in 0..options.rows {
        let _ = writeln!(text, "c{:06},{}", random.below(20_000), random.below(100));
    }
    Ok(std::fs::write(options.data.join("lake/orders.csv"), text)?)
}

fn write_spec(options: &Options) -> Result<PathBuf> {
    let mut text = "version: 1\nsources:\n  - { name: shop, path: lake }\naudiences:\n".to_owned();
    for number in 0..options.audiences {
        let least = 170 + number * 5;
        let _ = writeln!(
            text,
            "  - name: a{number}\n    keep_snapshots: 2\n    sql: SELECT customer FROM shop.orders GROUP BY customer HAVING sum(amount) >= {least}"
        );
    }
    let path = options.data.join("throng.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn refresh(options: &Options, node: &Node, dir: &Path) -> Result<()> {
    let http = node.http()?;
    let start = Instant::now();
    let mut done = wait_for_round(&http, node, options, 1).await?;
    let mut first: Option<Usage> = None;
    for round in 2.. {
        for number in 0..options.audiences {
            let url = format!("{}/v1/audiences/a{number}/refresh?force=true", node.url);
            let response = http.post(url).json(&json!({})).send().await?;
            if !response.status().is_success() {
                bail!("a refresh was not queued: {}", response.status());
            }
        }
        let before = done;
        done = wait_for_round(&http, node, options, round).await?;
        let last = done >= options.refreshes;
        if !last && !MEASURED_AFTER.iter().any(|count| (before + 1..=done).contains(count)) {
            continue;
        }
        let usage = node.usage()?;
        let base = first.get_or_insert(usage);
        let growth = usage.anonymous_kib as f64 / base.anonymous_kib as f64;
        let line = json!({ "figure": "refreshes", "refreshes": done,
            "seconds": start.elapsed().as_secs_f64(), "anonymous_kib": usage.anonymous_kib,
            "growth": growth, "threads": usage.threads, "handles": usage.handles,
            "maps": usage.maps, "disk_kib": disk_kib(dir)? });
        println!("{line}");
        if last {
            if growth > MAX_GROWTH {
                bail!("memory grew {growth:.2} times; the limit is {MAX_GROWTH}");
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until every audience has had `round` refreshes. Returns the number of all refreshes.
async fn wait_for_round(
    http: &reqwest::Client,
    node: &Node,
    options: &Options,
    round: u64,
) -> Result<u64> {
    loop {
        let (mut seen, mut are_served, mut cursor) = (0, true, String::new());
        let start = Instant::now();
        while are_served && seen < options.audiences {
            // The most rows that a page of the list can have.
            let url = format!("{}/v1/audiences?sort=name&limit=1000{cursor}", node.url);
            let AudienceList { audiences, next_cursor, .. } = get(http, &url).await?;
            for audience in &audiences {
                completed(audience)?;
            }
            seen += audiences.len() as u64;
            are_served = audiences.iter().all(|audience| served_version(audience) >= round);
            match next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if are_served && seen == options.audiences {
            return Ok(options.audiences * round);
        }
        tokio::time::sleep(MIN_POLL_INTERVAL.max(start.elapsed() * POLL_COSTS)).await;
    }
}
