//! Random streams against a model that keeps every event: spend by quarter of an hour, by budget day of
//! any zone, and what was a duplicate or a repetition; with checkpoints, files of closed slices, crashes and
//! takeovers in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use throng_budget::{
    AdGroupConfig, BilledEvent, CheckpointFiles, Engine, Event, EventEffect, EventKind, EventMoney,
    SLICE_SECS, SliceFile,
};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Micros, Pacing, TimeZoneName, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const DEDUPE_WINDOW: Duration = Duration::from_secs(168 * 3600);
const NAMES: [&str; 3] = ["red", "blue", "odd"];
const ZONES: [&str; 4] = ["UTC", "Pacific/Kiritimati", "Asia/Kathmandu", "America/New_York"];

/// One ad group in the spec.
#[derive(Debug, Clone, Copy)]
struct Terms {
    price: i64,
    nanos: i64,
    zone: usize,
    is_there: bool,
    once: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Event {
        id: u8,
        kind: EventKind,
        ad_group: usize,
        /// Before the moment of the step, in minutes.
        age: u16,
        insertion: Option<u8>,
        /// Before the event, in minutes; negative: after it.
        inserted: Option<i16>,
    },
    /// One of the last events again.
    Again(prop::sample::Index),
    Change(usize, Terms),
    /// Closed slices go to files; with `true` those are written.
    Pack(bool),
    /// A checkpoint.
    Checkpoint,
    /// A crash: the engine is restored from the last checkpoint and the log.
    Kill,
    /// A standby replica, which has applied the same events, is promoted.
    TakeOver,
    /// Minutes.
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(EventKind::Insertion),
        Just(EventKind::Impression),
        Just(EventKind::Click)
    ];
    // Also of days that are closed, and of more of them than there are files.
    let age = prop_oneof![3 => 0u16..1_400, 2 => 1_400u16..6_000, 2 => 6_000u16..40_000];
    let event = (0u8..120, kind, 0usize..3, age, any::<Option<u8>>(), any::<Option<u8>>())
        .prop_map(|(id, kind, ad_group, age, insertion, inserted)| Step::Event {
            id,
            kind,
            ad_group,
            age,
            insertion: insertion.map(|id| id % 16),
            inserted: inserted.map(|minutes| i16::from(minutes) - 10),
        });
    let nanos = prop_oneof![Just(0), 0i64..1_000];
    let terms = (1i64..2_000_000, nanos, 0..ZONES.len(), prop::bool::weighted(0.8), any::<bool>())
        .prop_map(|(price, nanos, zone, is_there, once)| Terms {
            price,
            nanos,
            zone,
            is_there,
            once,
        });
    prop_oneof![
        12 => event,
        3 => any::<prop::sample::Index>().prop_map(Step::Again),
        2 => (0usize..3, terms).prop_map(|(ad_group, terms)| Step::Change(ad_group, terms)),
        3 => any::<bool>().prop_map(Step::Pack),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Kill),
        1 => Just(Step::TakeOver),
        // All of it is within the window.
        3 => (0u16..30).prop_map(Step::Wait),
    ]
}

fn name(ad_group: usize) -> AdGroupName {
    AdGroupName::new(NAMES[ad_group]).expect("a name")
}

fn zone(terms: &Terms) -> TimeZoneName {
    ZONES[terms.zone].parse().expect("a zone")
}

fn billed(ad_group: usize) -> BilledEvent {
    if ad_group == 1 { BilledEvent::Click } else { BilledEvent::Impression }
}

fn configs(terms: &[Terms; 3]) -> Vec<AdGroupConfig> {
    (0..3)
        .filter(|place| terms[*place].is_there)
        .map(|place| AdGroupConfig {
            index: AdGroupIndex(place as u32),
            name: name(place),
            campaign: "all".parse().expect("a name"),
            billed: billed(place),
            price: Micros(terms[place].price),
            price_nanos: terms[place].nanos as u16,
            impression_rate: 0.9,
            action_rate: if place == 1 { 0.3 } else { 1.0 },
            horizon: Duration::from_secs(180),
            daily_budget: Micros(1_000_000_000),
            prediction: true,
            currency: "USD".parse().expect("a currency"),
            zone: zone(&terms[place]),
            once_per_insertion: terms[place].once,
            pacing: Pacing::Asap,
            learns_rates: true,
        })
        .collect()
}

