//! Points in time, and budget days.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not a time, a day or a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339.
    #[error("`{0}` is not a time: write it like 2026-11-23T15:04:05Z")]
    NotATime(String),
    /// Not in the IANA database.
    #[error("`{0}` is not a time zone: write an IANA name such as America/New_York")]
    NotATimeZone(String),
    /// In the database of a machine, and not a name of a zone: it stands for another zone on another machine, or for
    /// none.
    #[error(
        "`{0}` is not the same time zone on every machine: write an IANA name such as America/New_York"
    )]
    DependsOnMachine(String),
    /// Not a date of the calendar.
    #[error("`{0}` is not a day: write it like 2026-11-23")]
    NotADay(String),
}

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus `duration`; saturates at the latest time.
    #[inline]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This time minus `duration`; saturates at the earliest time.
    #[inline]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The duration since `earlier`; zero if `earlier` is later.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use throng_model::Timestamp;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let noon: Timestamp = "2026-11-23T12:00:00Z".parse()?;
    /// let later = noon.plus(Duration::from_secs(90));
    /// assert_eq!(later.to_string(), "2026-11-23T12:01:30Z");
    /// assert_eq!(later.since(noon), Duration::from_secs(90));
    /// // A clock that was set back does not give a huge duration.
    /// assert_eq!(noon.since(later), Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The year in UTC.
    pub fn year(self) -> i16 {
        jiff::tz::Offset::UTC.to_datetime(self.to_jiff()).year()
    }

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_jiff().fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if let Some(micros) = utc_micros(text.as_bytes()) {
            return Ok(Self(micros));
        }
        text.parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|_| TimestampError::NotATime(text.chars().take(40).collect()))
    }
}

/// A time in the form that nearly all events have it, `2026-11-23T15:04:05.123Z`, from 1970 on. `None` for
/// every other form, also for times that are invalid: jiff decides about those.
fn utc_micros(text: &[u8]) -> Option<i64> {
    let (moment, rest) = text.split_first_chunk::<19>()?;
    let separators = [4usize, 7, 10, 13, 16].map(|place| moment[place]);
    if separators != *b"--T::" {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number: i64, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(*digit - b'0'))
        })
    };
    let (year, month) = (number(&moment[..4])?, number(&moment[5..7])?);
    let (day, hour) = (number(&moment[8..10])?, number(&moment[11..13])?);
    let (minute, second) = (number(&moment[14..16])?, number(&moment[17..])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let is_valid = (1970..=9998).contains(&year) && (1..=days_of_month).contains(&day);
    if !is_valid || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match rest {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10i64.pow(9 - digits.len() as u32) / 1_000
        }
        _ => return None,
    };
    // Years begin in March here, so that a leap day is the last day of one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (((days - 719_468) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

/// Names in the database of a machine that are not those of a time zone.
const NOT_ZONES: [&str; 5] = ["localtime", "posixrules", "Factory", "leapseconds", "Etc/Unknown"];
/// Folders of other forms of the database. Not every machine has them.
const OTHER_FORMS: [&str; 2] = ["posix/", "right/"];

/// The name of a time zone in the IANA database, such as `America/New_York`, with its rules at the time when it was
/// parsed. It is compared by name.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TimeZoneName {
    name: String,
    rules: TimeZone,
}

impl TimeZoneName {
    /// Universal time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// The IANA name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The zone's rules.
    pub fn rules(&self) -> TimeZone {
        self.rules.clone()
    }
}

impl PartialEq for TimeZoneName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TimeZoneName {}

impl Hash for TimeZoneName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

/// Whether a name stands for different zones on different machines. The database ignores case.
fn depends_on_machine(name: &str) -> bool {
    let is_below = |folder: &&str| {
        name.get(..folder.len()).is_some_and(|start| start.eq_ignore_ascii_case(folder))
    };
    NOT_ZONES.iter().any(|other| name.eq_ignore_ascii_case(other))
        || OTHER_FORMS.iter().any(is_below)
}

