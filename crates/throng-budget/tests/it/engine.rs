//! Replays, duplicates, silence.

use std::time::Duration;

use proptest::prelude::*;
use throng_budget::{
    AdGroupConfig, BilledEvent, CheckpointFiles, Engine, Event, EventCounts, EventEffect,
    EventKind, EventMoney,
};
use throng_model::{AdGroupIndex, AdGroupName, Micros, Pacing, TimeZoneName, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000_000);

fn configs() -> Vec<AdGroupConfig> {
    [("red", BilledEvent::Impression), ("blue", BilledEvent::Click)]
        .into_iter()
        .enumerate()
        .map(|(index, (name, billed))| AdGroupConfig {
            index: AdGroupIndex(index as u32),
            name: AdGroupName::new(name).expect("a name"),
            campaign: "all".parse().expect("a name"),
            billed,
            price: Micros(130_001),
            price_nanos: 0,
            impression_rate: 0.9,
            action_rate: if billed == BilledEvent::Click { 0.1 } else { 1.0 },
            horizon: Duration::from_secs(180),
            daily_budget: Micros(10_000_000),
            prediction: true,
            currency: "USD".parse().expect("a currency"),
            zone: TimeZoneName::utc(),
            once_per_insertion: true,
            pacing: Pacing::Asap,
            learns_rates: false,
        })
        .collect()
}

fn engine() -> Engine {
    Engine::new(3, 1, 1, configs())
}

fn event(id: u32, kind: EventKind, ad_group: &str, second: u32) -> Event {
    let at = START.plus(Duration::from_secs(second.into()));
    Event {
        id: format!("e{id}"),
        kind,
        ad_group: AdGroupName::new(ad_group).expect("a name"),
        insertion_id: None,
        at,
        inserted_at: (kind != EventKind::Insertion).then(|| at.minus(Duration::from_secs(7))),
        money: EventMoney::NONE,
        placement: None,
    }
}

#[test]
fn an_insertion_is_in_flight_until_the_horizon() {
    let mut engine = engine();
    let insertion = event(1, EventKind::Insertion, "red", 0);
    assert_eq!(engine.apply(&insertion, START), Ok(EventEffect::Counted));
    let at = |second| START.plus(Duration::from_secs(second));
    // 0.130001 × 0.9, to the nearest micro.
    assert_eq!(engine.states(at(170))[0].in_flight, Micros(117_001));
    assert_eq!(engine.states(at(190))[0].in_flight, Micros(0));
}

#[test]
fn silent_ad_groups_windows_close_by_the_clock() {
    let mut engine = engine();
    engine.apply(&event(1, EventKind::Insertion, "red", 0), START).expect("applied");
    let now = START.plus(Duration::from_secs(1));
    assert_eq!(engine.delta(now).entries.len(), 1);
    let later = START.plus(Duration::from_secs(200));
    engine.close(later);
    let frame = engine.delta(later);
    assert_eq!(frame.entries.len(), 1, "gates receive that nothing is in flight");
    assert_eq!(frame.entries[0].in_flight, Micros(0));
    assert!(engine.delta(later).entries.is_empty());
}

/// An implausible time is not learned from and overflows nothing; the spend counts.
#[test]
fn insertion_times_out_of_bounds_are_not_learned_from() {
    let (mut wild, mut plain) = (engine(), engine());
    let times = [i64::MIN, i64::MIN + 1, -1, 1, START.0 + 1_000_000, i64::MAX];
    for (id, inserted_at) in (0..).zip(times) {
        let event = event(id, EventKind::Impression, "red", 0);
        let pair = |inserted_at: Option<Timestamp>| Event { inserted_at, ..event.clone() };
        let event = pair(Some(Timestamp(inserted_at)));
        let counts = wild.apply_all(&[((&event).into(), START)]);
        assert_eq!((counts.counted, counts.inserted_at_ignored), (1, 1), "{inserted_at}");
        plain.apply(&pair(None), START).expect("applied");
    }
    for now in
        [START, START.plus(Duration::from_secs(4_000)), Timestamp(i64::MAX), Timestamp(i64::MIN)]
    {
        wild.close(now);
        plain.close(now);
        assert_eq!(wild.states(now), plain.states(now));
    }
    assert_eq!(wild.checkpoint(6), plain.checkpoint(6));
    assert_eq!(wild.states(START)[0].actual, Micros(6 * 130_001));
}

