//! An ad network in virtual time: many ad servers, each with a gate of its own, and one aggregator with the ad groups
//! of a spec. Uses the real [`Engine`], real feed frames and real [`Gate`]s; time, users, auctions and delays are
//! simulated. Pure and seeded. For one ad group on many days see [`day`](crate::day), for ad servers over HTTP
//! [`fleet`](crate::fleet).
//!
//! Insertions carry the price of their auction, and billed events their clearing price, which is rarely above it. Rates
//! are not those of the spec, and nothing but the simulated users knows them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use throng_api::GivenAwayByCause;
use throng_budget::{
    AdGroupConfig, BilledEvent, Engine, Event, EventEffect, EventKind, EventMoney,
};
use throng_gate::feed::Frame;
use throng_gate::{Catalog, Gate, OwnInsertion};
use throng_model::{
    AdGroupName, BudgetDay, Entropy, Micros, OverdeliveryCauses, SplitMix64, TimeZoneName,
    Timestamp,
};

use crate::day::{Delay, SimError};

/// When the traffic begins: midnight of a day.
const START: Timestamp = Timestamp(1_767_225_600_000_000);
/// Events of the last ads arrive within this time.
const DRAIN: Duration = Duration::from_secs(2 * 3_600);
/// Ad groups that compete for a place.
const CANDIDATES: usize = 4;
/// From a frame's publication to its application, by class: each gate is of one of them.
const FEED_DELAYS_MS: [u64; 8] = [100, 200, 400, 700, 1_000, 1_500, 2_500, 6_000];
/// Without frames for this long a gate is stale.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// From an insertion to its record in the log.
const INSERTION_REPORT: Duration = Duration::from_secs(1);
/// From an insertion to its impression.
const SEEN: Delay = Delay::LogNormal(Duration::from_secs(3), 0.6);
/// From an impression to its click.
const CLICKED: Delay = Delay::LogNormal(Duration::from_secs(60), 0.6);
/// From an impression or a click to its record in the log.
const ACCOUNTING: Delay = Delay::LogNormal(Duration::from_secs(20), 0.5);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The ad groups. The budget day of each begins with the traffic, whatever its time zone.
    pub ad_groups: Vec<AdGroupConfig>,
    /// The same for gates.
    pub catalog: Catalog,
    /// Ad servers.
    pub gates: u32,
    /// From frame to frame.
    pub feed_interval: Duration,
    /// How long there is traffic, from midnight on; less than a day.
    pub length: Duration,
    /// Requests for an ad, of all ad servers together.
    pub requests_per_minute: f64,
    /// Another one gives other users.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkReport {
    /// Ad servers.
    pub gates: u32,
    /// Requests for an ad.
    pub requests: u64,
    /// Ads that were inserted.
    pub insertions: u64,
    /// Events that the aggregator has counted.
    pub events: u64,
    /// Frames that were published.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// From an event's record in the log to its figure in every gate, at most.
    pub slowest_feed_ms: u64,
    /// Each ad group, in the order of the spec.
    pub ad_groups: Vec<NetworkAdGroup>,
}

/// The day of an ad group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkAdGroup {
    /// The name.
    pub name: AdGroupName,
    /// The budget of the day.
    pub budget_micros: Micros,
    /// What was spent.
    pub actual_micros: Micros,
    /// What was spent above the budget.
    pub given_away_micros: Micros,
    /// The same by cause.
    pub given_away_by_cause: GivenAwayByCause,
    /// What its insertions were expected to earn.
    pub predicted_micros: Micros,
    /// What they have earned.
    pub earned_micros: Micros,
    /// The rate of outcomes that the spec declares.
    pub declared_rate: f64,
    /// That of the simulated users.
    pub rate: f64,
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ad_group in &self.ad_groups {
            writeln!(f, "{ad_group}")?;
        }
        let bytes = self.frame_bytes.checked_div(self.frames).unwrap_or_default();
        write!(
            f,
            "{} gates, {} requests, {} ads; {} frames of {bytes} bytes on average, in every gate after {:.1} s at most",
            self.gates,
            self.requests,
            self.insertions,
            self.frames,
            self.slowest_feed_ms as f64 / 1_000.0
        )
    }
}

impl fmt::Display for NetworkAdGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The width counts for texts.
        let texts = [self.budget_micros, self.actual_micros, self.given_away_micros];
        let [budget, actual, given_away] = texts.map(|amount| amount.to_string());
        write!(
            f,
            "{:<12} {actual:>10} of {budget:>7}, {given_away:>8} given away",
            self.name.as_str()
        )?;
        let causes = self.given_away_by_cause.named();
        let causes: Vec<String> = causes.map(|(name, amount)| format!("{name} {amount}")).collect();
        if !causes.is_empty() {
            write!(f, " ({})", causes.join(", "))?;
        }
        let (predicted, earned) = (self.predicted_micros, self.earned_micros);
        let (declared, rate) = (self.declared_rate, self.rate);
        write!(
            f,
            "; predicted {predicted}, earned {earned}; rate {rate:.4}, declared {declared:.4}"
        )
    }
}

