//! Factors of windows that are kept.

use throng_model::{AdGroupIndex, Micros, Pacing, TimeZoneName};

use crate::{AdGroupConfig, Engine, Event, EventKind, EventMoney};

use super::*;

fn config(impression_rate: f64) -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(0),
        name: "red".parse().unwrap(),
        campaign: "one".parse().unwrap(),
        billed: BilledEvent::Impression,
        price: Micros(100_000),
        price_nanos: 0,
        impression_rate,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(1_000_000_000),
        prediction: true,
        currency: "USD".parse().unwrap(),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: true,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp(1_767_225_600_000_000 + second * 1_000_000)
}

fn apply(engine: &mut Engine, kind: EventKind, number: i64, second: i64) {
    let event = Event {
        id: format!("{kind:?}-{number}"),
        kind,
        ad_group: "red".parse().unwrap(),
        insertion_id: Some(number.to_string()),
        at: at(second),
        inserted_at: None,
        money: EventMoney::NONE,
        placement: (kind == EventKind::Insertion).then(|| format!("p{}", number % 3)),
    };
    engine.apply(&event, event.at).unwrap();
}

/// Asserts that all factors are as if they were computed now. Returns how many are not kept.
fn unkept(engine: &Engine) -> usize {
    let account = &engine.accounts[0];
    let windows = || account.windows.iter().map(|(_, window)| window);
    for window in windows() {
        assert_eq!(account.factor_of(window), mean_factor(&account.rates, window));
    }
    windows().filter(|window| window.factor.is_none()).count()
}

#[test]
fn factors_of_windows_are_kept_until_they_change() {
    let mut engine = Engine::new(3, 1, 1, vec![config(0.8)]);
    for second in 0..1_200 {
        apply(&mut engine, EventKind::Insertion, second, second);
        if second % 3 == 0 || second % 4 == 0 {
            apply(&mut engine, EventKind::Impression, second, second + 5);
        }
        if second % 10 == 9 {
            engine.close(at(second));
            assert_eq!(unkept(&engine), 0);
        }
    }
    let account = &engine.accounts[0];
    assert_eq!(account.rates.placements.len(), 3);
    let factors: Vec<f64> = account.windows.iter().map(|(_, it)| account.factor_of(it)).collect();
    assert!(factors.iter().any(|factor| *factor != factors[0]), "placements differ: {factors:?}");
    // An insertion and its outcome change their window alone.
    apply(&mut engine, EventKind::Insertion, 5_000, 1_100);
    apply(&mut engine, EventKind::Impression, 5_000, 1_105);
    assert_eq!(unkept(&engine), 1);
    engine.close(at(1_200));
    assert_eq!(unkept(&engine), 0);
    // Numbers of placements that are merged.
    engine.accounts[0].merge_placements(&[2, 3]);
    assert!(unkept(&engine) > 100);
    engine.close(at(1_201));
    assert_eq!(unkept(&engine), 0);
    // Another declared rate: nothing is learned of the windows.
    engine.configure(2, vec![config(0.7)], at(1_202));
    assert!(unkept(&engine) > 100);
}
