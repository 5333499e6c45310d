//! Budget days of an ad group whose time zone is changed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throng_budget::{AdGroupConfig, BilledEvent, Engine, Event, EventKind, EventMoney};
use throng_model::{BudgetDay, Micros, Timestamp};

use crate::{START, ad_group, restored};

/// Also two that are two dates apart.
const ZONES: [&str; 5] =
    ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"];
const HOUR: i64 = 3_600_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// An impression, so many hours ago.
    Impression(i64),
    /// Hours.
    Wait(i64),
    Zone(usize),
    /// Another zone while no process runs.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Events are at most seven days late.
        6 => (0i64..168).prop_map(Step::Impression),
        4 => (1i64..30).prop_map(Step::Wait),
        1 => (0..ZONES.len()).prop_map(Step::Zone),
        1 => (0..ZONES.len()).prop_map(Step::Restart),
    ]
}

fn config(zone: usize) -> AdGroupConfig {
    AdGroupConfig {
        zone: ZONES[zone].parse().expect("a zone"),
        ..ad_group("red", BilledEvent::Impression)
    }
}

fn impression(number: i64, at: Timestamp) -> Event {
    Event {
        id: number.to_string(),
        kind: EventKind::Impression,
        ad_group: config(0).name,
        insertion_id: None,
        at,
        inserted_at: None,
        money: EventMoney::NONE,
        placement: None,
    }
}

/// What the rows of a ledger have: each is replaced by later figures of its day.
fn write(engine: &Engine, rows: &mut BTreeMap<BudgetDay, Micros>, now: Timestamp) {
    rows.extend(engine.days(&config(0).name, now).expect("it is there"));
}

#[test]
fn a_current_day_that_is_two_dates_ahead_by_another_zone_is_written_again() {
    // The third in Kiritimati, and the first behind the date line.
    let now = Timestamp(START.0 + 35 * HOUR);
    let [ahead, behind] = [3, 4].map(config);
    let mut engine = Engine::new(3, 1, 1, vec![ahead]);
    engine.apply(&impression(1, now), now).expect("it fits");
    let mut rows = BTreeMap::new();
    write(&engine, &mut rows, now);
    let before = spent(&rows)[0];
    engine.configure(2, vec![behind], now);
    write(&engine, &mut rows, now);
    assert_eq!(spent(&rows), [BudgetDay(before.0 - 2)]);
}

/// The days with spend.
fn spent(rows: &BTreeMap<BudgetDay, Micros>) -> Vec<BudgetDay> {
    rows.iter().filter(|(_, actual)| **actual != Micros::ZERO).map(|(day, _)| *day).collect()
}

proptest! {
    #[test]
    fn the_sum_of_the_days_is_the_spend(steps in prop::collection::vec(step(), 1..120)) {
        let mut engine = Engine::new(3, 1, 1, vec![config(0)]);
        let (mut now, mut count, mut rows) = (START, 0, BTreeMap::new());
        for step in steps {
            match step {
                Step::Impression(hours) => {
                    count += 1;
                    let impression = impression(count, Timestamp(now.0 - hours * HOUR));
                    engine.apply(&impression, now).expect("it fits");
                }
                Step::Wait(hours) => now = Timestamp(now.0 + hours * HOUR),
                Step::Zone(zone) => engine.configure(2, vec![config(zone)], now),
                Step::Restart(zone) => engine = restored(&engine, (2, 2), vec![config(zone)], now),
            }
            write(&engine, &mut rows, now);
            let sum: i64 = rows.values().map(|actual| actual.0).sum();
            prop_assert_eq!(sum, count * 100_000, "{:?}", rows);
        }
    }
}
