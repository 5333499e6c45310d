//! The share of outcomes still to come at an age: learned from the delays of outcomes.

/// The width of buckets of short delays, in seconds.
pub const BUCKET_SECS: i64 = 10;
/// Buckets by width: how many, and how many seconds each is wide. Together they cover the longest horizon, a
/// day.
const WIDTHS: [(usize, i64); 3] = [(180, BUCKET_SECS), (90, 60), (132, 600)];
/// Number of buckets; the last one has all longer delays.
pub const BUCKETS: usize = 180 + 90 + 132 + 1;
/// Number of buckets of earlier versions: of the narrowest width, and one for all longer delays.
const EARLIER_BUCKETS: usize = 181;
/// A learned curve covers this much time at least, and the horizon if that is longer.
pub const MIN_CURVE_MICROS: i64 = 1_810 * 1_000_000;
/// Weight of the pooled curve against an ad group's own, in outcomes.
const SHRINKAGE: f64 = 50.0;
/// Counts are halved when their sum reaches this, so that older outcomes count less.
const MAX_TOTAL: f64 = 100_000.0;

/// Counts of delays by bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Delays {
    counts: Vec<f64>,
    total: f64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: vec![0.0; BUCKETS], total: 0.0 }
    }
}

impl Delays {
    /// Counts as they were stored, also those of earlier versions. `None` if they are not counts.
    pub fn from_counts(mut counts: Vec<f64>) -> Option<Self> {
        if counts.len() == EARLIER_BUCKETS {
            counts.resize(BUCKETS, 0.0);
        }
        let sound = counts.len() == BUCKETS && counts.iter().all(|c| c.is_finite() && *c >= 0.0);
        sound.then(|| Self { total: counts.iter().sum(), counts })
    }

    /// The sum of the counts.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// The counts by bucket.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Adds to a bucket.
    #[inline]
    pub fn add(&mut self, bucket: usize, count: f64) {
        self.counts[bucket.min(BUCKETS - 1)] += count;
        self.total += count;
        if self.total >= MAX_TOTAL {
            self.counts.iter_mut().for_each(|c| *c /= 2.0);
            self.total /= 2.0;
        }
    }
}

/// The bucket of a delay.
#[inline]
pub fn bucket_of(delay_micros: i64) -> usize {
    let mut secs = delay_micros.max(0) / 1_000_000;
    let mut first = 0;
    for (count, width) in WIDTHS {
        let place = (secs / width) as usize;
        if place < count {
            return first + place;
        }
        secs -= count as i64 * width;
        first += count;
    }
    BUCKETS - 1
}

/// The start and the width of a bucket, in microseconds. The last one has no end.
#[inline]
pub fn bounds_of(bucket: usize) -> (i64, i64) {
    let (mut begin, mut first) = (0, 0);
    for (count, width) in WIDTHS {
        if bucket < first + count {
            return ((begin + (bucket - first) as i64 * width) * 1_000_000, width * 1_000_000);
        }
        begin += count as i64 * width;
        first += count;
    }
    (begin * 1_000_000, i64::MAX / 2)
}

/// How much time a learned curve covers with a horizon: longer delays are not learned.
#[inline]
pub fn covered_micros(horizon: std::time::Duration) -> i64 {
    micros_of(horizon).max(MIN_CURVE_MICROS)
}

#[inline]
fn micros_of(horizon: std::time::Duration) -> i64 {
    i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX)
}

/// The share of outcomes that come later than an age, for every age.
///
/// Until there are enough outcomes of ad groups with the same billed event it is a step: 1 before the horizon,
/// 0 after it. Then it is a weighted mean of the curve of all ad groups of that kind and the ad group's own:
/// with 50 outcomes of its own both have the same weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Survival {
    /// Share that is later than the end of bucket `i`; empty: the step.
    later: Vec<f64>,
    horizon_micros: i64,
}

impl Survival {
    /// The step at a horizon.
    pub fn step(horizon: std::time::Duration) -> Self {
        Self { later: Vec::new(), horizon_micros: micros_of(horizon) }
    }

