//! When an audience is refreshed.

use std::ops::RangeInclusive;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::{TimeZoneName, Timestamp};

/// A cron pattern in a time zone. Create it with [`Schedule::new`], which checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week; or `@daily` and the like.
    pub cron: String,
    /// The time zone of the pattern.
    pub time_zone: TimeZoneName,
}

/// How the files of an audience's tables are inspected for changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTrigger {
    /// Seconds between two polls, 5 to 86,400; 60 unless set. A change that two polls find the same
    /// starts a refresh.
    pub poll_secs: u32,
    /// The name of a file without which, or with files newer than it, no refresh starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_file: Option<String>,
}

impl SourceTrigger {
    /// The limits of `poll_secs`.
    pub const POLL_SECS: RangeInclusive<u32> = 5..=86_400;

    /// Whether a text is the name of a file in a folder, and not a path.
    pub fn is_file_name(text: &str) -> bool {
        !matches!(text, "" | "." | "..") && text.len() <= 255 && !text.contains(['/', '\\', '\0'])
    }
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a cron pattern.
    #[error("`{cron}` is not a cron pattern: {reason}")]
    NotAPattern {
        /// The text, cut to 60 characters.
        cron: String,
        /// The reason of the parser.
        reason: String,
    },
    /// A pattern that no date matches, such as the 30th of February.
    #[error("`{cron}` never matches: there is no such date")]
    Never {
        /// The pattern.
        cron: String,
    },
}

impl Schedule {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`ScheduleError`] if it is not a pattern of five fields, or if no date matches it.
    pub fn new(cron: &str, time_zone: TimeZoneName) -> Result<Self, ScheduleError> {
        let reason = too_large_step(cron).or_else(|| parse(cron).err());
        if let Some(reason) = reason {
            let cron = cron.chars().take(60).collect();
            return Err(ScheduleError::NotAPattern { cron, reason });
        }
        let schedule = Self { cron: cron.to_owned(), time_zone };
        // 2001-01-01: the result must not depend on the time of the check.
        match schedule.next_after(Timestamp(978_307_200_000_000)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never { cron: schedule.cron }),
        }
    }

    /// The first match after `at` (never `at` itself), or `None` if there is none.
    ///
    /// On the days when the local clock changes:
    ///
    /// * Times that the clock skips match once, together, right after the gap. A pattern of every hour does not make them
    ///   up: its next hour follows.
    /// * Times that the clock shows twice match the first time only. A pattern of every hour, or of every nth hour of the
    ///   whole day (`*/2`, `0-23/2`), matches both times.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let pattern = parse(&self.cron).ok()?;
        let start = jiff::Timestamp::from_microsecond(at.0).ok()?;
        let zone = self.time_zone.rules();
        let hours = pattern.pattern.hours.values().len();
        let next = if hours == EVERY_HOUR || (hours > 1 && has_step_of_the_day(&self.cron)) {
            next_of_interval(&pattern, &zone, start, hours < EVERY_HOUR)
        } else {
            next_of_fixed(&pattern, &zone, start)
        };
        Some(Timestamp(next?.as_microsecond()))
    }
}

/// The number of hours of a pattern that has them all.
const EVERY_HOUR: usize = 24;

/// Whether the hours of a pattern have a step over the whole day, such as `*/2`.
fn has_step_of_the_day(cron: &str) -> bool {
    let hours = cron.split_whitespace().nth(1).unwrap_or_default();
    let mut steps = hours.split(',').filter_map(|part| part.split_once('/'));
    steps.any(|(start, _)| matches!(start, "*" | "0-23"))
}

/// The next match of a pattern of certain times of the day. The parser searches local times without a time zone: with one
/// it takes a pattern with lists or ranges for one of every hour.
fn next_of_fixed(
    pattern: &Cron,
    zone: &TimeZone,
    start: jiff::Timestamp,
) -> Option<jiff::Timestamp> {
    let mut local = zone.to_datetime(start);
    loop {
        local = pattern.find_next_occurrence(&local, false).ok()?;
        let times = zone.to_ambiguous_timestamp(local);
        let at = match times.offset() {
            AmbiguousOffset::Gap { .. } => {
                // With the offset after the gap, a skipped time is a moment before the change.
                zone.following(times.earlier().ok()?).next()?.timestamp()
            }
            // The first of two.
            AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } => {
                times.compatible().ok()?
            }
        };
        // Not so for a time that is shown again, and for further times of a gap that has passed.
        if at > start {
            return Some(at);
        }
    }
}

