//! Ad groups that get another billed event, or come back in another currency.

use std::collections::BTreeMap;

use throng_budget::{
    AdGroupConfig, BilledEvent, Engine, Event, EventEffect, EventKind, EventMoney,
};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Currency, Micros, TimeZoneName};

use crate::{ad_group, at};

fn red() -> AdGroupName {
    AdGroupName::new("red").expect("a name")
}

fn config(billed: BilledEvent, price: i64) -> AdGroupConfig {
    AdGroupConfig { price: Micros(price), ..ad_group("red", billed) }
}

/// An event of this second. It does not say when its insertion was made.
fn apply(
    engine: &mut Engine,
    id: &str,
    kind: EventKind,
    insertion: &str,
    second: u64,
) -> EventEffect {
    apply_to(engine, "red", (id, kind), insertion, second)
}

fn apply_to(
    engine: &mut Engine,
    ad_group: &str,
    (id, kind): (&str, EventKind),
    insertion: &str,
    second: u64,
) -> EventEffect {
    let event = Event {
        id: id.to_owned(),
        kind,
        ad_group: ad_group.parse().expect("a name"),
        insertion_id: Some(insertion.to_owned()),
        at: at(second),
        inserted_at: None,
        money: EventMoney::NONE,
        placement: None,
    };
    engine.apply(&event, at(second)).expect("no overflow")
}

fn actual(engine: &Engine) -> i64 {
    engine.states(at(300))[0].actual.0
}

/// What a process that starts in this second restores.
fn restored(engine: &Engine, config: AdGroupConfig, second: u64) -> Engine {
    crate::restored(engine, (2, 2), vec![config], at(second))
}

#[test]
fn an_insertion_is_billed_by_the_event_of_its_time_after_a_switch() {
    use EventKind::{Click, Impression, Insertion};
    // Also where the price is the same number.
    for click_price in [2_000_000, 500_000] {
        let seen = config(BilledEvent::Impression, 500_000);
        let clicked = config(BilledEvent::Click, click_price);
        let mut engine = Engine::new(3, 1, 1, vec![seen.clone()]);
        for (second, id) in [(0, "i1"), (1, "i2")] {
            apply(&mut engine, id, Insertion, id, second);
        }
        apply(&mut engine, "v1", Impression, "i1", 5);
        assert_eq!((actual(&engine), engine.open_insertions()), (500_000, 1));
        let mut switched = engine.clone();
        switched.configure(2, vec![clicked.clone()], at(60));
        let after_restart = restored(&switched, clicked.clone(), 61);
        let while_down = restored(&engine, clicked.clone(), 60);
        for mut engine in [switched, after_restart, while_down] {
            // Its impression is paid already.
            assert_eq!(apply(&mut engine, "c1", Click, "i1", 70), EventEffect::Counted);
            // Its impression will be.
            assert_eq!(apply(&mut engine, "c2", Click, "i2", 71), EventEffect::Counted);
            assert_eq!((actual(&engine), engine.open_insertions()), (500_000, 1));
            assert_eq!(apply(&mut engine, "v2", Impression, "i2", 72), EventEffect::Counted);
            assert_eq!((actual(&engine), engine.open_insertions()), (1_000_000, 0));
            assert_eq!(apply(&mut engine, "v3", Impression, "i2", 73), EventEffect::Repeated);

            apply(&mut engine, "i3", Insertion, "i3", 80);
            apply(&mut engine, "v4", Impression, "i3", 81);
            assert_eq!((actual(&engine), engine.open_insertions()), (1_000_000, 1));
            apply(&mut engine, "c3", Click, "i3", 82);
            assert_eq!(actual(&engine), 1_000_000 + click_price);

            apply(&mut engine, "i4", Insertion, "i4", 90);
            engine.configure(3, vec![seen.clone()], at(100));
            apply(&mut engine, "v5", Impression, "i4", 110);
            assert_eq!(actual(&engine), 1_000_000 + click_price);
            apply(&mut engine, "c4", Click, "i4", 111);
            assert_eq!(actual(&engine), 1_000_000 + 2 * click_price);
        }
    }
}

