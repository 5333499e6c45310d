//! Hours of an ad account's quota in minutes: audiences for which several hours of calls are needed, to a simulated Meta
//! on the node's accelerated clock. Fails if a call is throttled, if less than 95 % of the quota of a full hour is used,
//! or if a list on the platform is not that of its audience.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::json;
use throng_model::{Clock, Timestamp};
use throng_sim::clock_file::SimulatedClock;
use throng_sim::meta::{MetaSim, MetaSimConfig, Tier};

use crate::Programs;
use crate::lists::{self, TOKEN, delivered, email};
use crate::node::Node;

/// The simulated time at the start: 6:00 on a day without a change of the UTC offset.
const START: Timestamp = Timestamp(1_795_586_400_000_000);
const HOUR_MICROS: i64 = 3_600_000_000;
/// Between two looks at the simulator's counts, in real time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Looks at the counts between two looks at the syncs, which cost CPU time of the node.
const SAMPLES_PER_POLL: u64 = 20;
const TIMEOUT: Duration = Duration::from_secs(1_800);
/// The quota of the tier `Limited`: calls per hour, and more for each audience.
const QUOTA: (u64, u64) = (5_000, 40);
/// `error.code` of throttled calls.
const THROTTLED: [i64; 4] = [4, 17, 613, 80_003];
const MIN_SHARE: f64 = 0.95;
/// Users by which the list of an audience differs from that of the next one at each end.
const SHIFT: u64 = 100;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of audiences
    #[arg(long, default_value_t = 50)]
    audiences: u64,
    /// Records of each audience
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Rows of a request. The default is far below the platform's 10,000, so that hours of quota are needed
    #[arg(long, default_value_t = 80)]
    batch_rows: u64,
    /// Number of tasks that are sent at the same time
    #[arg(long, default_value_t = 8)]
    workers: u64,
    /// Speed of the clock, as a multiple of real time
    #[arg(long, default_value_t = 40)]
    speed: i64,
    /// The folder of the data; replaced
    #[arg(long, default_value = "target/bench-quota")]
    data: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data)?;
    }
    std::fs::create_dir_all(options.data.join("lake"))?;
    // The simulator runs in this process.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let clock = options.data.join("clock");
    let started = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    // The real time, the simulated time at that moment, and the speed.
    std::fs::write(&clock, format!("{started} {} {}\n", START.0, options.speed))?;
    let config = MetaSimConfig {
        tokens: vec![TOKEN.1.to_owned()],
        tier: Tier::Limited,
        clock: Arc::new(SimulatedClock::new(clock.clone())),
        ..MetaSimConfig::default()
    };
    let time = Arc::clone(&config.clock);
    let sim = MetaSim::start(config).await?;
    let spec = write_spec(options, &sim)?;
    let node = start_node(options, &spec, &clock)?;
    let started = Instant::now();
    let hours = count_hours(options, &node, &sim, &*time).await?;
    let seconds = started.elapsed().as_secs_f64();
    let counts = sim.requests();
    let calls: u64 = counts.calls.values().map(|kind| kind.requests).sum();
    let throttled: u64 = counts
        .calls
        .values()
        .flat_map(|kind| &kind.errors)
        .filter(|(code, _)| THROTTLED.contains(code))
        .map(|(_, errors)| errors)
        .sum();
    let (uploads, rows) = counts.calls.get("add_users").map_or((0, 0), |c| (c.requests, c.rows));
    let line = json!({
        "figure": "quota", "audiences": options.audiences, "batch_rows": options.batch_rows,
        "calls": calls, "uploads": uploads, "rows": rows, "throttled": throttled,
        "full_hours": hours.shares.len(), "virtual_seconds": hours.seconds, "seconds": seconds,
    });
    println!("{line}");
    let expected: Vec<_> =
        (0..options.audiences).map(|n| (format!("list {n}"), users(options, n))).collect();
    lists::compare(&sim, &expected)?;
    ensure!(throttled == 0, "{throttled} calls were throttled");
    ensure!(!hours.shares.is_empty(), "the quota of an hour was enough: raise --records");
    let lowest = hours.shares.iter().copied().fold(f64::INFINITY, f64::min);
    ensure!(lowest >= MIN_SHARE, "{:.1} % of the quota was used in an hour", lowest * 100.0);
    Ok(())
}