/// Times at both ends of 64 bits, as damaged or hostile records may have them.
#[test]
fn no_time_overflows_the_engine() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX].map(Timestamp);
    let mut engine = engine();
    let mut id = 0;
    for at in ends {
        for logged_at in ends {
            for kind in [EventKind::Insertion, EventKind::Impression, EventKind::Click] {
                for ad_group in ["red", "blue"] {
                    id += 1;
                    let inserted_at = (kind != EventKind::Insertion).then_some(at);
                    let event = Event { at, inserted_at, ..event(id, kind, ad_group, 0) };
                    let _ = engine.apply(&event, logged_at);
                }
            }
            engine.close(logged_at);
            engine.delta(at);
            engine.states(at);
        }
    }
    let bytes = engine.checkpoint(1);
    let (mut again, _) =
        Engine::restore(&bytes, 3, 1, 1, configs(), START, &CheckpointFiles::default())
            .expect("restored");
    ends.into_iter().for_each(|now| again.close(now));
}

/// Windows from before a restart have long delays as late as those from after it.
#[test]
fn a_restart_does_not_shorten_the_delays_that_are_learned() {
    let mut configs = configs();
    configs.iter_mut().for_each(|config| config.horizon = Duration::from_secs(7_200));
    let mut whole = Engine::new(3, 1, 1, configs.clone());
    let mut restarted = whole.clone();
    for minute in 0..120 {
        let now = START.plus(Duration::from_secs(60 * u64::from(minute)));
        let insertion = event(minute, EventKind::Insertion, "red", 60 * minute);
        let inserted_at = Some(now.minus(Duration::from_secs(2_700)));
        let impression = event(1_000 + minute, EventKind::Impression, "red", 60 * minute);
        let impression = Event { inserted_at, ..impression };
        for engine in [&mut whole, &mut restarted] {
            if minute < 60 {
                engine.apply(&insertion, now).expect("applied");
            }
            if (45..105).contains(&minute) {
                engine.apply(&impression, now).expect("applied");
            }
            engine.close(now);
        }
        if minute == 50 {
            let bytes = restarted.checkpoint(1);
            let files = CheckpointFiles::default();
            let restored = Engine::restore(&bytes, 3, 1, 1, configs.clone(), now, &files);
            restarted = restored.expect("restored").0;
        }
        let red = AdGroupName::new("red").expect("a name");
        if minute > 50 {
            assert_eq!(whole.survival(&red), restarted.survival(&red), "minute {minute}");
            assert_eq!(whole.states(now), restarted.states(now), "minute {minute}");
        }
    }
}

#[test]
fn with_a_longer_window_events_from_before_it_are_rejected() {
    let hours = |hours: u64| Duration::from_secs(3_600 * hours);
    let mut engine = engine();
    engine.apply(&event(1, EventKind::Impression, "red", 0), START).expect("applied");
    let now = START.plus(hours(1));
    let bytes = engine.checkpoint(1);
    let restored = Engine::restore(&bytes, 3, 1, 1, configs(), now, &CheckpointFiles::default());
    let (mut engine, _) = restored.expect("restored");
    engine.set_dedupe_window(hours(48), now);
    let old = |before: u32| Event {
        at: START.minus(hours(before.into())),
        inserted_at: None,
        ..event(100 + before, EventKind::Impression, "red", 0)
    };
    assert_eq!(engine.apply(&old(25), now), Ok(EventEffect::TooOld));
    assert_eq!(engine.apply(&old(24), now), Ok(EventEffect::Counted));
    assert_eq!(engine.apply_all(&[((&old(26)).into(), now)]).rejected, 1);
    // Another start changes nothing.
    let bytes = engine.checkpoint(2);
    let later = now.plus(hours(2));
    let restored = Engine::restore(&bytes, 3, 1, 1, configs(), later, &CheckpointFiles::default());
    let (mut engine, _) = restored.expect("restored");
    engine.set_dedupe_window(hours(48), later);
    assert_eq!(engine.apply(&old(25), later), Ok(EventEffect::TooOld));
    assert_eq!(engine.apply(&old(23), later), Ok(EventEffect::Counted));
}

#[test]
fn yesterdays_late_event_counts_for_yesterday() {
    let mut engine = engine();
    let mut late = event(1, EventKind::Impression, "red", 0);
    late.at = START.minus(Duration::from_secs(1));
    engine.apply(&late, START).expect("applied");
    assert_eq!(engine.states(START)[0].actual, Micros(0));
    assert_eq!(engine.states(late.at)[0].actual, Micros(130_001));
}