#[test]
fn an_ad_group_that_comes_back_in_another_currency_starts_from_zero() {
    let seen = config(BilledEvent::Impression, 500_000);
    let euros = AdGroupConfig { currency: "EUR".parse().expect("a currency"), ..seen.clone() };
    let mut engine = Engine::new(3, 1, 1, vec![seen.clone()]);
    apply(&mut engine, "v1", EventKind::Impression, "i1", 0);
    engine.configure(2, Vec::new(), at(60));
    let back = |config: &AdGroupConfig| {
        let mut configured = engine.clone();
        configured.configure(3, vec![config.clone()], at(120));
        // Also if no process ran when it was added.
        [
            restored(&configured, config.clone(), 121),
            restored(&engine, config.clone(), 120),
            configured,
        ]
    };
    for engine in back(&seen) {
        assert_eq!(actual(&engine), 500_000);
    }
    for mut engine in back(&euros) {
        assert_eq!((actual(&engine), engine.days(&red(), at(130))), (0, Some(Vec::new())));
        apply(&mut engine, "v2", EventKind::Impression, "i2", 130);
        let engine = restored(&engine, euros.clone(), 140);
        assert_eq!(actual(&engine), 500_000);
    }
}

/// The reported days with spend, counted from the first one of a test.
fn spent_days(engine: &Engine, second: u64) -> Vec<(i32, i64, Currency)> {
    let first = BudgetDay::of(at(0), &TimeZoneName::utc().rules()).0;
    let days = engine.all_days(at(second)).into_iter().flat_map(|(_, days)| days);
    let days = days.filter(|(_, actual, _)| *actual != Micros::ZERO);
    days.map(|(day, actual, currency)| (day.0 - first, actual.0, currency)).collect()
}

#[test]
fn spend_of_the_current_day_is_added_up_after_another_currency() {
    const HOUR: u64 = 3_600;
    let dollars = config(BilledEvent::Impression, 500_000);
    let euros = AdGroupConfig { currency: "EUR".parse().expect("a currency"), ..dollars.clone() };
    let mut engine = Engine::new(3, 1, 1, vec![dollars.clone()]);
    apply(&mut engine, "v1", EventKind::Impression, "i1", 23 * HOUR);
    apply(&mut engine, "v2", EventKind::Impression, "i2", 24 * HOUR);
    engine.configure(2, Vec::new(), at(25 * HOUR));
    engine.configure(3, vec![euros], at(26 * HOUR));
    apply(&mut engine, "v3", EventKind::Impression, "i3", 27 * HOUR);
    let while_down = restored(&engine, dollars.clone(), 28 * HOUR);
    engine.configure(4, vec![dollars.clone()], at(28 * HOUR));
    for engine in [while_down, engine] {
        assert_eq!(spent_days(&engine, 28 * HOUR), [(1, 1_000_000, dollars.currency)]);
    }
}

#[test]
fn an_ad_group_has_its_spend_again_after_it_was_added_in_another_currency() {
    const HOUR: u64 = 3_600;
    let dollars = config(BilledEvent::Impression, 500_000);
    let euros = AdGroupConfig { currency: "EUR".parse().expect("a currency"), ..dollars.clone() };
    let spent = |engine: &Engine| -> i64 {
        let slices = engine.slices(&red()).expect("it is there");
        slices.iter().map(|(_, amount)| amount.0).sum()
    };
    let mut engine = Engine::new(3, 1, 1, vec![dollars.clone()]);
    apply(&mut engine, "v1", EventKind::Impression, "i1", 0);
    engine.pack_closed_slices(at(27 * HOUR));
    engine.configure(2, Vec::new(), at(27 * HOUR));
    engine.configure(3, vec![euros.clone()], at(28 * HOUR));
    assert_eq!(spent(&engine), 0);
    apply(&mut engine, "v2", EventKind::Impression, "i2", 28 * HOUR);
    engine.pack_closed_slices(at(60 * HOUR));
    for engine in [restored(&engine, euros.clone(), 60 * HOUR), engine] {
        assert_eq!(spent(&engine), 500_000);
        // Corrected at once: what it has spent today counts in the new currency. That of earlier days is in the ledger, in
        // either currency, and is not reported again in the other one.
        let mut corrected = engine.clone();
        corrected.configure(4, vec![dollars.clone()], at(61 * HOUR));
        let after_restart = restored(&corrected, dollars.clone(), 62 * HOUR);
        let while_down = restored(&engine, dollars.clone(), 61 * HOUR);
        for mut corrected in [corrected, after_restart, while_down] {
            assert_eq!(spent_days(&corrected, 62 * HOUR), [(1, 500_000, euros.currency)]);
            apply(&mut corrected, "v4", EventKind::Impression, "i4", 62 * HOUR);
            let expected = [(1, 500_000, euros.currency), (2, 500_000, dollars.currency)];
            let again = restored(&corrected, dollars.clone(), 63 * HOUR);
            for corrected in [corrected, again] {
                assert_eq!(spent_days(&corrected, 63 * HOUR), expected);
            }
        }
        // Removed in between.
        let mut back = engine.clone();
        back.configure(4, Vec::new(), at(61 * HOUR));
        let while_down = restored(&back, dollars.clone(), 62 * HOUR);
        back.configure(5, vec![dollars.clone()], at(62 * HOUR));
        back.pack_closed_slices(at(62 * HOUR));
        let after_restart = restored(&back, dollars.clone(), 63 * HOUR);
        for mut back in [back, after_restart, while_down] {
            assert_eq!(spent(&back), 500_000);
            apply(&mut back, "v3", EventKind::Impression, "i3", 63 * HOUR);
            assert_eq!(spent(&back), 1_000_000);
            // That of the other currency is kept as well.
            back.configure(6, Vec::new(), at(64 * HOUR));
            back.configure(7, vec![euros.clone()], at(65 * HOUR));
            assert_eq!(spent(&back), 500_000);
        }
    }
}

