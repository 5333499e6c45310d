//! The delay from an accepted insertion to its spend in the gates: a thousand connections to two relays,
//! under load, with gates that read slowly, and with an aggregator that is killed.
//!
//! A probe is an ad group that gets one insertion. Its delay begins when the request is sent and ends when
//! a connection has received a frame in which the ad group has in-flight spend, so it includes the append
//! to the log.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use prost::Message;
use serde_json::{Value, json};
use throng_api::EventsAccepted;
use throng_gate::Catalog;
use throng_gate::feed::Frame;
use throng_model::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::{Deployment, ad_groups};
use crate::Programs;
use crate::events::{WireEvent, WireEvents};
use crate::node::{Node, runtime};

const AD_GROUPS: u64 = 1_000;
const PARTITIONS: u32 = 4;
/// Requests per second of the load.
const REQUESTS_PER_SECOND: u64 = 50;
const PROBES_PER_SECOND: u64 = 10;
/// Probes of the first seconds are not measured: not all gates are connected yet.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long the gates read after the last probe.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Number of gates
    #[arg(long, default_value_t = 1_000)]
    gates: usize,
    /// Number of gates that read one byte per second, in the second run
    #[arg(long, default_value_t = 50)]
    slow: usize,
    /// Events per second
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Seconds of each run
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Milliseconds between two frames of a partition
    #[arg(long, default_value_t = 250)]
    feed_interval: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let load = (0..AD_GROUPS).map(|n| format!("load-{n:04}"));
    let probes = 3 * (options.seconds * PROBES_PER_SECOND + 1);
    let all = load.chain((0..probes).map(|n| format!("probe-{n:04}")));
    let spec = format!("version: 1\n{}", ad_groups(all));
    let more =
        format!("  log_partitions: {PARTITIONS}\n  feed_interval_ms: {}\n", options.feed_interval);
    let deployment = Deployment::new(options.programs.throng()?, &spec, &more)?;
    deployment.shorten_sessions()?;
    let api = deployment.start("api", "api,schedule", false)?;
    let mut aggregators = vec![
        deployment.start("aggregate-0", "aggregate", true)?,
        deployment.start("aggregate-1", "aggregate", true)?,
    ];
    let relays =
        [deployment.start("relay-0", "relay", true)?, deployment.start("relay-1", "relay", true)?];
    let runtime = runtime()?;
    let mut probe = 0;
    for (name, slow, kill) in
        [("all read", 0, false), ("some hardly read", options.slow, false), ("one dies", 0, true)]
    {
        let victim = if kill { aggregators.pop() } else { None };
        let run = Run { options, api: &api, relays: &relays, slow, first_probe: probe };
        let mut line = LocalSet::new().block_on(&runtime, run.measure(victim))?;
        probe += options.seconds * PROBES_PER_SECOND;
        line["figure"] = json!("gates");
        line["run"] = json!(name);
        println!("{line}");
    }
    Ok(())
}

struct Run<'a> {
    options: &'a Options,
    api: &'a Node,
    relays: &'a [Node; 2],
    slow: usize,
    first_probe: u64,
}

/// A decoded frame, shared by the connections.
#[derive(Default)]
struct DecodedFrame {
    bytes: Vec<u8>,
    at: i64,
    partition: usize,
    probes: Vec<usize>,
}

/// The measurements of all connections.
struct Measurements {
    started: Instant,
    /// The number of the probe of each ad group, by its index in the feed.
    probes: Vec<Option<usize>>,
    /// When each probe was sent.
    sent: RefCell<Vec<Option<Duration>>>,
    /// Microseconds until each probe was accepted.
    accepted: RefCell<Vec<u64>>,
    /// Whether any connection has received the probe.
    received: RefCell<Vec<bool>>,
    /// The delay of each probe at the first connection that received it, in microseconds.
    first: RefCell<Vec<u64>>,
    /// The delay of each probe at each connection, in microseconds.
    delays: RefCell<Vec<u64>>,
    /// The newest frame of each partition at each relay, with its probes. Real gates decode their frames on
    /// their own machines. A thousand of them here would measure how long it takes to decode each frame
    /// five hundred times.
    decoded: RefCell<[[DecodedFrame; PARTITIONS as usize]; 2]>,
    /// The age of the oldest state of any connection, in microseconds.
    oldest: Cell<u64>,
}

