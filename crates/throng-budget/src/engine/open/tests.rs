//! The table of open insertions against a map.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use throng_model::{AdGroupIndex, Micros, Pacing, TimeZoneName, Timestamp};

use super::super::Engine;
use super::*;
use crate::{AdGroupConfig, BilledEvent, Event, EventKind, EventMoney, EventRef};
use throng_rates::survival::{BUCKETS, bounds_of};

fn insertion(window: i32, expected: i64) -> OpenInsertion {
    let at = Timestamp(i64::from(window) * WINDOW_MICROS + 1_234_567);
    let price = (expected % 3 != 0).then_some(expected * 7);
    OpenInsertion::new(at, expected, price, (expected % 4) as u16).unwrap()
}

fn id(number: u64) -> Id {
    Id::of_parts(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number as u16)
}

/// What [`OpenInsertions::evict_oldest`] must leave.
fn evict_oldest(map: &mut BTreeMap<Id, OpenInsertion>) -> u64 {
    let mut windows: Vec<i32> = map.values().map(|insertion| insertion.window).collect();
    windows.sort_unstable();
    let newest = windows[windows.len() / 4];
    let before = map.len();
    map.retain(|_, insertion| insertion.window > newest);
    (before - map.len()) as u64
}

#[test]
fn an_insertion_is_read_back_as_it_was() {
    for (at, expected, price) in [
        (0, 0, None),
        (-1, i64::MAX, Some(0)),
        (1_767_225_600_123_456, 117_001, Some(130_001_500)),
        (i64::from(i32::MAX) * WINDOW_MICROS + 9_999_999, 1, Some(i64::MAX)),
        (i64::from(i32::MIN) * WINDOW_MICROS, 1, None),
    ] {
        let insertion = OpenInsertion::new(Timestamp(at), expected, price, 1_001).unwrap();
        let is_placed = expected != i64::MAX;
        assert_eq!(insertion.placement, if is_placed { 1_001 } else { NO_PLACEMENT });
        for id in [id(0), id(7), Id::of_parts(u64::MAX, u16::MAX)] {
            assert_eq!(OpenInsertion::of_words(insertion.words(id)), (id, insertion));
        }
        assert_eq!(insertion.at(), Timestamp(at.div_euclid(1_000) * 1_000));
    }
    for far in [i64::MIN, i64::MAX, (i64::from(i32::MAX) + 1) * WINDOW_MICROS] {
        assert_eq!(OpenInsertion::new(Timestamp(far), 1, None, 2), None);
    }
}

#[test]
fn placements_are_merged_in_place() {
    let mut open = OpenInsertions::with_capacity(1_000);
    for number in 0..300u64 {
        let placement = (number % 6) as u16;
        let new = OpenInsertion::new(Timestamp(0), number as i64, None, placement).unwrap();
        open.open(id(number), new);
    }
    open.merge_placements(&[3, 5]);
    for number in 0..300u64 {
        let insertion = open.get(id(number)).unwrap();
        let placement = [0, 1, 2, OTHER_PLACEMENT, 4, OTHER_PLACEMENT][(number % 6) as usize];
        assert_eq!((insertion.placement, insertion.expected), (placement, number as i64));
    }
}

#[test]
fn the_oldest_quarter_is_evicted_when_there_is_no_room() {
    let mut open = OpenInsertions::with_capacity(100);
    for number in 0..101 {
        open.open(id(number), insertion(number as i32, 5));
    }
    assert_eq!((open.len(), open.evicted()), (75, 26));
    assert_eq!([25, 26, 100].map(|number| open.get(id(number)).is_some()), [false, true, true]);
    // All of one window are as old as each other.
    let mut open = OpenInsertions::with_capacity(100);
    (0..101).for_each(|number| open.open(id(number), insertion(3, 5)));
    assert_eq!((open.len(), open.evicted()), (1, 100));
}