#[test]
fn days_before_another_currency_stay_in_theirs() {
    const HOUR: u64 = 3_600;
    let dollars = config(BilledEvent::Impression, 500_000);
    let euros = AdGroupConfig { currency: "EUR".parse().expect("a currency"), ..dollars.clone() };
    let mut engine = Engine::new(3, 1, 1, vec![dollars.clone()]);
    apply(&mut engine, "v1", EventKind::Impression, "i1", 20 * HOUR);
    let while_down = restored(&engine, euros.clone(), 30 * HOUR);
    engine.configure(2, vec![euros.clone()], at(30 * HOUR));
    for mut engine in [while_down, engine] {
        // Late, and of today.
        apply(&mut engine, "v2", EventKind::Impression, "i2", 23 * HOUR);
        apply(&mut engine, "v3", EventKind::Impression, "i3", 31 * HOUR);
        let again = restored(&engine, euros.clone(), 32 * HOUR);
        for engine in [engine, again] {
            let today = BudgetDay::of(at(32 * HOUR), &TimeZoneName::utc().rules()).0;
            let (_, days) = engine.all_days(at(32 * HOUR)).remove(0);
            let days =
                days.into_iter().map(|(day, actual, currency)| (day.0 - today, actual.0, currency));
            let days: Vec<_> = days.filter(|(day, ..)| (-1..1).contains(day)).collect();
            let (usd, eur) = (dollars.currency, euros.currency);
            // Today has no more of the earlier one.
            assert_eq!(days, [(-1, 1_000_000, usd), (0, 500_000, eur), (0, 0, usd)]);
        }
    }
}

#[test]
fn days_keep_their_currencies_after_another_time_zone() {
    const HOUR: u64 = 3_600;
    let dollars = config(BilledEvent::Impression, 500_000);
    let euros = AdGroupConfig { currency: "EUR".parse().expect("a currency"), ..dollars.clone() };
    let (usd, eur) = (dollars.currency, euros.currency);
    // When the currency is changed, and when the zone.
    let cases = [
        // By this zone the currency was changed on the next day.
        ("Asia/Tokyo", 44, 60, vec![(0, 500_000, usd), (1, 500_000, eur), (2, 500_000, eur)]),
        // The day before is the current one again.
        ("America/New_York", 48, 49, vec![(0, 500_000, usd), (1, 1_000_000, eur)]),
    ];
    for (zone, currency_hour, zone_hour, expected) in cases {
        let moved = AdGroupConfig { zone: zone.parse().expect("a zone"), ..euros.clone() };
        let mut rows = BTreeMap::new();
        let mut engine = Engine::new(3, 1, 1, vec![dollars.clone()]);
        apply(&mut engine, "v1", EventKind::Impression, "i1", 10 * HOUR);
        apply(&mut engine, "v2", EventKind::Impression, "i2", 30 * HOUR);
        write(&engine, &mut rows, currency_hour * HOUR);
        engine.configure(2, vec![euros.clone()], at(currency_hour * HOUR));
        apply(&mut engine, "v3", EventKind::Impression, "i3", currency_hour * HOUR);
        write(&engine, &mut rows, currency_hour * HOUR);
        let while_down = restored(&engine, moved.clone(), zone_hour * HOUR);
        engine.configure(3, vec![moved], at(zone_hour * HOUR));
        for engine in [while_down, engine] {
            let mut rows = rows.clone();
            // Also when the day is over.
            for hour in [zone_hour, zone_hour + 24] {
                write(&engine, &mut rows, hour * HOUR);
                let spent = rows.iter().filter(|(_, actual)| **actual != 0);
                let spent: Vec<_> = spent.map(|((day, of), actual)| (*day, *actual, *of)).collect();
                assert_eq!(spent, expected, "{zone}");
            }
        }
    }
}

