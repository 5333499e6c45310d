//! A simulated day of ad traffic for one ad group: ad servers that decide with a gate, users who see and
//! click with delay, and an engine that receives the events later. Uses the real [`Engine`], real feed frames
//! and the real [`Gate`]; only time and users are simulated. Pure and seeded: the same seed gives the same
//! day. For ad servers over HTTP see [`fleet`](crate::fleet).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use throng_budget::{AdGroupConfig, BilledEvent, Engine, Event, EventKind, EventMoney, Interval};
use throng_gate::feed::{FeedError, Frame};
use throng_gate::{Catalog, CatalogEntry, Gate, WhenStale};
use throng_model::{
    AdGroupIndex, AdGroupName, Entropy, Micros, MoneyError, NameError, Pacing, SplitMix64,
    TimeZoneName, Timestamp,
};

/// A random time.
#[derive(Debug, Clone, Copy)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// Log-normal with this median and standard deviation of the logarithm.
    LogNormal(Duration, f64),
}

impl Delay {
    pub(crate) fn draw(self, random: &mut SplitMix64) -> Duration {
        match self {
            Self::Fixed(duration) => duration,
            Self::LogNormal(median, sigma) => {
                // Box and Muller, 1958.
                let radius = (-2.0 * (1.0 - random.next_f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.next_f64()).cos();
                median.mul_f64((sigma * normal).exp().min(1_000.0))
            }
        }
    }
}

/// A day of one ad group.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The event that is billed.
    pub billed: BilledEvent,
    /// The price of one billed event.
    pub price: Micros,
    /// The budget of the day.
    pub daily_budget: Micros,
    /// Requests per minute for which the ad is eligible.
    pub requests_per_minute: f64,
    /// Share of insertions that are seen.
    pub impression_rate: f64,
    /// Share of impressions that are clicked.
    pub click_rate: f64,
    /// What the spec says of the share of insertions that are seen.
    pub declared_impression_rate: f64,
    /// What the spec says of the share of impressions that are clicked.
    pub declared_click_rate: f64,
    /// From insertion to impression.
    pub seen: Delay,
    /// From impression to click.
    pub clicked: Delay,
    /// From impression or click to the engine's log.
    pub accounting: Delay,
    /// From insertion to the engine's log.
    pub insertion_report: Delay,
    /// From the engine to the gates.
    pub feed: Delay,
    /// Whether in-flight spend counts.
    pub prediction: bool,
    /// Outcomes are expected within this time until delays are learned.
    pub horizon: Duration,
}

/// The result of a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The budget.
    pub budget: Micros,
    /// The value of all delivered events.
    pub spend: Micros,
    /// Value delivered past the budget, which is not billable.
    pub overdelivery: Micros,
    /// Unused budget.
    pub underdelivery: Micros,
    /// Predicted and actual spend of the ads inserted in each interval of three minutes.
    pub intervals: Vec<Interval>,
}

/// An error of a simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Sums overflow.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A frame of the engine cannot be decoded.
    #[error(transparent)]
    Feed(#[from] FeedError),
}

/// An occurrence in the simulation.
enum Occurrence {
    Request,
    /// An event reaches the engine.
    Logged(Event),
    /// The engine produces a frame.
    Tick,
    /// A frame reaches the gates.
    Frame(Vec<u8>),
}

struct Day<'a> {
    scenario: &'a Scenario,
    random: SplitMix64,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    occurrences: Vec<Option<Occurrence>>,
    engine: Engine,
    gate: Gate,
    name: AdGroupName,
    insertions: u64,
    delivered: Micros,
    last_frame: Timestamp,
    /// Events on their way to the engine.
    unaccounted: u64,
    /// Events that have reached it.
    logged: u64,
}

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const FEED_INTERVAL: Duration = Duration::from_secs(1);

/// Simulates a day.
///
/// # Errors
/// [`SimError`] only if the scenario's amounts overflow.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Outcome, SimError> {
    let name = AdGroupName::new("ad-group")?;
    let mut day = Day::new(scenario, seed, name)?;
    day.plan(START, Occurrence::Request);
    day.plan(START, Occurrence::Tick);
    while let Some(Reverse((at, number))) = day.queue.pop() {
        // Outcomes of the last ads of the day occur up to two hours later.
        if at > START.plus(DAY + Duration::from_secs(2 * 3600)) || day.is_over(at) {
            break;
        }
        if let Some(occurrence) = day.occurrences.get_mut(number as usize).and_then(Option::take) {
            day.handle(at, occurrence)?;
        }
    }
    let budget = scenario.daily_budget;
    let spend = day.delivered;
    Ok(Outcome {
        budget,
        spend,
        overdelivery: Micros((spend.0 - budget.0).max(0)),
        underdelivery: Micros((budget.0 - spend.0).max(0)),
        intervals: day.engine.series(&day.name).map(|s| s.intervals).unwrap_or_default(),
    })
}