#[test]
fn an_insertion_is_open_for_two_hours_of_later_ones() {
    let mut open = OpenInsertions::default();
    open.open(id(1), insertion(0, 5));
    open.open(id(2), insertion(HORIZON_WINDOWS as i32, 5));
    assert_eq!((open.len(), open.evicted()), (2, 0));
    open.open(id(3), insertion((HORIZON_WINDOWS + BLOCK_WINDOWS) as i32, 5));
    assert_eq!((open.get(id(1)), open.len(), open.evicted()), (None, 2, 0));
    // One that comes late is open until the next block.
    open.open(id(4), insertion(-50_000, 5));
    open.open(id(5), insertion((HORIZON_WINDOWS + BLOCK_WINDOWS) as i32, 5));
    assert!(open.get(id(4)).is_some());
    open.open(id(6), insertion((HORIZON_WINDOWS + 2 * BLOCK_WINDOWS) as i32, 5));
    assert!(open.get(id(4)).is_none() && open.get(id(2)).is_some());
}

#[test]
fn a_full_table_takes_43_bytes_an_insertion() {
    let open = OpenInsertions::default();
    let bytes = open.most_lines() * LINE;
    assert_eq!(bytes / MAX_OPEN, 42);
    assert!(bytes < 43 * MAX_OPEN, "{bytes}");
}

#[derive(Debug, Clone)]
enum Step {
    Open(u64, i32, i64),
    Remove(u64),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..400, 0i32..1_500, 0i64..1_000).prop_map(|(id, w, e)| Step::Open(id, w, e)),
        4 => (0u64..400).prop_map(Step::Remove),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    /// Ids in a few clusters: long runs of full lines, across the end of the table.
    #[test]
    fn it_is_a_map(steps in prop::collection::vec(step(), 0..1_500), clustered in any::<bool>()) {
        const CAPACITY: usize = 150;
        let of = |number: u64| match clustered {
            true => Id::of_parts(((number % 5).wrapping_sub(2) << 54) | number, number as u16),
            false => id(number),
        };
        let mut open = OpenInsertions::with_capacity(CAPACITY);
        let mut map: BTreeMap<Id, OpenInsertion> = BTreeMap::new();
        let (mut block, mut evicted) = (i64::MIN, 0);
        for step in steps {
            match step {
                Step::Open(number, window, expected) => {
                    let new = insertion(window, expected);
                    open.open(of(number), new);
                    let its = i64::from(window).div_euclid(BLOCK_WINDOWS);
                    if its > block {
                        block = its;
                        let oldest = block * BLOCK_WINDOWS - HORIZON_WINDOWS;
                        map.retain(|_, insertion| i64::from(insertion.window) >= oldest);
                    }
                    if !map.contains_key(&of(number)) {
                        if map.len() >= CAPACITY {
                            evicted += evict_oldest(&mut map);
                        }
                        map.insert(of(number), new);
                    }
                }
                Step::Remove(number) => {
                    prop_assert_eq!(open.get(of(number)), map.get(&of(number)).copied());
                    open.remove(of(number));
                    map.remove(&of(number));
                }
                Step::Reload => {
                    let all: Vec<_> = open.iter().collect();
                    let loaded = OpenInsertions::load(&all, open.block());
                    open = OpenInsertions { capacity: CAPACITY, evicted: open.evicted, ..loaded };
                }
            }
            prop_assert_eq!((open.len(), open.evicted()), (map.len(), evicted));
        }
        for number in 0..400 {
            prop_assert_eq!(open.get(of(number)), map.get(&of(number)).copied());
        }
        prop_assert_eq!(open.iter().collect::<BTreeMap<_, _>>(), map);
    }
}

const START: Timestamp = Timestamp(1_767_225_600_000_000);

fn engine() -> Engine {
    let config = AdGroupConfig {
        index: AdGroupIndex(0),
        name: "red".parse().unwrap(),
        campaign: "all".parse().unwrap(),
        billed: BilledEvent::Impression,
        price: Micros(100_000),
        price_nanos: 0,
        impression_rate: 0.5,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(10_000_000),
        prediction: true,
        currency: "USD".parse().unwrap(),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: false,
    };
    Engine::new(3, 1, 1, vec![config])
}

