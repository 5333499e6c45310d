//! The traffic of a day, learned by slices of a quarter of an hour.
//!
//! What is seen of the traffic depends on the pass-through rate: at a rate of zero nothing is. So a slice counts the
//! requests that passed and its *exposure*, the time weighted with the pass-through rate; their ratio is the traffic
//! at a pass-through rate of one. It is a gamma-Poisson estimate, `(requests + a) / (exposure + a / mean)`, that is
//! shrunk to the mean over all slices, a flat day, with the weight of `a` requests.

use std::time::Duration;

use throng_model::Timestamp;

use crate::fading::{Counts, FadingCounts, StoredCounts, UNIT};

/// Slices of a day: 15 minutes each, but on days on which the clocks change.
pub const SLICES: usize = 96;
/// A whole slice at a pass-through rate of one, in the parts of [`SliceTraffic::exposure`]: fine enough for a tick of
/// 50 milliseconds at the lowest pass-through rate. In parts of [`UNIT`] a second at a rate of one in a hundred would be
/// less than one part, and its requests would count as those of no time at all.
pub const EXPOSURE_UNIT: u64 = 1 << 40;
/// The same for exposed seconds, in parts of [`UNIT`].
const SECOND_PARTS: u64 = 1 << 10;
/// The weight of a flat day, in requests for each slice.
const FLAT_REQUESTS: f64 = 20.0;
/// Of each earlier day this part counts less, as a fraction: a quarter.
const KEPT: (u64, u64) = (3, 4);
/// The recent traffic is of about this time.
const RECENT_HALF_LIFE: Duration = Duration::from_secs(60);
/// Half a request more than those that were seen: a rate is not zero because nothing was seen yet.
const UNSEEN: f64 = 0.5;

/// What was seen of a slice of the day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SliceTraffic {
    /// Requests that passed, in parts of [`UNIT`].
    pub requests: u64,
    /// Whole slices, times the pass-through rate, in parts of [`EXPOSURE_UNIT`].
    pub exposure: u64,
}

/// The traffic of an ad group over the day. Days are those of the account's time zone; the caller says which
/// day it is and which share of it has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCurve {
    day: i32,
    slices: [SliceTraffic; SLICES],
}

impl Default for DayCurve {
    fn default() -> Self {
        Self { day: i32::MIN, slices: [SliceTraffic::default(); SLICES] }
    }
}

impl DayCurve {
    /// A curve that was stored; `None` if it does not have [`SLICES`] slices.
    pub fn of_stored(day: i32, slices: &[SliceTraffic]) -> Option<Self> {
        let slices: [SliceTraffic; SLICES] = slices.try_into().ok()?;
        Some(Self { day, slices })
    }

    /// The form to store: the newest day, and the slices.
    pub fn stored(&self) -> (i32, &[SliceTraffic]) {
        (self.day, &self.slices)
    }

    /// Adds what was seen of a day at a moment of it, from 0 to 1. Of an earlier day than the newest it counts
    /// for the newest, but of one that is more than a day earlier: the clock was ahead, and has been set back.
    pub fn add(&mut self, day: i32, part_of_day: f64, seen: SliceTraffic) {
        if day > self.day {
            let days = day.abs_diff(self.day).min(64);
            for slice in &mut self.slices {
                for _ in 0..days {
                    slice.requests = slice.requests / KEPT.1 * KEPT.0;
                    slice.exposure = slice.exposure / KEPT.1 * KEPT.0;
                }
            }
            self.day = day;
        } else if day < self.day.saturating_sub(1) {
            // Until then no day would count less than the one before it.
            self.day = day;
        }
        let slice = &mut self.slices[slice_at(part_of_day).0];
        slice.requests = slice.requests.saturating_add(seen.requests);
        slice.exposure = slice.exposure.saturating_add(seen.exposure);
    }

    /// Requests in each slice of a day at a pass-through rate of one; `None` while none has been seen.
    fn requests(&self) -> Option<[f64; SLICES]> {
        let requested = |slice: &SliceTraffic| slice.requests as f64 / UNIT as f64;
        let exposed = |slice: &SliceTraffic| slice.exposure as f64 / EXPOSURE_UNIT as f64;
        let requests: f64 = self.slices.iter().map(requested).sum();
        let exposure: f64 = self.slices.iter().map(exposed).sum();
        let mean = requests / exposure;
        if !mean.is_finite() || mean <= 0.0 {
            return None;
        }
        Some(self.slices.map(|slice| {
            (requested(&slice) + FLAT_REQUESTS) / (exposed(&slice) + FLAT_REQUESTS / mean)
        }))
    }

