//! Counts that fade with time, in integers: the same additions in the same order give the same bits on every
//! machine, so that replicas and replays agree.

use std::time::Duration;

use throng_model::Timestamp;

/// One event in the counts: they are in parts of 65,536, so that a count of one fades too.
pub const UNIT: u64 = 1 << 16;

/// Steps of a half-life.
const STEPS: u64 = 32;
/// `2^(-k / 32)` in parts of 2^32.
const FACTORS: [u64; STEPS as usize] = [
    4_294_967_296,
    4_202_935_003,
    4_112_874_773,
    4_024_744_348,
    3_938_502_376,
    3_854_108_391,
    3_771_522_796,
    3_690_706_840,
    3_611_622_603,
    3_534_232_978,
    3_458_501_653,
    3_384_393_094,
    3_311_872_529,
    3_240_905_930,
    3_171_459_999,
    3_103_502_151,
    3_037_000_500,
    2_971_923_842,
    2_908_241_642,
    2_845_924_021,
    2_784_941_738,
    2_725_266_179,
    2_666_869_345,
    2_609_723_834,
    2_553_802_834,
    2_499_080_105,
    2_445_529_972,
    2_393_127_307,
    2_341_847_524,
    2_291_666_561,
    2_242_560_872,
    2_194_507_417,
];

/// What counts were after a number of steps: `count × 2^(-steps / 32)`, rounded down.
fn faded(count: u64, steps: u64) -> u64 {
    let halvings = steps / STEPS;
    if halvings >= 64 {
        return 0;
    }
    let factor = FACTORS[(steps % STEPS) as usize];
    ((u128::from(count) * u128::from(factor)) >> (32 + halvings)) as u64
}

/// The stored form of [`FadingCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCounts {
    /// The step of time that the counts are of.
    pub step: i64,
    /// Trials in parts of [`UNIT`].
    pub trials: u64,
    /// Successes in parts of [`UNIT`].
    pub successes: u64,
}

impl Default for StoredCounts {
    fn default() -> Self {
        Self { step: i64::MIN, trials: 0, successes: 0 }
    }
}

/// Trials and successes, of which half remain after a half-life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FadingCounts {
    step_micros: i64,
    counts: StoredCounts,
}

impl FadingCounts {
    /// No counts.
    pub fn new(half_life: Duration) -> Self {
        Self::of_stored(half_life, StoredCounts::default())
    }

    /// Counts that were stored; the half-life must be the one that they were made with.
    pub fn of_stored(half_life: Duration, counts: StoredCounts) -> Self {
        let micros = i64::try_from(half_life.as_micros()).unwrap_or(i64::MAX);
        Self { step_micros: (micros / STEPS as i64).max(1), counts }
    }

    /// The form to store.
    pub fn stored(&self) -> StoredCounts {
        self.counts
    }

    /// Adds counts of a moment, in parts of [`UNIT`]. Those of an earlier moment than the newest one are
    /// added as much as is left of them. Saturates.
    pub fn add(&mut self, at: Timestamp, trials: u64, successes: u64) {
        self.add_at_step(at.0.div_euclid(self.step_micros), trials, successes);
    }

    /// Adds other counts of the same half-life.
    pub(crate) fn merge(&mut self, other: &Self) {
        let StoredCounts { step, trials, successes } = other.counts;
        // Empty ones have no time.
        if trials > 0 || successes > 0 {
            self.add_at_step(step, trials, successes);
        }
    }

    fn add_at_step(&mut self, step: i64, trials: u64, successes: u64) {
        let (mut trials, mut successes) = (trials, successes);
        let apart = step.abs_diff(self.counts.step);
        if step > self.counts.step {
            self.counts.step = step;
            self.counts.trials = faded(self.counts.trials, apart);
            self.counts.successes = faded(self.counts.successes, apart);
        } else {
            (trials, successes) = (faded(trials, apart), faded(successes, apart));
        }
        self.counts.trials = self.counts.trials.saturating_add(trials);
        self.counts.successes = self.counts.successes.saturating_add(successes);
    }

    /// What is left of trials and successes at a moment. Does not change the counts: a reading at one time
    /// more or less leaves no trace in later figures.
    pub fn at(&self, now: Timestamp) -> Counts {
        let step = now.0.div_euclid(self.step_micros);
        let apart = if step > self.counts.step { step.abs_diff(self.counts.step) } else { 0 };
        let whole = |count| faded(count, apart) as f64 / UNIT as f64;
        Counts { trials: whole(self.counts.trials), successes: whole(self.counts.successes) }
    }

    /// Replaces the counts by those of others with another half-life, as they are.
    pub(crate) fn replace(&mut self, at: Timestamp, by: &Self) {
        let mut other = *by;
        other.add(at, 0, 0);
        let step = at.0.div_euclid(self.step_micros);
        self.counts = StoredCounts { step, ..other.counts };
    }
}

/// Trials and successes, with fractions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// How many times something could happen.
    pub trials: f64,
    /// How many times it did.
    pub successes: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn hours(hours: f64) -> Timestamp {
        Timestamp((hours * 3.6e9) as i64)
    }

    #[test]
    fn half_is_left_after_a_half_life() {
        let mut counts = FadingCounts::new(HOUR);
        counts.add(hours(100.0), 1_000 * UNIT, 10 * UNIT);
        for (later, left) in [(0.0, 1.0), (0.5, 0.5f64.sqrt()), (1.0, 0.5), (3.0, 0.125)] {
            let Counts { trials, successes } = counts.at(hours(100.0 + later));
            assert!((trials / 1_000.0 - left).abs() < 1e-6, "{later}: {trials}");
            assert!((successes / 10.0 - left).abs() < 1e-4, "{later}: {successes}");
        }
        assert_eq!(counts.at(hours(99.0)).trials, 1_000.0);
        assert_eq!(counts.at(hours(1e6)), Counts::default());
    }

    #[test]
    fn late_additions_count_as_much_as_is_left_of_them() {
        let (mut in_order, mut late) = (FadingCounts::new(HOUR), FadingCounts::new(HOUR));
        in_order.add(hours(1.0), 500 * UNIT, 50 * UNIT);
        in_order.add(hours(3.0), 100 * UNIT, 0);
        late.add(hours(3.0), 100 * UNIT, 0);
        late.add(hours(1.0), 500 * UNIT, 50 * UNIT);
        assert_eq!(in_order, late);
    }

    #[test]
    fn readings_leave_no_trace_and_stored_counts_continue() {
        let mut counts = FadingCounts::new(HOUR);
        let mut restored = counts;
        for n in 0..1_000i64 {
            let at = Timestamp(n * 7_777_777);
            counts.add(at, 3 * UNIT + 1, UNIT / 3);
            let _ = counts.at(hours(n as f64));
            restored.add(at, 3 * UNIT + 1, UNIT / 3);
            restored = FadingCounts::of_stored(HOUR, restored.stored());
        }
        assert_eq!(counts, restored);
    }

    #[test]
    fn no_time_and_no_count_overflows() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        for half_life in [Duration::ZERO, HOUR, Duration::MAX] {
            let mut counts = FadingCounts::new(half_life);
            for at in times {
                for now in times {
                    counts.add(Timestamp(at), u64::MAX, u64::MAX);
                    let read = counts.at(Timestamp(now));
                    assert!(read.trials.is_finite() && read.trials >= 0.0);
                }
            }
        }
    }
}
