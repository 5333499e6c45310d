//! A level of priors: what is known of a rate without the trials of an ad group, as a multiple of the declared one.

use crate::rates::{DECLARED_SUCCESSES, Prior};

/// The most that a level passes on to the next one.
pub(crate) const LEVEL_SUCCESSES: f64 = 20.0;
/// Factors beyond these are errors of the log.
pub(crate) const FACTORS: (f64, f64) = (1e-3, 1e3);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    factor: f64,
    /// The weight.
    successes: f64,
}

impl Level {
    /// The declared rate.
    pub const DECLARED: Self = Self { factor: 1.0, successes: DECLARED_SUCCESSES };

    /// A factor with a weight.
    pub(crate) fn of(factor: f64, successes: f64) -> Self {
        Self { factor, successes }
    }

    /// The rate as a multiple of the declared one.
    pub(crate) fn factor(self) -> f64 {
        self.factor
    }

    /// The next level, of others with so many successes where so many are expected.
    pub fn narrowed(self, successes: f64, expected: f64) -> Self {
        if expected.is_nan() || expected <= 0.0 {
            return self;
        }
        let factor = (successes + self.successes) / (expected + self.successes / self.factor);
        Self {
            factor: factor.clamp(FACTORS.0, FACTORS.1),
            successes: (self.successes + successes).min(LEVEL_SUCCESSES.max(self.successes)),
        }
    }

    pub(crate) fn prior(self, declared: f64) -> Prior {
        Prior::of_weight(declared * self.factor, self.successes)
    }

    /// The same weight with the factor times another one.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { factor: (self.factor * factor).clamp(FACTORS.0, FACTORS.1), ..self }
    }
}
