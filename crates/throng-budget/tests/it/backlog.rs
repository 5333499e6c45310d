//! Insertions and outcomes that reach the log minutes after they were made, as when an ad server was cut off.

use throng_budget::{AdGroupConfig, BilledEvent, Engine, Event, EventKind, EventMoney, EventRef};
use throng_model::{AdGroupIndex, AdGroupName};

use crate::{ad_group, at, restored};

/// When the log begins.
const BEGIN: u64 = 2_000;

fn name(name: &str) -> AdGroupName {
    AdGroupName::new(name).expect("a name")
}

/// Two ad groups of two campaigns, of which 0.7 of the insertions are seen.
fn configs() -> Vec<AdGroupConfig> {
    let config = |index, name, campaign: &str| AdGroupConfig {
        index: AdGroupIndex(index),
        campaign: campaign.parse().expect("a name"),
        impression_rate: 0.7,
        ..ad_group(name, BilledEvent::Impression)
    };
    vec![config(0, "base", "one"), config(1, "new", "two")]
}

/// An event of an insertion that was made in this second, with the time of its record.
fn log(engine: &mut Engine, kind: EventKind, (ad_group, id): (&str, &str), made: u64, logged: u64) {
    let is_insertion = kind == EventKind::Insertion;
    let event = Event {
        id: id.to_owned(),
        kind,
        ad_group: name(ad_group),
        insertion_id: Some(id.to_owned()),
        at: at(made),
        inserted_at: (!is_insertion).then(|| at(made)),
        money: EventMoney::NONE,
        placement: None,
    };
    engine.apply(&event, at(logged)).expect("it fits");
}

/// Insertions of these seconds, of which seven of ten are seen, all in records of one second.
fn log_all(engine: &mut Engine, ad_group: &str, made: impl Iterator<Item = u64>, logged: u64) {
    for (number, made) in made.enumerate() {
        let id = format!("{made}-{number}-{logged}");
        log(engine, EventKind::Insertion, (ad_group, &id), made, logged);
        if number % 10 < 7 {
            log(engine, EventKind::Impression, (ad_group, &id), made, logged);
        }
    }
}

/// What was made five to twenty minutes before the log begins.
fn old() -> impl Iterator<Item = u64> {
    (0..200).map(|number| BEGIN - 300 - number * 9 / 2)
}

/// Asserts that the impression rate is learned, about as it is, and that the interval does not exclude it.
fn is_seven_tenths(engine: &Engine, ad_group: &str) {
    let rates = engine.rates(&name(ad_group)).expect("it is there");
    let rate = rates.impression.learned.expect("it is learned");
    let (low, high) = rate.interval(0.95);
    assert!((rate.mean() - 0.7).abs() < 0.03 && low < 0.7 && high > 0.7, "{ad_group}: {rates:?}");
}

#[test]
fn a_backlog_teaches_neither_delays_nor_rates() {
    let mut engine = Engine::new(3, 1, 1, configs());
    log_all(&mut engine, "base", (0..700).map(|number| BEGIN - 1 - number % 3), BEGIN);
    log_all(&mut engine, "base", old(), BEGIN);
    log_all(&mut engine, "new", (0..200).map(|_| BEGIN - 1), BEGIN);
    let mut replica = engine.clone();
    for second in (BEGIN..BEGIN + 1_000).step_by(10) {
        engine.close(at(second));
        replica.close(at(second));
        if second == BEGIN + 200 {
            // The horizon is over, and all outcomes have come.
            let in_flight: Vec<i64> =
                engine.states(at(second)).iter().map(|state| state.in_flight.0).collect();
            assert_eq!(in_flight, [0, 0]);
        }
        if second >= BEGIN + 200 {
            is_seven_tenths(&engine, "base");
            is_seven_tenths(&engine, "new");
        }
        if second == BEGIN + 100 {
            replica = restored(&engine, (1, 1), configs(), at(second));
        }
    }
    for ad_group in ["base", "new"].map(name) {
        let curve = engine.survival(&ad_group).expect("it is there");
        // Not the horizon's step: it is learned.
        assert!(curve.at(60_000_000) < 0.01, "{curve:?}");
        assert_eq!(replica.survival(&ad_group), Some(curve));
        assert_eq!(replica.rates(&ad_group), engine.rates(&ad_group));
    }
}

