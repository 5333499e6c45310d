//! Events through the engine in process, and through a node until they are durable and it has applied them (or
//! has not within the limit of its wait), compared with Redis counters, which neither detect duplicates nor
//! predict.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use prost::Message;
use serde_json::{Value, json};
use throng_api::EventsAccepted;
use throng_budget::{
    AdGroupConfig, BilledEvent, Engine, Event, EventEffect, EventKind, EventMoney, EventRef,
    events_to_record, read_record,
};
use throng_model::{
    AdGroupIndex, AdGroupName, Clock, Entropy, Micros, Pacing, SplitMix64, SystemClock,
    TimeZoneName, Timestamp,
};

use crate::Programs;
use crate::node::Node;
use crate::peer::Redis;

/// Ad groups that the events are spread over.
pub(crate) const AD_GROUPS: u64 = 1_000;
const BATCH: usize = 1_000;
const CONNECTIONS: usize = 8;
/// Events of a record of the log.
const RECORD: usize = 100;
/// Events that are applied at once, as an aggregator does.
const APPLIED: usize = 512;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Events per measurement
    #[arg(long, default_value_t = 2_000_000)]
    events: usize,
    /// Number of alternating runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    for round in 1..=options.rounds {
        let engine = in_process(options.events)?;
        let (records, records_with_money) = from_records(options.events)?;
        let json = over_http(options, Encoding::Ndjson)?;
        let protobuf = over_http(options, Encoding::Protobuf)?;
        let redis = Redis::start(true)?;
        let command = ["INCRBY", "spend:__rand_int__", "130001"];
        let groups = AD_GROUPS.to_string();
        let count = options.events.to_string();
        let peer = redis.benchmark(&["-r", &groups, "-n", &count, "-P", "100"], &command)?;
        let line = json!({
            "figure": "events", "round": round, "events": options.events,
            "throng": {
                "engine_per_s": engine, "ndjson": json, "protobuf": protobuf,
                "records": records, "records_with_money": records_with_money,
            },
            "redis": { "incrby_per_s": peer, "peak_kib": redis.peak_kib()? },
        });
        println!("{line}");
    }
    Ok(())
}

/// The configuration of an ad group for the engine.
pub(crate) fn ad_group(number: u64) -> Result<AdGroupConfig> {
    Ok(AdGroupConfig {
        index: AdGroupIndex(u32::try_from(number)?),
        name: name(number)?,
        campaign: "campaign".parse()?,
        billed: BilledEvent::Impression,
        price: Micros(130_001),
        price_nanos: 0,
        impression_rate: 0.8,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(1_000_000_000_000),
        prediction: true,
        currency: "USD".parse()?,
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: true,
    })
}

fn name(number: u64) -> Result<AdGroupName> {
    Ok(AdGroupName::new(format!("ad-group-{number:04}"))?)
}

/// Insertions, and impressions of four fifths of them, 50,000 events per second from `start`.
pub(crate) fn traffic(count: usize, start: Timestamp) -> Result<Vec<Event>> {
    let names: Vec<AdGroupName> = (0..AD_GROUPS).map(name).collect::<Result<_>>()?;
    let mut random = SplitMix64::new(3);
    let mut inserted: Vec<(u64, usize, Timestamp)> = Vec::new();
    let mut events = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let at = start.plus(Duration::from_micros(number * 20));
        let id = format!("event-{number:012}");
        if number % 9 < 4 && inserted.len() > 1_000 {
            let index = random.below(inserted.len() as u64) as usize;
            let (insertion, group, inserted_at) = inserted.swap_remove(index);
            events.push(Event {
                id,
                kind: EventKind::Impression,
                ad_group: names[group].clone(),
                insertion_id: Some(format!("event-{insertion:012}")),
                at,
                inserted_at: Some(inserted_at),
                money: EventMoney::NONE,
                placement: None,
            });
            continue;
        }
        let group = random.below(AD_GROUPS) as usize;
        inserted.push((number, group, at));
        events.push(Event {
            id,
            kind: EventKind::Insertion,
            ad_group: names[group].clone(),
            insertion_id: None,
            at,
            inserted_at: None,
            money: EventMoney::NONE,
            placement: None,
        });
    }
    Ok(events)
}