/// What the rows of a ledger have, by the number of the day in a test: each is replaced by later figures.
fn write(engine: &Engine, rows: &mut BTreeMap<(i32, Currency), i64>, second: u64) {
    let first = BudgetDay::of(at(0), &TimeZoneName::utc().rules()).0;
    let days = engine.all_days(at(second)).into_iter().flat_map(|(_, days)| days);
    rows.extend(days.map(|(day, actual, currency)| ((day.0 - first, currency), actual.0)));
}

/// Besides, an ad group that is paid by click.
fn with_clicks(red: AdGroupConfig) -> Vec<AdGroupConfig> {
    let blue = ad_group("blue", BilledEvent::Click);
    vec![red, AdGroupConfig { index: AdGroupIndex(1), ..blue }]
}

/// An insertion of it each second. All are clicked after so many seconds: ten times what is declared.
fn click_all(engine: &mut Engine, seconds: std::ops::Range<u64>, delay: u64) {
    for second in seconds {
        let id = second.to_string();
        apply_to(engine, "blue", (&id, EventKind::Insertion), &id, second);
        if let Some(made) = second.checked_sub(delay) {
            let made = made.to_string();
            apply_to(engine, "blue", (&made, EventKind::Click), &made, second);
        }
        if second % 10 == 9 {
            engine.close(at(second));
        }
    }
}

#[test]
fn learned_click_rates_are_not_those_of_insertions_that_impressions_pay_for() {
    let seen = AdGroupConfig { impression_rate: 0.7, ..config(BilledEvent::Impression, 100_000) };
    let clicked = AdGroupConfig { impression_rate: 0.7, ..config(BilledEvent::Click, 100_000) };
    let mut engine = Engine::new(3, 1, 1, with_clicks(seen));
    click_all(&mut engine, 0..1_800, 9);
    let numbers = || (0..100).map(|number| format!("i{number}"));
    for id in numbers() {
        apply(&mut engine, &id, EventKind::Insertion, &id, 1_800);
    }
    let in_flight = |engine: &Engine, second| engine.states(at(second))[0].in_flight.0;
    assert_eq!(in_flight(&engine, 1_800), 7_000_000);
    let while_down = crate::restored(&engine, (2, 2), with_clicks(clicked.clone()), at(1_801));
    engine.configure(2, with_clicks(clicked), at(1_801));
    for mut engine in [engine, while_down] {
        engine.close(at(1_802));
        let learned = engine.rates(&red()).and_then(|rates| rates.action?.learned);
        assert!(learned.is_some_and(|rate| rate.mean() > 0.5), "of its campaign: {learned:?}");
        assert_eq!(in_flight(&engine, 1_802), 7_000_000);
        for id in numbers().take(40) {
            apply(&mut engine, &format!("v{id}"), EventKind::Impression, &id, 1_803);
        }
        assert_eq!(in_flight(&engine, 1_803), 4_200_000);
    }
}

#[test]
fn delays_of_impressions_are_not_those_of_clicks() {
    let mut engine = Engine::new(3, 1, 1, with_clicks(config(BilledEvent::Impression, 100_000)));
    for second in 0..3_600 {
        let id = second.to_string();
        apply(&mut engine, &id, EventKind::Insertion, &id, second);
        apply(&mut engine, &id, EventKind::Impression, &id, second);
        click_all(&mut engine, second..second + 1, 100);
    }
    let after_a_minute =
        |engine: &Engine| engine.survival(&red()).expect("it is there").at(60_000_000);
    assert!(after_a_minute(&engine) < 0.01);
    let clicked = with_clicks(config(BilledEvent::Click, 100_000));
    let while_down = crate::restored(&engine, (2, 2), clicked.clone(), at(3_600));
    engine.configure(2, clicked, at(3_600));
    for mut engine in [engine, while_down] {
        engine.close(at(3_601));
        assert!(after_a_minute(&engine) > 0.99, "its clicks come as those of the other");
    }
}