/// An ad group as its users see it.
struct AdGroup {
    name: AdGroupName,
    billed: BilledEvent,
    price_nanos: i64,
    impression_rate: f64,
    click_rate: f64,
}

impl AdGroup {
    /// With rates that are not those of the spec.
    fn of(config: &AdGroupConfig, random: &mut SplitMix64) -> Self {
        let wrong_by = 0.6 + 0.9 * random.next_f64();
        let click_rate = match config.billed {
            BilledEvent::Impression => 0.0,
            BilledEvent::Click => (config.action_rate * wrong_by).min(1.0),
        };
        Self {
            name: config.name.clone(),
            billed: config.billed,
            price_nanos: (config.price.0.saturating_mul(1_000))
                .saturating_add(i64::from(config.price_nanos)),
            impression_rate: 0.9 + 0.09 * random.next_f64(),
            click_rate,
        }
    }

    /// The share of insertions that are billed.
    fn rate(&self) -> f64 {
        match self.billed {
            BilledEvent::Impression => self.impression_rate,
            BilledEvent::Click => self.impression_rate * self.click_rate,
        }
    }
}

/// What happens at a moment.
enum Happens {
    Request,
    /// An event is in the log. Of an insertion: the gate that counts it until then.
    Logged(Box<Event>, Option<(usize, OwnInsertion)>),
    Tick,
    /// A frame reaches the gates of a class.
    Frame(Arc<Frame>, usize),
}

/// The order is that of time, then that of planning; the earliest is the greatest.
struct Planned {
    at: Timestamp,
    number: u64,
    happens: Happens,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

struct Network<'a> {
    config: &'a NetworkConfig,
    random: SplitMix64,
    plan: BinaryHeap<Planned>,
    planned: u64,
    end: Timestamp,
    engine: Engine,
    gates: Vec<Gate>,
    ad_groups: Vec<AdGroup>,
    names: Vec<AdGroupName>,
    by_name: HashMap<AdGroupName, usize>,
    logged: u64,
    report: NetworkReport,
}

/// Runs the traffic until all of its events are counted.
///
/// # Errors
/// [`SimError`] if the amounts of the ad groups overflow.
pub fn run(config: &NetworkConfig) -> Result<NetworkReport, SimError> {
    let config = in_utc(config);
    let mut network = Network::new(&config)?;
    network.plan(START, Happens::Request);
    network.plan(START.plus(config.feed_interval), Happens::Tick);
    while let Some(Planned { at, happens, .. }) = network.plan.pop() {
        if at > network.end.plus(DRAIN) {
            break;
        }
        network.handle(at, happens)?;
    }
    Ok(network.into_report())
}

/// With the time zone of [`START`]: in another one the budget day would end within the traffic, and what was spent after
/// that would not be reported.
fn in_utc(config: &NetworkConfig) -> NetworkConfig {
    let mut config = config.clone();
    for ad_group in &mut config.ad_groups {
        ad_group.zone = TimeZoneName::utc();
    }
    config
}

impl<'a> Network<'a> {
    fn new(config: &'a NetworkConfig) -> Result<Self, SimError> {
        let mut random = SplitMix64::new(config.seed);
        let mut engine = Engine::new(0, 1, config.catalog.version, config.ad_groups.clone());
        engine.close(START);
        engine.delta_at(START, 0);
        let keyframe = Frame::decode(&engine.keyframe().encode())?;
        let gates: Vec<Gate> = (0..config.gates.max(1))
            .map(|_| {
                let gate = Gate::new(config.catalog.clone(), STALE_AFTER);
                gate.apply(&keyframe);
                gate
            })
            .collect();
        let ad_groups: Vec<AdGroup> =
            config.ad_groups.iter().map(|of| AdGroup::of(of, &mut random)).collect();
        let names: Vec<AdGroupName> = ad_groups.iter().map(|of| of.name.clone()).collect();
        let by_name = names.iter().cloned().zip(0..).collect();
        let slowest = FEED_DELAYS_MS.iter().copied().max().unwrap_or_default();
        let slowest = Duration::from_millis(slowest) + config.feed_interval;
        let report = NetworkReport {
            gates: config.gates.max(1),
            requests: 0,
            insertions: 0,
            events: 0,
            frames: 0,
            frame_bytes: 0,
            slowest_feed_ms: slowest.as_millis() as u64,
            ad_groups: Vec::new(),
        };
        let end = START.plus(config.length);
        let (plan, planned, logged) = (BinaryHeap::new(), 0, 0);
        Ok(Self {
            config,
            random,
            plan,
            planned,
            end,
            engine,
            gates,
            ad_groups,
            names,
            by_name,
            logged,
            report,
        })
    }