/// Insertion or impression `number`, made 10 seconds after the one before.
fn event(kind: EventKind, number: u64) -> Event {
    Event {
        id: number.to_string(),
        kind,
        ad_group: "red".parse().unwrap(),
        insertion_id: Some(number.to_string()),
        at: START.plus(Duration::from_secs(10 * number)),
        inserted_at: None,
        money: match kind {
            EventKind::Insertion => EventMoney::NONE.with_price_nanos(600_000_000),
            _ => EventMoney::NONE,
        },
        placement: None,
    }
}

#[test]
fn evicted_insertions_stay_in_flight_and_are_counted() {
    let mut engine = engine();
    engine.open = OpenInsertions::with_capacity(4);
    let insertions: Vec<Event> = (0..5).map(|n| event(EventKind::Insertion, n)).collect();
    let logged: Vec<_> = insertions.iter().map(|event| (EventRef::from(event), event.at)).collect();
    let counts = engine.apply_all(&logged);
    assert_eq!((counts.counted, counts.evicted, counts.not_joined), (5, 2, 0));
    assert_eq!(engine.open_insertions(), 3);
    let now = START.plus(Duration::from_secs(50));
    let figures = |engine: &Engine| {
        let state = &engine.states(now)[0];
        (state.in_flight.0, state.actual.0)
    };
    assert_eq!(figures(&engine), (5 * 300_000, 0));
    let impressions = [1, 4].map(|number| event(EventKind::Impression, number));
    let logged = impressions.each_ref().map(|event| (EventRef::from(event), now));
    let counts = engine.apply_all(&logged);
    assert_eq!((counts.counted, counts.evicted, counts.not_joined), (2, 0, 1));
    // One settles its insertion at its price; the other has the ad group's price, and leaves the windows as
    // they are.
    assert_eq!(figures(&engine), (4 * 300_000, 600_000 + 100_000));
    assert_eq!(engine.open_insertions(), 2);
}

/// Where only a part of the outcomes can name their insertions, what is left of a window is weighted by what
/// is known: the estimate is right on average, whatever that part is.
#[test]
fn what_is_in_flight_is_unbiased_whatever_share_of_outcomes_is_named() {
    for named_percent in [0u64, 30, 70, 100] {
        let mut engine = engine();
        // Half of the insertions are seen, after 0 to 600 seconds; half of those outcomes have come at 300.
        let end = START.plus(Duration::from_secs(300));
        let delays = |number: u64| (number * 7_919 % 600) as i64 * 1_000_000;
        for number in 0..20_000u64 {
            let insertion = Event { at: START, ..event(EventKind::Insertion, number) };
            engine.apply(&insertion, START).unwrap();
            let is_named = number * 31 % 100 < named_percent;
            let delay = delays(number / 2);
            if number.is_multiple_of(2) && delay < 300_000_000 {
                let at = Timestamp(START.0 + delay);
                let impression = Event { at, ..event(EventKind::Impression, number) };
                let insertion_id = impression.insertion_id.clone().filter(|_| is_named);
                let impression = Event { insertion_id, inserted_at: Some(START), ..impression };
                engine.apply(&impression, at).unwrap();
            }
        }
        let later: Vec<f64> = (0..BUCKETS)
            .map(|bucket| (1.0 - (bounds_of(bucket).0 as f64 / 1e6 + 10.0) / 600.0).max(0.0))
            .collect();
        let account = &mut engine.accounts[0];
        account.learn_delays(Some(&later));
        let rates = throng_rates::learn(&[account.observed(end, &engine.pooled_impressions)]);
        rates.into_iter().for_each(|rates| account.set_rates(rates));
        let in_flight = engine.accounts[0].in_flight(end.plus(Duration::from_secs(5))).0 as f64;
        // A quarter of the insertions is still to be seen.
        let wanted = 0.25 * 20_000.0 * 600_000.0;
        let error = (in_flight / wanted - 1.0).abs();
        assert!(error < 0.02, "{named_percent} %: {in_flight} and not {wanted}");
    }
}
