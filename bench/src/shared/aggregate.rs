//! Spend aggregation from a topic: an aggregator process, compared with the same design in Kafka Streams
//! (`bench/kafka-streams`) on the same messages, and with itself where events carry prices and name their insertions.
//! What it reports in the end is compared with plain sums of the events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use throng_api::BudgetList;
use throng_model::{Clock, SystemClock};

use super::records::{Content, Totals, Traffic, ad_group, append, day_of, partition_of};
use super::{Deployment, ad_groups, metric, metric_values};
use crate::Programs;
use crate::node::{Node, get, runtime};

const AD_GROUPS: u64 = 1_000;
const PARTITIONS: u32 = 4;
/// Where the Kafka Streams application is built.
const JAR: &str = "bench/kafka-streams/target/spend-aggregator.jar";
/// After this time a process that has ended is no longer in the list of nodes.
const NODE_EXPIRY: Duration = Duration::from_secs(35);
const TIMEOUT: Duration = Duration::from_secs(600);
/// A response with all metrics costs CPU time, which is measured: more polls would change the result.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longer than the time between checkpoints, which is ten seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The lowest anonymous memory within this time counts: a checkpoint needs some for a moment.
const REST: Duration = Duration::from_secs(15);

/// What the events carry.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Insertions at the price and the rates of their ad groups
    Plain,
    /// Five insertions with a price, rates and an id to four impressions, which name them; half of these have a
    /// clearing price
    Priced,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Priced => "priced",
        }
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// What the events carry; by default one run of each, in alternating order
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// Run Throng without Kafka Streams, and print the throughput of `priced` relative to `plain`
    #[arg(long, conflicts_with = "jar")]
    alone: bool,
    /// The Kafka Streams application, which runs with the form `plain`; build it with `mvn -q -B package` in
    /// bench/kafka-streams. By default the one there; if there is none, Throng runs alone
    #[arg(long)]
    jar: Option<PathBuf>,
    /// Events per measurement: the JVM needs some millions to warm up
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Events per message, one measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    batches: Vec<u64>,
    /// Number of runs of each, in alternating order
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Open insertions of the run that measures their memory, after those of the form `priced`; 0: no such run
    #[arg(long, default_value_t = 2_000_000)]
    open: u64,
}

