//! Whose fault it is, and whether to try again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Entropy, SplitMix64};

/// An error and its causes in one line. Some libraries repeat a cause at every level; here it
/// appears once.
///
/// ```
/// #[derive(Debug, thiserror::Error)]
/// #[error("failed to renew lease")]
/// struct LeaseError(#[source] std::io::Error);
///
/// let error = LeaseError(std::io::Error::other("connection reset"));
/// assert_eq!(throng_model::with_causes(&error), "failed to renew lease: connection reset");
/// ```
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The user: a wrong spec, a wrong token, a wrong row.
    User,
    /// An external system: a platform, the network, a disk.
    External,
    /// Throng: a bug.
    Internal,
}

/// Whether a retry can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// A retry fails in the same way.
    Never,
    /// A retry may succeed after a backoff.
    Backoff,
    /// A retry may succeed after this time; an earlier one does harm, such as using up a rate
    /// limit.
    After(Duration),
}

/// Exponential backoff with jitter. The delay depends on attempt and seed only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// The longest delay, before jitter.
    pub longest: Duration,
}

impl Backoff {
    /// The backoff of work that failed and that nobody waits for: a plan, a task, the delivery of an alert.
    pub const WORK: Self =
        Self { first: Duration::from_secs(5), longest: Duration::from_secs(600) };

    /// The delay after failure number `attempt` (1 is the first): `first * 2^(attempt-1)`, at most
    /// `longest`, times a factor from 0.8 to 1.2 that depends on `seed` and `attempt` only.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use throng_model::Backoff;
    ///
    /// let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
    /// let third = backoff.delay(3, 42);
    /// // Four seconds, more or less; the same for the same seed.
    /// assert!((Duration::from_millis(3_200)..=Duration::from_millis(4_800)).contains(&third));
    /// assert_eq!(third, backoff.delay(3, 42));
    /// ```
    pub fn delay(&self, attempt: u32, seed: u64) -> Duration {
        let jitter = SplitMix64::new(seed ^ u64::from(attempt)).next_f64();
        self.without_jitter(attempt).mul_f64(0.8 + 0.4 * jitter)
    }

    /// The delay after failure number `attempt` without jitter, for retries that have nothing to collide
    /// with: `first * 2^(attempt-1)`, at most `longest`.
    pub fn without_jitter(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        self.first.saturating_mul(1u32 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_stop_growing() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        for (attempt, plain) in [(1, 1.0), (2, 2.0), (4, 8.0), (9, 60.0), (4_000_000, 60.0)] {
            let delay = backoff.delay(attempt, 42).as_secs_f64();
            assert!((plain * 0.8..=plain * 1.2).contains(&delay), "{attempt}: {delay}");
            assert_eq!(backoff.without_jitter(attempt).as_secs_f64(), plain);
        }
    }
}
