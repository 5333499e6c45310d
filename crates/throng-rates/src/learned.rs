//! All that is learned of an ad group, and its stored form.

use throng_feed::PassThroughRate;
use throng_model::Timestamp;

use crate::calibration::{Calibration, Trials};
use crate::closing::Dispersion;
use crate::fading::StoredCounts;
use crate::pace::Pace;
use crate::traffic::{DayCurve, SLICES, SliceTraffic, TrafficRate};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// The rate of outcomes.
    pub calibration: Calibration,
    /// How much outcomes vary.
    pub dispersion: Dispersion,
    /// Traffic and pass-through rate.
    pub pace: Pace,
}

/// Counts of the stored form.
const COUNTS: usize = 5;
/// Numbers of the stored form without a curve, and of a curve.
const NUMBERS: usize = COUNTS * 3 + 4;
const CURVE: usize = 1 + 2 * SLICES;

impl Learned {
    /// Adds insertions of a moment that have all their outcomes. Outcomes alone say nothing of a rate.
    pub fn add(&mut self, at: Timestamp, trials: Trials) {
        if trials.insertions > 0 {
            // Of the counts before alone, so that every replica gets the same.
            // Nothing is known: the error is that of the declared rate, and says nothing of the dispersion.
            if let Some(known) = self.calibration.learned(at, std::iter::empty()) {
                let rate = trials.expected() * known.factor / trials.insertions as f64;
                self.dispersion.add(at, trials.insertions, trials.outcomes, rate);
            }
            self.calibration.add(at, trials);
        }
    }

    /// The form to store: numbers, none if nothing is known.
    pub fn stored(&self) -> Vec<i64> {
        if *self == Self::default() {
            return Vec::new();
        }
        let [all, recent, declared] = self.calibration.stored();
        let counts = [all, recent, declared, self.dispersion.stored(), self.pace.recent.stored()];
        let mut numbers = Vec::with_capacity(NUMBERS + CURVE);
        for StoredCounts { step, trials, successes } in counts {
            numbers.extend([step, trials.cast_signed(), successes.cast_signed()]);
        }
        let pace = &self.pace;
        numbers.extend([
            pace.insertions.cast_signed(),
            i64::from(pace.ticked.is_some()),
            pace.ticked.map_or(0, |ticked| ticked.0),
            i64::from(pace.rate.0),
        ]);
        if let Some(curve) = &pace.curve {
            let (day, slices) = curve.stored();
            numbers.push(day.into());
            for SliceTraffic { requests, exposure } in slices {
                numbers.extend([requests.cast_signed(), exposure.cast_signed()]);
            }
        }
        numbers
    }

    /// What was stored; `None` if the numbers are not that.
    pub fn of_stored(numbers: &[i64]) -> Option<Self> {
        if numbers.is_empty() {
            return Some(Self::default());
        }
        let (counts, rest) = numbers.split_at_checked(COUNTS * 3)?;
        let counts = counts.as_chunks::<3>().0;
        let mut rest = rest.iter().copied();
        let counts = |place: usize| {
            let [step, trials, successes] = counts[place];
            let (trials, successes) = (trials.cast_unsigned(), successes.cast_unsigned());
            StoredCounts { step, trials, successes }
        };
        let insertions = rest.next()?.cast_unsigned();
        let is_ticked = rest.next()? != 0;
        let ticked = Timestamp(rest.next()?);
        let rate = PassThroughRate(u16::try_from(rest.next()?).ok()?);
        let curve = match rest.next() {
            None => None,
            Some(day) => {
                let numbers: Vec<i64> = rest.collect();
                let (slices, []) = numbers.as_chunks::<2>() else { return None };
                let slices: Vec<SliceTraffic> = slices
                    .iter()
                    .map(|[requests, exposure]| SliceTraffic {
                        requests: requests.cast_unsigned(),
                        exposure: exposure.cast_unsigned(),
                    })
                    .collect();
                let day = i32::try_from(day).ok()?;
                Some(Box::new(DayCurve::of_stored(day, &slices)?))
            }
        };
        Some(Self {
            calibration: Calibration::of_stored([counts(0), counts(1), counts(2)]),
            dispersion: Dispersion::of_stored(counts(3)),
            pace: Pace {
                curve,
                recent: TrafficRate::of_stored(counts(4)),
                insertions,
                ticked: is_ticked.then_some(ticked),
                rate,
                known: 0,
                missed: 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_model::Pacing;

    use super::*;
    use crate::pace::DayMoment;

    #[test]
    fn a_wrong_declared_rate_is_no_dispersion() {
        let mut learned = Learned::default();
        // Declared as nine tenths, and one fifth is seen.
        let trials = Trials { insertions: 1_000, outcomes: 200, declared: 900_000_000_000 };
        (0..3i64).for_each(|n| learned.add(Timestamp(n * 10_000_000), trials));
        let factor = learned.dispersion.factor(Timestamp(30_000_000));
        assert!(factor <= 1.0, "{factor}");
    }

    #[test]
    fn what_is_stored_is_restored_and_nothing_else() {
        let mut learned = Learned::default();
        assert!(learned.stored().is_empty());
        assert_eq!(Learned::of_stored(&[]), Some(Learned::default()));
        for pacing in [Pacing::Asap, Pacing::Even] {
            for secs in 0..100i64 {
                let now = Timestamp(secs * 1_000_000);
                let trials = Trials { insertions: 9, outcomes: 2, declared: 1_000_000_000 };
                learned.add(now, trials);
                learned.pace.insertion();
                let length = Duration::from_secs(86_400);
                let moment = DayMoment { day: 3, part: secs as f64 / 86_400.0, length };
                learned.pace.tick(now, moment, pacing);
            }
            learned.pace.insertion();
            let numbers = learned.stored();
            assert_eq!(Learned::of_stored(&numbers).as_ref(), Some(&learned));
            let whole = if pacing == Pacing::Even { NUMBERS + CURVE } else { NUMBERS };
            assert_eq!(numbers.len(), whole);
            for cut in (1..whole).filter(|cut| *cut != NUMBERS) {
                assert_eq!(Learned::of_stored(&numbers[..cut]), None, "cut at {cut}");
            }
            assert_eq!(Learned::of_stored(&[&numbers[..], &[0]].concat()), None);
        }
    }
}
