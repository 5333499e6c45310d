//! The rate of outcomes of insertions, learned from what became of earlier ones.
//!
//! A rate is a beta-binomial: the prior is a beta distribution, `s` successes of `n` trials make it
//!
//! `mean = (s + w × m) / (n + w)`, `variance = mean × (1 − mean) / (n + w + 1)`
//!
//! with the prior's mean `m` and its weight `w` in trials (Gelman et al., "Bayesian Data Analysis", 2.4). The
//! prior of an ad group is made of other ad groups and of the declared rate ([`learn`](crate::learn)). So an ad
//! group without history has the rate of its placements and its campaign, and moves to its own as its trials grow.
//!
//! Outcomes come late, so an insertion counts as a trial by the share of outcomes that are due at its age,
//! `1 − survival(age)` ([`Calibration::learned`](crate::Calibration::learned)): the estimate of
//! `n × rate × due = successes` has no bias at any age, and a change of the rate shows within the median delay.
//! Only trials older than the longest delay would have no bias either, and would show it half an hour later.
//! Those are what is stored ([`RateCounts::add`]), because the survival curve is not part of the state of rates.

use std::time::Duration;

use throng_model::Timestamp;

use crate::beta::quantile;
use crate::fading::{Counts, FadingCounts, StoredCounts, UNIT};

/// Half of what is known remains after this time: rates differ between day and night.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(6 * 3_600);
/// The same for the counts in which a sudden change is detected.
const RECENT_HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// A declared rate weighs as much as trials with so many successes.
pub(crate) const DECLARED_SUCCESSES: f64 = 5.0;
/// The weight of a prior, whatever its mean.
const WEIGHTS: (f64, f64) = (5.0, 10_000.0);
/// Declared rates of 0 and 1 are taken as nearly that: nothing could be learned otherwise.
pub(crate) const RATES: (f64, f64) = (1e-6, 1.0 - 1e-6);
/// Recent successes differ from the older rate by so many deviations, and by [`CHANGE_SUCCESSES`], when the
/// rate has changed. With five of them a steady rate is taken for a changed one about once in ten years.
const CHANGE_DEVIATIONS: f64 = 5.0;
/// For rare successes, whose distribution is skewed.
const CHANGE_SUCCESSES: f64 = 3.0;
/// Of insertions with a smaller share of outcomes due nothing is learned yet.
const LEAST_DUE: f64 = 0.05;

/// The share of outcomes that are due where this share comes later; `None` if it is too small to learn from.
pub(crate) fn due_share(later: f64) -> Option<f64> {
    let due = 1.0 - later;
    (due >= LEAST_DUE).then(|| due.min(1.0))
}

/// A beta distribution before the trials that it is applied to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    mean: f64,
    /// In trials.
    weight: f64,
}

impl Prior {
    /// A declared rate: of the spec, or of insertions. It weighs as much as trials with five successes.
    pub fn declared(rate: f64) -> Self {
        Self::of_weight(rate, DECLARED_SUCCESSES)
    }

    /// A rate that weighs as much as trials with so many successes.
    pub(crate) fn of_weight(rate: f64, successes: f64) -> Self {
        let mean = if rate.is_nan() { RATES.0 } else { rate.clamp(RATES.0, RATES.1) };
        Self { mean, weight: (successes / mean).clamp(WEIGHTS.0, WEIGHTS.1) }
    }

    /// The rate after trials. More successes than trials, as of outcomes whose insertions are not reported, count
    /// as a success each trial.
    pub fn rate(self, counts: Counts) -> Rate {
        let trials = counts.trials.max(0.0);
        if trials == 0.0 {
            // Exactly the prior's, also where the sum below would round.
            return Rate { mean: self.mean, weight: self.weight };
        }
        let successes = counts.successes.clamp(0.0, trials);
        let weight = trials + self.weight;
        Rate { mean: (successes + self.weight * self.mean) / weight, weight }
    }
}

/// A rate as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    mean: f64,
    weight: f64,
}

impl Rate {
    /// Its expectation, between 0 and 1.
    #[inline]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// How far the true rate is from the mean, squared.
    #[inline]
    pub fn variance(&self) -> f64 {
        self.mean * (1.0 - self.mean) / (self.weight + 1.0)
    }

    /// The equal-tailed credible interval that has the true rate with a probability (such as 0.95): quantiles
    /// of the beta distribution with the parameters `mean × weight` and `(1 − mean) × weight` (Brown, Cai and
    /// DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16, 2001).
    pub fn interval(&self, probability: f64) -> (f64, f64) {
        let tail = (1.0 - probability.clamp(0.0, 1.0)) / 2.0;
        let (a, b) = (self.mean * self.weight, (1.0 - self.mean) * self.weight);
        (quantile(a, b, tail), quantile(a, b, 1.0 - tail))
    }

    /// Of successes per insertion: the rate of successes among the share of insertions that are seen. Its trials
    /// are the insertions times that share.
    pub fn of_seen(&self, share: f64) -> Self {
        let share = share.clamp(RATES.0, 1.0);
        Self { mean: (self.mean / share).clamp(RATES.0, RATES.1), weight: self.weight * share }
    }
}

/// The trials of one ad group, or of one of its placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateCounts {
    all: FadingCounts,
    recent: FadingCounts,
}

impl Default for RateCounts {
    fn default() -> Self {
        Self { all: FadingCounts::new(HALF_LIFE), recent: FadingCounts::new(RECENT_HALF_LIFE) }
    }
}

impl RateCounts {
    /// Counts that were stored.
    pub fn of_stored([all, recent]: [StoredCounts; 2]) -> Self {
        Self {
            all: FadingCounts::of_stored(HALF_LIFE, all),
            recent: FadingCounts::of_stored(RECENT_HALF_LIFE, recent),
        }
    }

    /// The form to store.
    pub fn stored(&self) -> [StoredCounts; 2] {
        [self.all.stored(), self.recent.stored()]
    }

    /// Adds insertions of a moment that have all their outcomes. If the rate has changed suddenly, what was
    /// known before the last half hour is forgotten.
    pub fn add(&mut self, at: Timestamp, trials: u64, successes: u64) {
        let (trials, successes) = (trials.saturating_mul(UNIT), successes.saturating_mul(UNIT));
        self.all.add(at, trials, successes);
        self.recent.add(at, trials, successes);
        if self.has_changed(at) {
            self.all.replace(at, &self.recent);
        }
    }

    /// Adds other counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        self.recent.merge(&other.recent);
    }

    /// Whether the recent trials are not of the rate of the older ones. The variance of their difference has a
    /// part of both: `n p (1 − p) (1 + n / m)` for `n` recent and `m` older trials.
    fn has_changed(&self, at: Timestamp) -> bool {
        let (all, recent) = (self.all.at(at), self.recent.at(at));
        let older = (all.trials - recent.trials).max(0.0);
        let older_successes = (all.successes - recent.successes).clamp(0.0, older);
        let rate = (older_successes + 0.5) / (older + 1.0);
        let expected = recent.trials * rate;
        let variance = expected * (1.0 - rate) * (1.0 + recent.trials / (older + 1.0));
        let beyond = (recent.successes - expected).abs() - CHANGE_SUCCESSES;
        beyond > 0.0 && beyond * beyond > CHANGE_DEVIATIONS * CHANGE_DEVIATIONS * variance
    }

    /// What is left of the trials at a moment.
    pub fn at(&self, now: Timestamp) -> Counts {
        self.all.at(now)
    }
}
