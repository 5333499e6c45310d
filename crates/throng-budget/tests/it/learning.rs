//! What an engine learns besides delays: rates, and the traffic of an ad group with an even pace.

use std::collections::BTreeMap;
use std::time::Duration;

use throng_budget::{
    AdGroupConfig, BilledEvent, DayPrediction, Engine, Event, EventKind, EventMoney,
};
use throng_feed::{FLAG_CLOSED, Frame, PassThroughRate};
use throng_model::{BudgetDay, Entropy, Micros, Pacing, SplitMix64};

use crate::{ad_group, at, restored};

const PRICE: i64 = 100_000;

fn config(impression_rate: f64, daily_budget: i64, pacing: Pacing) -> AdGroupConfig {
    AdGroupConfig {
        price: Micros(PRICE),
        impression_rate,
        daily_budget: Micros(daily_budget),
        pacing,
        ..ad_group("red", BilledEvent::Impression)
    }
}

fn event(kind: EventKind, id: u64, second: u64, inserted: Option<u64>) -> Event {
    Event {
        id: id.to_string(),
        kind,
        ad_group: "red".parse().expect("a name"),
        insertion_id: None,
        at: at(second),
        inserted_at: inserted.map(at),
        money: EventMoney::NONE,
        placement: None,
    }
}

/// An insertion each second, of which every fifth is seen five seconds later.
fn a_fifth_is_seen(engine: &mut Engine, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let now = at(second);
        engine.apply(&event(EventKind::Insertion, second, second, None), now).expect("it fits");
        if let Some(inserted) = second.checked_sub(5).filter(|inserted| inserted % 5 == 0) {
            let seen = event(EventKind::Impression, second, second, Some(inserted));
            engine.apply(&seen, now).expect("it fits");
        }
        engine.close(now);
    }
}

/// What a thousand insertions at once add to the spend in flight.
fn of_a_thousand(engine: &mut Engine, second: u64) -> i64 {
    let before = engine.states(at(second))[0].in_flight.0;
    for id in 0..1_000 {
        let insertion = event(EventKind::Insertion, 1_000_000 + second * 1_000 + id, second, None);
        engine.apply(&insertion, at(second)).expect("it fits");
    }
    engine.states(at(second))[0].in_flight.0 - before
}

#[test]
fn a_wrong_rate_is_corrected_by_outcomes() {
    let budget = 1_000_000_000_000;
    let mut engine = Engine::new(3, 1, 1, vec![config(0.9, budget, Pacing::Asap)]);
    // Nothing is known: the declared rate.
    assert_eq!(of_a_thousand(&mut engine.clone(), 0), 900 * PRICE);
    a_fifth_is_seen(&mut engine, 0..7_200);
    let learned = of_a_thousand(&mut engine.clone(), 7_200);
    assert!((180 * PRICE..220 * PRICE).contains(&learned), "{learned}");

    // So does a replica that starts from a checkpoint.
    let configs = vec![config(0.9, budget, Pacing::Asap)];
    let mut replica = restored(&engine, (2, 1), configs, at(7_199));
    // Some seconds of ages apart: the same to a percent.
    let restored = of_a_thousand(&mut replica, 7_200);
    assert!((restored - learned).abs() < PRICE * 2, "{restored} and {learned}");

    // With declared rates nothing is learned.
    let fixed = AdGroupConfig { learns_rates: false, ..config(0.9, budget, Pacing::Asap) };
    let mut exact = Engine::new(3, 1, 1, vec![fixed]);
    a_fifth_is_seen(&mut exact, 0..7_200);
    assert_eq!(of_a_thousand(&mut exact, 7_200), 900 * PRICE);
}