/// Applies as many insertions of this second, each with an impression, in records of another one. Returns how many
/// events nothing is learned from.
fn not_learned(engine: &mut Engine, (made, logged): (u64, u64), insertions: usize) -> u64 {
    let events = (0..insertions).flat_map(|number| {
        let id = format!("{made}-{number}-{logged}");
        let event = move |kind, inserted_at| Event {
            id: id.clone(),
            kind,
            ad_group: name("base"),
            insertion_id: Some(id.clone()),
            at: at(made),
            inserted_at,
            money: EventMoney::NONE,
            placement: None,
        };
        [event(EventKind::Insertion, None), event(EventKind::Impression, Some(at(made)))]
    });
    let events: Vec<Event> = events.collect();
    let logged = at(logged);
    let records: Vec<_> = events.iter().map(|event| (EventRef::from(event), logged)).collect();
    let counts = engine.apply_all(&records);
    assert_eq!(counts.counted, 2 * insertions as u64);
    counts.not_learned
}

#[test]
fn events_that_nothing_is_learned_from_are_counted() {
    let mut engine = Engine::new(3, 1, 1, configs());
    let all_late = not_learned(&mut engine, (BEGIN - 300, BEGIN), 10);
    assert_eq!(all_late, 20, "no insertion was in time so far");
    assert_eq!(not_learned(&mut engine, (BEGIN, BEGIN), 10), 0);
    assert_eq!(not_learned(&mut engine, (BEGIN + 100, BEGIN + 101), 10), 0);
    let few_late = not_learned(&mut engine, (BEGIN + 100, BEGIN + 400), 5);
    assert_eq!(few_late, 0, "most insertions of that time were in time");
    assert_eq!(not_learned(&mut engine, (BEGIN + 200, BEGIN + 500), 10), 20);
}

/// The outcomes of a backlog come in another file.
#[test]
fn insertions_of_a_backlog_are_no_trials_before_their_outcomes_come() {
    let mut engine = Engine::new(3, 1, 1, configs());
    for (number, made) in old().enumerate() {
        log(&mut engine, EventKind::Insertion, ("base", &number.to_string()), made, BEGIN);
    }
    log_all(&mut engine, "new", (0..10).map(|_| BEGIN), BEGIN);
    for second in [BEGIN, BEGIN + 10, BEGIN + 20] {
        engine.close(at(second));
        let rates = engine.rates(&name("base")).expect("it is there");
        assert_eq!(rates.impression.learned, None, "{second}");
    }
    for (number, made) in old().enumerate().filter(|(number, _)| number % 10 < 7) {
        let id = number.to_string();
        log(&mut engine, EventKind::Impression, ("base", &id), made, BEGIN + 25);
    }
    log_all(&mut engine, "base", (0..200).map(|_| BEGIN + 29), BEGIN + 30);
    for second in (BEGIN + 30..BEGIN + 2_000).step_by(10) {
        engine.close(at(second));
        if second >= BEGIN + 220 {
            is_seven_tenths(&engine, "base");
        }
    }
}

/// Impressions of ad groups that are paid by click, in another file than the insertions, an hour late.
#[test]
fn impressions_of_an_old_backlog_are_not_counted_without_its_insertions() {
    for is_named in [true, false] {
        let config = AdGroupConfig { impression_rate: 0.7, ..ad_group("base", BilledEvent::Click) };
        let mut engine = Engine::new(3, 1, 1, vec![config]);
        let report = |engine: &mut Engine, kind: EventKind, id: String, made: u64, logged: u64| {
            let is_insertion = kind == EventKind::Insertion;
            let event = Event {
                id: id.clone(),
                kind,
                ad_group: name("base"),
                insertion_id: is_named.then_some(id),
                at: at(made),
                inserted_at: (is_named && !is_insertion).then(|| at(made)),
                money: EventMoney::NONE,
                placement: None,
            };
            engine.apply(&event, at(logged)).expect("it fits");
        };
        for second in BEGIN..BEGIN + 7_200 {
            let id = second.to_string();
            report(&mut engine, EventKind::Insertion, id.clone(), second, second);
            if second % 10 < 7 {
                report(&mut engine, EventKind::Impression, id, second, second);
            }
            if second % 10 == 9 {
                engine.close(at(second));
            }
        }
        // An hour in which the ad server was cut off.
        let (begin, end) = (BEGIN + 7_200, BEGIN + 10_800);
        (begin..end).step_by(10).for_each(|second| engine.close(at(second)));
        for second in begin..begin + 1_200 {
            report(&mut engine, EventKind::Insertion, second.to_string(), second, end);
        }
        engine.close(at(end + 1));
        for second in (begin..begin + 1_200).filter(|second| second % 10 < 7) {
            report(&mut engine, EventKind::Impression, second.to_string(), second, end + 2);
        }
        for second in (end + 10..end + 60).step_by(10) {
            engine.close(at(second));
            is_seven_tenths(&engine, "base");
        }
    }
}
