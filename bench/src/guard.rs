//! The effect of a query on the node that runs it: decisions and feed frames with an idle node, and while a
//! cross join that never ends keeps a query worker busy on every processor.
//!
//! The refresh starts between the two measurements; each round starts a new node.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use serde::Serialize;
use serde_json::json;
use throng_api::{AudienceDetail, AudienceRefreshState, DecideRequest};
use throng_gate::feed::Frame;

use crate::Programs;
use crate::node::{Node, get, runtime};

/// Rows of the table that is joined with itself.
const ROWS: u32 = 3_000;
const AD_GROUPS: usize = 50;
/// Milliseconds between two frames.
const FEED_INTERVAL_MS: u64 = 250;
/// The time before the first measurement.
const WARM_UP: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Seconds of each run
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Number of runs of both
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Decisions per second
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = runtime()?;
    for round in 1..=options.rounds {
        let dir = tempfile::tempdir()?;
        let spec = spec(dir.path())?;
        let node = Node::start(&options.programs.throng()?, &dir.path().join("node"), &spec)?;
        let (idle, busy) = runtime.block_on(async {
            let http = node.http()?;
            post(&http, &format!("{}/v1/audiences/endless/cancel", node.url)).await?;
            let idle = measure(options, &http, &node.url).await?;
            post(&http, &format!("{}/v1/audiences/endless/refresh", node.url)).await?;
            wait_until_processing(&http, &node.url).await?;
            let busy = measure(options, &http, &node.url).await?;
            wait_until_processing(&http, &node.url).await?;
            anyhow::Ok((idle, busy))
        })?;
        let ratio = busy.p99_ms / idle.p99_ms;
        let line = json!({ "figure": "guard", "round": round, "idle": idle, "cross_join": busy,
            "p99_ratio": ratio });
        println!("{line}");
    }
    Ok(())
}

/// Writes a spec with one audience whose query never ends, and some ad groups.
fn spec(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(dir.join("lake"))?;
    let rows: String = (0..ROWS).map(|n| format!("u{n},{n}\n")).collect();
    std::fs::write(dir.join("lake/t.csv"), format!("id,n\n{rows}"))?;
    let ad_groups: String = (0..AD_GROUPS)
        .map(|n| format!("  - {{ name: a{n}, campaign: c, per: impression, price: \"0.1\", daily_budget: \"1000\", impression_rate: 0.5 }}\n"))
        .collect();
    let path = dir.join("throng.yaml");
    std::fs::write(
        &path,
        format!(
            "version: 1\nsources:\n  - {{ name: shop, path: lake }}\naudiences:\n  - name: endless\n    sql: SELECT a.id FROM shop.t a, shop.t b, shop.t c, shop.t d WHERE a.n + b.n + c.n + d.n = -1\nadvertisers:\n  - {{ name: shop, currency: USD, time_zone: UTC }}\ncampaigns:\n  - {{ name: c, advertiser: shop }}\nad_groups:\n{ad_groups}node:\n  feed_interval_ms: {FEED_INTERVAL_MS}\n  log_partitions: 1\n"
        ),
    )?;
    Ok(path)
}

async fn post(http: &reqwest::Client, url: &str) -> Result<()> {
    let response = http.post(url).json(&json!({})).send().await?;
    ensure!(response.status().is_success(), "{url}: {}", response.status());
    Ok(())
}

/// Waits until the endless refresh is being processed.
async fn wait_until_processing(http: &reqwest::Client, url: &str) -> Result<()> {
    loop {
        let AudienceDetail { audience, .. } =
            get(http, &format!("{url}/v1/audiences/endless")).await?;
        match audience.refresh.as_ref().map(|newest| newest.refresh.state) {
            Some(AudienceRefreshState::Processing) => return Ok(()),
            Some(
                state @ (AudienceRefreshState::Failed
                | AudienceRefreshState::Held
                | AudienceRefreshState::Completed),
            ) => anyhow::bail!("the endless refresh is {state}"),
            Some(AudienceRefreshState::Scheduled | AudienceRefreshState::Halted) | None => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// The figures of a run.
#[derive(Serialize)]
struct Figures {
    decisions: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    frames: usize,
    latest_frame_ms: f64,
    feed_interval_ms: u64,
}

/// Makes decisions at a constant rate and receives frames at the same time.
async fn measure(options: &Options, http: &reqwest::Client, url: &str) -> Result<Figures> {
    let started = Instant::now();
    let duration = WARM_UP + Duration::from_secs(options.seconds);
    let (latencies, intervals) = tokio::try_join!(
        decide(options, http, url, started, duration),
        frames(http, url, started, duration)
    )?;
    let mut latencies = latencies;
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let index = (latencies.len().saturating_sub(1) as f64 * q).round() as usize;
        latencies.get(index).copied().unwrap_or(0) as f64 / 1e3
    };
    let longest = intervals.iter().copied().max().unwrap_or_default().as_secs_f64() * 1e3;
    Ok(Figures {
        decisions: latencies.len(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        max_ms: quantile(1.0),
        frames: intervals.len(),
        latest_frame_ms: (longest - FEED_INTERVAL_MS as f64).max(0.0),
        feed_interval_ms: FEED_INTERVAL_MS,
    })
}

/// The latency of each decision, in microseconds.
async fn decide(
    options: &Options,
    http: &reqwest::Client,
    url: &str,
    started: Instant,
    duration: Duration,
) -> Result<Vec<u64>> {
    let names: Vec<String> = (0..AD_GROUPS).map(|n| format!("a{n}")).collect();
    let body =
        DecideRequest { user: Some("u1".to_owned()), ad_groups: names, record_insertion: false };
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / options.rate);
    let mut latencies = Vec::new();
    while started.elapsed() < duration {
        // From the time when the decision is due: a slow response delays the next decisions too, and
        // their latency would be underestimated (coordinated omission).
        let due = ticks.tick().await.into_std();
        let response = http.post(format!("{url}/v1/decide")).json(&body).send().await?;
        ensure!(response.status().is_success(), "decide: {}", response.status());
        response.bytes().await?;
        if started.elapsed() > WARM_UP {
            latencies.push(u64::try_from(due.elapsed().as_micros())?);
        }
    }
    Ok(latencies)
}

/// The intervals between frames.
async fn frames(
    http: &reqwest::Client,
    url: &str,
    started: Instant,
    duration: Duration,
) -> Result<Vec<Duration>> {
    let mut bytes = http.get(format!("{url}/v1/feed?gate=guard")).send().await?.bytes_stream();
    let (mut buffer, mut intervals, mut last) = (Vec::new(), Vec::new(), None::<Instant>);
    while started.elapsed() < duration {
        let Some(chunk) = bytes.next().await else { break };
        buffer.extend_from_slice(&chunk?);
        while let Some((length, after)) = buffer.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, rest)) = after.split_at_checked(length) else { break };
            Frame::decode(frame)?;
            let now = Instant::now();
            if let Some(last) = last.replace(now).filter(|_| started.elapsed() > WARM_UP) {
                intervals.push(now - last);
            }
            buffer = rest.to_vec();
        }
    }
    Ok(intervals)
}