impl TryFrom<String> for TimeZoneName {
    type Error = TimestampError;
    fn try_from(name: String) -> Result<Self, TimestampError> {
        let shown = || name.chars().take(60).collect();
        if depends_on_machine(&name) {
            return Err(TimestampError::DependsOnMachine(shown()));
        }
        match TimeZone::get(&name) {
            Ok(rules) => Ok(Self { name, rules }),
            Err(_) => Err(TimestampError::NotATimeZone(shown())),
        }
    }
}

impl FromStr for TimeZoneName {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.to_owned().try_into()
    }
}

impl From<TimeZoneName> for String {
    fn from(zone: TimeZoneName) -> String {
        zone.name
    }
}

/// A calendar day in an advertiser's time zone: days since 1970-01-01 of the local calendar. A day
/// is 23 or 25 hours long when daylight saving time begins or ends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct BudgetDay(pub i32);

impl BudgetDay {
    /// The day of `at` in `zone`.
    ///
    /// ```
    /// use throng_model::{BudgetDay, TimeZoneName, Timestamp};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let zone: TimeZoneName = "America/New_York".parse()?;
    /// let evening: Timestamp = "2026-11-24T02:00:00Z".parse()?;
    /// // Nine in the evening in New York: the budget of the 23rd.
    /// assert_eq!(BudgetDay::of(evening, &zone.rules()).to_string(), "2026-11-23");
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(at: Timestamp, zone: &TimeZone) -> Self {
        let date = at.to_jiff().to_zoned(zone.clone()).date();
        Self(epoch_days(date))
    }

    /// The first instant of this day in `zone`.
    pub fn start(self, zone: &TimeZone) -> Timestamp {
        date_of(self.0)
            .to_zoned(zone.clone())
            .map(|z| Timestamp(z.timestamp().as_microsecond()))
            .unwrap_or(Timestamp(i64::from(self.0) * 86_400_000_000))
    }

    /// The first instant of the day after in `zone`.
    pub fn end(self, zone: &TimeZone) -> Timestamp {
        Self(self.0 + 1).start(zone)
    }
}

impl fmt::Display for BudgetDay {
    /// `2026-11-23`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        date_of(self.0).fmt(f)
    }
}

impl FromStr for BudgetDay {
    type Err = TimestampError;

    /// Reads `2026-11-23`, and nothing longer or shorter.
    ///
    /// ```
    /// use throng_model::BudgetDay;
    ///
    /// assert_eq!("1970-01-02".parse(), Ok(BudgetDay(1)));
    /// assert!("1970-01-02T00:00:00".parse::<BudgetDay>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let date = text.parse::<jiff::civil::Date>();
        let day = date.ok().map(|date| Self(epoch_days(date)));
        // The parser of dates also takes a date with a time.
        day.filter(|day| day.to_string() == text)
            .ok_or_else(|| TimestampError::NotADay(text.chars().take(40).collect()))
    }
}

fn epoch_days(date: jiff::civil::Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    date.duration_since(epoch).as_hours().div_euclid(24) as i32
}