/// Events per second of one engine on one thread, with windows and feed frames.
fn in_process(count: usize) -> Result<f64> {
    let groups: Vec<AdGroupConfig> = (0..AD_GROUPS).map(ad_group).collect::<Result<_>>()?;
    let start: Timestamp = "2026-05-01T12:00:00Z".parse()?;
    let events = traffic(count, start)?;
    let mut engine = Engine::new(0, 1, 1, groups);
    let started = Instant::now();
    for (number, event) in events.iter().enumerate() {
        let applied = engine.apply(event, event.at)?;
        ensure!(matches!(applied, EventEffect::Counted), "{applied:?}");
        // Once a second of the traffic's time, as a node does.
        if number % 50_000 == 0 {
            engine.close(event.at);
            std::hint::black_box(engine.delta(event.at).encode());
        }
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// The same events with their own money: an insertion has a name, a price and a rate, and the impression that
/// names it the price that is paid.
fn with_money(events: &[Event]) -> Vec<Event> {
    let with_money = events.iter().map(|event| {
        let price = 100_000_000 + event.at.0 % 60_000 * 1_000;
        let money = EventMoney::NONE.with_price_nanos(price);
        match event.kind {
            EventKind::Insertion => Event {
                insertion_id: Some(event.id.clone()),
                money: money.with_impression_rate(800_000_000),
                ..event.clone()
            },
            EventKind::Impression | EventKind::Click => Event { money, ..event.clone() },
        }
    });
    with_money.collect()
}

/// Records of the log through the decoder and one engine, on one thread: as [`traffic`] has them, and with
/// their own money.
fn from_records(count: usize) -> Result<(Value, Value)> {
    let events = traffic(count, "2026-05-01T12:00:00Z".parse()?)?;
    Ok((apply_records(&events)?, apply_records(&with_money(&events))?))
}

fn apply_records(events: &[Event]) -> Result<Value> {
    let groups: Vec<AdGroupConfig> = (0..AD_GROUPS).map(ad_group).collect::<Result<_>>()?;
    let records: Vec<(Vec<u8>, Timestamp)> = events
        .chunks(RECORD)
        .filter_map(|chunk| Some((events_to_record(chunk), chunk.last()?.at)))
        .collect();
    let mut engine = Engine::new(0, 1, 1, groups);
    let mut decoded: Vec<(EventRef<'_>, Timestamp)> = Vec::with_capacity(APPLIED + RECORD);
    let (mut counted, mut most_open) = (0, 0);
    let started = Instant::now();
    for (number, (record, at)) in records.iter().enumerate() {
        read_record(record, |event| decoded.push((event, *at)))?;
        if decoded.len() >= APPLIED || number + 1 == records.len() {
            counted += engine.apply_all(&decoded).counted;
            decoded.clear();
        }
        // Once a second of the traffic's time, as a node does.
        if number % (50_000 / RECORD) == 0 {
            engine.close(*at);
            std::hint::black_box(engine.delta(*at).encode());
            most_open = most_open.max(engine.open_insertions());
        }
    }
    let per_s = events.len() as f64 / started.elapsed().as_secs_f64();
    ensure!(counted == events.len() as u64, "{counted} of {}", events.len());
    Ok(json!({ "per_s": per_s, "open_insertions": most_open }))
}

#[derive(Clone, Copy)]
enum Encoding {
    Ndjson,
    Protobuf,
}

/// An event in the published protobuf schema, as an ad server writes it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireEvent {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int32, tag = "2")]
    pub(crate) kind: i32,
    #[prost(string, tag = "3")]
    pub(crate) ad_group: String,
    #[prost(string, tag = "4")]
    pub(crate) insertion_id: String,
    #[prost(int64, tag = "5")]
    pub(crate) at_micros: i64,
    #[prost(int64, tag = "6")]
    pub(crate) inserted_at_micros: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WireEvents {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<WireEvent>,
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    fn body(self, events: &[Event]) -> Vec<u8> {
        match self {
            Self::Ndjson => events.iter().flat_map(|e| line(e).into_bytes()).collect(),
            Self::Protobuf => {
                WireEvents { events: events.iter().map(message).collect() }.encode_to_vec()
            }
        }
    }
}

fn line(event: &Event) -> String {
    let mut value = json!({
        "id": event.id,
        "kind": event.kind,
        "ad_group": event.ad_group,
        "at": event.at.to_string(),
    });
    if let Some((insertion, at)) = event.insertion_id.as_ref().zip(event.inserted_at) {
        value["insertion_id"] = json!(insertion);
        value["inserted_at"] = json!(at.to_string());
    }
    format!("{value}\n")
}

fn message(event: &Event) -> WireEvent {
    WireEvent {
        id: event.id.clone(),
        kind: match event.kind {
            EventKind::Insertion => 1,
            EventKind::Impression => 2,
            EventKind::Click => 3,
        },
        ad_group: event.ad_group.to_string(),
        insertion_id: event.insertion_id.clone().unwrap_or_default(),
        at_micros: event.at.0,
        inserted_at_micros: event.inserted_at.map_or(0, |at| at.0),
    }
}

/// Sends batches to a new node over a few connections. It responds to each when it is durable and applied; or
/// only durable, if applying takes longer than the node waits for that.
fn over_http(options: &Options, encoding: Encoding) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let spec = dir.path().join("throng.yaml");
    std::fs::write(&spec, spec_text())?;
    let node = Node::start(&options.programs.throng()?, &dir.path().join("node"), &spec)?;
    // In the past, so that no event has a time in the future.
    let start = SystemClock.now().minus(Duration::from_secs(60));
    let events = traffic(options.events.min(2_900_000), start)?;
    let bodies: Vec<Vec<u8>> = events.chunks(BATCH).map(|chunk| encoding.body(chunk)).collect();
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let before = node.cpu_seconds()?;
    let started = Instant::now();
    let accepted = crate::node::runtime()?.block_on(send(&node, encoding, bodies))?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(accepted == events.len() as u64, "{accepted} of {}", events.len());
    let core_seconds = node.cpu_seconds()? - before;
    Ok(json!({
        "per_s": accepted as f64 / seconds,
        "per_core_s": accepted as f64 / core_seconds,
        "bytes_per_event": bytes as f64 / accepted as f64,
        "log_bytes_per_event": log_bytes(&dir.path().join("node"))? as f64 / accepted as f64,
        "peak_kib": node.peak_kib()?,
    }))
}

async fn send(node: &Node, encoding: Encoding, bodies: Vec<Vec<u8>>) -> Result<u64> {
    let http = node.http()?;
    let url = format!("{}/v1/events", node.url);
    let responses = futures::stream::iter(bodies.into_iter().map(|body| {
        let request =
            http.post(&url).header("content-type", encoding.content_type()).body(body).send();
        async move {
            let response = request.await?;
            let (status, text) = (response.status(), response.text().await?);
            ensure!(status.is_success(), "{status}: {text}");
            let outcome: EventsAccepted =
                serde_json::from_str(&text).context("no outcome of the events")?;
            anyhow::Ok(outcome.accepted)
        }
    }));
    let mut accepted = 0;
    let mut responses = responses.buffer_unordered(CONNECTIONS);
    while let Some(count) = responses.next().await {
        accepted += count?;
    }
    Ok(accepted)
}

fn spec_text() -> String {
    let groups: String = (0..AD_GROUPS)
        .map(|number| {
            format!(
                "  - {{ name: ad-group-{number:04}, campaign: c, per: impression, price: \"0.130001\", daily_budget: \"1000000\", impression_rate: 0.8 }}\n"
            )
        })
        .collect();
    format!(
        "version: 1\nadvertisers:\n  - {{ name: a, currency: USD, time_zone: UTC }}\ncampaigns:\n  - {{ name: c, advertiser: a }}\nad_groups:\n{groups}"
    )
}

fn log_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            bytes += log_bytes(&path)?;
        } else if path.components().any(|part| part.as_os_str() == "log") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