/// Everything that happened, in order.
#[derive(Default)]
struct Model {
    seen: BTreeSet<(usize, EventKindNumber, String)>,
    outcomes: BTreeSet<(usize, EventKindNumber, String)>,
    /// Prices in billionths, each with the time from which it counts, by ad group.
    prices: [Vec<(Timestamp, i64)>; 3],
    /// Insertions that count, with the times at which they were made.
    insertions: BTreeMap<(usize, String), Vec<Timestamp>>,
    /// Ad group, time, price in billionths.
    paid: Vec<(usize, Timestamp, i64)>,
}

type EventKindNumber = u8;

fn number(kind: EventKind) -> EventKindNumber {
    match kind {
        EventKind::Insertion => 1,
        EventKind::Impression => 2,
        EventKind::Click => 3,
    }
}

/// To the nearest micro.
fn in_micros(nanos: i64) -> i64 {
    (nanos + 500).div_euclid(1_000)
}

impl Model {
    fn price_at(&self, ad_group: usize, at: Timestamp) -> i64 {
        let prices = &self.prices[ad_group];
        prices.iter().rev().find(|(since, _)| *since <= at).unwrap_or(&prices[0]).1
    }

    fn set_price(&mut self, ad_group: usize, terms: &Terms, at: Timestamp) {
        let price = terms.price * 1_000 + terms.nanos;
        match self.prices[ad_group].last() {
            None => self.prices[ad_group].push((Timestamp(i64::MIN), price)),
            Some((_, last)) if *last == price => {}
            Some((since, _)) => {
                let since = at.max(Timestamp(since.0.saturating_add(1)));
                self.prices[ad_group].push((since, price));
            }
        }
    }

    fn apply(
        &mut self,
        ad_group: usize,
        terms: &Terms,
        event: &Event,
        now: Timestamp,
    ) -> EventEffect {
        if !terms.is_there {
            return EventEffect::UnknownAdGroup;
        }
        let kind = number(event.kind);
        if !self.seen.insert((ad_group, kind, event.id.clone())) {
            return EventEffect::Duplicate;
        }
        let paid = match billed(ad_group) {
            BilledEvent::Impression => EventKind::Impression,
            BilledEvent::Click => EventKind::Click,
        };
        if event.kind == EventKind::Insertion {
            if let Some(insertion) = &event.insertion_id {
                self.insertions.entry((ad_group, insertion.clone())).or_default().push(event.at);
            }
            return EventEffect::Counted;
        }
        let insertion = event.insertion_id.clone();
        let repeated = insertion
            .as_ref()
            .is_some_and(|insertion| !self.outcomes.insert((ad_group, kind, insertion.clone())));
        if repeated && terms.once {
            return EventEffect::Repeated;
        }
        if event.kind == paid {
            // For an insertion that was made under several prices the newest price counts.
            let made = insertion.and_then(|insertion| self.insertions.get(&(ad_group, insertion)));
            let by_insertion = made.and_then(|times| {
                let since = |at: &Timestamp| {
                    let prices = &self.prices[ad_group];
                    prices.iter().rposition(|(since, _)| since <= at).unwrap_or(0)
                };
                times.iter().map(since).max().map(|place| self.prices[ad_group][place].1)
            });
            let price = by_insertion.unwrap_or_else(|| {
                let at = event.plausible_inserted_at().unwrap_or(event.at.min(now));
                self.price_at(ad_group, at)
            });
            self.paid.push((ad_group, event.at, price));
        }
        EventEffect::Counted
    }

    fn slices(&self, ad_group: usize) -> BTreeMap<i64, i64> {
        let mut slices = BTreeMap::new();
        for (_, at, price) in self.paid.iter().filter(|paid| paid.0 == ad_group) {
            *slices.entry(at.0.div_euclid(SLICE_SECS * 1_000_000)).or_default() += price;
        }
        slices.values_mut().for_each(|nanos| *nanos = in_micros(*nanos));
        slices
    }

