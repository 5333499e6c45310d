//! What an ad group was predicted to earn, and earned: by day, and as series.

use throng_model::series::{DayPrediction, Interval, Series};
use throng_model::{BudgetDay, Micros, Timestamp};

use throng_rates::survival::covered_micros;

use super::{Account, INTERVAL_MICROS};

impl Account {
    /// What was predicted and earned on the last days, by the day of the insertions, oldest first. Intervals
    /// whose outcomes are not due yet are left out: their insertions would look as if they earned less than
    /// predicted.
    pub(in crate::engine) fn predictions(&self, now: Timestamp) -> Vec<DayPrediction> {
        let longest = covered_micros(self.config.horizon);
        let due = now.0.saturating_sub(longest.saturating_add(INTERVAL_MICROS));
        let mut days = self.predicted_days.clone();
        // Computing a day is slow, and nearly all intervals have that of the one before.
        let mut known: Option<(BudgetDay, Timestamp, Timestamp)> = None;
        for (number, sums) in self.intervals.iter() {
            let start = interval_start(number);
            if start.0 > due {
                break;
            }
            let day =
                known.filter(|(_, from, to)| (*from..*to).contains(&start)).unwrap_or_else(|| {
                    let day = BudgetDay::of(start, &self.zone);
                    (day, day.start(&self.zone), day.end(&self.zone))
                });
            known = Some(day);
            add_sums(days.entry(day.0).or_default(), *sums);
        }
        // The days of which `days` has the spend: of others it is not known here.
        let oldest = self.oldest_day(now);
        let days =
            days.into_iter().filter(|(day, _)| *day >= oldest && self.slices_of(*day).is_some());
        let days = days.map(|(day, (predicted, earned))| DayPrediction {
            day,
            predicted: micros_of(predicted),
            earned: micros_of(earned),
        });
        days.collect()
    }

    pub(in crate::engine) fn series(&self) -> Series {
        Series {
            points: self.points.iter().copied().collect(),
            intervals: self
                .intervals
                .iter()
                .map(|(number, (predicted, actual))| Interval {
                    start: interval_start(number),
                    predicted: micros_of((*predicted).into()),
                    actual: micros_of((*actual).into()),
                })
                .collect(),
        }
    }
}

pub(super) fn interval_start(number: i64) -> Timestamp {
    Timestamp(number.saturating_mul(INTERVAL_MICROS))
}

/// An amount in billionths, to the nearest micro.
fn micros_of(nanos: i128) -> Micros {
    Micros(i64::try_from((nanos + 500).div_euclid(1_000)).unwrap_or(i64::MAX))
}

pub(super) fn add_sums(to: &mut (i128, i128), (predicted, earned): (i64, i64)) {
    *to = (to.0 + i128::from(predicted), to.1 + i128::from(earned));
}