#[test]
fn sums_that_overflow_are_rejected_and_change_nothing() {
    let mut configs = configs();
    configs[0].price = Micros(i64::MAX / 2 + 1);
    let mut engine = Engine::new(0, 1, 1, configs);
    engine.apply(&event(1, EventKind::Impression, "red", 0), START).expect("the first fits");
    let before = engine.states(START)[0].actual;
    assert!(engine.apply(&event(2, EventKind::Impression, "red", 0), START).is_err());
    assert_eq!(engine.states(START)[0].actual, before);
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = (0..60u32, 0..3u8, any::<bool>(), 0..4_000u32).prop_map(|(id, kind, red, second)| {
        let kind =
            [EventKind::Insertion, EventKind::Impression, EventKind::Click][usize::from(kind)];
        event(id, kind, if red { "red" } else { "blue" }, second)
    });
    proptest::collection::vec(one, 0..80)
}

fn play(engine: &mut Engine, events: &[Event]) {
    for event in events {
        engine.apply(event, event.at.plus(Duration::from_secs(2))).expect("no overflow");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every event twice, the second time anywhere: the same spend as once.
    #[test]
    fn duplicates_change_nothing(events in events(), places in proptest::collection::vec(any::<proptest::sample::Index>(), 80)) {
        let mut once = engine();
        play(&mut once, &events);
        let mut doubled = events.clone();
        for (event, place) in events.iter().zip(places) {
            let first = doubled.iter().position(|e| e.id == event.id).unwrap_or(0);
            let after = first + 1 + place.index(doubled.len() - first);
            // The repetition carries what its first occurrence carried.
            let again = doubled[first].clone();
            doubled.insert(after.min(doubled.len()), again);
        }
        let mut twice = engine();
        play(&mut twice, &doubled);
        let now = START.plus(Duration::from_secs(4_000));
        prop_assert_eq!(once.states(now), twice.states(now));
    }

    /// Many at once: the same counts and the same spend as one by one, with duplicates and with events of
    /// unknown ad groups.
    #[test]
    fn many_at_once_are_as_one_by_one(mut events in events(), unknown in any::<proptest::sample::Index>()) {
        if !events.is_empty() {
            let place = unknown.index(events.len());
            events[place].ad_group = AdGroupName::new("green").expect("a name");
        }
        let (mut one_by_one, mut at_once) = (engine(), engine());
        let logged_at = |event: &Event| event.at.plus(Duration::from_secs(2));
        let (mut counts, mut effects) = (EventCounts::default(), Vec::new());
        for event in &events {
            let effect = one_by_one.apply(event, logged_at(event)).expect("no overflow");
            effects.push(effect);
            match effect {
                EventEffect::Counted => counts.counted += 1,
                EventEffect::Duplicate => counts.duplicates += 1,
                EventEffect::Repeated => counts.repeated += 1,
                EventEffect::UnknownAdGroup | EventEffect::TooOld => counts.rejected += 1,
            }
        }
        let pairs: Vec<_> = events.iter().map(|event| (event.into(), logged_at(event))).collect();
        let mut each = Vec::new();
        let applied = at_once.apply_each(&pairs, |index, effect| {
            each.push((index, *effect.as_ref().expect("no overflow")));
        });
        // Effects do not tell what is learned.
        counts.not_learned = applied.not_learned;
        prop_assert_eq!(applied, counts);
        prop_assert_eq!(each, effects.into_iter().enumerate().collect::<Vec<_>>());
        prop_assert_eq!(at_once.checkpoint(0), one_by_one.checkpoint(0));
    }

    /// A checkpoint at any offset and the rest of the log: the same state as never having stopped.
    #[test]
    fn a_checkpoint_anywhere_loses_nothing(events in events(), cut in any::<proptest::sample::Index>()) {
        let mut whole = engine();
        play(&mut whole, &events);
        let cut = cut.index(events.len() + 1);
        let mut first = engine();
        play(&mut first, &events[..cut]);
        let bytes = first.checkpoint(cut as u64);
        let (mut second, offset) = Engine::restore(&bytes, 3, 2, 1, configs(), START, &CheckpointFiles::default()).expect("restored");
        prop_assert_eq!(offset.next_offset as usize, cut);
        play(&mut second, &events[cut..]);
        let now = START.plus(Duration::from_secs(4_000));
        whole.close(now);
        second.close(now);
        prop_assert_eq!(whole.states(now), second.states(now));
        let name = AdGroupName::new("red").expect("a name");
        prop_assert_eq!(whole.series(&name), second.series(&name));
    }

    #[test]
    fn no_bytes_make_a_restore_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<proptest::sample::Index>()) {
        prop_assert!(Engine::restore(&bytes, 3, 2, 1, configs(), START, &CheckpointFiles::default()).is_err());
        let mut full = engine();
        play(&mut full, &[event(1, EventKind::Impression, "red", 5)]);
        bytes = full.checkpoint(9);
        let place = flip.index(bytes.len());
        bytes[place] ^= 1;
        prop_assert!(Engine::restore(&bytes, 3, 2, 1, configs(), START, &CheckpointFiles::default()).is_err());
    }
}
