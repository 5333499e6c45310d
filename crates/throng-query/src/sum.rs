//! Sums against thresholds: exact for integers and decimals, compensated for floating point. Pure.

use serde::{Deserialize, Serialize};

/// The sums of members: a range that includes both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumRange {
    /// Of integers, or of decimals as integers in units of their last digit.
    Whole {
        /// The least; `i64::MIN`: there is none.
        min: i64,
        /// The most; `i64::MAX`: there is none.
        max: i64,
    },
    /// Of floating-point numbers: their bits, because JSON has no infinity and no NaN.
    Real {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}

impl SumRange {
    /// Whether the sum of the values is in the range; there must be at least one. Integers are
    /// added exactly. Floating-point numbers are added with Neumaier's compensation, so that the
    /// order of the rows hardly matters.
    pub fn allows(self, values: impl Iterator<Item = u64>) -> bool {
        match self {
            Self::Whole { min, max } => {
                let sum: i128 = values.map(|value| i128::from(value as i64)).sum();
                // A sum may have more than 64 bits.
                (min == i64::MIN || sum >= i128::from(min))
                    && (max == i64::MAX || sum <= i128::from(max))
            }
            Self::Real { min, max } => {
                let sum = compensated(values.map(f64::from_bits));
                // The order of the query engine: NaN is greater than everything.
                sum.total_cmp(&f64::from_bits(min)).is_ge()
                    && sum.total_cmp(&f64::from_bits(max)).is_le()
            }
        }
    }

    /// The sums in both ranges; `None` if they are of different kinds of numbers.
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Whole { min, max }, Self::Whole { min: low, max: high }) => {
                Some(Self::Whole { min: min.max(low), max: max.min(high) })
            }
            (Self::Real { min, max }, Self::Real { min: low, max: high }) => {
                let pick = |a: u64, b: u64, want: std::cmp::Ordering| {
                    let ordering = f64::from_bits(a).total_cmp(&f64::from_bits(b));
                    if ordering == want { a } else { b }
                };
                Some(Self::Real {
                    min: pick(min, low, std::cmp::Ordering::Greater),
                    max: pick(max, high, std::cmp::Ordering::Less),
                })
            }
            _ => None,
        }
    }
}

/// Neumaier's sum: <https://doi.org/10.1002/zamm.19740540106>.
fn compensated(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    // If the sum is infinite, the compensation is NaN.
    if sum.is_finite() { sum + lost } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_more_than_64_bits_are_compared() {
        let most = [i64::MAX as u64, i64::MAX as u64];
        let least = [i64::MIN as u64, i64::MIN as u64];
        let at_least = SumRange::Whole { min: 5, max: i64::MAX };
        let at_most = SumRange::Whole { min: i64::MIN, max: 5 };
        assert!(at_least.allows(most.into_iter()) && !at_least.allows(least.into_iter()));
        assert!(at_most.allows(least.into_iter()) && !at_most.allows(most.into_iter()));
        let both = at_least.and(at_most).unwrap();
        assert!(both.allows([5].into_iter()) && !both.allows(most.into_iter()));
    }

    #[test]
    fn floating_point_sums_do_not_depend_on_the_order() {
        let (min, max) = (200_f64.to_bits(), f64::NAN.to_bits());
        let sum = SumRange::Real { min, max };
        let mut values = [66.67_f64, 66.67, 66.66, 1e17, -1e17].map(f64::to_bits);
        assert!(sum.allows(values.into_iter()));
        values.reverse();
        assert!(sum.allows(values.into_iter()));
        assert!(!sum.allows([199.99_f64.to_bits()].into_iter()));
    }
}
