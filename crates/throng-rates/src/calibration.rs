//! How the rate of outcomes relates to the rate that insertions were declared with.
//!
//! Insertions may carry rates of their own, so what is learned is a factor: the learned rate over the mean
//! of the declared ones, of the same trials. What an insertion was expected to earn, times the factor, is
//! what it is expected to earn now. Where all insertions have the ad group's rate, the factor times that
//! rate is the learned rate.

use throng_model::Timestamp;

use crate::fading::{Counts, FadingCounts, StoredCounts, UNIT};
use crate::level::Level;
use crate::rates::{HALF_LIFE, RATES, Rate, RateCounts, due_share};

/// Declared rates are added up in billionths.
const PER_UNIT: f64 = 1e9;

/// Insertions and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trials {
    /// How many insertions.
    pub insertions: u64,
    /// How many outcomes they have had.
    pub outcomes: u64,
    /// The sum of their declared rates, in billionths.
    pub declared: u64,
}

impl Trials {
    /// A rate in billionths.
    #[inline]
    pub fn billionths(rate: f64) -> u64 {
        (rate.clamp(0.0, 1.0) * PER_UNIT).round() as u64
    }

    /// Their expected outcomes by the declared rates.
    #[inline]
    pub fn expected(&self) -> f64 {
        self.declared as f64 / PER_UNIT
    }
}

/// What is known of an ad group's rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnedRate {
    /// The rate of outcomes per insertion.
    pub rate: Rate,
    /// Its mean as a multiple of the declared one.
    pub factor: f64,
    /// The trials that it is learned from.
    pub trials: f64,
}

/// What is left of trials at a moment, and what is due of those that are open.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    counts: Counts,
    /// Trials, and the sum of their declared rates. After a sudden change it has more of them.
    declared: Counts,
}

impl Evidence {
    /// Adds insertions that are open, with the share of outcomes that come later than their age.
    pub fn add_open(&mut self, trials: Trials, later: f64) {
        let Some(due) = due_share(later) else { return };
        let insertions = trials.insertions as f64 * due;
        self.counts.trials += insertions;
        self.counts.successes += trials.outcomes as f64;
        self.declared.trials += insertions;
        self.declared.successes += trials.expected() * due;
    }

    /// Adds the trials of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        let add = |to: &mut Counts, from: Counts| {
            to.trials += from.trials;
            to.successes += from.successes;
        };
        add(&mut self.counts, other.counts);
        add(&mut self.declared, other.declared);
    }

    /// The trials that are due.
    pub fn trials(&self) -> f64 {
        self.counts.trials
    }

    /// The successes, of which there are at most as many as trials.
    pub fn successes(&self) -> f64 {
        self.counts.successes.min(self.counts.trials)
    }

    /// The successes that are expected by the declared rates.
    pub fn expected(&self) -> f64 {
        let expected = self.counts.trials * self.declared.successes / self.declared.trials;
        if expected.is_finite() { expected } else { 0.0 }
    }

    /// The same trials with a multiple of their successes.
    pub(crate) fn with_successes(mut self, multiple: f64) -> Self {
        self.counts.successes *= multiple;
        self
    }

    /// The rate with a prior. Without trials it is that of the prior, for an ad group with this declared rate.
    /// `None` while nothing is known, and of declared rates below one in a million, which no prior has: then the
    /// declared rates count.
    pub fn learned(&self, level: Level, declared: f64) -> Option<LearnedRate> {
        let declared = match self.counts.trials > 0.0 {
            true => self.declared.successes / self.declared.trials,
            false if level == Level::DECLARED => return None,
            false => declared,
        };
        if !declared.is_finite() || declared < RATES.0 {
            return None;
        }
        let rate = level.prior(declared).rate(self.counts);
        let trials = self.counts.trials.max(0.0);
        Some(LearnedRate { rate, factor: rate.mean() / declared, trials })
    }
}

/// The trials of an ad group, with their declared rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibration {
    counts: RateCounts,
    /// Insertions, and the sum of their declared rates in billionths.
    declared: FadingCounts,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { counts: RateCounts::default(), declared: FadingCounts::new(HALF_LIFE) }
    }
}

