//! The delays of all ad groups with the same billed event, learned while outcomes still come in.
//!
//! Outcomes of recent insertions are *right-truncated*: of ads inserted four minutes ago only delays
//! under four minutes can have been seen. Counting them as they are would make the curve too short,
//! and waiting for all of them would delay it. The estimator for such data multiplies reverse
//! hazards (Lagakos, Barraj, De Gruttola, "Nonparametric analysis of truncated survival data",
//! Biometrika 75, 1988): with `n(d)` outcomes of delay `d` and `N(d)` outcomes of delay up to `d`,
//! both among ads old enough to show a delay of `d`, the share of delays up to `d` is
//! `Π over j > d of (1 − n(j) / N(j))`.
//!
//! That is right of insertions that were observed from their start. Those of a backlog, as of an ad server or a
//! collector that was cut off, reach the log together with their outcomes, and each outcome has the delay of the
//! backlog. Of such insertions nothing is learned, by windows: a window is left out if more of its insertions came
//! later than a tenth of the longest delay, three minutes at least, than in that time; and so are all windows before
//! the first one with an insertion in time. Ad groups learn neither delays nor rates from such windows.

use throng_model::Timestamp;

use crate::survival::{BUCKETS, Delays, MIN_CURVE_MICROS, bounds_of, covered_micros};
use crate::timeline::{Timeline, WINDOW_MICROS, age_of};

/// Outcomes that must be known before the curve is used.
const MIN_OUTCOMES: f64 = 20.0;
/// The oldest ads must be this old before the curve is used: it has no longer delays.
const MIN_AGE_MICROS: i64 = 15 * 60 * 1_000_000;
/// An insertion that is reported later than this part of the longest delay is late: with a horizon of up to half an
/// hour after three minutes, when by the default horizon nothing of it is in flight.
const LATE_PART: i64 = 10;
/// For how long it is known of a window that it is not observed: outcomes of a backlog may come in a later file than its
/// insertions, which are not counted, and would be outcomes of nothing.
const KEPT_MICROS: i64 = 6 * 3_600 * 1_000_000;

/// How many outcomes each delay bucket has, as long as the highest bucket needs, and how the insertions were reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DelayCounts {
    counts: Vec<u32>,
    /// Insertions that were reported in time, minus those that were not.
    pub in_time: i64,
}

impl DelayCounts {
    /// Buckets beyond the last are the last.
    #[inline]
    pub fn add(&mut self, bucket: usize, times: u32) {
        let bucket = bucket.min(BUCKETS - 1);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
    }

    /// Buckets that have outcomes, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        self.counts.iter().copied().enumerate().filter(|(_, times)| *times > 0)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooled {
    /// Windows that may have more outcomes, by window number, and for some hours those that are not observed.
    pub recent: Timeline<DelayCounts>,
    /// Outcomes of older windows.
    pub complete: Delays,
    /// The first window that had an insertion which was reported in time.
    pub first: Option<i64>,
    /// Windows older than this have all outcomes that are learned from: the longest horizon of the ad groups,
    /// in microseconds.
    pub reach: i64,
}

impl Default for Pooled {
    fn default() -> Self {
        Self {
            recent: Timeline::default(),
            complete: Delays::default(),
            first: None,
            reach: MIN_CURVE_MICROS,
        }
    }
}

impl Pooled {
    /// Has delays learned up to a horizon.
    pub fn cover_horizon(&mut self, horizon: std::time::Duration) {
        self.reach = covered_micros(horizon);
    }

    /// An insertion that counts, and when it was reported. `false` if nothing is learned from it unless more insertions of
    /// its window are reported in time: see [`Pooled::is_observed`].
    #[inline]
    pub fn insertion(&mut self, at: Timestamp, logged_at: Timestamp) -> bool {
        let number = at.0.div_euclid(WINDOW_MICROS);
        let is_late = logged_at.0.saturating_sub(at.0) > self.reach / LATE_PART;
        if !is_late {
            self.first = Some(self.first.map_or(number, |first| first.min(number)));
        }
        // Also of one that is older than the longest delay: it is not observed.
        let window = self.recent.entry(number);
        window.in_time = window.in_time.saturating_add(if is_late { -1 } else { 1 });
        window.in_time >= 0 && self.first.is_some_and(|first| number >= first)
    }

    /// Whether the insertions of a window are observed from their start, and are learned from.
    pub fn is_observed(&self, number: i64) -> bool {
        let in_time = self.recent.get(number).map_or(0, |window| window.in_time);
        in_time >= 0 && self.first.is_some_and(|first| number >= first)
    }