impl Run<'_> {
    async fn measure(self, victim: Option<Node>) -> Result<Value> {
        let options = self.options;
        let http = self.api.http()?;
        let catalog: Catalog =
            http.get(format!("{}/v1/catalog", self.api.url)).send().await?.json().await?;
        let count = options.seconds * PROBES_PER_SECOND;
        let mut probes = vec![None; catalog.ad_groups.len()];
        for entry in &catalog.ad_groups {
            let number = entry.name.as_str().strip_prefix("probe-").map(str::parse::<u64>);
            if let Some(number) = number.transpose()?
                && let Some(probe) = number.checked_sub(self.first_probe).filter(|n| *n < count)
            {
                probes[entry.index.0 as usize] = Some(usize::try_from(probe)?);
            }
        }
        let measurements = Rc::new(Measurements {
            started: Instant::now(),
            probes,
            sent: RefCell::new(vec![None; usize::try_from(count)?]),
            accepted: RefCell::default(),
            received: RefCell::new(vec![false; usize::try_from(count)?]),
            first: RefCell::default(),
            delays: RefCell::default(),
            decoded: RefCell::default(),
            oldest: Cell::new(0),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for gate in 0..options.gates {
            let relay = &self.relays[gate % 2];
            let url = format!("{}/v1/feed?gate=gate-{gate}", relay.url);
            if gate < self.slow {
                tasks.spawn_local(read_slowly(relay.url.clone(), relay.token.clone(), gate));
            } else {
                tasks.spawn_local(follow(http.clone(), url, Rc::clone(&measurements), gate));
            }
        }
        let half = Duration::from_secs(options.seconds / 2);
        let kill = async {
            if let Some(victim) = victim {
                tokio::time::sleep(half).await;
                victim.kill()?;
            }
            anyhow::Ok(())
        };
        let load = self.load(&http, measurements.started);
        let (accepted, probed, killed) = tokio::join!(load, self.probe(&http, &measurements), kill);
        probed?;
        killed?;
        tokio::time::sleep(DRAIN).await;
        tasks.abort_all();
        let mut delays = measurements.delays.take();
        delays.sort_unstable();
        let fast = options.gates - self.slow;
        let measured =
            measurements.sent.borrow().iter().flatten().filter(|at| **at > WARM_UP).count();
        ensure!(!delays.is_empty(), "no probe arrived");
        let (mut accepted_after, mut first) =
            (measurements.accepted.take(), measurements.first.take());
        accepted_after.sort_unstable();
        first.sort_unstable();
        let quantile = |delays: &[u64], q: f64| {
            let index = (delays.len().saturating_sub(1) as f64 * q).round() as usize;
            delays.get(index).copied().unwrap_or(0) as f64 / 1e3
        };
        let peaks: Vec<u64> =
            self.relays.iter().map(|r| Ok(r.peak_kib()? / 1024)).collect::<Result<_>>()?;
        Ok(json!({
            "gates": options.gates, "slow": self.slow,
            "events_per_s": accepted? as f64 / options.seconds as f64,
            "probes": measured, "missing": measured * fast - delays.len().min(measured * fast),
            "p50_ms": quantile(&delays, 0.5), "p99_ms": quantile(&delays, 0.99),
            "max_ms": quantile(&delays, 1.0),
            "accepted_p50_ms": quantile(&accepted_after, 0.5),
            "accepted_p99_ms": quantile(&accepted_after, 0.99),
            "first_gate_p50_ms": quantile(&first, 0.5), "first_gate_p99_ms": quantile(&first, 0.99),
            "oldest_state_ms": measurements.oldest.get() as f64 / 1e3,
            "relays_peak_mb": peaks,
        }))
    }

    /// Sends insertions for all ad groups at the rate of the options. Returns how many were accepted.
    async fn load(&self, http: &reqwest::Client, started: Instant) -> Result<u64> {
        let batch = self.options.rate / REQUESTS_PER_SECOND;
        let mut ticks =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(REQUESTS_PER_SECOND)?);
        let (mut number, mut accepted) = (0, 0);
        let mut responses = futures::stream::FuturesUnordered::new();
        while started.elapsed().as_secs() < self.options.seconds {
            ticks.tick().await;
            let names = (number..number + batch).map(|n| format!("load-{:04}", n % AD_GROUPS));
            let ids = (number..).map(|n| format!("{}-{n}", self.first_probe));
            responses.push(send(http, &self.api.url, insertions(ids.zip(names))));
            number += batch;
            while let Some(Some(count)) = futures::FutureExt::now_or_never(responses.next()) {
                accepted += count?;
            }
        }
        while let Some(count) = responses.next().await {
            accepted += count?;
        }
        Ok(accepted)
    }

    async fn probe(&self, http: &reqwest::Client, measurements: &Measurements) -> Result<()> {
        let mut ticks =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(PROBES_PER_SECOND)?);
        for probe in 0..self.options.seconds * PROBES_PER_SECOND {
            ticks.tick().await;
            let name = format!("probe-{:04}", self.first_probe + probe);
            measurements.sent.borrow_mut()[usize::try_from(probe)?] =
                Some(measurements.started.elapsed());
            let event = insertions([(name.clone(), name)].into_iter());
            let sent = Instant::now();
            ensure!(send(http, &self.api.url, event).await? == 1, "a probe was not accepted");
            measurements.accepted.borrow_mut().push(sent.elapsed().as_micros() as u64);
        }
        Ok(())
    }
}