impl Calibration {
    /// What was stored.
    pub fn of_stored([all, recent, declared]: [StoredCounts; 3]) -> Self {
        Self {
            counts: RateCounts::of_stored([all, recent]),
            declared: FadingCounts::of_stored(HALF_LIFE, declared),
        }
    }

    /// The form to store.
    pub fn stored(&self) -> [StoredCounts; 3] {
        let [all, recent] = self.counts.stored();
        [all, recent, self.declared.stored()]
    }

    /// Adds insertions of a moment that have all their outcomes.
    pub fn add(&mut self, at: Timestamp, trials: Trials) {
        self.counts.add(at, trials.insertions, trials.outcomes);
        self.declared.add(at, trials.insertions.saturating_mul(UNIT), trials.declared);
    }

    /// Adds the trials of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.declared.merge(&other.declared);
    }

    /// What is left of the trials at a moment.
    pub fn evidence(&self, now: Timestamp) -> Evidence {
        let declared = self.declared.at(now);
        // Of the counts as they are, in their unit and not in that of trials.
        let successes = declared.successes * UNIT as f64 / PER_UNIT;
        Evidence { counts: self.counts.at(now), declared: Counts { successes, ..declared } }
    }

    /// The rate by these trials and by those that are open, each with the share of outcomes that come later
    /// than its age, with the declared rate as the prior. `None` as of [`Evidence::learned`].
    pub fn learned(
        &self,
        now: Timestamp,
        open: impl Iterator<Item = (Trials, f64)>,
    ) -> Option<LearnedRate> {
        let mut evidence = self.evidence(now);
        open.for_each(|(trials, later)| evidence.add_open(trials, later));
        evidence.learned(Level::DECLARED, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(insertions: u64, outcomes: u64, rate: f64) -> Trials {
        Trials { insertions, outcomes, declared: insertions * Trials::billionths(rate) }
    }

    #[test]
    fn the_factor_is_what_the_declared_rates_were_wrong_by() {
        let now = Timestamp(0);
        let mut calibration = Calibration::default();
        assert_eq!(calibration.learned(now, std::iter::empty()), None);
        (0..1_000).for_each(|_| calibration.add(now, trials(100, 3, 0.02)));
        let learned = calibration.learned(now, std::iter::empty()).unwrap();
        assert!((learned.factor - 1.5).abs() < 0.01 && (learned.rate.mean() - 0.03).abs() < 2e-4);
        assert_eq!(Calibration::of_stored(calibration.stored()), calibration);
        // Insertions with rates of their own, all of which are too low by the same factor.
        let mut mixed = Calibration::default();
        for _ in 0..1_000 {
            mixed.add(now, trials(100, 3, 0.02));
            mixed.add(now, trials(50, 15, 0.2));
        }
        let learned = mixed.learned(now, std::iter::empty()).unwrap();
        assert!((learned.factor - 1.5).abs() < 0.01, "{learned:?}");
    }

    #[test]
    fn rare_outcomes_and_open_insertions_count() {
        let now = Timestamp(0);
        let mut rare = Calibration::default();
        (0..1_000_000).for_each(|n| rare.add(now, trials(1, u64::from(n % 50_000 == 0), 1e-5)));
        let factor = rare.learned(now, std::iter::empty()).unwrap().factor;
        assert!((factor - 2.0).abs() < 0.4, "{factor}");
        // Half of the outcomes are due, and a quarter of all has come.
        let open = [(trials(1_000, 250, 0.25), 0.5); 100];
        let learned = Calibration::default().learned(now, open.into_iter()).unwrap();
        assert!((learned.factor - 2.0).abs() < 0.02, "{learned:?}");
        // Of these no outcome is due.
        let young = [(trials(1_000, 0, 0.25), 1.0); 100];
        assert_eq!(Calibration::default().learned(now, young.into_iter()), None);
        // The prior is a rate of one in a million: ten times this one, before any outcome.
        let rarer = [(trials(1_000, 0, 1e-7), 0.0)];
        assert_eq!(Calibration::default().learned(now, rarer.into_iter()), None);
        let none = [(trials(1_000, 0, 0.0), 0.0)];
        assert_eq!(Calibration::default().learned(now, none.into_iter()), None);
    }
}
