//! When an ad group is closed: what is out has a mean and a variance, and a mean is exceeded half of the time.
//!
//! An insertion whose outcome is still to come with probability `q` earns its price or nothing: its mean is
//! `price × q`, its variance `price² × q × (1 − q)`. The sum over all insertions that are out is
//! [`Outstanding`]. Its deviation also has the uncertainty of the rate, which is the same error in all of
//! them, and the [`Dispersion`] that was observed. An ad group is open while
//! `actual + in flight + deviations × deviation < budget`.
//!
//! How many deviations ([`closing_deviations`]) depends on what closing too early costs. While there is time
//! left it costs nothing: outcomes come, the deviation falls, and the ad group opens again. At the end of
//! the day what is not spent then is lost.

use std::time::Duration;

use throng_model::Timestamp;

use crate::fading::{FadingCounts, StoredCounts, UNIT};
use crate::rates::Rate;

/// With time left: about one day in a hundred and fifty ends above the budget by more than a price.
const EARLY_DEVIATIONS: f64 = 2.5;
/// At the end of the day.
const LAST_DEVIATIONS: f64 = 0.5;
/// From here to the end of the day the deviations fall: enough for outcomes to come, and for the ad group to
/// open again.
const LAST_HOURS: Duration = Duration::from_secs(2 * 3_600);
/// Half of what is known of the dispersion remains after this time.
const HALF_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// The weight of independent outcomes against observed ones, as a variance in outcomes.
const INDEPENDENT: f64 = 20.0;
/// The largest and the smallest dispersion: one that is far from 1 is an error of the log, not of prediction.
const DISPERSIONS: (f64, f64) = (0.5, 25.0);

/// What insertions that are out will still earn, in micros.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outstanding {
    /// The expected sum.
    pub mean: f64,
    /// Its variance, if outcomes are independent and the rate is exact.
    pub variance: f64,
}

impl Outstanding {
    /// Adds insertions of one price: what they are still expected to earn together, and the probability that
    /// one of them earns it.
    #[inline]
    pub fn add(&mut self, mean: f64, chance: f64, price: f64) {
        self.mean += mean;
        self.variance += (mean * price * (1.0 - chance)).max(0.0);
    }

    /// The standard deviation of the sum, with the uncertainty of the rate and the observed dispersion. Without
    /// a rate that is learned, the declared one counts as exact.
    pub fn deviation(&self, rate: Option<&Rate>, dispersion: f64) -> f64 {
        let relative = rate.map_or(0.0, |rate| {
            rate.variance() / (rate.mean() * rate.mean()).max(f64::MIN_POSITIVE)
        });
        let shared = self.mean * self.mean * relative;
        (self.variance * dispersion + shared).max(0.0).sqrt()
    }
}

/// The standard deviations that are added to what is in flight, with this much of the day left.
pub fn closing_deviations(left_of_day: Duration) -> f64 {
    let share = (left_of_day.as_secs_f64() / LAST_HOURS.as_secs_f64()).min(1.0);
    LAST_DEVIATIONS + (EARLY_DEVIATIONS - LAST_DEVIATIONS) * share
}

/// How much more outcomes vary than independent ones would: users click several ads, a page has several
/// places, a browser reports in batches. Learned from the squared errors of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispersion(FadingCounts);

impl Default for Dispersion {
    fn default() -> Self {
        Self(FadingCounts::new(HALF_LIFE))
    }
}

impl Dispersion {
    /// What was stored.
    pub fn of_stored(stored: StoredCounts) -> Self {
        Self(FadingCounts::of_stored(HALF_LIFE, stored))
    }

    /// The form to store.
    pub fn stored(&self) -> StoredCounts {
        self.0.stored()
    }

    /// Adds insertions that have all their outcomes, with the rate that was expected of them.
    pub fn add(&mut self, at: Timestamp, insertions: u64, outcomes: u64, rate: f64) {
        let rate = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
        let expected = insertions as f64 * rate;
        let error = outcomes as f64 - expected;
        let units = |value: f64| (value * UNIT as f64) as u64;
        self.0.add(at, units(expected * (1.0 - rate)), units(error * error));
    }

    /// The observed variance as a multiple of that of independent outcomes; 1 while little is known.
    pub fn factor(&self, now: Timestamp) -> f64 {
        let seen = self.0.at(now);
        let factor = (seen.successes + INDEPENDENT) / (seen.trials + INDEPENDENT);
        factor.clamp(DISPERSIONS.0, DISPERSIONS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fading::Counts;
    use crate::rates::Prior;

    #[test]
    fn the_variance_is_that_of_prices_or_nothing() {
        let mut out = Outstanding::default();
        // 100 insertions of $2 with 2 %, and 50 of $0.10 with 95 %.
        out.add(4e6, 0.02, 2e6);
        out.add(4.75e6, 0.95, 1e5);
        let expected: f64 = 100.0 * 0.02 * 0.98 * 4e12 + 50.0 * 0.95 * 0.05 * 1e10;
        assert!((out.variance / expected - 1.0).abs() < 1e-9);
        let exact = Prior::declared(0.02).rate(Counts { trials: 1e12, successes: 2e10 });
        assert!((out.deviation(Some(&exact), 1.0) / expected.sqrt() - 1.0).abs() < 1e-3);
        assert!((out.deviation(Some(&exact), 4.0) / expected.sqrt() - 2.0).abs() < 1e-3);
        assert_eq!(out.deviation(None, 1.0), out.variance.sqrt());
        // A rate that is known to a half adds half of the mean.
        let unknown = Prior::declared(0.02).rate(Counts::default());
        assert!(out.deviation(Some(&unknown), 1.0) > out.mean * 0.4);
        assert_eq!(Outstanding::default().deviation(Some(&unknown), 1.0), 0.0);
    }

    #[test]
    fn fewer_deviations_at_the_end_of_the_day() {
        let at = |minutes: u64| closing_deviations(Duration::from_secs(minutes * 60));
        assert_eq!([at(1_440), at(120), at(60), at(0)], [2.5, 2.5, 1.5, 0.5]);
    }

    #[test]
    fn outcomes_in_groups_have_a_higher_dispersion() {
        let now = Timestamp(0);
        let factor = |outcomes: fn(u64) -> u64| {
            let mut dispersion = Dispersion::default();
            (0..1_000).for_each(|n| dispersion.add(now, 100, outcomes(n), 0.1));
            dispersion.factor(now)
        };
        // Nine with a tenth of them: the variance of one window is 9.
        assert!((factor(|n| if n % 2 == 0 { 7 } else { 13 }) - 1.0).abs() < 0.01);
        assert!((factor(|n| if n % 2 == 0 { 4 } else { 16 }) - 4.0).abs() < 0.05);
        assert_eq!(factor(|_| 10_000), 25.0);
        assert_eq!(factor(|_| 10), 0.5);
        assert_eq!(Dispersion::default().factor(now), 1.0);
    }

    #[test]
    fn extreme_values_are_finite() {
        let mut dispersion = Dispersion::default();
        for rate in [f64::NAN, -1.0, 0.0, 1.0, 2.0] {
            dispersion.add(Timestamp(i64::MAX), u64::MAX, 0, rate);
            dispersion.add(Timestamp(i64::MIN), 0, u64::MAX, rate);
            assert!((0.5..=25.0).contains(&dispersion.factor(Timestamp(0))));
        }
        let mut out = Outstanding::default();
        out.add(i64::MAX as f64, 0.0, i64::MAX as f64);
        let unknown = Prior::declared(0.0).rate(Counts::default());
        assert!(out.deviation(Some(&unknown), 1.0).is_finite());
    }
}