impl<'a> Day<'a> {
    fn new(scenario: &'a Scenario, seed: u64, name: AdGroupName) -> Result<Self, SimError> {
        let index = AdGroupIndex(0);
        let currency = "USD".parse()?;
        let config = AdGroupConfig {
            index,
            name: name.clone(),
            campaign: "campaign".parse()?,
            billed: scenario.billed,
            price: scenario.price,
            price_nanos: 0,
            impression_rate: scenario.declared_impression_rate,
            action_rate: match scenario.billed {
                BilledEvent::Impression => 1.0,
                BilledEvent::Click => scenario.declared_click_rate,
            },
            horizon: scenario.horizon,
            daily_budget: scenario.daily_budget,
            prediction: scenario.prediction,
            zone: TimeZoneName::utc(),
            once_per_insertion: true,
            pacing: Pacing::Asap,
            learns_rates: true,
            currency,
        };
        let entry = CatalogEntry {
            index,
            name: name.clone(),
            daily_budget: scenario.daily_budget,
            prediction: scenario.prediction,
            include: Vec::new(),
            exclude: Vec::new(),
            when_stale: WhenStale::Serve,
            expected: Micros(0),
            currency: None,
        };
        let gate = Gate::new(Catalog { version: 1, ad_groups: vec![entry] }, DAY);
        let mut random = SplitMix64::new(seed);
        let mut engine = Engine::new(0, 1, 1, vec![config]);
        simulate_yesterday(&mut engine, scenario, &name, &mut random)?;
        gate.apply(&Frame::decode(&engine.keyframe().encode())?);
        Ok(Self {
            scenario,
            random,
            queue: BinaryHeap::new(),
            occurrences: Vec::new(),
            engine,
            gate,
            name,
            insertions: 0,
            delivered: Micros::ZERO,
            last_frame: START,
            unaccounted: 0,
            logged: 0,
        })
    }

    /// Whether nothing can change any longer: the budget is spent and all events are logged.
    fn is_over(&self, now: Timestamp) -> bool {
        self.unaccounted == 0
            && self.delivered >= self.scenario.daily_budget
            && self.gate.decide(None, std::slice::from_ref(&self.name), now).allowed.is_empty()
    }

    fn plan(&mut self, at: Timestamp, occurrence: Occurrence) {
        self.queue.push(Reverse((at, self.occurrences.len() as u64)));
        self.occurrences.push(Some(occurrence));
    }

    fn handle(&mut self, now: Timestamp, occurrence: Occurrence) -> Result<(), SimError> {
        match occurrence {
            Occurrence::Request => self.request(now),
            Occurrence::Logged(event) => {
                self.unaccounted -= 1;
                self.logged += 1;
                self.engine.apply(&event, now)?;
            }
            Occurrence::Tick => {
                self.engine.close(now);
                let frame = self.engine.delta_at(now, self.logged).encode();
                // Frames of one connection do not overtake each other.
                let arrives = now.plus(self.scenario.feed.draw(&mut self.random));
                self.last_frame = self.last_frame.max(arrives);
                self.plan(self.last_frame, Occurrence::Frame(frame));
                if now < START.plus(DAY) {
                    self.plan(now.plus(FEED_INTERVAL), Occurrence::Tick);
                }
            }
            Occurrence::Frame(bytes) => {
                self.gate.apply(&Frame::decode(&bytes)?);
            }
        }
        Ok(())
    }

    fn request(&mut self, now: Timestamp) {
        // Requests are random: the gaps are exponentially distributed.
        let gap = -(1.0 - self.random.next_f64()).ln() / self.scenario.requests_per_minute * 60.0;
        let next = now.plus(Duration::from_secs_f64(gap));
        if next < START.plus(DAY) {
            self.plan(next, Occurrence::Request);
        }
        let decision = self.gate.decide(None, std::slice::from_ref(&self.name), now);
        if decision.allowed.is_empty() {
            return;
        }
        self.insertions += 1;
        self.log(EventKind::Insertion, now, now, self.scenario.insertion_report);
        if self.random.next_f64() >= self.scenario.impression_rate {
            return;
        }
        let seen = now.plus(self.scenario.seen.draw(&mut self.random));
        self.log(EventKind::Impression, seen, now, self.scenario.accounting);
        if self.random.next_f64() < self.scenario.click_rate {
            let clicked = seen.plus(self.scenario.clicked.draw(&mut self.random));
            self.log(EventKind::Click, clicked, now, self.scenario.accounting);
        }
    }