#[test]
fn a_corrected_rate_is_not_corrected_twice() {
    let budget = 1_000_000_000_000;
    let mut engine = Engine::new(3, 1, 1, vec![config(0.9, budget, Pacing::Asap)]);
    a_fifth_is_seen(&mut engine, 0..7_200);
    // While no process ran.
    let corrected = vec![config(0.2, budget, Pacing::Asap)];
    let mut restored = restored(&engine, (2, 2), corrected.clone(), at(7_200));
    engine.configure(2, corrected, at(7_200));
    for engine in [&mut restored, &mut engine.clone()] {
        let corrected = of_a_thousand(engine, 7_200);
        assert!((corrected - 200 * PRICE).abs() <= 1, "{corrected}");
    }
    for seconds in [7_201..7_400, 7_400..9_000, 9_000..11_000] {
        let end = seconds.end;
        a_fifth_is_seen(&mut engine, seconds);
        let learned = of_a_thousand(&mut engine.clone(), end);
        assert!((160 * PRICE..260 * PRICE).contains(&learned), "{end}: {learned}");
    }
}

/// What an insertion is expected to earn, times its rate, is less than half a micro here.
#[test]
fn the_rate_of_rare_clicks_is_learned() {
    let clicks = AdGroupConfig {
        billed: BilledEvent::Click,
        price: Micros(1_000_000),
        impression_rate: 0.6,
        action_rate: 0.0005,
        ..config(0.6, 1_000_000_000_000, Pacing::Asap)
    };
    let mut engine = Engine::new(3, 1, 1, vec![clicks]);
    assert_eq!(of_a_thousand(&mut engine.clone(), 0), 300_000);
    for second in 0..3_600 {
        let now = at(second);
        for n in 0..20 {
            let insertion = event(EventKind::Insertion, second * 20 + n, second, None);
            engine.apply(&insertion, now).expect("it fits");
        }
        // Of three in a thousand: ten times what was declared.
        if let Some(inserted) = second.checked_sub(5).filter(|inserted| inserted % 50 < 3) {
            let click = event(EventKind::Click, second, second, Some(inserted));
            engine.apply(&click, now).expect("it fits");
        }
        engine.close(now);
    }
    let learned = of_a_thousand(&mut engine, 3_600);
    assert!((2_300_000..3_300_000).contains(&learned), "{learned}");
}

/// Requests at ten a second, by the pass-through rate of the newest frame. Returns what was spent, and the smallest
/// pass-through rate.
fn spend(engine: &mut Engine, seconds: std::ops::Range<u64>) -> (i64, PassThroughRate) {
    let mut random = SplitMix64::new(5);
    let (mut rate, mut smallest, mut closed) = (PassThroughRate::ALL, PassThroughRate::ALL, false);
    let (mut id, mut spent) = (10_000_000, 0);
    for second in seconds {
        for _ in 0..10 {
            if closed || !rate.is_admitted(random.next_u64()) {
                continue;
            }
            id += 1;
            spent += PRICE;
            let named = Some(id.to_string());
            let insertion = event(EventKind::Insertion, id, second, None);
            let seen = event(EventKind::Impression, id, second, Some(second));
            // The impression settles its insertion.
            for event in [insertion, seen] {
                let event = Event { insertion_id: named.clone(), ..event };
                engine.apply(&event, at(second)).expect("it fits");
            }
        }
        engine.close(at(second));
        let frame = Frame::decode(&engine.delta_at(at(second), id).encode()).expect("a frame");
        if let Some(entry) = frame.entries.first() {
            (rate, closed) = (entry.pass_through_rate, entry.flags & FLAG_CLOSED != 0);
            smallest = smallest.min(rate);
        }
    }
    (spent, smallest)
}

#[test]
fn an_even_pace_is_on_its_plan() {
    // A dollar of it in a thousand seconds; the traffic would spend it in a minute and a half.
    let mut engine = Engine::new(3, 1, 1, vec![config(1.0, 86_400_000, Pacing::Even)]);
    let (spent, smallest) = spend(&mut engine, 0..7_200);
    assert!(smallest < PassThroughRate::of_share(0.1), "{smallest:?}");
    // The plan is that of the day as far as it is known.
    let plan = 7_200_000;
    assert!((spent - plan).abs() < plan / 10, "{spent} of {plan}");
    let reason = engine.states(at(7_199)).remove(0).reason;
    assert!(reason.contains("% of requests"), "{reason}");
}