/// The next match of a pattern that runs by elapsed time: between two changes of the clock the offset is constant.
/// `makes_up`: whether times that the clock skips match right after the gap.
fn next_of_interval(
    pattern: &Cron,
    zone: &TimeZone,
    start: jiff::Timestamp,
    makes_up: bool,
) -> Option<jiff::Timestamp> {
    let (mut from, mut is_after_change) = (start, false);
    loop {
        let offset = zone.to_offset(from);
        let local =
            pattern.find_next_occurrence(&offset.to_datetime(from), is_after_change).ok()?;
        let at = offset.to_timestamp(local).ok()?;
        let change = zone.following(from).next().map(|change| change.timestamp());
        let Some(change) = change.filter(|change| *change <= at) else { return Some(at) };
        if makes_up && local < zone.to_datetime(change) {
            return Some(change);
        }
        (from, is_after_change) = (change, true);
    }

    /// The last match after `since` that is not after `until`. Of a frequent pattern and a `since` of long ago not every
    /// match is computed.
    pub fn latest_between(&self, since: Timestamp, until: Timestamp) -> Option<Timestamp> {
        const HOUR: Duration = Duration::from_secs(3_600);
        // Short windows first.
        for window in [HOUR, HOUR * 24, HOUR * 24 * 32] {
            let from = until.minus(window);
            if from <= since {
                break;
            }
            if let Some(latest) = self.last_of(from, until) {
                return Some(latest);
            }
        }
        self.last_of(since, until)
    }

    /// [`latest_between`](Self::latest_between), by every match.
    fn last_of(&self, since: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut last = None;
        let mut at = since;
        // Only forward: a schedule that returned the same time again would never end the loop.
        while let Some(next) = self.next_after(at).filter(|next| *next <= until && *next > at) {
            last = Some(next);
            at = next;
        }
        last
    }
}

/// The fields of a pattern, with the largest step that means what it says: `*/60` in the minutes is every hour, and `*/12`
/// in the months every year.
const FIELDS: [(&str, u32); 5] = [
    ("minutes", 60),
    ("hours", 24),
    ("days of the month", 30),
    ("months", 12),
    ("days of the week", 7),
];

/// A step beyond its field: `*/90` in the minutes is not every 90 minutes, but every hour. Only new patterns are checked:
/// one of a spec that an earlier version has applied fires as it did.
fn too_large_step(cron: &str) -> Option<String> {
    for ((field, largest), text) in FIELDS.iter().zip(cron.split_whitespace()) {
        for part in text.split(',') {
            let step = part.split_once('/').and_then(|(_, step)| step.parse::<u32>().ok());
            if step.is_some_and(|step| step > *largest) {
                return Some(format!("a step of {field} is at most {largest}"));
            }
        }
    }
    None
}

fn parse(cron: &str) -> Result<Cron, String> {
    // The parser writes it with seconds, which are not allowed here.
    let cron = if cron.trim().eq_ignore_ascii_case("@midnight") { "@daily" } else { cron };
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(cron)
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason.trim_start_matches("Component error: ").trim_end_matches('.');
            reason.to_lowercase()
        })
}