impl Options {
    /// The Kafka Streams application; `None`: Throng runs alone.
    fn peer(&self) -> Result<Option<&Path>> {
        if self.alone {
            return Ok(None);
        }
        if let Some(jar) = &self.jar {
            ensure!(jar.exists(), "{} is missing: build it", jar.display());
            return Ok(Some(jar.as_path()));
        }
        Ok(Some(Path::new(JAR)).filter(|jar| jar.exists()))
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let peer = options.peer()?;
    let mut forms = match options.form {
        Some(form) => vec![form],
        None => vec![Form::Plain, Form::Priced],
    };
    for round in 1..=options.rounds {
        for batch in &options.batches {
            let (mut plain, mut priced) = (None, None);
            for form in &forms {
                let rate = Some(measure(options, peer, *form, round, *batch)?);
                match form {
                    Form::Plain => plain = rate,
                    Form::Priced => priced = rate,
                }
            }
            // With a peer the two topics are made by different programs, with other compression.
            if peer.is_none()
                && let Some((priced, plain)) = priced.zip(plain)
            {
                let line = json!({
                    "figure": "aggregate_priced", "round": round, "events": options.events,
                    "batch": batch, "ratio": priced / plain,
                });
                println!("{line}");
            }
        }
        forms.reverse();
    }
    if options.open > 0 && forms.contains(&Form::Priced) {
        measure_open(options)?;
    }
    Ok(())
}

/// Measures one form, and the peer if it can run with that. Returns Throng's events per core-second.
fn measure(
    options: &Options,
    peer: Option<&Path>,
    form: Form,
    round: u32,
    batch: u64,
) -> Result<f64> {
    let (content, peer) = match form {
        Form::Plain => (Content::Plain, peer),
        Form::Priced => (Content::Priced, None),
    };
    let topic = Topic::fill(options, peer, traffic(content, options.events, batch))?;
    let streams = || match peer {
        Some(jar) => anyhow::Ok(Some((topic.streams(jar, false)?, topic.streams(jar, true)?))),
        None => Ok(None),
    };
    let (ours, streams) = if round % 2 == 1 {
        let ours = topic.throng()?;
        (ours, streams()?)
    } else {
        let streams = streams()?;
        (topic.throng()?, streams)
    };
    let rate = rate(&ours)?;
    let bytes = topic.totals.bytes.map(|bytes| bytes as f64 / options.events as f64);
    let mut line = json!({
        "figure": "aggregate", "form": form.name(), "round": round, "events": options.events,
        "batch": batch, "bytes_per_event": bytes, "open_insertions": topic.totals.open,
        "throng": ours,
    });
    if let Some((streams, once)) = streams {
        line["ratio"] = json!(rate / self::rate(&streams)?);
        line["ratio_once"] = json!(rate / self::rate(&once)?);
        line["kafka_streams"] = streams;
        line["kafka_streams_once"] = once;
    }
    println!("{line}");
    Ok(rate)
}

fn rate(figures: &Value) -> Result<f64> {
    figures["events_per_core_second"].as_f64().context("a rate is missing")
}

fn traffic(content: Content, events: u64, batch: u64) -> Traffic {
    Traffic { content, ad_groups: AD_GROUPS, partitions: PARTITIONS, events, batch }
}

/// Measures the memory of open insertions: that of a process with so many, without that of a process that has counted
/// insertions which have as many ids, and of which none is open.
fn measure_open(options: &Options) -> Result<()> {
    let batch = options.batches.iter().copied().max().unwrap_or(1);
    let anonymous_kib = |content: Content, ids: u64| {
        let traffic = traffic(content, options.open * ids, batch * ids);
        Topic::fill(options, None, traffic)?.anonymous_kib()
    };
    let without = anonymous_kib(Content::Unnamed, 2)?;
    let with = anonymous_kib(Content::Open, 1)?;
    let mib = (with as f64 - without as f64) / 1024.0;
    let line = json!({
        "figure": "aggregate_open", "open_insertions": options.open,
        "anonymous_kib": with, "anonymous_kib_without": without,
        "mib_per_million": mib / (options.open as f64 / 1e6),
    });
    println!("{line}");
    Ok(())
}

/// A topic full of events.
struct Topic {
    deployment: Deployment,
    name: String,
    totals: Totals,
}

impl Topic {
    /// Makes the events: with the program of the peer if there is one (batches of LZ4), otherwise with the client of
    /// a node (zstd).
    fn fill(options: &Options, peer: Option<&Path>, traffic: Traffic) -> Result<Self> {
        let spec = format!("version: 1\n{}", ad_groups((0..AD_GROUPS).map(ad_group)));
        let more = format!("  log_partitions: {PARTITIONS}\n");
        let deployment = Deployment::new(options.programs.throng()?, &spec, &more)?;
        // Applies the spec, creates the topics, and ends.
        drop(deployment.start(
            "first",
            "api,schedule,build,activate,aggregate,relay,lookup",
            false,
        )?);
        let first_ended = Instant::now();
        let name = format!("{}.events", deployment.name);
        let totals = match peer {
            Some(jar) => {
                produce(jar, &deployment, &name, traffic)?;
                Totals::of_plain(traffic.ad_groups, traffic.events)?
            }
            None => runtime()?.block_on(append(&deployment.kafka, &deployment.name, traffic))?,
        };
        // Until the process that created the topics has expired: no standby replica of its partitions
        // may run during the measurement.
        std::thread::sleep(NODE_EXPIRY.saturating_sub(first_ended.elapsed()));
        Ok(Self { deployment, name, totals })
    }

    /// Runs the Kafka Streams application; `once`: with deduplication of events, as Throng does.
    fn streams(&self, jar: &Path, once: bool) -> Result<Value> {
        let name = format!("{}-{}", self.deployment.name, if once { "once" } else { "streams" });
        java(Command::new("java").arg("-Xmx2g").arg("-jar").arg(jar).args([
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
            &self.totals.events.to_string(),
        ]))
    }

    /// Runs Throng's aggregator, and compares what it reports with the plain sums of the events.
    fn throng(&self) -> Result<Value> {
        let (node, figures) = self.aggregate()?;
        self.check(&node)?;
        Ok(figures)
    }

    /// The anonymous memory of an aggregator that has counted all events, in KiB.
    fn anonymous_kib(&self) -> Result<u64> {
        let (node, _) = self.aggregate()?;
        // Checks after it, too: they start another process.
        runtime()?.block_on(open_insertions(&node))?;
        let (mut lowest, begun) = (u64::MAX, Instant::now());
        while begun.elapsed() < REST {
            lowest = lowest.min(node.usage()?.anonymous_kib);
            std::thread::sleep(CHECK_INTERVAL);
        }
        self.check(&node)?;
        Ok(lowest)
    }

