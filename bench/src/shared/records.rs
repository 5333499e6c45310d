//! Records of the event log for the benchmark `aggregate`, and what their events add up to: plain sums that the
//! figures of a node are compared with.

use std::time::Duration;

use anyhow::{Result, ensure};
use throng_budget::{Event, EventKind, EventMoney, events_to_record};
use throng_log::{EventLog, KafkaLog, KafkaOptions};
use throng_model::{AdGroupName, Clock, Entropy, SplitMix64, SystemClock, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// Of each nine events of an ad group the first five are insertions, and the others impressions, as in the
/// benchmark `events`.
const CYCLE: u64 = 9;
const INSERTIONS: u64 = 5;
/// A partition has at most so many open insertions.
const MAX_OPEN: u64 = 1_000_000;
/// What is appended at once. The queue of the client has room for 100,000 messages.
const APPENDED_MESSAGES: usize = 20_000;
const APPENDED_BYTES: usize = 8 << 20;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// What events carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Insertions at the price and the rates of their ad groups, without an id for outcomes.
    Plain,
    /// Five insertions with a price, rates and an id to four impressions, each of which names an insertion; half of
    /// these have a clearing price.
    Priced,
    /// The insertions of `Priced` without impressions: all stay open.
    Open,
    /// The insertions of `Open` without the id for outcomes: none is open. With twice as many events a node stores
    /// as many ids as for `Open`, where an insertion has two.
    Unnamed,
}

impl Content {
    /// The time between events: twice as many take as long.
    fn interval_micros(self) -> u64 {
        if self == Self::Unnamed { 10 } else { 20 }
    }
}

/// What to append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) content: Content,
    pub(super) ad_groups: u64,
    pub(super) partitions: u32,
    pub(super) events: u64,
    /// Events of a message, which are of one ad group.
    pub(super) batch: u64,
}

/// What events add up to.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    pub(super) events: u64,
    /// The UTC day of all events, as days since 1970.
    pub(super) day: i64,
    /// Actual spend of each ad group, in micros.
    pub(super) actual_micros: Vec<i64>,
    /// Insertions that have an id for outcomes, and no outcome.
    pub(super) open: u64,
    /// Bytes of all messages; `None` if another program has made them.
    pub(super) bytes: Option<u64>,
}

impl Totals {
    /// Those of events that are insertions without an id for outcomes.
    pub(super) fn of_plain(ad_groups: u64, events: u64) -> Result<Self> {
        let actual_micros = vec![0; usize::try_from(ad_groups)?];
        let day = day_of(SystemClock.now());
        Ok(Self { events, day, actual_micros, open: 0, bytes: None })
    }
}

/// The UTC day of a moment.
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MICROS)
}

/// The name of an ad group.
pub(super) fn ad_group(number: u64) -> String {
    format!("ad-group-{number:04}")
}

/// The partition of an ad group, as Throng assigns it.
pub(super) fn partition_of(ad_group: &str, partitions: u32) -> u64 {
    xxh3_64(ad_group.as_bytes()) % u64::from(partitions)
}

/// Appends the events to the log of a deployment: 50,000 a second up to now, by their times and those of the records.
pub(super) async fn append(brokers: &str, prefix: &str, traffic: Traffic) -> Result<Totals> {
    let options = KafkaOptions {
        brokers: brokers.to_owned(),
        prefix: prefix.to_owned(),
        tls: None,
        sasl: None,
    };
    let log = KafkaLog::open(&options, "events", traffic.partitions).await?;
    let found = log.partitions();
    ensure!(found == traffic.partitions, "the log has {found} partitions");
    let mut generator = Generator::new(traffic)?;
    let mut buffers: Vec<Vec<Vec<u8>>> = (0..found).map(|_| Vec::new()).collect();
    let (mut messages, mut buffered, mut bytes) = (0, 0, 0);
    while generator.made < traffic.events {
        let (partition, message) = generator.message();
        messages += 1;
        buffered += message.len();
        bytes += message.len() as u64;
        buffers[partition].push(message);
        let is_last = generator.made >= traffic.events;
        if is_last || messages >= APPENDED_MESSAGES || buffered >= APPENDED_BYTES {
            append_all(&log, generator.now(), &mut buffers).await?;
            (messages, buffered) = (0, 0);
        }
    }
    generator.totals(bytes)
}

/// Appends what is buffered for each partition.
async fn append_all(log: &KafkaLog, at: Timestamp, buffers: &mut [Vec<Vec<u8>>]) -> Result<()> {
    let appends = (0..).zip(buffers).filter(|(_, buffer)| !buffer.is_empty());
    let appends = appends.map(|(partition, buffer)| {
        let values = std::mem::take(buffer).into_iter().map(Into::into).collect();
        log.append(partition, at, values)
    });
    futures::future::try_join_all(appends).await?;
    Ok(())
}

/// An insertion that has had no outcome.
#[derive(Debug, Clone, Copy)]
struct OpenInsertion {
    /// The number of its event.
    number: u64,
    price_nanos: i64,
}

/// What was made of an ad group.
#[derive(Debug)]
struct AdGroup {
    name: AdGroupName,
    partition: usize,
    events: u64,
    open: Vec<OpenInsertion>,
    actual_nanos: i64,
}