    /// Requests a second at a moment of the day of this length, at a pass-through rate of one.
    pub fn per_sec(&self, part_of_day: f64, day: Duration) -> Option<f64> {
        let requests = self.requests()?[slice_at(part_of_day).0];
        let per_sec = requests * SLICES as f64 / day.as_secs_f64();
        per_sec.is_finite().then_some(per_sec)
    }

    /// The share of a day's requests that come before each of some moments of the day. A day of which nothing
    /// is known is flat.
    pub fn shares_before<const N: usize>(&self, parts_of_day: [f64; N]) -> [f64; N] {
        let requests = self.requests().unwrap_or([1.0; SLICES]);
        let all: f64 = requests.iter().sum();
        parts_of_day.map(|part| {
            let (slice, within) = slice_at(part);
            let before: f64 = requests[..slice].iter().sum();
            ((before + within * requests[slice]) / all).clamp(0.0, 1.0)
        })
    }
}

/// The slice at a moment of the day, and how much of it has passed.
fn slice_at(part_of_day: f64) -> (usize, f64) {
    let place = if part_of_day.is_nan() { 0.0 } else { part_of_day.clamp(0.0, 1.0) };
    let place = place * SLICES as f64;
    let slice = (place as usize).min(SLICES - 1);
    (slice, (place - slice as f64).clamp(0.0, 1.0))
}

/// The traffic of the last minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficRate(FadingCounts);

impl Default for TrafficRate {
    fn default() -> Self {
        Self(FadingCounts::new(RECENT_HALF_LIFE))
    }
}

impl TrafficRate {
    /// Adds requests that passed in a time at a pass-through rate.
    pub fn add(&mut self, at: Timestamp, requests: u64, exposed: Duration, pass_share: f64) {
        let second = (UNIT * SECOND_PARTS) as f64;
        let exposed = exposed.as_secs_f64() * pass_share.clamp(0.0, 1.0) * second;
        self.0.add(at, exposed.round() as u64, requests.saturating_mul(UNIT));
    }

    /// Exposed seconds, and requests.
    fn seen(&self, now: Timestamp) -> Counts {
        let seen = self.0.at(now);
        Counts { trials: seen.trials / SECOND_PARTS as f64, ..seen }
    }

    /// Exposed seconds of the last minutes, if no request was seen in them.
    pub fn secs_without_requests(&self, now: Timestamp) -> Option<f64> {
        let seen = self.seen(now);
        (seen.successes <= 0.0).then_some(seen.trials)
    }

    /// Requests a second at a pass-through rate of one, rather too low than too high: as if there had been none in a
    /// minute before those that were seen.
    pub fn at_least(&self, now: Timestamp) -> f64 {
        let seen = self.seen(now);
        seen.successes / (seen.trials + RECENT_HALF_LIFE.as_secs_f64())
    }

    /// What was stored.
    pub fn of_stored(stored: StoredCounts) -> Self {
        Self(FadingCounts::of_stored(RECENT_HALF_LIFE, stored))
    }

    /// The form to store.
    pub fn stored(&self) -> StoredCounts {
        self.0.stored()
    }