    fn day(&self, ad_group: usize, terms: &Terms, day: BudgetDay) -> i64 {
        let zone = zone(terms).rules();
        let mine = self.paid.iter().filter(|paid| paid.0 == ad_group);
        let nanos = mine.filter(|(_, at, _)| BudgetDay::of(*at, &zone) == day).map(|paid| paid.2);
        in_micros(nanos.sum())
    }
}

/// What survives a crash.
#[derive(Default)]
struct Disk {
    checkpoint: Vec<u8>,
    slice_files: HashMap<String, Vec<u8>>,
    /// Files that are removed with the next checkpoint.
    dropped: Vec<String>,
    /// Events since the checkpoint, with the times of their records.
    log: Vec<(Event, Timestamp)>,
}

impl Disk {
    fn checkpoint(&mut self, engine: &mut Engine) {
        self.dropped.append(&mut engine.take_dropped_slice_files());
        self.checkpoint = engine.checkpoint(7);
        self.log.clear();
        let needed = engine.slice_file_names();
        for name in self.dropped.drain(..).filter(|name| !needed.contains(name)) {
            self.slice_files.remove(&name);
        }
    }

    fn write_slice_files(&mut self, engine: &mut Engine) {
        for (name, content) in engine.unsaved_slice_files() {
            self.slice_files.insert(name.clone(), content.to_vec());
            assert!(engine.slice_file_saved(&name));
        }
    }

    fn read(&self, configs: Vec<AdGroupConfig>, now: Timestamp) -> Engine {
        let named = Engine::named_files(&self.checkpoint).expect("a checkpoint").slices;
        let read = |name: String| {
            let content = self.slice_files.get(&name).expect("a file that a checkpoint names");
            let file = SliceFile::read(content).expect("a whole file");
            (name, file)
        };
        let slices = named.into_iter().map(read).collect();
        let files = CheckpointFiles { slices, ..CheckpointFiles::default() };
        let restored = Engine::restore(&self.checkpoint, 3, 2, 1, configs, now, &files);
        let (mut engine, _) = restored.expect("restored");
        engine.set_dedupe_window(DEDUPE_WINDOW, now);
        for (event, logged_at) in &self.log {
            engine.apply(event, *logged_at).expect("no overflow");
        }
        engine
    }
}

/// An engine and its model, which get the same events.
struct Comparison {
    terms: [Terms; 3],
    /// Whether the zone was changed.
    has_changed_zone: [bool; 3],
    model: Model,
    engine: Engine,
    disk: Disk,
    now: Timestamp,
    /// Events that were sent, with their ad groups.
    sent: Vec<(usize, Event)>,
}

impl Comparison {
    fn new() -> Self {
        let terms = [Terms { price: 100_000, nanos: 0, zone: 0, is_there: true, once: true }; 3];
        let mut model = Model::default();
        (0..3).for_each(|place| model.set_price(place, &terms[place], START));
        let mut engine = Engine::new(3, 1, 1, configs(&terms));
        engine.set_dedupe_window(DEDUPE_WINDOW, START);
        let mut disk = Disk::default();
        disk.checkpoint(&mut engine);
        let has_changed_zone = [false; 3];
        Self { terms, has_changed_zone, model, engine, disk, now: START, sent: Vec::new() }
    }

