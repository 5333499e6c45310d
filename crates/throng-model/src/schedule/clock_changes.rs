//! Tests of schedules on the days when a clock changes.

use std::collections::{BTreeSet, HashSet};

use jiff::SignedDuration;
use jiff::civil::DateTime;
use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;

/// Zones whose clocks change in 2026: by one hour at night and at midnight, by half an hour, by two hours, and by quarters
/// beside UTC.
const ZONES: &[&str] = &[
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/Nuuk",
    "America/St_Johns",
    "Europe/Berlin",
    "Europe/Lisbon",
    "Atlantic/Azores",
    "Asia/Beirut",
    "Asia/Jerusalem",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn times(zone: &str, cron: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::new(cron, zone.parse().unwrap()).unwrap();
    let mut at: Timestamp = from.parse().unwrap();
    let mut found = Vec::new();
    for _ in 0..count {
        at = schedule.next_after(at).unwrap();
        found.push(at.to_string());
    }
    found
}

#[test]
fn times_of_one_gap_run_once_right_after_it() {
    for (zone, cron, expected) in [
        ("America/New_York", "0,30 2 * * *", ["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]),
        ("America/New_York", "*/15 2 * * *", ["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]),
        ("America/New_York", "30 2,3 * * *", ["2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"]),
        ("America/New_York", "0 2,3 * * *", ["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]),
        ("America/New_York", "0 2,14 * * *", ["2026-03-08T07:00:00Z", "2026-03-08T18:00:00Z"]),
        ("America/New_York", "0 */2 * * *", ["2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"]),
        ("America/Havana", "*/30 0 * * *", ["2026-03-09T04:00:00Z", "2026-03-09T04:30:00Z"]),
    ] {
        assert_eq!(times(zone, cron, "2026-03-08T06:30:00Z", 2), expected, "{zone} {cron}");
    }
    assert_eq!(
        times("America/Havana", "*/30 0 * * *", "2026-03-08T04:59:59Z", 2),
        ["2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"]
    );
    // This gap ends the day: the Saturday's run is at midnight.
    assert_eq!(
        times("America/Nuuk", "30 23 * * 6", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T01:00:00Z", "2026-04-05T00:30:00Z"]
    );
}

#[test]
fn fixed_times_that_come_twice_run_once() {
    for (cron, expected) in [
        ("0 1,2 * * 7", ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-08T06:00:00Z"]),
        ("0 1-3 * * *", ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"]),
        ("*/30 1 * * *", ["2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z", "2026-11-02T06:00:00Z"]),
    ] {
        let found = times("America/New_York", cron, "2026-11-01T04:30:00Z", 3);
        assert_eq!(found, expected, "{cron}");
    }
    // Also from a time between the two.
    assert_eq!(
        times("America/New_York", "0,40 1 * * *", "2026-11-01T06:10:00Z", 1),
        ["2026-11-02T06:00:00Z"]
    );
}

#[test]
fn every_nth_hour_counts_when_an_hour_is_repeated() {
    for cron in ["0 */2 * * *", "0 0-23/2 * * *"] {
        assert_eq!(
            times("Europe/Berlin", cron, "2026-10-24T22:30:00Z", 3),
            ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z"],
            "{cron}"
        );
    }
    // One hour of the day is a fixed time, however it is written.
    assert_eq!(
        times("America/Havana", "0 */24 * * *", "2026-11-01T00:00:00Z", 2),
        ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]
    );
}

#[test]
fn a_pattern_of_every_hour_makes_up_nothing() {
    assert_eq!(
        times("America/New_York", "20 * * * *", "2026-03-08T05:30:00Z", 2),
        ["2026-03-08T06:20:00Z", "2026-03-08T07:20:00Z"]
    );
}

/// Minutes, hours and days of the week of a pattern.
#[derive(Debug, Clone)]
struct Fields([String; 3]);

impl Fields {
    fn cron(&self) -> String {
        let [minutes, hours, days] = &self.0;
        format!("{minutes} {hours} * * {days}")
    }

    fn sets(&self) -> [BTreeSet<i8>; 3] {
        [values(&self.0[0], 60), values(&self.0[1], 24), values(&self.0[2], 7)]
    }
}

/// The numbers below `end` of a field.
fn values(field: &str, end: i8) -> BTreeSet<i8> {
    let mut found = BTreeSet::new();
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            None if range == "*" => (0, end - 1),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        found.extend((first..=last).step_by(step.parse().unwrap()));
    }
    found
}

fn field(end: i8) -> impl Strategy<Value = String> {
    let list = btree_set(0..end, 1..4)
        .prop_map(|all| all.iter().map(i8::to_string).collect::<Vec<_>>().join(","));
    let range = (0..end, 0..end, 1..end)
        .prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b)));
    let few = (0..end - 1).prop_map(|first| format!("{first}-{}", first + 1));
    let step = (1..=end).prop_map(|step| format!("*/{step}"));
    prop_oneof![3 => list, 2 => range, 2 => few, 2 => step, 1 => Just("*".to_owned())]
}

fn fields() -> impl Strategy<Value = Fields> {
    let days = prop_oneof![3 => Just("*".to_owned()), 1 => field(7)];
    (field(60), field(24), days).prop_map(|(minutes, hours, days)| Fields([minutes, hours, days]))
}

/// What a pattern does, by a walk over all minutes from `from` to `to`.
fn by_minutes(
    fields: &Fields,
    zone: &TimeZone,
    (from, to): (jiff::Timestamp, jiff::Timestamp),
) -> Vec<jiff::Timestamp> {
    let [minutes, hours, days] = fields.sets();
    let matches = |local: DateTime| {
        minutes.contains(&local.minute())
            && hours.contains(&local.hour())
            && days.contains(&local.weekday().to_sunday_zero_offset())
    };
    let is_step = fields.0[1].starts_with("*/") || fields.0[1].starts_with("0-23/");
    let is_interval = hours.len() == 24 || (is_step && hours.len() > 1);
    let (mut found, mut shown) = (Vec::new(), HashSet::new());
    let mut expected = zone.to_datetime(from);
    let mut at = from;
    while at < to {
        let local = zone.to_datetime(at);
        let mut makes_up = false;
        while expected < local {
            makes_up |= hours.len() < 24 && matches(expected);
            expected += MINUTE;
        }
        let is_first = shown.insert(local);
        if makes_up || (matches(local) && (is_first || is_interval)) {
            found.push(at);
        }
        expected = local + MINUTE;
        at += MINUTE;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn schedules_run_as_a_walk_over_all_minutes_says(
        fields in fields(), name in prop::sample::select(ZONES), which in 0usize..2,
    ) {
        let schedule = Schedule::new(&fields.cron(), name.parse().unwrap()).unwrap();
        let zone = schedule.time_zone.rules();
        let year: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let change = zone.following(year).nth(which).unwrap().timestamp();
        let hours = SignedDuration::from_hours;
        let (from, to) = (change - hours(30), change + hours(30));

        let mut runs = Vec::new();
        let mut at = Timestamp(from.as_microsecond() - 1);
        let end = Timestamp(to.as_microsecond());
        while let Some(next) = schedule.next_after(at).filter(|next| *next < end) {
            prop_assert!(next > at, "{} after {}", next, at);
            runs.push(jiff::Timestamp::from_microsecond(next.0).unwrap());
            at = next;
        }
        prop_assert_eq!(&runs, &by_minutes(&fields, &zone, (from, to)));

        // A day of the change has a run if a time of the pattern is on it: on the day itself, or right after the gap.
        let [_, _, days] = fields.sets();
        for moment in [change - MINUTE, change] {
            let day = zone.to_datetime(moment).date();
            let has_run =
                runs.iter().any(|run| *run == change || zone.to_datetime(*run).date() == day);
            prop_assert!(has_run || !days.contains(&day.weekday().to_sunday_zero_offset()));
        }
    }
}