    /// Runs Throng's aggregator. Measures all threads from before the first event is applied until the last
    /// one is, with windows, frames and checkpoints.
    fn aggregate(&self) -> Result<(Node, Value)> {
        let events = self.totals.events;
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
                count if count >= events => {
                    ensure!(count == events, "{count} applied of {events}");
                    break;
                }
                _ if started.elapsed() > TIMEOUT => bail!("not finished after {TIMEOUT:?}"),
                _ => {}
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let cpu_seconds = node.cpu_seconds()? - before;
        let figures = json!({
            "events": events,
            "wall_seconds": started.elapsed().as_secs_f64(),
            "cpu_seconds": cpu_seconds,
            "events_per_core_second": events as f64 / cpu_seconds,
            "max_rss_mb": node.peak_kib()? / 1024,
        });
        Ok((node, figures))
    }

    /// Fails if the aggregator has other open insertions or another actual spend than the plain sums of the events.
    fn check(&self, aggregator: &Node) -> Result<()> {
        let runtime = runtime()?;
        let (open, expected) = (runtime.block_on(open_insertions(aggregator))?, self.totals.open);
        ensure!(open == expected, "{open} insertions are open, computed: {expected}");
        // A process with that role alone answers no requests for budgets. This one follows its feed.
        let node = self.deployment.start("check", "api", true)?;
        runtime.block_on(self.check_spend(&node))
    }

    /// Waits until the node reports the actual spend of each ad group, to the micro.
    async fn check_spend(&self, node: &Node) -> Result<()> {
        let (http, begun) = (node.http()?, Instant::now());
        let expected = (0..).map(ad_group).zip(self.totals.actual_micros.iter().copied());
        let expected: BTreeMap<String, i64> = expected.collect();
        loop {
            let BudgetList { budgets } = get(&http, &format!("{}/v1/budgets", node.url)).await?;
            ensure!(
                day_of(SystemClock.now()) == self.totals.day,
                "another UTC day has begun, and budgets are of that one: run it again"
            );
            let is_current = budgets.iter().all(|it| !it.reason.starts_with("not current"));
            let actual: BTreeMap<String, i64> =
                budgets.iter().map(|it| (it.name.to_string(), it.actual_micros.0)).collect();
            if is_current && actual == expected {
                return Ok(());
            }
            let differs = |name: &String| actual.get(name) != expected.get(name);
            ensure!(
                begun.elapsed() < CHECK_TIMEOUT,
                "the spend of {} of {AD_GROUPS} ad groups differs; reported: {} micros, computed: {}",
                expected.keys().filter(|name| differs(name)).count(),
                actual.values().sum::<i64>(),
                expected.values().sum::<i64>()
            );
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

/// How many insertions are open at a checkpoint that is begun after this call.
async fn open_insertions(node: &Node) -> Result<u64> {
    let (http, begun) = (node.http()?, Instant::now());
    // The metric is in whole seconds.
    let since = SystemClock.now().0.div_euclid(1_000_000) as f64;
    let name = "throng_checkpoint_last_success_timestamp_seconds";
    loop {
        let written = metric_values(&http, &node.url, name).await?;
        let is_later = written.iter().all(|at| *at > since);
        tokio::time::sleep(CHECK_INTERVAL).await;
        if is_later && written.len() == PARTITIONS as usize {
            return Ok(metric(&http, &node.url, "throng_open_insertions").await? as u64);
        }
        ensure!(begun.elapsed() < CHECK_TIMEOUT, "no checkpoint after {CHECK_TIMEOUT:?}");
    }
}

/// Fills a topic with the program of the peer.
fn produce(jar: &Path, deployment: &Deployment, topic: &str, traffic: Traffic) -> Result<()> {
    let Traffic { ad_groups, partitions, events, batch, .. } = traffic;
    // Throng assigns keys to partitions by another hash than the Java client.
    let places: String = (0..ad_groups)
        .map(ad_group)
        .map(|name| format!("{name} {}\n", partition_of(&name, partitions)))
        .collect();
    let file = deployment.path().join("key-partitions");
    std::fs::write(&file, places)?;
    java(Command::new("java").arg("-cp").arg(jar).arg("throng.bench.Produce").args([
        "--bootstrap",
        &deployment.kafka,
        "--topic",
        topic,
        "--events",
        &events.to_string(),
        "--batch",
        &batch.to_string(),
        "--ad-groups",
        &ad_groups.to_string(),
        "--partitions",
        &partitions.to_string(),
        "--places",
        path(&file)?,
    ]))
    .map(drop)
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