/// Makes events; the same ones for the same traffic, except for their times.
struct Generator {
    traffic: Traffic,
    start: Timestamp,
    /// Events so far.
    made: u64,
    ad_groups: Vec<AdGroup>,
    /// Chooses ad groups: apart, so that these are the same ones whatever the events carry.
    choices: SplitMix64,
    values: SplitMix64,
}

impl Generator {
    fn new(traffic: Traffic) -> Result<Self> {
        let now = SystemClock.now();
        // In the past, so that no event has a time in the future.
        let span = Duration::from_micros(traffic.events * traffic.content.interval_micros());
        let start = now.minus(span);
        ensure!(
            day_of(start) == day_of(now),
            "the events would be of two UTC days: run it again in {} minutes",
            span.as_secs() / 60 + 1
        );
        let of_number = |number: u64| {
            let name = ad_group(number);
            anyhow::Ok(AdGroup {
                partition: usize::try_from(partition_of(&name, traffic.partitions))?,
                name: AdGroupName::new(name)?,
                events: 0,
                open: Vec::new(),
                actual_nanos: 0,
            })
        };
        let ad_groups = (0..traffic.ad_groups).map(of_number).collect::<Result<_>>()?;
        let (choices, values) = (SplitMix64::new(7), SplitMix64::new(8));
        Ok(Self { traffic, start, made: 0, ad_groups, choices, values })
    }

    /// The time of the next event.
    fn now(&self) -> Timestamp {
        let micros = self.made * self.traffic.content.interval_micros();
        self.start.plus(Duration::from_micros(micros))
    }

    /// The next message, with its partition: events of one ad group.
    fn message(&mut self) -> (usize, Vec<u8>) {
        let index = self.choices.below(self.ad_groups.len() as u64) as usize;
        let count = self.traffic.batch.max(1).min(self.traffic.events - self.made);
        let events: Vec<Event> = (0..count).map(|_| self.event(index)).collect();
        (self.ad_groups[index].partition, events_to_record(&events))
    }

    fn event(&mut self, index: usize) -> Event {
        let (at, number, content) = (self.now(), self.made, self.traffic.content);
        self.made += 1;
        let (ad_group, values) = (&mut self.ad_groups[index], &mut self.values);
        let place = ad_group.events % CYCLE;
        ad_group.events += 1;
        let event = Event {
            id: id(number),
            kind: EventKind::Insertion,
            ad_group: ad_group.name.clone(),
            insertion_id: None,
            at,
            inserted_at: None,
            money: EventMoney::NONE,
            placement: None,
        };
        if content == Content::Plain {
            return event;
        }
        let has_outcome =
            content == Content::Priced && place >= INSERTIONS && !ad_group.open.is_empty();
        if has_outcome {
            let chosen = values.below(ad_group.open.len() as u64) as usize;
            let insertion = ad_group.open.swap_remove(chosen);
            let (price_nanos, money) = paid(values, insertion.price_nanos);
            ad_group.actual_nanos += price_nanos;
            let insertion_id = Some(id(insertion.number));
            return Event { kind: EventKind::Impression, insertion_id, money, ..event };
        }
        let price_nanos = 100_000_000 + values.below(60_000_000) as i64;
        let money = EventMoney::NONE
            .with_price_nanos(price_nanos)
            .with_impression_rate(700_000_000 + values.below(200_000_000) as u32)
            .with_action_rate(10_000_000 + values.below(20_000_000) as u32);
        if content == Content::Unnamed {
            return Event { money, ..event };
        }
        ad_group.open.push(OpenInsertion { number, price_nanos });
        Event { insertion_id: Some(event.id.clone()), money, ..event }
    }

    fn totals(&self, bytes: u64) -> Result<Totals> {
        let mut open = vec![0; self.traffic.partitions as usize];
        for ad_group in &self.ad_groups {
            open[ad_group.partition] += ad_group.open.len() as u64;
        }
        let most = open.iter().copied().max().unwrap_or(0);
        ensure!(
            most <= MAX_OPEN,
            "{most} open insertions in a partition, which keeps {MAX_OPEN}: make fewer events"
        );
        let actual = self.ad_groups.iter().map(|ad_group| to_micros(ad_group.actual_nanos));
        Ok(Totals {
            events: self.made,
            day: day_of(self.start),
            actual_micros: actual.collect(),
            open: open.iter().sum(),
            bytes: Some(bytes),
        })
    }
}

/// What is paid for the impression of an insertion with this price, and what the impression carries: a clearing price
/// of 70 to 100 %, or nothing.
fn paid(values: &mut SplitMix64, price_nanos: i64) -> (i64, EventMoney) {
    if values.below(2) == 0 {
        return (price_nanos, EventMoney::NONE);
    }
    let clearing = price_nanos * (700 + values.below(301) as i64) / 1_000;
    (clearing, EventMoney::NONE.with_price_nanos(clearing))
}

/// The id of an event: 32 digits, which look random. An id of zeros alone would be rejected as a placeholder.
fn id(number: u64) -> String {
    let number = number + 1;
    format!("{:016x}{number:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// To the nearest micro.
fn to_micros(nanos: i64) -> i64 {
    (nanos + 500).div_euclid(1_000)
}
