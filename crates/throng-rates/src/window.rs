//! What is known of the insertions of one window. Pure.

use crate::{Breakdown, Trials};

/// Expected spend of the ads inserted in ten seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// In micros: that of insertions that are not known to have an outcome.
    pub expected: i64,
    /// The same, each insertion times the probability that it has an outcome.
    pub weighted: i64,
    /// The part of `expected` whose outcomes name insertions that are not among the open ones: an earlier
    /// version has counted them.
    pub earlier: i64,
    /// Outcomes so far as (delay bucket, count).
    pub outcomes: Vec<(u32, u32)>,
    /// All its insertions, and how many outcomes they have had.
    pub trials: Trials,
    /// What all its insertions were expected to earn.
    pub declared: i64,
    /// Impressions where clicks are billed, and what is of placements.
    pub breakdown: Option<Box<Breakdown>>,
    /// The factor of the learned rates; `None` if insertions or learned rates have changed since it was computed.
    pub factor: Option<f64>,
}

impl Window {
    /// Takes an insertion out that has an outcome.
    #[inline]
    pub fn settle(&mut self, expected: i64, weighted: i64) {
        self.expected = self.expected.saturating_sub(expected).max(0);
        self.weighted = self.weighted.saturating_sub(weighted).clamp(0, self.expected);
    }

    /// Adds an outcome with a delay of this bucket.
    #[inline]
    pub fn add_delay(&mut self, bucket: u32) {
        // Outcomes of one window come with increasing delays: the bucket is among the last ones.
        match self.outcomes.iter_mut().rev().find(|(known, _)| *known == bucket) {
            Some((_, times)) => *times = times.saturating_add(1),
            None => self.outcomes.push((bucket, 1)),
        }
    }

    /// The mean probability that its insertions have an outcome, weighted by what they earn.
    #[inline]
    pub fn rate(&self) -> f64 {
        if self.expected <= 0 {
            return 0.0;
        }
        (self.weighted as f64 / self.expected as f64).clamp(0.0, 1.0)
    }

    /// The mean price of its insertions in micros; `None` in windows of earlier versions.
    #[inline]
    pub fn price(&self) -> Option<f64> {
        let outcomes = self.trials.expected();
        (outcomes > 0.0).then(|| self.declared as f64 / outcomes)
    }
}