#[test]
fn as_soon_as_possible_is_all_requests_until_the_budget_is_near() {
    let mut engine = Engine::new(3, 1, 1, vec![config(1.0, 86_400_000, Pacing::Asap)]);
    let (spent, smallest) = spend(&mut engine, 0..60);
    assert_eq!((spent, smallest), (600 * PRICE, PassThroughRate::ALL));
    let mut engine = Engine::new(3, 1, 1, vec![config(1.0, 86_400_000, Pacing::Asap)]);
    let (spent, smallest) = spend(&mut engine, 0..600);
    assert!(smallest < PassThroughRate::of_share(0.5), "it slows down: {smallest:?}");
    assert!((86_300_000..=86_800_000).contains(&spent), "{spent}");
}

#[test]
fn predictions_are_summed_by_the_day_of_the_insertions() {
    const STEP_SECS: u64 = 240;
    let fixed = AdGroupConfig {
        learns_rates: false,
        zone: "America/New_York".parse().expect("a zone"),
        ..config(0.5, 1 << 40, Pacing::Asap)
    };
    let zone = fixed.zone.rules();
    let mut engine = Engine::new(3, 1, 1, vec![fixed.clone()]);
    // More intervals than are kept, so that the first day is in sums alone.
    let steps = 60 * 3_600 / STEP_SECS;
    let mut expected: BTreeMap<BudgetDay, (i64, i64)> = BTreeMap::new();
    let end = at(steps * STEP_SECS);
    for step in 0..steps {
        let second = step * STEP_SECS;
        engine
            .apply(&event(EventKind::Insertion, step, second, None), at(second))
            .expect("it fits");
        let is_seen = step % 3 == 0;
        if is_seen {
            let seen = event(EventKind::Impression, step, second + 20, Some(second));
            engine.apply(&seen, at(second + 20)).expect("it fits");
        }
        engine.close(at(second + 20));
        // Its interval of three minutes, and the longest delay that is waited for.
        let interval_end = (at(second).0.div_euclid(180_000_000) + 1) * 180_000_000;
        if interval_end + 1_810_000_000 <= end.0 {
            let day = expected.entry(BudgetDay::of(at(second), &zone)).or_default();
            *day = (day.0 + PRICE / 2, day.1 + i64::from(is_seen) * PRICE);
        }
    }
    let expected: Vec<DayPrediction> = expected
        .into_iter()
        .map(|(day, (predicted, earned))| DayPrediction {
            day,
            predicted: Micros(predicted),
            earned: Micros(earned),
        })
        .collect();
    assert!(expected.len() >= 3, "{expected:?}");
    let name = fixed.name.clone();
    assert_eq!(engine.predictions(end), [(name.clone(), expected.clone())]);
    let restored = restored(&engine, (2, 1), vec![fixed], end);
    assert_eq!(restored.predictions(end), [(name, expected)]);
    // Nothing is reported of days whose spend is not reported either.
    assert!(restored.predictions(end.plus(Duration::from_secs(12 * 86_400))).is_empty());
}

#[test]
fn prices_below_a_micro_are_predicted_and_earned_exactly() {
    for (own, rate, wanted) in [(None, 1.0, (400, 400)), (Some(300), 0.5, (150, 300))] {
        let cheap = AdGroupConfig {
            price: Micros(0),
            price_nanos: 400,
            learns_rates: false,
            ..config(rate, 1 << 40, Pacing::Asap)
        };
        let mut engine = Engine::new(3, 1, 1, vec![cheap.clone()]);
        let money = own.map_or(EventMoney::NONE, |nanos| EventMoney::NONE.with_price_nanos(nanos));
        for id in 0..1_000 {
            let insertion = event(EventKind::Insertion, id, 0, None);
            let seen = event(EventKind::Impression, id, 20, Some(0));
            for event in [insertion, seen] {
                let event = Event { money, ..event };
                engine.apply(&event, event.at).expect("it fits");
            }
        }
        let end = at(3_600);
        let restored = restored(&engine, (2, 1), vec![cheap], end);
        for engine in [engine, restored] {
            let days = engine.predictions(end).remove(0).1;
            let sums = days.iter().map(|day| (day.predicted.0, day.earned.0));
            assert_eq!(sums.collect::<Vec<_>>(), [wanted]);
            assert_eq!(engine.states(end)[0].actual, Micros(wanted.1));
        }
    }
}