    /// An outcome, with the bucket of its delay.
    #[inline]
    pub fn outcome(&mut self, inserted_at: Timestamp, bucket: usize, logged_at: Timestamp) {
        let number = inserted_at.0.div_euclid(WINDOW_MICROS);
        if age_of(number, logged_at) < self.reach {
            self.recent.entry(number).add(bucket, 1);
        } else if self.is_observed(number) {
            self.complete.add(bucket, 1.0);
        }
    }

    /// Adds up windows that are complete.
    pub fn close(&mut self, now: Timestamp) {
        let (reach, first) = (self.reach, self.first);
        if self.recent.oldest().is_none_or(|number| age_of(number, now) < reach) {
            return;
        }
        let complete = &mut self.complete;
        self.recent.retain(|number, window| {
            let age = age_of(number, now);
            if age < reach {
                return true;
            }
            if window.in_time < 0 {
                window.counts = Vec::new();
                return age < reach.max(KEPT_MICROS);
            }
            if first.is_some_and(|first| number >= first) {
                window.iter().for_each(|(bucket, times)| complete.add(bucket, f64::from(times)));
            }
            false
        });
    }

    /// The share of delays longer than each bucket; `None` while there are too few outcomes. The cost grows
    /// with the number of recent windows times the delays in them: microseconds.
    pub fn curve(&self, now: Timestamp) -> Option<Vec<f64>> {
        let first = self.first?;
        let is_learned_from = |(number, window): &(i64, &DelayCounts)| {
            *number >= first && window.in_time >= 0 && !window.counts.is_empty()
        };
        let observed = || self.recent.iter().filter(is_learned_from);
        let recent: u64 =
            observed().flat_map(|(_, window)| window.iter()).map(|(_, n)| u64::from(n)).sum();
        if age_of(first, now) < MIN_AGE_MICROS
            || recent as f64 + self.complete.total() < MIN_OUTCOMES
        {
            return None;
        }
        let mut exact = self.complete.counts().to_vec();
        let mut up_to = running_sum(&exact);
        // Of ads that are too young to have all outcomes of a bucket: used while no others have it.
        let (mut exact_so_far, mut up_to_so_far) = (vec![0.0; BUCKETS], vec![0.0; BUCKETS]);
        let ends: Vec<i64> =
            (0..BUCKETS).map(bounds_of).map(|(begin, width)| begin.saturating_add(width)).collect();
        for (number, outcomes) in observed() {
            let age = age_of(number, now);
            // It has all outcomes of a bucket when its last ad, a window's width younger than its first,
            // is older than the bucket's end.
            let shown = age.saturating_sub(WINDOW_MICROS);
            let mut counts = vec![0.0; BUCKETS];
            for (bucket, times) in outcomes.iter() {
                counts[bucket] += f64::from(times);
            }
            let sums = running_sum(&counts);
            let in_full = ends.partition_point(|end| *end <= shown);
            for bucket in 0..in_full {
                exact[bucket] += counts[bucket];
                up_to[bucket] += sums[bucket];
            }
            for bucket in (in_full..BUCKETS).filter(|bucket| counts[*bucket] > 0.0) {
                exact_so_far[bucket] += counts[bucket];
                up_to_so_far[bucket] += sums[bucket];
            }
        }
        for bucket in (0..BUCKETS).filter(|bucket| exact_so_far[*bucket] > 0.0) {
            // Without this a delay that has just been seen for the first time would not count.
            if exact[bucket] == 0.0 {
                exact[bucket] += exact_so_far[bucket];
                up_to[bucket] += up_to_so_far[bucket];
            }
        }
        let mut share = 1.0;
        let mut later = vec![0.0; BUCKETS];
        for bucket in (0..BUCKETS).rev() {
            later[bucket] = 1.0 - share;
            if up_to[bucket] > 0.0 {
                share *= (1.0 - exact[bucket] / up_to[bucket]).max(0.0);
            }
        }
        Some(later)
    }
}