#[cfg(test)]
mod clock_changes;

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, from: &str, count: usize) -> Vec<String> {
        times_in("America/New_York", cron, from, count)
    }

    fn times_in(zone: &str, cron: &str, from: &str, count: usize) -> Vec<String> {
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
    fn the_night_that_skips_an_hour_runs_once() {
        // 02:30 does not exist in New York on 2026-03-08: the clock goes from 02:00 to 03:00.
        assert_eq!(
            times("30 2 * * *", "2026-03-07T12:00:00Z", 2),
            ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
        );
    }

    #[test]
    fn the_night_that_repeats_an_hour_runs_once() {
        // 01:30 comes twice in New York on 2026-11-01, at 05:30 and at 06:30 UTC.
        assert_eq!(
            times("30 1 * * *", "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
    }

    #[test]
    fn a_step_beyond_its_field_is_no_schedule() {
        for (cron, reason) in [
            ("*/90 * * * *", "a step of minutes is at most 60"),
            ("0 8-18/2,*/25 * * *", "a step of hours is at most 24"),
            ("0 0 */31 * *", "a step of days of the month is at most 30"),
        ] {
            let error = Schedule::new(cron, "UTC".parse().unwrap()).unwrap_err();
            let reason = reason.to_owned();
            assert_eq!(error, ScheduleError::NotAPattern { cron: cron.to_owned(), reason });
            // One of an applied spec is not checked again, and must not stop in silence.
            let applied = Schedule { cron: cron.to_owned(), time_zone: "UTC".parse().unwrap() };
            assert!(applied.next_after(Timestamp(0)).is_some(), "{cron}");
        }
        // Steps as large as their fields are every hour, day, year and week.
        for (cron, next) in [
            ("*/60 * * * *", "2026-06-01T01:00:00Z"),
            ("0 */24 * * *", "2026-06-02T00:00:00Z"),
            ("0 0 1 */12 *", "2027-01-01T00:00:00Z"),
            ("0 0 * * */7", "2026-06-07T00:00:00Z"),
        ] {
            assert_eq!(times_in("UTC", cron, "2026-06-01T00:10:00Z", 1), [next], "{cron}");
        }
        assert_eq!(
            times_in("UTC", "*/59 * * * *", "2026-06-01T00:10:00Z", 2),
            ["2026-06-01T00:59:00Z", "2026-06-01T01:00:00Z"]
        );
        assert_eq!(
            times_in("UTC", "@midnight", "2026-06-01T00:10:00Z", 1),
            ["2026-06-02T00:00:00Z"]
        );
    }

    #[test]
    fn days_of_the_month_and_of_the_week_are_alternatives() {
        // 2026-06-01 is a Monday: the first seven days, and every Monday.
        let days = times_in("Europe/Berlin", "0 9 1-7 * 1", "2026-06-01T00:00:00Z", 9);
        let days: Vec<&str> = days.iter().map(|time| &time[8..10]).collect();
        assert_eq!(days, ["01", "02", "03", "04", "05", "06", "07", "08", "15"]);
    }

    #[test]
    fn every_real_hour_counts_when_an_hour_is_repeated() {
        assert_eq!(
            times("20 * * * *", "2026-11-01T03:30:00Z", 4),
            [
                "2026-11-01T04:20:00Z",
                "2026-11-01T05:20:00Z",
                "2026-11-01T06:20:00Z",
                "2026-11-01T07:20:00Z"
            ]
        );
    }

    #[test]
    fn other_times_of_a_day_that_skips_an_hour_stay() {
        assert_eq!(
            times_in("America/Chicago", "0 10 * * *", "2026-03-07T09:00:00Z", 3),
            ["2026-03-07T16:00:00Z", "2026-03-08T15:00:00Z", "2026-03-09T15:00:00Z"]
        );
    }

    #[test]
    fn a_gap_may_be_half_an_hour_long() {
        // The clock of Lord Howe Island goes from 02:00 to 02:30 on 2026-10-04.
        assert_eq!(
            times_in("Australia/Lord_Howe", "30 2 * * *", "2026-10-02T00:00:00Z", 3),
            ["2026-10-02T16:00:00Z", "2026-10-03T15:30:00Z", "2026-10-04T15:30:00Z"]
        );
    }

    #[test]
    fn a_time_is_not_its_own_successor() {
        assert_eq!(times("0 3 * * *", "2026-06-01T07:00:00Z", 1), ["2026-06-02T07:00:00Z"]);
    }

    #[test]
    fn the_latest_match_replaces_all_before_it() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let latest = |cron: &str, since: &str, until: &str| {
            let schedule = Schedule::new(cron, "America/New_York".parse().unwrap()).unwrap();
            schedule.latest_between(at(since), at(until))
        };
        let now = "2026-11-23T12:00:30Z";
        assert_eq!(
            latest("* * * * *", "2020-01-01T00:00:00Z", now),
            Some(at("2026-11-23T12:00:00Z"))
        );
        assert_eq!(latest("* * * * *", "2026-11-23T12:00:00Z", now), None);
        // Three in the morning in New York is eight o'clock UTC in winter.
        let (nightly, since) = ("0 3 * * *", "2026-11-20T09:00:00Z");
        assert_eq!(
            latest(nightly, since, "2026-11-23T07:59:59Z"),
            Some(at("2026-11-22T08:00:00Z"))
        );
        assert_eq!(
            latest(nightly, since, "2026-11-23T08:00:00Z"),
            Some(at("2026-11-23T08:00:00Z"))
        );
        assert_eq!(
            latest("0 0 1 1 *", "2024-06-01T00:00:00Z", "2026-11-23T00:00:00Z"),
            Some(at("2026-01-01T05:00:00Z"))
        );
    }

    #[test]
    fn patterns_that_are_wrong_or_never_come_are_refused() {
        let utc = TimeZoneName::utc;
        for cron in ["", "* * * *", "61 * * * *", "0 0 0 * * *", "noon"] {
            assert!(
                matches!(Schedule::new(cron, utc()), Err(ScheduleError::NotAPattern { .. })),
                "{cron}"
            );
        }
        assert!(matches!(Schedule::new("0 0 30 2 *", utc()), Err(ScheduleError::Never { .. })));
    }
}
