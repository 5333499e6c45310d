//! Budget days after a change of the time zone. Pure.

use jiff::tz::TimeZone;

use crate::{BudgetDay, Timestamp};

/// The first budget day that is counted by the current time zone, after the zone was changed. It begins where the day
/// before it has ended by the earlier zone, so that every moment is of one day: it may be longer or shorter than others.
/// Days before it stay as they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstDay {
    /// The day.
    pub day: BudgetDay,
    /// When it begins.
    pub start: Timestamp,
}

impl FirstDay {
    /// When a day begins and ends; both are equal if all of it is counted for others.
    pub fn range(first: Option<Self>, day: BudgetDay, zone: &TimeZone) -> (Timestamp, Timestamp) {
        let (start, end) = (day.start(zone), day.end(zone));
        match first {
            None => (start, end),
            Some(first) if day < first.day => (first.start, first.start),
            Some(first) if day == first.day => (first.start, end.max(first.start)),
            Some(first) => (start.max(first.start), end.max(first.start)),
        }
    }

    /// The first day after `zone` was left for another one, if figures from `oldest` on are still computed. `first`: that
    /// of an earlier change.
    pub fn after_change(first: Option<Self>, oldest: BudgetDay, zone: &TimeZone) -> Self {
        match first {
            Some(first) if first.day >= oldest => first,
            _ => Self { day: oldest, start: Self::range(first, oldest, zone).0 },
        }
    }

    /// The first of `days` days up to today of which figures are computed: after a change the first day, as long as it is
    /// at most two days before them. Two zones may be two dates apart.
    pub fn oldest(first: Option<Self>, today: BudgetDay, days: i32) -> BudgetDay {
        match first {
            Some(first) if first.day.0 >= today.0.saturating_sub(days + 1) => first.day,
            _ => BudgetDay(today.0.saturating_sub(days - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TimeZoneName;

    const ZONES: [&str; 4] =
        ["Pacific/Kiritimati", "Etc/GMT+12", "America/New_York", "Asia/Kathmandu"];

    proptest! {
        /// After any changes of the zone the days follow each other without a gap.
        #[test]
        fn every_moment_is_of_one_day(
            changes in prop::collection::vec((0..ZONES.len(), 0i64..60), 1..12)
        ) {
            let (mut now, mut first) = (Timestamp(1_795_600_000_000_000), None);
            let mut zone = TimeZoneName::utc().rules();
            for (next, hours) in changes {
                now = Timestamp(now.0 + hours * 3_600_000_000);
                let oldest = BudgetDay(BudgetDay::of(now, &zone).0 - 7);
                let before = FirstDay::range(first, BudgetDay(oldest.0 - 1), &zone).1;
                let changed = FirstDay::after_change(first, oldest, &zone);
                if first != Some(changed) {
                    prop_assert_eq!((changed.day, changed.start), (oldest, before));
                }
                first = Some(changed);
                zone = ZONES[next].parse::<TimeZoneName>().unwrap().rules();
                let today = BudgetDay::of(now, &zone);
                let mut end = changed.start;
                prop_assert_eq!(FirstDay::oldest(first, today, 8), changed.day);
                for day in changed.day.0..=today.0 + 1 {
                    let range = FirstDay::range(first, BudgetDay(day), &zone);
                    prop_assert_eq!(range.0, end);
                    prop_assert!(range.1 >= range.0);
                    end = range.1;
                }
                prop_assert!(end > now && changed.start < now);
            }
        }
    }
}