fn running_sum(counts: &[f64]) -> Vec<f64> {
    counts
        .iter()
        .scan(0.0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With truncated data the estimate is right where counting is not: delays are uniform between
    /// 0 and 600 s, and half of the outcomes belong to ads too young to show the long ones.
    #[test]
    fn young_ads_do_not_make_the_curve_short() {
        let mut pooled = Pooled::default();
        let now = Timestamp(1_200_000_000);
        for inserted in (0..1_200).step_by(2) {
            let at = Timestamp(inserted * 1_000_000);
            pooled.insertion(at, at);
            let delay = (inserted * 7_919) % 600;
            if inserted + delay < 1_200 {
                pooled.outcome(at, (delay / crate::survival::BUCKET_SECS) as usize, now);
            }
        }
        let curve = pooled.curve(now).unwrap();
        let naive: Vec<f64> =
            pooled.recent.iter().flat_map(|(_, w)| w.iter()).map(|(b, _)| b as f64).collect();
        let naive = naive.iter().filter(|b| **b >= 30.0).count() as f64 / naive.len() as f64;
        assert!((curve[29] - 0.5).abs() < 0.07, "half come later than 300 s: {}", curve[29]);
        assert!(naive < 0.43, "counting would say {naive}");
    }

    #[test]
    fn a_long_delay_counts_as_soon_as_it_is_seen() {
        let mut pooled = Pooled::default();
        let delay = 10_810 * 1_000_000;
        pooled.cover_horizon(std::time::Duration::from_secs(21_600));
        pooled.insertion(Timestamp(0), Timestamp(0));
        for _ in 0..50 {
            pooled.outcome(Timestamp(0), crate::survival::bucket_of(delay), Timestamp(delay));
        }
        let curve = pooled.curve(Timestamp(delay)).unwrap();
        let of = |secs: i64| curve[crate::survival::bucket_of(secs * 1_000_000)];
        assert_eq!([of(10), of(9_000), of(12_000)], [1.0, 1.0, 0.0]);
    }

    #[test]
    fn too_few_outcomes_give_no_curve() {
        let mut pooled = Pooled::default();
        pooled.insertion(Timestamp(0), Timestamp(0));
        assert_eq!(pooled.curve(Timestamp(i64::MAX / 2)), None);
    }

    const SECOND: i64 = 1_000_000;

    /// Insertions of a second, and their outcomes, which take as long.
    fn seen(pooled: &mut Pooled, second: i64, times: usize, logged_after: i64, delay: i64) {
        let at = Timestamp(second * SECOND);
        for _ in 0..times {
            pooled.insertion(at, Timestamp((second + logged_after) * SECOND));
            let bucket = crate::survival::bucket_of(delay * SECOND);
            pooled.outcome(at, bucket, Timestamp((second + delay) * SECOND));
        }
    }

    /// The share that comes more than twenty seconds later.
    fn after_20(pooled: &Pooled, second: i64) -> Option<f64> {
        pooled.curve(Timestamp(second * SECOND)).map(|curve| curve[1])
    }

    #[test]
    fn the_backlog_of_a_new_log_teaches_nothing() {
        let mut pooled = Pooled::default();
        // Of up to twenty minutes, at once; after it, insertions as they are made.
        (0..900).for_each(|second| seen(&mut pooled, second, 2, 1_200 - second, 1_200 - second));
        assert_eq!(after_20(&pooled, 1_200), None, "no insertion is observed");
        (1_200..1_210).for_each(|second| seen(&mut pooled, second, 50, 1, 2));
        assert_eq!(after_20(&pooled, 1_210), None, "none for long enough");
        for second in [2_110, 2_400] {
            pooled.close(Timestamp(second * SECOND));
            let later = after_20(&pooled, second);
            assert!(later.is_some_and(|later| later < 1e-9), "{second}: {later:?}");
        }
    }

    #[test]
    fn a_window_of_an_old_backlog_stays_unobserved_for_its_outcomes() {
        let mut pooled = Pooled::default();
        (0..3_600).for_each(|second| seen(&mut pooled, second, 1, 1, 2));
        // Reported after an hour; nothing else was made then.
        let number = 4_000 / 10;
        pooled.insertion(Timestamp(4_000 * SECOND), Timestamp(7_600 * SECOND));
        for second in [7_600, 7_601, 12_000] {
            pooled.close(Timestamp(second * SECOND));
            assert!(!pooled.is_observed(number) && pooled.is_observed(300), "{second}");
        }
        pooled.close(Timestamp(30_000 * SECOND));
        assert!(pooled.recent.is_empty());
    }

    #[test]
    fn a_backlog_after_an_interruption_teaches_nothing() {
        let mut pooled = Pooled::default();
        (0..3_600).for_each(|second| seen(&mut pooled, second, 1, 1, 2));
        // Twenty minutes come at once. Some of the ad servers had a connection: their insertions came in time.
        for second in 3_600..4_800 {
            seen(&mut pooled, second, 3, 4_800 - second, 4_800 - second);
            if second < 4_000 {
                seen(&mut pooled, second, 1, 1, 2);
            }
        }
        for second in [4_800, 5_400, 9_000] {
            pooled.close(Timestamp(second * SECOND));
            let later = after_20(&pooled, second);
            // Of the last three minutes nothing is late.
            assert!(later.is_some_and(|later| later < 0.25), "{second}: {later:?}");
        }
        // Most of the insertions of a window are observed: its late outcomes are delays as others.
        let mut mixed = Pooled::default();
        for second in 0..1_200 {
            seen(&mut mixed, second, 3, 1, 2);
            seen(&mut mixed, second, 1, 1_200 - second, 1_200 - second);
        }
        let later = after_20(&mixed, 3_600);
        assert!(later.is_some_and(|later| (0.15..0.35).contains(&later)), "{later:?}");
    }
}