    fn log(&mut self, kind: EventKind, at: Timestamp, inserted_at: Timestamp, delay: Delay) {
        if kind == self.scenario.billed.kind() {
            self.delivered = Micros(self.delivered.0.saturating_add(self.scenario.price.0));
        }
        let event = Event {
            id: format!("{kind:?}-{}", self.insertions),
            kind,
            ad_group: self.name.clone(),
            insertion_id: None,
            at,
            inserted_at: (kind != EventKind::Insertion).then_some(inserted_at),
            money: EventMoney::NONE,
            placement: None,
        };
        self.unaccounted += 1;
        let logged = at.plus(delay.draw(&mut self.random));
        self.plan(logged, Occurrence::Logged(event));
    }
}

/// Feeds the engine insertions with 500 outcomes, on average, of the evening before, from which it learns delays
/// and rates. What it knows at the start of the simulated day is from these events and from the spec.
fn simulate_yesterday(
    engine: &mut Engine,
    scenario: &Scenario,
    name: &AdGroupName,
    random: &mut SplitMix64,
) -> Result<(), SimError> {
    let evening = START.minus(Duration::from_secs(10 * 3600));
    let rate = match scenario.billed {
        BilledEvent::Impression => scenario.impression_rate,
        BilledEvent::Click => scenario.impression_rate * scenario.click_rate,
    };
    let insertions = (500.0 / rate) as u64;
    for number in 0..insertions {
        let part = number as f64 / insertions as f64;
        let inserted = evening.plus(Duration::from_secs(8 * 3600).mul_f64(part));
        let event = |kind, at, of| Event {
            id: format!("yesterday-{kind:?}-{number}"),
            kind,
            ad_group: name.clone(),
            insertion_id: None,
            at,
            inserted_at: of,
            money: EventMoney::NONE,
            placement: None,
        };
        engine.apply(&event(EventKind::Insertion, inserted, None), inserted)?;
        if random.next_f64() >= rate {
            continue;
        }
        let mut at = inserted.plus(scenario.seen.draw(random));
        let mut kind = EventKind::Impression;
        if scenario.billed == BilledEvent::Click {
            at = at.plus(scenario.clicked.draw(random));
            kind = EventKind::Click;
        }
        let logged = at.plus(scenario.accounting.draw(random));
        engine.apply(&event(kind, at, Some(inserted)), logged)?;
    }
    engine.close(START);
    Ok(())
}

/// Advertiser X of the article by Pinterest: $0.10 an impression, $100 a day, and impressions that
/// are accounted for five minutes late. Traffic for 20 impressions a minute, so that five minutes
/// have a tenth of the budget.
pub fn advertiser_x(prediction: bool) -> Scenario {
    Scenario {
        billed: BilledEvent::Impression,
        price: Micros(100_000),
        daily_budget: Micros(100_000_000),
        requests_per_minute: 20.0 / 0.95,
        impression_rate: 0.95,
        click_rate: 0.0,
        declared_impression_rate: 0.8,
        declared_click_rate: 0.0,
        seen: Delay::LogNormal(Duration::from_secs(2), 0.5),
        clicked: Delay::Fixed(Duration::ZERO),
        accounting: Delay::Fixed(Duration::from_secs(300)),
        insertion_report: Delay::Fixed(Duration::from_secs(1)),
        feed: Delay::Fixed(Duration::from_secs(1)),
        prediction,
        horizon: Duration::from_secs(180),
    }
}

/// Advertiser Y of the same article: $2 a click, $100 a day. The accounting is fast (30 seconds),
/// but users click late: after six minutes in the median. With 2% of the impressions clicked and 75
/// impressions a minute, about ten clicks, a fifth of the budget, are always in flight.
pub fn advertiser_y(prediction: bool) -> Scenario {
    Scenario {
        billed: BilledEvent::Click,
        price: Micros(2_000_000),
        daily_budget: Micros(100_000_000),
        requests_per_minute: 75.0 / 0.95,
        impression_rate: 0.95,
        click_rate: 0.02,
        declared_impression_rate: 0.8,
        declared_click_rate: 0.03,
        seen: Delay::LogNormal(Duration::from_secs(2), 0.5),
        clicked: Delay::LogNormal(Duration::from_secs(350), 0.4),
        accounting: Delay::Fixed(Duration::from_secs(30)),
        insertion_report: Delay::Fixed(Duration::from_secs(1)),
        feed: Delay::Fixed(Duration::from_secs(1)),
        prediction,
        horizon: Duration::from_secs(180),
    }
}