    /// Does a step, a second after the previous one. Returns the event that it sends.
    fn take(&mut self, step: Step) -> Option<(usize, Event)> {
        self.now = self.now.plus(Duration::from_secs(1));
        match step {
            Step::Event { id, kind, ad_group, age, insertion, inserted } => {
                let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
                let at = self.now.minus(minutes(u64::from(age)));
                let inserted_at = inserted
                    .map(|before| Timestamp(at.0.saturating_sub(i64::from(before) * 60_000_000)));
                let event = Event {
                    id: id.to_string(),
                    kind,
                    ad_group: name(ad_group),
                    insertion_id: insertion.map(|id| id.to_string()),
                    at,
                    inserted_at: inserted_at.filter(|_| kind != EventKind::Insertion),
                    money: EventMoney::NONE,
                    placement: None,
                };
                self.sent.push((ad_group, event.clone()));
                return Some((ad_group, event));
            }
            Step::Again(_) if self.sent.is_empty() => {}
            Step::Again(which) => return Some(self.sent[which.index(self.sent.len())].clone()),
            Step::Change(ad_group, changed) => {
                self.has_changed_zone[ad_group] |= changed.zone != self.terms[ad_group].zone;
                self.terms[ad_group] = changed;
                self.engine.configure(2, configs(&self.terms), self.now);
                if changed.is_there {
                    self.model.set_price(ad_group, &changed, self.now);
                }
                // As its leader does: earlier events keep the price that counted then.
                self.disk.checkpoint(&mut self.engine);
            }
            Step::Pack(writes) => {
                self.engine.pack_closed_slices(self.now);
                if writes {
                    self.disk.write_slice_files(&mut self.engine);
                }
            }
            Step::Checkpoint => self.disk.checkpoint(&mut self.engine),
            Step::Kill => self.restore(),
            Step::TakeOver => {
                self.disk.dropped.append(&mut self.engine.slice_file_names());
                self.engine.detach_slice_files();
                self.disk.checkpoint(&mut self.engine);
            }
            Step::Wait(minutes) => {
                self.now = self.now.plus(Duration::from_secs(60 * u64::from(minutes)));
                self.engine.close(self.now);
            }
        }
        None
    }

    fn restore(&mut self) {
        self.engine = self.disk.read(configs(&self.terms), self.now);
    }

    /// Applies an event to both, which must agree on its effect.
    fn apply(&mut self, ad_group: usize, event: Event) -> Result<(), TestCaseError> {
        let wanted = self.model.apply(ad_group, &self.terms[ad_group], &event, self.now);
        prop_assert_eq!(self.engine.apply(&event, self.now), Ok(wanted), "{:?}", event);
        self.disk.log.push((event, self.now));
        Ok(())
    }

    /// The spend of today.
    fn check_today(&self) -> Result<(), TestCaseError> {
        for state in self.engine.states(self.now) {
            let ad_group = NAMES
                .iter()
                .position(|name| *name == state.name.as_str())
                .expect("a declared ad group");
            let today = BudgetDay::of(self.now, &zone(&self.terms[ad_group]).rules());
            let expected = self.model.day(ad_group, &self.terms[ad_group], today);
            prop_assert_eq!(state.actual.0, expected);
        }
        Ok(())
    }

    /// The spend of every quarter of an hour, and of every budget day.
    fn check_history(&self) -> Result<(), TestCaseError> {
        for ad_group in (0..3).filter(|ad_group| self.terms[*ad_group].is_there) {
            let slices = self.engine.slices(&name(ad_group)).expect("a declared ad group");
            let slices: BTreeMap<i64, i64> = slices
                .into_iter()
                .map(|(start, amount)| (start.0.div_euclid(SLICE_SECS * 1_000_000), amount.0))
                .collect();
            prop_assert_eq!(slices, self.model.slices(ad_group));
            let days = self.engine.days(&name(ad_group), self.now).expect("a declared ad group");
            // After a change of the zone the first one is longer or shorter: see `zones.rs`.
            let skipped = usize::from(self.has_changed_zone[ad_group]);
            for (day, actual) in days.into_iter().skip(skipped) {
                prop_assert_eq!(actual.0, self.model.day(ad_group, &self.terms[ad_group], day));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn spend_is_that_of_a_model_that_keeps_every_event(
        steps in prop::collection::vec(step(), 1..240)
    ) {
        let mut both = Comparison::new();
        for step in steps {
            if let Some((ad_group, event)) = both.take(step) {
                both.apply(ad_group, event)?;
            }
            both.check_today()?;
        }
        both.disk.checkpoint(&mut both.engine);
        both.restore();
        both.check_history()?;
    }
}
