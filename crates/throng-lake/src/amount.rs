//! Sums against thresholds: exact for integers and decimals, compensated for floating point.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use serde::{Deserialize, Serialize};

use crate::LakeError;

/// What kind of number is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberKind {
    /// Integers, or decimals as integers of 10^-scale.
    Whole { scale: u32 },
    /// Floating point.
    Real,
}

/// The sums of members: a range that includes both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumRange {
    /// Of integers, or of decimals as integers in units of their last digit.
    Whole {
        /// The least.
        min: i64,
        /// The most.
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
                (i128::from(min)..=i128::from(max)).contains(&sum)
            }
            Self::Real { min, max } => {
                let sum = compensated(values.map(f64::from_bits));
                // The order of the query engine: NaN is greater than everything.
                sum.total_cmp(&f64::from_bits(min)).is_ge()
                    && sum.total_cmp(&f64::from_bits(max)).is_le()
            }
        }
    }

    /// `sum op amount`.
    pub(crate) fn compared(kind: NumberKind, op: Operator, amount: Amount) -> Option<Self> {
        match kind {
            NumberKind::Whole { scale } => {
                let (below, exact) = amount.scaled(scale)?;
                let above = if exact { below } else { below.checked_add(1)? };
                let (min, max) = match op {
                    Operator::GtEq => (above, i64::MAX),
                    Operator::Gt => (below.checked_add(1)?, i64::MAX),
                    Operator::LtEq => (i64::MIN, below),
                    Operator::Lt => (i64::MIN, above.checked_sub(1)?),
                    Operator::Eq if exact => (below, below),
                    _ => return None,
                };
                Some(Self::Whole { min, max })
            }
            NumberKind::Real => {
                let number = amount.real();
                let nan = f64::NAN;
                let (min, max) = match op {
                    Operator::GtEq => (number, nan),
                    Operator::Gt => (number.next_up(), nan),
                    Operator::LtEq => (-nan, number),
                    Operator::Lt => (-nan, number.next_down()),
                    _ => return None,
                };
                Some(Self::Real { min: min.to_bits(), max: max.to_bits() })
            }
        }
    }

    pub(crate) fn and(self, other: Self) -> Option<Self> {
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

/// A number in a model, exactly: `digits × 10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    digits: i128,
    scale: u32,
}

impl From<i64> for Amount {
    fn from(number: i64) -> Self {
        Self { digits: i128::from(number), scale: 0 }
    }
}

impl Amount {
    /// The number of a literal; `None` for anything else.
    pub(crate) fn of(expr: &Expr) -> Option<Self> {
        let Expr::Literal(value, _) = expr else { return None };
        match value {
            ScalarValue::Int64(Some(number)) => Some(Self::from(*number)),
            ScalarValue::UInt64(Some(number)) => i64::try_from(*number).ok().map(Self::from),
            // The shortest text of a double is the number that was written.
            ScalarValue::Float64(Some(number)) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits, scale: u32::try_from(fraction.len()).ok()? })
    }

    pub(crate) fn whole(self) -> Option<i64> {
        self.scaled(0).and_then(|(number, exact)| exact.then_some(number))
    }

    /// In units of `10^-scale`, rounded down, and whether that is exact.
    fn scaled(self, scale: u32) -> Option<(i64, bool)> {
        let power = |exponent: u32| 10_i128.checked_pow(exponent);
        let (number, exact) = if scale >= self.scale {
            (self.digits.checked_mul(power(scale - self.scale)?)?, true)
        } else {
            let unit = power(self.scale - scale)?;
            (self.digits.div_euclid(unit), self.digits.rem_euclid(unit) == 0)
        };
        Some((i64::try_from(number).ok()?, exact))
    }

    fn real(self) -> f64 {
        // Parsing rounds correctly, dividing would round twice.
        format!("{}e-{}", self.digits, self.scale).parse().unwrap_or(f64::NAN)
    }
}

/// The values of a column as [`SumRange::allows`] takes them; `None` for NULL.
pub(crate) fn values(column: &ArrayRef, kind: NumberKind) -> Result<Vec<Option<u64>>, LakeError> {
    let to = |wanted| {
        cast(column, &wanted).map_err(|e| LakeError::engine("reading the values", e.into()))
    };
    Ok(match (kind, column.data_type()) {
        (NumberKind::Whole { .. }, DataType::Decimal128(..)) => column
            .as_primitive::<Decimal128Type>()
            .iter()
            // A decimal of 18 digits fits.
            .map(|value| value.map(|value| value as i64 as u64))
            .collect(),
        (NumberKind::Whole { .. }, _) => to(DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(|value| value.map(|value| value as u64))
            .collect(),
        (NumberKind::Real, _) => to(DataType::Float64)?
            .as_primitive::<Float64Type>()
            .iter()
            .map(|value| value.map(f64::to_bits))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_exact_in_decimals() {
        let cents = NumberKind::Whole { scale: 2 };
        let sum = |op, text| SumRange::compared(cents, op, Amount::parse(text).unwrap()).unwrap();
        let allows = |sum: SumRange, value: i64| sum.allows([value as u64].into_iter());
        let at_least = sum(Operator::GtEq, "1.1");
        assert!(allows(at_least, 110) && !allows(at_least, 109));
        let above = sum(Operator::Gt, "1.105");
        assert!(allows(above, 111) && !allows(above, 110));
        let below = sum(Operator::Lt, "1.105");
        assert!(allows(below, 110) && !allows(below, 111));
        let between = at_least.and(sum(Operator::LtEq, "2")).unwrap();
        assert!(allows(between, 200) && !allows(between, 201));
        assert_eq!(SumRange::compared(cents, Operator::Eq, Amount::parse("1.105").unwrap()), None);
    }

    #[test]
    fn floating_point_sums_do_not_depend_on_the_order() {
        let sum = SumRange::compared(NumberKind::Real, Operator::GtEq, Amount::from(200)).unwrap();
        let mut values = [66.67_f64, 66.67, 66.66, 1e17, -1e17].map(f64::to_bits);
        assert!(sum.allows(values.into_iter()));
        values.reverse();
        assert!(sum.allows(values.into_iter()));
        assert!(!sum.allows([199.99_f64.to_bits()].into_iter()));
        assert!(sum.allows([f64::NAN.to_bits()].into_iter()));
    }
}