fn insertions(events: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let at_micros = SystemClock.now().0;
    let events = events.map(|(id, ad_group)| WireEvent {
        id,
        kind: 1,
        ad_group,
        at_micros,
        ..WireEvent::default()
    });
    WireEvents { events: events.collect() }.encode_to_vec()
}

async fn send(http: &reqwest::Client, url: &str, body: Vec<u8>) -> Result<u64> {
    let request = http.post(format!("{url}/v1/events")).body(body);
    let response = request.header("content-type", "application/x-protobuf").send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{status}: {text}");
    let outcome: EventsAccepted =
        serde_json::from_str(&text).context("no outcome of the events")?;
    Ok(outcome.accepted)
}

/// A gate: reads frames until it is aborted.
async fn follow(
    http: reqwest::Client,
    url: String,
    measurements: Rc<Measurements>,
    gate: usize,
) -> Result<()> {
    // Connections are opened one after the other.
    tokio::time::sleep(Duration::from_millis(gate as u64)).await;
    let mut bytes = http.get(url).send().await?.bytes_stream();
    let mut buffer = Vec::new();
    let mut seen = vec![false; measurements.sent.borrow().len()];
    let mut state_times = [None; PARTITIONS as usize];
    while let Some(chunk) = bytes.next().await {
        buffer.extend_from_slice(&chunk?);
        let mut rest = &buffer[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, after)) = after.split_at_checked(length) else { break };
            measurements.frame(gate % 2, frame, &mut seen, &mut state_times)?;
            rest = after;
        }
        let used = buffer.len() - rest.len();
        buffer.drain(..used);
    }
    Ok(())
}

impl Measurements {
    fn frame(
        &self,
        relay: usize,
        bytes: &[u8],
        seen: &mut [bool],
        state_times: &mut [Option<i64>],
    ) -> Result<()> {
        let now = self.started.elapsed();
        let mut decoded = self.decoded.borrow_mut();
        let decoded = match decoded[relay].iter().position(|frame| frame.bytes == bytes) {
            Some(index) => &decoded[relay][index],
            None => {
                let frame = Frame::decode(bytes)?;
                let partition = frame.partition as usize;
                let probe = |index: u32| self.probes.get(index as usize).copied().flatten();
                let probes = frame
                    .entries
                    .iter()
                    .filter(|entry| entry.in_flight.0 > 0)
                    .filter_map(|entry| probe(entry.index.0))
                    .collect();
                let at = frame.at.0;
                let newest = &mut decoded[relay][partition];
                *newest = DecodedFrame { bytes: bytes.to_vec(), at, partition, probes };
                newest
            }
        };
        // The age of the state that this frame replaces.
        if let Some(before) = state_times[decoded.partition].replace(decoded.at)
            && now > WARM_UP
        {
            let age = u64::try_from(SystemClock.now().0 - before).unwrap_or(0);
            self.oldest.set(self.oldest.get().max(age));
        }
        for probe in &decoded.probes {
            if std::mem::replace(&mut seen[*probe], true) {
                continue;
            }
            let sent = self.sent.borrow()[*probe];
            if let Some(sent) = sent.filter(|sent| *sent > WARM_UP) {
                let delay = (now - sent).as_micros() as u64;
                self.delays.borrow_mut().push(delay);
                if !std::mem::replace(&mut self.received.borrow_mut()[*probe], true) {
                    self.first.borrow_mut().push(delay);
                }
            }
        }
        Ok(())
    }
}

/// A gate that reads one byte per second.
async fn read_slowly(url: String, token: String, gate: usize) -> Result<()> {
    let host = url.strip_prefix("http://").context("the URL is not http")?;
    let address = host.parse()?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(address).await?;
    let request = format!(
        "GET /v1/feed?gate=gate-{gate} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    loop {
        stream.read_u8().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
