//! Events with their own prices and rates, and outcomes that settle their insertions, against a model that keeps
//! a list of all events and adds them up in 128 bits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use throng_budget::{
    AdGroupConfig, BilledEvent, CheckpointFiles, Engine, Event, EventEffect, EventKind, EventMoney,
    RATE_ONE, SLICE_SECS, Survival, WINDOW_SECS, events_to_record, read_record,
};
use throng_model::{AdGroupIndex, AdGroupName, Micros, Pacing, TimeZoneName, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const HORIZON: Duration = Duration::from_secs(180);
const NAMES: [&str; 2] = ["red", "blue"];
/// Impressions are billed, of each insertion one.
const RED: usize = 0;
/// Clicks are billed, all of them.
const BLUE: usize = 1;
/// The ad groups' price, in billionths.
const PRICE: i128 = 130_001_500;
/// The ad groups' rates, in billionths.
const IMPRESSION_RATE: u32 = 900_000_000;
const ACTION_RATES: [u32; 2] = [RATE_ONE, 100_000_000];

fn name(ad_group: usize) -> AdGroupName {
    AdGroupName::new(NAMES[ad_group]).expect("a name")
}

fn billed(ad_group: usize) -> EventKind {
    if ad_group == BLUE { EventKind::Click } else { EventKind::Impression }
}

fn configs() -> Vec<AdGroupConfig> {
    let config = |ad_group: usize| AdGroupConfig {
        index: AdGroupIndex(ad_group as u32),
        name: name(ad_group),
        campaign: "all".parse().expect("a name"),
        billed: if ad_group == BLUE { BilledEvent::Click } else { BilledEvent::Impression },
        price: Micros(130_001),
        price_nanos: 500,
        impression_rate: 0.9,
        action_rate: if ad_group == BLUE { 0.1 } else { 1.0 },
        horizon: HORIZON,
        daily_budget: Micros(1_000_000_000),
        prediction: true,
        currency: "USD".parse().expect("a currency"),
        zone: TimeZoneName::utc(),
        once_per_insertion: ad_group == RED,
        pacing: Pacing::Asap,
        learns_rates: false,
    };
    vec![config(RED), config(BLUE)]
}

fn engine() -> Engine {
    Engine::new(3, 1, 1, configs())
}

fn at(second: u32) -> Timestamp {
    START.plus(Duration::from_secs(second.into()))
}

fn event(id: &str, kind: EventKind, ad_group: usize, insertion: Option<&str>) -> Event {
    Event {
        id: id.to_owned(),
        kind,
        ad_group: name(ad_group),
        insertion_id: insertion.map(str::to_owned),
        at: START,
        inserted_at: None,
        money: EventMoney::NONE,
        placement: None,
    }
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let kind = prop_oneof![
        2 => Just(EventKind::Insertion),
        1 => Just(EventKind::Impression),
        1 => Just(EventKind::Click)
    ];
    let price = prop_oneof![Just(0), 0i64..5_000, 0i64..3_000_000_000];
    let rate = || prop_oneof![Just(0), Just(RATE_ONE), 0..=RATE_ONE];
    let money =
        (prop::option::of(price), prop::option::of(rate()), prop::option::weighted(0.3, rate()));
    let ids = (0u8..90, prop::option::weighted(0.8, 0u8..24));
    // Times in any order: outcomes come late, and before their insertions.
    let one = (ids, kind, 0usize..2, 0u32..4_000, prop::option::of(0u32..300), money).prop_map(
        |((id, insertion), kind, ad_group, second, before, (price, seen, acted))| {
            let is_insertion = kind == EventKind::Insertion;
            let mut money = EventMoney::NONE;
            if let Some(price) = price {
                money = money.with_price_nanos(price);
            }
            if let Some(rate) = seen.filter(|_| is_insertion) {
                money = money.with_impression_rate(rate);
            }
            if let Some(rate) = acted.filter(|_| is_insertion) {
                money = money.with_action_rate(rate);
            }
            let inserted_at = before.filter(|_| !is_insertion);
            let inserted_at =
                inserted_at.map(|before| at(second).minus(Duration::from_secs(before.into())));
            let insertion = insertion.map(|id| format!("i{id}"));
            let event = Event {
                at: at(second),
                inserted_at,
                money,
                placement: is_insertion.then(|| "home".to_owned()),
                ..event(&format!("e{id}"), kind, ad_group, insertion.as_deref())
            };
            (ad_group, event)
        },
    );
    prop::collection::vec(one, 0..160)
}

/// An insertion that counts and had no outcome when it came.
struct Insertion {
    ad_group: usize,
    at: Timestamp,
    expected: i128,
    price: i128,
    has_outcome: bool,
}

/// Everything that happened.
#[derive(Default)]
struct Model {
    seen: BTreeSet<(usize, u8, String)>,
    /// Insertions that an outcome of a kind has named.
    outcomes: BTreeSet<(usize, u8, String)>,
    /// Insertions by what they are named by; the number of one that has had its outcome before it is missing.
    named: BTreeMap<(usize, String), Option<usize>>,
    insertions: Vec<Insertion>,
    /// Ad group, time, price in billionths.
    paid: Vec<(usize, Timestamp, i128)>,
}

fn number(kind: EventKind) -> u8 {
    match kind {
        EventKind::Insertion => 1,
        EventKind::Impression => 2,
        EventKind::Click => 3,
    }
}

/// To the nearest micro; at least one if there is anything.
fn expected(ad_group: usize, money: EventMoney) -> i128 {
    let price = money.price_nanos().map_or(PRICE, i128::from);
    let seen = money.impression_rate().unwrap_or(IMPRESSION_RATE);
    // Where impressions are billed, there is no action.
    let acted = money.action_rate().filter(|_| ad_group == BLUE);
    let acted = acted.unwrap_or(ACTION_RATES[ad_group]);
    let product = price * i128::from(seen) * i128::from(acted);
    let unit = 1_000_000_000_000_000_000_000;
    ((product + unit / 2) / unit).max(i128::from(product > 0))
}

impl Model {
    fn apply(&mut self, ad_group: usize, event: &Event) -> EventEffect {
        let kind = number(event.kind);
        if !self.seen.insert((ad_group, kind, event.id.clone())) {
            return EventEffect::Duplicate;
        }
        if event.kind == EventKind::Insertion {
            self.insert(ad_group, event);
            return EventEffect::Counted;
        }
        let insertion = event.insertion_id.clone();
        let is_first = insertion
            .clone()
            .is_none_or(|insertion| self.outcomes.insert((ad_group, kind, insertion)));
        if ad_group == RED && !is_first {
            return EventEffect::Repeated;
        }
        if event.kind == billed(ad_group) {
            let named = insertion.and_then(|id| *self.named.get(&(ad_group, id))?);
            let price = named.map_or(PRICE, |place| self.insertions[place].price);
            let price = event.money.price_nanos().map_or(price, i128::from);
            self.paid.push((ad_group, event.at, price));
            if let Some(place) = named {
                self.insertions[place].has_outcome = true;
            }
        }
        EventEffect::Counted
    }

    fn insert(&mut self, ad_group: usize, event: &Event) {
        let key = event.insertion_id.clone().map(|id| (ad_group, id));
        // Another one with the same name is an insertion that nothing can name.
        let key = key.filter(|key| !self.named.contains_key(key));
        let outcome = |(ad_group, id): &(usize, String)| {
            self.outcomes.contains(&(*ad_group, number(billed(*ad_group)), id.clone()))
        };
        let has_outcome = key.as_ref().is_some_and(outcome);
        if !has_outcome {
            self.insertions.push(Insertion {
                ad_group,
                at: event.at,
                expected: expected(ad_group, event.money),
                price: event.money.price_nanos().map_or(PRICE, i128::from),
                has_outcome: false,
            });
        }
        if let Some(key) = key {
            self.named.insert(key, (!has_outcome).then(|| self.insertions.len() - 1));
        }
    }

    /// What is in flight: as long as delays are not learned, everything until the horizon, by windows.
    fn in_flight(&self, ad_group: usize, now: Timestamp) -> i128 {
        let window = WINDOW_SECS * 1_000_000;
        let is_in_flight = |insertion: &&Insertion| {
            let middle = insertion.at.0.div_euclid(window) * window + window / 2;
            insertion.ad_group == ad_group
                && !insertion.has_outcome
                && now.0 - middle < HORIZON.as_micros() as i64
        };
        self.insertions.iter().filter(is_in_flight).map(|insertion| insertion.expected).sum()
    }

    fn slices(&self, ad_group: usize) -> BTreeMap<i64, i128> {
        let mut slices = BTreeMap::new();
        for (_, at, nanos) in self.paid.iter().filter(|paid| paid.0 == ad_group) {
            *slices.entry(at.0.div_euclid(SLICE_SECS * 1_000_000)).or_default() += nanos;
        }
        slices.values_mut().for_each(|nanos: &mut i128| *nanos = (*nanos + 500).div_euclid(1_000));
        slices
    }

    /// The engine has the same figures at every moment.
    fn check(&self, engine: &Engine) -> Result<(), TestCaseError> {
        for ad_group in [RED, BLUE] {
            prop_assert_eq!(engine.survival(&name(ad_group)), Some(&Survival::step(HORIZON)));
            let slices = engine.slices(&name(ad_group)).expect("a declared ad group");
            let slices: BTreeMap<i64, i128> = slices
                .into_iter()
                .map(|(start, spent)| {
                    (start.0.div_euclid(SLICE_SECS * 1_000_000), i128::from(spent.0))
                })
                .collect();
            prop_assert_eq!(slices, self.slices(ad_group));
            for second in (0..4_400).step_by(37) {
                let now = at(second);
                let state = &engine.states(now)[ad_group];
                prop_assert_eq!(i128::from(state.in_flight.0), self.in_flight(ad_group, now));
            }
        }
        Ok(())
    }
}

/// Applies an event as it is in the log.
fn apply(engine: &mut Engine, event: &Event) -> EventEffect {
    let record = events_to_record([event]);
    let mut effect = None;
    let read = read_record(&record, |read| {
        assert!(read.is_valid(event.at, throng_budget::DEFAULT_DEDUPE_WINDOW));
        let logged_at = event.at.plus(Duration::from_secs(2));
        effect = Some(engine.apply(read, logged_at).expect("no overflow"));
    });
    assert_eq!(read, Ok(()));
    effect.expect("one event")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Duplicates, late outcomes and outcomes before their insertion; a replay from a checkpoint at any event
    /// has equal state.
    #[test]
    fn figures_are_those_of_a_list_of_all_events(
        events in events(), cut in any::<prop::sample::Index>()
    ) {
        let (mut model, mut engine) = (Model::default(), engine());
        let cut = cut.index(events.len() + 1);
        let mut checkpoint = engine.checkpoint(0);
        for (place, (ad_group, event)) in events.iter().enumerate() {
            if place == cut {
                checkpoint = engine.checkpoint(place as u64);
            }
            let wanted = model.apply(*ad_group, event);
            prop_assert_eq!(apply(&mut engine, event), wanted, "{:?}", event);
        }
        model.check(&engine)?;
        let files = CheckpointFiles::default();
        let restored = Engine::restore(&checkpoint, 3, 2, 1, configs(), START, &files);
        let (mut restored, position) = restored.expect("restored");
        for (_, event) in &events[position.next_offset as usize..] {
            apply(&mut restored, event);
        }
        model.check(&restored)?;
        prop_assert_eq!(restored.open_insertions(), engine.open_insertions());
        for ad_group in [RED, BLUE] {
            let series = |engine: &Engine| engine.series(&name(ad_group));
            prop_assert_eq!(series(&restored), series(&engine));
        }
    }
}

fn in_flight(engine: &Engine, ad_group: usize) -> i64 {
    engine.states(at(20))[ad_group].in_flight.0
}

#[test]
fn an_outcome_takes_its_own_insertion_out_of_flight_at_once() {
    let mut engine = engine();
    let terms = EventMoney::NONE.with_price_nanos(2_000_000_000);
    let terms = terms.with_impression_rate(500_000_000).with_action_rate(40_000_000);
    let insertion =
        |id: &str, money| Event { money, ..event(id, EventKind::Insertion, BLUE, Some(id)) };
    apply(&mut engine, &insertion("own", terms));
    apply(&mut engine, &insertion("plain", EventMoney::NONE));
    // 2 × 0.5 × 0.04, and 0.1300015 × 0.9 × 0.1.
    assert_eq!((in_flight(&engine, BLUE), engine.open_insertions()), (40_000 + 11_700, 2));
    // It does not say when its insertion was made.
    let click = event("c1", EventKind::Click, BLUE, Some("own"));
    assert_eq!(apply(&mut engine, &click), EventEffect::Counted);
    assert_eq!(
        (in_flight(&engine, BLUE), engine.states(START)[BLUE].actual.0),
        (11_700, 2_000_000)
    );
    let clearing = EventMoney::NONE.with_price_nanos(700_000_400);
    let click = Event { money: clearing, ..event("c2", EventKind::Click, BLUE, Some("plain")) };
    apply(&mut engine, &click);
    assert_eq!((in_flight(&engine, BLUE), engine.states(START)[BLUE].actual.0), (0, 2_700_000));
    // The second click of an insertion is billed at its price too.
    apply(&mut engine, &event("c3", EventKind::Click, BLUE, Some("own")));
    assert_eq!(engine.states(START)[BLUE].actual.0, 4_700_000);
    // An impression is not what is paid for.
    apply(&mut engine, &insertion("seen", terms));
    apply(&mut engine, &event("v1", EventKind::Impression, BLUE, Some("seen")));
    assert_eq!(in_flight(&engine, BLUE), 40_000);
}

#[test]
fn an_outcome_that_came_first_leaves_nothing_in_flight() {
    let mut engine = engine();
    apply(&mut engine, &event("v", EventKind::Impression, RED, Some("i")));
    let money = EventMoney::NONE.with_price_nanos(5_000_000_000);
    let insertion = Event { money, ..event("i", EventKind::Insertion, RED, Some("i")) };
    apply(&mut engine, &insertion);
    let state = &engine.states(at(20))[RED];
    // It was billed before the insertion's price was known.
    assert_eq!((state.in_flight.0, state.actual.0), (0, 130_002));
    assert_eq!(engine.open_insertions(), 0);
}

/// As the sums of the spec's prices: an error, and the state is as before.
#[test]
fn sums_of_event_prices_that_do_not_fit_are_refused() {
    let mut engine = engine();
    let highest = EventMoney::NONE.with_price_nanos(throng_budget::MAX_PRICE_NANOS);
    // 2^63 micros are 92,233 times the highest price.
    for number in 0..92_233u32 {
        let id = number.to_string();
        let impression = Event { money: highest, ..event(&id, EventKind::Impression, RED, None) };
        engine.apply(&impression, START).expect("it fits");
    }
    let before = engine.states(START)[RED].actual;
    let last = Event { money: highest, ..event("last", EventKind::Impression, RED, None) };
    assert!(engine.apply(&last, START).is_err());
    assert_eq!(engine.states(START)[RED].actual, before);
}
