//! Two simulated days of a node in minutes: scheduled refreshes and steady traffic with a fast clock. Reports
//! memory, threads, file descriptors and disk usage over the days; memory is compared with that at the end of
//! the first day, when the node holds the ids of a day.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::json;
use throng_api::AudienceList;
use throng_model::Timestamp;

use crate::Programs;
use crate::node::{Node, completed, disk_kib, get, runtime, served_version};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Hours of simulated time
    #[arg(long, default_value_t = 48)]
    hours: u64,
    /// The hour with whose memory the last hour is compared. A node holds the event ids of a day, so it grows
    /// for the first day
    #[arg(long, default_value_t = 24)]
    baseline_hours: u64,
    /// Speed of the clock, as a multiple of real time
    #[arg(long, default_value_t = 96)]
    speed: i64,
    /// Number of audiences, each refreshed every half hour
    #[arg(long, default_value_t = 20)]
    audiences: u64,
    /// Events per request; there are twenty requests per second
    #[arg(long, default_value_t = 50)]
    events: u64,
    /// The folder of the data; replaced
    #[arg(long, default_value = "target/bench-day")]
    data: PathBuf,
}

const ROWS: u32 = 20_000;
const AD_GROUPS: u64 = 20;
/// Between two requests with events.
const REQUEST_INTERVAL: Duration = Duration::from_millis(50);
/// Hours of simulated time between two measurements.
const MEASUREMENT_HOURS: u64 = 3;
/// The allowed growth of memory from the baseline to the last measurement.
const MAX_GROWTH: f64 = 1.2;
const HOUR_MICROS: i64 = 3_600_000_000;
/// The simulated time at the start: 6:00 on a day without a change of the UTC offset.
const START: Timestamp = Timestamp(1_795_586_400_000_000);

pub(crate) fn run(options: &Options) -> Result<()> {
    // Otherwise the last measurement is the baseline, and nothing ever grows.
    ensure!(
        options.baseline_hours < options.hours,
        "--baseline-hours {} is not below --hours {}",
        options.baseline_hours,
        options.hours
    );
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data)?;
    }
    std::fs::create_dir_all(options.data.join("lake"))?;
    let rows: String = (0..ROWS).map(|n| format!("c{n:06},{}\n", n % 100)).collect();
    std::fs::write(options.data.join("lake/orders.csv"), format!("customer,amount\n{rows}"))?;
    let spec = write_spec(options)?;
    let clock = options.data.join("clock");
    let started = real_time_micros()?;
    // The real time, the simulated time at that moment, and the speed.
    std::fs::write(&clock, format!("{started} {} {}\n", START.0, options.speed))?;
    let dir = options.data.join("node");
    let clock = clock.to_string_lossy();
    let arguments = ["--clock", &clock];
    let node = Node::start_with(&options.programs.throng()?, &dir, &spec, &arguments, &[])?;
    runtime()?.block_on(send_and_measure(options, &node, &dir, started))
}

fn real_time_micros() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

fn write_spec(options: &Options) -> Result<PathBuf> {
    let mut text = "version: 1\nsources:\n  - { name: shop, path: lake }\naudiences:\n".to_owned();
    for number in 0..options.audiences {
        // `now()`: the file never changes, and every firing is to be a whole refresh.
        let _ = writeln!(
            text,
            "  - name: a{number}\n    keep_snapshots: 2\n    schedule: {{ cron: \"{},{} * * * *\" }}\n    sql: SELECT customer FROM shop.orders WHERE amount >= {} AND now() IS NOT NULL",
            number % 30,
            number % 30 + 30,
            number % 50
        );
    }
    text.push_str("advertisers:\n  - { name: shop, currency: USD, time_zone: UTC }\ncampaigns:\n  - { name: c, advertiser: shop }\nad_groups:\n");
    for number in 0..AD_GROUPS {
        let _ = writeln!(
            text,
            "  - {{ name: g{number}, campaign: c, per: impression, price: \"0.01\", daily_budget: \"100000\", impression_rate: 0.9 }}"
        );
    }
    let path = options.data.join("throng.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn send_and_measure(options: &Options, node: &Node, dir: &Path, started: i64) -> Result<()> {
    let http = node.http()?;
    let (mut sent, mut next_measurement) = (0_u64, MEASUREMENT_HOURS);
    let mut base = node.usage()?;
    loop {
        let elapsed = (real_time_micros()? - started).saturating_mul(options.speed);
        let now = Timestamp(START.0.saturating_add(elapsed));
        let lines = events(sent, options.events, now);
        let response = http
            .post(format!("{}/v1/events", node.url))
            .header("content-type", "application/x-ndjson")
            .body(lines)
            .send()
            .await?;
        ensure!(response.status().is_success(), "events: {}", response.status());
        sent += options.events;
        if elapsed >= HOUR_MICROS.saturating_mul(i64::try_from(next_measurement)?) {
            let usage = node.usage()?;
            if next_measurement <= options.baseline_hours {
                base = usage;
            }
            let growth = usage.anonymous_kib as f64 / base.anonymous_kib as f64;
            let refreshes = refreshes(&http, node).await?;
            println!(
                "{}",
                json!({ "figure": "day", "hours": next_measurement, "refreshes": refreshes, "events": sent,
                    "anonymous_kib": usage.anonymous_kib, "growth": growth,
                    "threads": usage.threads, "handles": usage.handles, "maps": usage.maps,
                    "disk_kib": disk_kib(dir)? })
            );
            if next_measurement >= options.hours {
                ensure!(growth <= MAX_GROWTH, "memory grew {growth:.2} times");
                return Ok(());
            }
            next_measurement += MEASUREMENT_HOURS;
        }
        tokio::time::sleep(REQUEST_INTERVAL).await;
    }
}

/// Alternating insertions and impressions as NDJSON.
fn events(from: u64, count: u64, at: Timestamp) -> String {
    let lines = (from..from + count).map(|number| {
        let kind = if number % 2 == 0 { "insertion" } else { "impression" };
        let ad_group = format!("g{}", number / 2 % AD_GROUPS);
        let event =
            json!({ "id": format!("e{number}"), "kind": kind, "ad_group": ad_group, "at": at.to_string() });
        format!("{event}\n")
    });
    lines.collect()
}

/// The number of published snapshots. A failed refresh is an error.
async fn refreshes(http: &reqwest::Client, node: &Node) -> Result<u64> {
    let AudienceList { audiences, .. } = get(http, &format!("{}/v1/audiences", node.url)).await?;
    let mut published = 0;
    for audience in &audiences {
        completed(audience)?;
        published += served_version(audience);
    }
    Ok(published)
}