fn date_of(days: i32) -> jiff::civil::Date {
    jiff::civil::date(1970, 1, 1)
        .checked_add(jiff::SignedDuration::from_hours(i64::from(days) * 24))
        .unwrap_or(jiff::civil::Date::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is parsed without jiff is what jiff says, and what it would refuse is not.
        #[test]
        fn times_in_utc_are_parsed_as_jiff_does(
            year in 1960u32..2110, month in 0u32..14, day in 0u32..33,
            (hour, minute, second) in (0u32..26, 0u32..62, 0u32..62),
            fraction in "(\\.[0-9]{0,10})?", end in "([Zz+]|\\+01:00)?",
        ) {
            let time = format!("{hour:02}:{minute:02}:{second:02}");
            let text = format!("{year}-{month:02}-{day:02}T{time}{fraction}{end}");
            if let Some(micros) = utc_micros(text.as_bytes()) {
                let by_jiff = text.parse::<jiff::Timestamp>().map(|time| time.as_microsecond());
                prop_assert_eq!(by_jiff.ok(), Some(micros), "{}", text);
            }
        }

        #[test]
        fn times_are_read_as_they_are_written(micros in 0i64..250_000_000_000_000_000) {
            let text = Timestamp(micros).to_string();
            prop_assert_eq!(utc_micros(text.as_bytes()), Some(micros), "{}", text);
        }
    }

    #[test]
    fn the_year_of_a_time_is_that_of_utc() {
        for (time, year) in [("2026-12-31T23:59:59.9Z", 2026), ("2027-01-01T00:00:00Z", 2027)] {
            assert_eq!(time.parse::<Timestamp>().unwrap().year(), year);
        }
    }

    #[test]
    fn a_zone_that_depends_on_the_machine_is_none() {
        let parsed = |name: &str| name.parse::<TimeZoneName>();
        for name in [
            "localtime",
            "LocalTime",
            "posixrules",
            "Factory",
            "leapseconds",
            "posix/UTC",
            "right/UTC",
        ] {
            assert_eq!(parsed(name), Err(TimestampError::DependsOnMachine(name.to_owned())));
        }
        assert_eq!(parsed("Middle"), Err(TimestampError::NotATimeZone("Middle".to_owned())));
        for name in ["UTC", "Europe/Berlin", "EST5EDT", "Etc/GMT+5"] {
            assert_eq!(parsed(name).unwrap().as_str(), name);
        }
        let zone = parsed("Asia/Tokyo").unwrap();
        assert_eq!(zone.rules(), TimeZone::get("Asia/Tokyo").unwrap());
    }

    #[test]
    fn budget_days_follow_the_time_zone() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let late: Timestamp = "2026-11-24T04:59:59Z".parse().unwrap();
        let next: Timestamp = "2026-11-24T05:00:00Z".parse().unwrap();
        assert_eq!(BudgetDay::of(late, &zone).to_string(), "2026-11-23");
        assert_eq!(BudgetDay::of(next, &zone).to_string(), "2026-11-24");
        assert_eq!(BudgetDay::of(next, &zone).start(&zone), next);
    }

    #[test]
    fn days_with_a_clock_change_are_not_24_hours_long() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let at: Timestamp = "2026-03-08T12:00:00Z".parse().unwrap();
        let day = BudgetDay::of(at, &zone);
        assert_eq!(day.end(&zone).since(day.start(&zone)), Duration::from_secs(23 * 3600));
    }

    /// Also where the clock is changed at midnight, so that it is there twice or not at all, or by half an hour.
    #[test]
    fn every_moment_is_of_the_day_between_whose_start_and_end_it_is() {
        for (name, hours) in [
            ("America/Havana", [23, 25]),
            ("America/Santiago", [23, 25]),
            ("America/Nuuk", [23, 25]),
            ("Africa/Cairo", [23, 25]),
            ("Pacific/Chatham", [23, 25]),
            ("Asia/Kathmandu", [24, 24]),
            // 23.5 and 24.5, without the rest.
            ("Australia/Lord_Howe", [23, 24]),
        ] {
            let zone = TimeZone::get(name).unwrap();
            let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let mut lengths = std::collections::BTreeSet::new();
            for hour in 0..8_760 {
                let whole = Timestamp(first.0 + hour * 3_600_000_000);
                for at in [Timestamp(whole.0 - 1), whole] {
                    let day = BudgetDay::of(at, &zone);
                    let (start, end) = (day.start(&zone), day.end(&zone));
                    assert!((start..end).contains(&at), "{at} in {name}");
                    lengths.insert(end.since(start).as_secs() / 3_600);
                }
            }
            let found = [lengths.first(), lengths.last()].map(|hours| hours.copied().unwrap());
            assert_eq!(found, hours, "{name}");
        }
    }

    #[test]
    fn times_before_1970_have_a_day() {
        assert_eq!(BudgetDay::of(Timestamp(-1), &TimeZone::UTC).to_string(), "1969-12-31");
    }
}