fn start_node(options: &Options, spec: &Path, clock: &Path) -> Result<Node> {
    let clock = clock.to_string_lossy();
    let (dir, throng) = (options.data.join("node"), options.programs.throng()?);
    let variables = [(TOKEN.0, TOKEN.1.to_owned())];
    Node::start_with(&throng, &dir, spec, &["--clock", &clock], &variables)
}

/// The users of an audience: from, and to.
fn users(options: &Options, audience: u64) -> std::ops::Range<u64> {
    audience * SHIFT..audience * SHIFT + options.records
}

fn write_spec(options: &Options, sim: &MetaSim) -> Result<PathBuf> {
    let mut people = "id,email\n".to_owned();
    for user in 0..options.audiences * SHIFT + options.records {
        writeln!(people, "{user},{}", email(user))?;
    }
    std::fs::write(options.data.join("lake/people.csv"), people)?;
    let mut text = "version: 1\nsources:\n  - { name: shop, path: lake }\naudiences:\n".to_owned();
    for audience in 0..options.audiences {
        let users = users(options, audience);
        writeln!(
            text,
            "  - {{ name: a-{audience}, sql: \"SELECT id FROM shop.people WHERE id >= {} AND id < {}\" }}",
            users.start, users.end
        )?;
    }
    writeln!(
        text,
        "destinations:\n  - {{ name: meta, platform: meta, account: act_1, access_token: \"env:{}\", base_url: \"{}\" }}\nsyncs:",
        TOKEN.0,
        sim.url()
    )?;
    for audience in 0..options.audiences {
        writeln!(
            text,
            "  - {{ name: s-{audience}, audience: a-{audience}, destination: meta, batch_rows: {}, platform_name: \"list {audience}\", identifiers: {{ key: id, sql: \"SELECT id, email FROM shop.people\", columns: {{ email: EMAIL }} }} }}",
            options.batch_rows
        )?;
    }
    writeln!(text, "node:\n  activation_workers: {}", options.workers)?;
    let path = options.data.join("throng.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// What was measured while there was demand.
struct Hours {
    /// The used share of the quota of each full hour.
    shares: Vec<f64>,
    /// Simulated seconds from the first call to the last delivery.
    seconds: f64,
}

/// Counts the calls of each hour from the first call on, until all audiences are delivered.
async fn count_hours(
    options: &Options,
    node: &Node,
    sim: &MetaSim,
    clock: &dyn Clock,
) -> Result<Hours> {
    let http = node.http()?;
    let started = Instant::now();
    let (mut first, mut before, mut shares) = (None, 0, Vec::new());
    let mut sample = 0_u64;
    loop {
        ensure!(started.elapsed() < TIMEOUT, "not delivered after {TIMEOUT:?}");
        let now = clock.now();
        let calls: u64 = sim.requests().calls.values().map(|kind| kind.requests).sum();
        if first.is_none() && calls > 0 {
            first = Some(now);
        }
        let micros = first.map_or(0, |first| now.0 - first.0);
        let hour = i64::try_from(shares.len())? + 1;
        if micros >= hour * HOUR_MICROS {
            let quota = QUOTA.0 + QUOTA.1 * sim.audience_count() as u64;
            let share = (calls - before) as f64 / quota as f64;
            println!(
                "{}",
                json!({ "figure": "quota_hour", "hour": hour, "calls": calls - before, "quota": quota, "share": share })
            );
            shares.push(share);
            before = calls;
        }
        if sample.is_multiple_of(SAMPLES_PER_POLL)
            && delivered(&http, node).await? == options.audiences
        {
            return Ok(Hours { shares, seconds: micros as f64 / 1e6 });
        }
        sample += 1;
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}