    fn plan(&mut self, at: Timestamp, happens: Happens) {
        self.plan.push(Planned { at, number: self.planned, happens });
        self.planned += 1;
    }

    fn handle(&mut self, now: Timestamp, happens: Happens) -> Result<(), SimError> {
        match happens {
            Happens::Request => self.request(now),
            Happens::Logged(event, counted) => {
                let effect = self.engine.apply(&*event, now)?;
                self.report.events += u64::from(effect == EventEffect::Counted);
                self.logged += 1;
                if let Some((gate, counted)) = counted {
                    self.gates[gate].insertion_logged(counted, &[(0, self.logged)], now);
                }
            }
            Happens::Tick => {
                self.engine.close(now);
                let bytes = self.engine.delta_at(now, self.logged).encode();
                self.report.frames += 1;
                self.report.frame_bytes += bytes.len() as u64;
                let frame = Arc::new(Frame::decode(&bytes)?);
                for (class, delay) in FEED_DELAYS_MS.into_iter().enumerate() {
                    let arrives = now.plus(Duration::from_millis(delay));
                    self.plan(arrives, Happens::Frame(Arc::clone(&frame), class));
                }
                if now < self.end {
                    self.plan(now.plus(self.config.feed_interval), Happens::Tick);
                }
            }
            Happens::Frame(frame, class) => {
                for gate in self.gates.iter().skip(class).step_by(FEED_DELAYS_MS.len()) {
                    gate.apply(&frame);
                }
            }
        }
        Ok(())
    }

    /// A user of one of the ad servers.
    fn request(&mut self, now: Timestamp) {
        // The gaps are exponentially distributed.
        let gap = -(1.0 - self.random.next_f64()).ln() * 60.0;
        let gap = gap / self.config.requests_per_minute.max(f64::MIN_POSITIVE);
        let next = now.plus(Duration::from_secs_f64(gap.min(86_400.0)));
        if next < self.end {
            self.plan(next, Happens::Request);
        }
        self.report.requests += 1;
        let gate = self.random.below(self.gates.len() as u64) as usize;
        let first = self.random.below(self.names.len() as u64) as usize;
        let candidates: Vec<AdGroupName> = self
            .names
            .iter()
            .cycle()
            .skip(first)
            .take(CANDIDATES.min(self.names.len()))
            .cloned()
            .collect();
        let (decision, counted) = self.gates[gate].decide_and_count(None, &candidates, now);
        let chosen = decision.allowed.first().and_then(|name| self.by_name.get(name)).copied();
        if let Some(chosen) = chosen {
            self.insert(chosen, counted.map(|counted| (gate, counted)), now);
        }
    }

    /// An ad is inserted, and its user sees and clicks it, or not.
    fn insert(&mut self, chosen: usize, counted: Option<(usize, OwnInsertion)>, now: Timestamp) {
        self.report.insertions += 1;
        let AdGroup { billed, price_nanos, impression_rate, click_rate, .. } =
            self.ad_groups[chosen];
        let auction = (price_nanos as f64 * (0.6 + 0.8 * self.random.next_f64())) as i64;
        let clearing = (auction as f64 * (0.92 + 0.1 * self.random.next_f64())) as i64;
        let insertion = self.event(EventKind::Insertion, chosen, now, None, Some(auction));
        self.plan(now.plus(INSERTION_REPORT), Happens::Logged(insertion, counted));
        let (is_seen, is_clicked) =
            (self.random.next_f64() < impression_rate, self.random.next_f64() < click_rate);
        if !is_seen {
            return;
        }
        let price = |kind: EventKind| (kind == billed.kind()).then_some(clearing);
        let seen = now.plus(SEEN.draw(&mut self.random));
        self.outcome(EventKind::Impression, chosen, (seen, now), price(EventKind::Impression));
        if is_clicked {
            let clicked = seen.plus(CLICKED.draw(&mut self.random));
            self.outcome(EventKind::Click, chosen, (clicked, now), price(EventKind::Click));
        }
    }

    fn outcome(
        &mut self,
        kind: EventKind,
        of: usize,
        (at, inserted_at): (Timestamp, Timestamp),
        price: Option<i64>,
    ) {
        let event = self.event(kind, of, at, Some(inserted_at), price);
        let logged = at.plus(ACCOUNTING.draw(&mut self.random));
        self.plan(logged, Happens::Logged(event, None));
    }

