//! Spend aggregation from a topic: an aggregator process, compared with the same design in Kafka Streams
//! (`bench/kafka-streams`) on the same messages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{Deployment, ad_groups, metric};
use crate::Programs;
use crate::node::runtime;

const AD_GROUPS: u64 = 1_000;
const PARTITIONS: u64 = 4;
/// After this time a process that has ended is no longer in the list of nodes.
const NODE_EXPIRY: Duration = Duration::from_secs(35);
const TIMEOUT: Duration = Duration::from_secs(600);
/// A response with all metrics costs CPU time, which is measured: more polls would change the result.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// The Kafka Streams application; build it with `mvn -q -B package` in bench/kafka-streams
    #[arg(long, default_value = "bench/kafka-streams/target/spend-aggregator.jar")]
    jar: PathBuf,
    /// Events per measurement: the JVM needs some millions to warm up
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Events per message, one measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    batches: Vec<u64>,
    /// Number of runs of each, in alternating order
    #[arg(long, default_value_t = 2)]
    rounds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.jar.exists(), "{} is missing: build it", options.jar.display());
    for round in 1..=options.rounds {
        for batch in &options.batches {
            let topic = Topic::fill(options, *batch)?;
            let streams =
                || anyhow::Ok((topic.streams(options, false)?, topic.streams(options, true)?));
            let (ours, (peer, once)) = if round % 2 == 1 {
                let ours = topic.throng(options)?;
                (ours, streams()?)
            } else {
                let streams = streams()?;
                (topic.throng(options)?, streams)
            };
            let rate = |value: &Value| value["events_per_core_second"].as_f64();
            let ratio = |peer: &Value| Some(rate(&ours)? / rate(peer)?);
            let line = json!({
                "figure": "aggregate", "round": round, "events": options.events, "batch": batch,
                "throng": ours, "kafka_streams": peer, "kafka_streams_once": once,
                "ratio": ratio(&peer).context("a rate is missing")?,
                "ratio_once": ratio(&once).context("a rate is missing")?,
            });
            println!("{line}");
        }
    }
    Ok(())
}

/// A topic full of insertions.
struct Topic {
    deployment: Deployment,
    name: String,
}

impl Topic {
    fn fill(options: &Options, batch: u64) -> Result<Self> {
        let names = || (0..AD_GROUPS).map(|number| format!("ad-group-{number:04}"));
        let spec = format!("version: 1\n{}", ad_groups(names()));
        let more = format!("  log_partitions: {PARTITIONS}\n");
        let deployment = Deployment::new(options.programs.throng()?, &spec, &more)?;
        // Applies the spec, creates the topics, and ends.
        drop(deployment.start(
            "first",
            "api,schedule,build,activate,aggregate,relay,lookup",
            false,
        )?);
        let first_ended = Instant::now();
        // Throng assigns keys to partitions by another hash than the Java client.
        let partitions: String = names()
            .map(|name| format!("{name} {}\n", xxh3_64(name.as_bytes()) % PARTITIONS))
            .collect();
        let file = deployment.path().join("key-partitions");
        std::fs::write(&file, partitions)?;
        let name = format!("{}.events", deployment.name);
        java(Command::new("java").arg("-cp").arg(&options.jar).arg("throng.bench.Produce").args(
            [
                "--bootstrap",
                &deployment.kafka,
                "--topic",
                &name,
                "--events",
                &options.events.to_string(),
                "--batch",
                &batch.to_string(),
                "--ad-groups",
                &AD_GROUPS.to_string(),
                "--partitions",
                &PARTITIONS.to_string(),
                "--places",
                path(&file)?,
            ],
        ))?;
        // Until the process that created the topics has expired: no standby replica of its partitions
        // may run during the measurement.
        std::thread::sleep(NODE_EXPIRY.saturating_sub(first_ended.elapsed()));
        Ok(Self { deployment, name })
    }

    /// Runs the Kafka Streams application; `once`: with deduplication of events, as Throng does.
    fn streams(&self, options: &Options, once: bool) -> Result<Value> {
        let name = format!("{}-{}", self.deployment.name, if once { "once" } else { "streams" });
        java(Command::new("java").arg("-Xmx2g").arg("-jar").arg(&options.jar).args([
            "--bootstrap",
            &self.deployment.kafka,
            "--input",
            &self.name,
            "--output",
            &name,
            "--application-id",
            &name,
            "--threads",
            "2",
            "--window",
            "tumbling",
            "--once",
            if once { "true" } else { "false" },
            "--events",
            &options.events.to_string(),
        ]))
    }

    /// Runs Throng's aggregator. Measures all threads from before the first event is applied until the last
    /// one is, with windows, frames and checkpoints.
    fn throng(&self, options: &Options) -> Result<Value> {
        let node = self.deployment.start("aggregator", "aggregate", true)?;
        let http = node.http()?;
        let runtime = runtime()?;
        let applied = || {
            let applied = metric(&http, &node.url, "throng_events_applied_total");
            runtime.block_on(applied).map(|n| n as u64)
        };
        let (mut before, mut started) = (node.cpu_seconds()?, Instant::now());
        loop {
            let cpu = node.cpu_seconds()?;
            match applied()? {
                0 => (before, started) = (cpu, Instant::now()),
                count if count >= options.events => {
                    ensure!(count == options.events, "{count} applied of {}", options.events);
                    break;
                }
                _ if started.elapsed() > TIMEOUT => bail!("not finished after {TIMEOUT:?}"),
                _ => {}
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let cpu_seconds = node.cpu_seconds()? - before;
        Ok(json!({
            "events": options.events,
            "wall_seconds": started.elapsed().as_secs_f64(),
            "cpu_seconds": cpu_seconds,
            "events_per_core_second": options.events as f64 / cpu_seconds,
            "max_rss_mb": node.peak_kib()? / 1024,
        }))
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// Runs a Java program that prints one JSON line.
fn java(command: &mut Command) -> Result<Value> {
    let output = command.output().context("cannot start java")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().context("the program printed nothing")?;
    Ok(serde_json::from_str(line)?)
}