    /// Requests a second at a pass-through rate of one, rather too high than too low: half a request is added to those
    /// that were seen. `usual` is what the day's curve says; it weighs as much as that half. `None` if nothing
    /// is known: then there may be any number of requests.
    pub fn per_sec(&self, now: Timestamp, usual: Option<f64>) -> Option<f64> {
        let seen = self.seen(now);
        let usual = usual.filter(|usual| *usual > 0.0).map_or(0.0, |usual| UNSEEN / usual);
        let per_sec = (seen.successes + UNSEEN) / (seen.trials + usual);
        per_sec.is_finite().then_some(per_sec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A day with traffic of `requests` in each slice, of which a share passes.
    fn seen(curve: &mut DayCurve, day: i32, requests: impl Fn(usize) -> f64, pass: f64) {
        for slice in 0..SLICES {
            let requests = (requests(slice) * pass * UNIT as f64) as u64;
            let exposure = (pass * EXPOSURE_UNIT as f64) as u64;
            let part = (slice as f64 + 0.5) / SLICES as f64;
            curve.add(day, part, SliceTraffic { requests, exposure });
        }
    }

    fn peaks(slice: usize) -> f64 {
        if (36..44).contains(&slice) || (76..88).contains(&slice) { 5_000.0 } else { 1_000.0 }
    }

    #[test]
    fn an_unknown_day_is_flat() {
        let curve = DayCurve::default();
        assert_eq!(curve.shares_before([0.0, 0.25, 0.5, 1.0]), [0.0, 0.25, 0.5, 1.0]);
        assert_eq!(curve.per_sec(0.5, DAY), None);
    }

    #[test]
    fn the_curve_is_learned_at_any_pass_through_rate() {
        let total: f64 = (0..SLICES).map(peaks).sum();
        let before: f64 = (0..40).map(peaks).sum();
        for pass in [1.0, 0.01] {
            let mut curve = DayCurve::default();
            (0..5).for_each(|day| seen(&mut curve, day, peaks, pass));
            let share = curve.shares_before([40.0 / 96.0])[0];
            assert!((share - before / total).abs() < 0.03, "{pass}: {share}");
            let per_sec = curve.per_sec(40.5 / 96.0, DAY).unwrap();
            assert!((per_sec * 900.0 / 5_000.0 - 1.0).abs() < 0.25, "{pass}: {per_sec}");
        }
    }

    #[test]
    fn slices_that_were_not_seen_are_as_the_others_on_average() {
        let mut curve = DayCurve::default();
        for slice in 0..48 {
            let part = f64::from(slice) / 96.0;
            curve.add(3, part, SliceTraffic { requests: 700 * UNIT, exposure: EXPOSURE_UNIT });
        }
        let [noon] = curve.shares_before([0.5]);
        assert!((noon - 0.5).abs() < 1e-9, "{noon}");
    }

    #[test]
    fn older_days_count_less() {
        let mut curve = DayCurve::default();
        (0..10).for_each(|day| seen(&mut curve, day, |_| 1_000.0, 1.0));
        (10..16).for_each(|day| seen(&mut curve, day, peaks, 1.0));
        let per_sec = curve.per_sec(40.5 / 96.0, DAY).unwrap() * 900.0;
        // Of the weight of a long history three quarters to the sixth are left.
        let expected = 5_000.0 - 4_000.0 * 0.75f64.powi(6);
        assert!((per_sec / expected - 1.0).abs() < 0.05, "{per_sec}");
        let (day, slices) = curve.stored();
        assert_eq!(DayCurve::of_stored(day, slices), Some(curve.clone()));
        assert_eq!(DayCurve::of_stored(day, &slices[1..]), None);
    }

    #[test]
    fn days_fade_after_a_clock_that_was_ahead() {
        let mut curve = DayCurve::default();
        seen(&mut curve, 100, |_| 1_000.0, 1.0);
        seen(&mut curve, 104, |_| 1_000.0, 0.0);
        (5..16).for_each(|day| seen(&mut curve, day, peaks, 1.0));
        assert_eq!(curve.stored().0, 15);
        // Of eleven days with the weight of four: without fading it would be that of eleven.
        let exposure = curve.stored().1[40].exposure as f64 / EXPOSURE_UNIT as f64;
        assert!((3.0..4.5).contains(&exposure), "{exposure}");
    }

    #[test]
    fn extreme_values_are_finite() {
        let mut curve = DayCurve::default();
        let most = SliceTraffic { requests: u64::MAX, exposure: u64::MAX };
        for part in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0, 2.0] {
            for day in [i32::MIN, i32::MAX, 0] {
                curve.add(day, part, most);
                let shares = curve.shares_before([part, 0.3]);
                assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
            }
        }
        let mut empty = DayCurve::default();
        empty.add(1, 0.1, SliceTraffic { requests: 0, exposure: EXPOSURE_UNIT });
        assert_eq!(empty.per_sec(0.1, DAY), None);
        assert_eq!(curve.per_sec(0.1, Duration::ZERO), None);
    }

    #[test]
    fn the_recent_rate_is_high_while_little_is_known() {
        let mut rate = TrafficRate::default();
        let at = |secs: i64| Timestamp(secs * 1_000_000);
        assert_eq!(rate.per_sec(at(0), None), None);
        assert_eq!(rate.per_sec(at(0), Some(4.0)), Some(4.0));
        for second in 0..600 {
            // Twenty a second, of which a tenth passes.
            rate.add(at(second), 2, Duration::from_secs(1), 0.1);
        }
        let known = rate.per_sec(at(600), Some(4.0)).unwrap();
        assert!((19.0..21.5).contains(&known), "{known}");
        let at_least = rate.at_least(at(600));
        assert!(at_least > 2.0 && at_least < known, "{at_least}");
        assert_eq!(TrafficRate::of_stored(rate.stored()), rate);
        // Nothing for minutes: the usual rate counts again.
        let later = rate.per_sec(at(3_000), Some(4.0)).unwrap();
        assert!((later - 4.0).abs() < 0.1, "{later}");
    }
}