    /// The curve of an ad group. `pooled` is the share later than each bucket among all ad groups with the same billed event.
    pub fn learned(horizon: std::time::Duration, own: &Delays, pooled: Option<&[f64]>) -> Self {
        let step = Self::step(horizon);
        let Some(pooled) = pooled else { return step };
        let weight = own.total / (own.total + SHRINKAGE);
        let mut own_later = 1.0;
        let later = own
            .counts
            .iter()
            .zip(pooled)
            .map(|(count, pooled_later)| {
                own_later -= if own.total > 0.0 { count / own.total } else { 0.0 };
                (weight * own_later + (1.0 - weight) * pooled_later).clamp(0.0, 1.0)
            })
            .collect();
        Self { later, ..step }
    }

    /// The share of outcomes still to come at an age in microseconds, from 1 down to 0. Between the
    /// ends of buckets it is interpolated.
    #[inline]
    pub fn at(&self, age_micros: i64) -> f64 {
        if age_micros <= 0 {
            return 1.0;
        }
        if self.later.is_empty() {
            return if age_micros < self.horizon_micros { 1.0 } else { 0.0 };
        }
        let bucket = bucket_of(age_micros);
        if bucket >= BUCKETS - 1 || age_micros >= self.longest_micros() {
            // Beyond half an hour, and beyond the horizon, nothing is expected.
            return 0.0;
        }
        let before = if bucket == 0 { 1.0 } else { self.later[bucket - 1] };
        let (begin, width) = bounds_of(bucket);
        let part = (age_micros - begin) as f64 / width as f64;
        before + (self.later[bucket] - before) * part
    }

    /// Windows older than this have no outcomes to come.
    #[inline]
    pub fn longest_micros(&self) -> i64 {
        if self.later.is_empty() {
            self.horizon_micros
        } else {
            self.horizon_micros.max(MIN_CURVE_MICROS)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HORIZON: Duration = Duration::from_secs(180);

    #[test]
    fn with_too_few_outcomes_it_is_a_step() {
        let curve = Survival::learned(HORIZON, &Delays::default(), None);
        assert!(curve.later.is_empty());
        assert_eq!(curve.at(179_999_999), 1.0);
        assert_eq!(curve.at(180_000_000), 0.0);
    }

    #[test]
    fn a_learned_curve_falls_where_the_outcomes_came() {
        let pooled: Vec<f64> = (0..BUCKETS).map(|b| if b < 30 { 1.0 } else { 0.0 }).collect();
        let curve = Survival::learned(HORIZON, &Delays::default(), Some(&pooled));
        assert_eq!(curve.at(299_000_000), 1.0);
        assert!(curve.at(311_000_000) < 1e-9);
    }

    #[test]
    fn buckets_follow_each_other_up_to_a_day() {
        let mut end = 0;
        for bucket in 0..BUCKETS {
            let (begin, width) = bounds_of(bucket);
            assert_eq!(begin, end);
            assert_eq!([begin, begin + width - 1].map(bucket_of), [bucket; 2]);
            end = begin + width;
        }
        assert_eq!(bounds_of(BUCKETS - 1).0, 86_400_000_000);
        assert_eq!([i64::MIN, i64::MAX].map(bucket_of), [0, BUCKETS - 1]);
    }

    #[test]
    fn a_learned_curve_covers_the_horizon() {
        let pooled: Vec<f64> =
            (0..BUCKETS).map(|b| if bounds_of(b).0 < 2_700_000_000 { 1.0 } else { 0.0 }).collect();
        let at = |horizon| {
            let horizon = Duration::from_secs(horizon);
            let curve = Survival::learned(horizon, &Delays::default(), Some(&pooled));
            move |secs: i64| curve.at(secs * 1_000_000)
        };
        let long = at(7_200);
        assert_eq!([long(1_700), long(2_600)], [1.0, 1.0]);
        assert!(long(2_800) < 1e-9);
        let short = at(180);
        assert_eq!([short(1_800), short(1_811)], [1.0, 0.0]);
    }

    #[test]
    fn curves_never_rise() {
        let mut own = Delays::default();
        for i in 0..500i64 {
            own.add(bucket_of(i * 777_777), 1.0);
        }
        let pooled: Vec<f64> = (0..BUCKETS).map(|b| 1.0 - b as f64 / BUCKETS as f64).collect();
        let curve = Survival::learned(HORIZON, &own, Some(&pooled));
        let mut last = 1.0;
        for second in 0..2_000 {
            let now = curve.at(second * 1_000_000);
            assert!((0.0..=last + 1e-12).contains(&now), "at {second}: {now} after {last}");
            last = now;
        }
    }
}