    /// An event of the newest insertion.
    fn event(
        &self,
        kind: EventKind,
        of: usize,
        at: Timestamp,
        inserted_at: Option<Timestamp>,
        price: Option<i64>,
    ) -> Box<Event> {
        let number = self.report.insertions;
        Box::new(Event {
            id: format!("{kind:?}-{number}"),
            kind,
            ad_group: self.names[of].clone(),
            insertion_id: Some(format!("insertion-{number}")),
            at,
            inserted_at,
            money: price.map_or(EventMoney::NONE, |nanos| EventMoney::NONE.with_price_nanos(nanos)),
            placement: None,
        })
    }

    fn into_report(self) -> NetworkReport {
        // When all outcomes are due.
        let now = self.end.plus(DRAIN);
        let mut causes: HashMap<AdGroupName, Vec<(BudgetDay, OverdeliveryCauses)>> =
            self.engine.overdelivery_causes(now).into_iter().collect();
        let mut predicted: BTreeMap<AdGroupName, (i64, i64)> = BTreeMap::new();
        for (name, days) in self.engine.predictions(now) {
            let sums = predicted.entry(name).or_default();
            for day in days {
                *sums = (sums.0 + day.predicted.0, sums.1 + day.earned.0);
            }
        }
        let ad_groups = self.config.ad_groups.iter().zip(&self.ad_groups).map(|(config, truth)| {
            let today = BudgetDay::of(START, &config.zone.rules());
            let of_today = |days: Vec<(BudgetDay, Micros)>| {
                days.into_iter().find(|(day, _)| *day == today).map(|(_, actual)| actual)
            };
            let actual = self.engine.days(&config.name, now).and_then(of_today).unwrap_or_default();
            let given_away = Micros((actual.0 - config.daily_budget.0).max(0));
            let known = causes.remove(&config.name).unwrap_or_default();
            let known = known.into_iter().find(|(day, _)| *day == today).map(|(_, known)| known);
            let (predicted, earned) = predicted.get(&config.name).copied().unwrap_or_default();
            NetworkAdGroup {
                name: config.name.clone(),
                budget_micros: config.daily_budget,
                actual_micros: actual,
                given_away_micros: given_away,
                given_away_by_cause: by_cause(known.unwrap_or_default(), given_away),
                predicted_micros: Micros(predicted),
                earned_micros: Micros(earned),
                declared_rate: config.impression_rate * config.action_rate,
                rate: truth.rate(),
            }
        });
        let ad_groups = ad_groups.collect();
        NetworkReport { ad_groups, ..self.report }
    }
}

/// Causes with the unknown rest.
fn by_cause(known: OverdeliveryCauses, given_away: Micros) -> GivenAwayByCause {
    let sum: i64 = known.amounts().iter().map(|amount| amount.0).sum();
    GivenAwayByCause {
        events_micros: known.events,
        feed_micros: known.feed,
        prediction_micros: known.prediction,
        burst_micros: known.burst,
        price_change_micros: known.price_change,
        unknown_micros: Micros(given_away.0 - sum),
    }
}

#[cfg(test)]
mod tests {
    use throng_gate::{CatalogEntry, WhenStale};
    use throng_model::{AdGroupIndex, Pacing};

    use super::*;

    fn report(zone: &str) -> NetworkReport {
        let (index, name) = (AdGroupIndex(0), AdGroupName::new("shoes").unwrap());
        let daily_budget = Micros(5_000_000);
        let entry = CatalogEntry {
            index,
            name: name.clone(),
            daily_budget,
            prediction: true,
            include: Vec::new(),
            exclude: Vec::new(),
            when_stale: WhenStale::Serve,
            expected: Micros(9_500),
            currency: None,
        };
        let ad_group = AdGroupConfig {
            index,
            name,
            campaign: "autumn".parse().unwrap(),
            billed: BilledEvent::Impression,
            price: Micros(10_000),
            price_nanos: 0,
            impression_rate: 0.95,
            action_rate: 1.0,
            horizon: Duration::from_secs(180),
            daily_budget,
            prediction: true,
            currency: "USD".parse().unwrap(),
            zone: zone.parse().unwrap(),
            once_per_insertion: true,
            pacing: Pacing::Asap,
            learns_rates: true,
        };
        let config = NetworkConfig {
            ad_groups: vec![ad_group],
            catalog: Catalog { version: 1, ad_groups: vec![entry] },
            gates: 2,
            feed_interval: Duration::from_secs(5),
            length: Duration::from_secs(7 * 3_600),
            requests_per_minute: 10.0,
            seed: 1,
        };
        run(&config).unwrap()
    }

    /// In New York the sixth hour of the traffic is that of another day.
    #[test]
    fn the_day_begins_with_the_traffic_in_every_time_zone() {
        let in_utc = report("UTC");
        assert_eq!(report("America/New_York"), in_utc);
        assert!(in_utc.ad_groups[0].actual_micros > Micros(4_000_000), "{in_utc}");
    }
}
