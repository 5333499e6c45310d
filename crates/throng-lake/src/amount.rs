//! Numbers of models and of columns, for sums against thresholds.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use throng_query::sum::SumRange;

use crate::LakeError;

/// What kind of number is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberKind {
    /// Integers, or decimals as integers of 10^-scale.
    Whole { scale: u32 },
    /// Floating point.
    Real,
}

/// `sum op amount`.
pub(crate) fn sum_range(kind: NumberKind, op: Operator, amount: Amount) -> Option<SumRange> {
    match kind {
        NumberKind::Whole { scale } => {
            let (below, exact) = amount.scaled(scale)?;
            let above = if exact { below } else { below.checked_add(1)? };
            // These ends of a `SumRange` bound nothing.
            let is_bound = |end: i64| end != i64::MIN && end != i64::MAX;
            let (min, max) = match op {
                Operator::GtEq if is_bound(above) => (above, i64::MAX),
                Operator::Gt => (below.checked_add(1)?, i64::MAX),
                Operator::LtEq if is_bound(below) => (i64::MIN, below),
                Operator::Lt => (i64::MIN, above.checked_sub(1)?),
                Operator::Eq if exact && is_bound(below) => (below, below),
                _ => return None,
            };
            Some(SumRange::Whole { min, max })
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
            Some(SumRange::Real { min: min.to_bits(), max: max.to_bits() })
        }
    }
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
    /// The decimal `unscaled × 10^-scale`.
    pub(crate) fn decimal(unscaled: i64, scale: u8) -> Self {
        Self { digits: unscaled.into(), scale: scale.into() }
    }

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
    pub(crate) fn scaled(self, scale: u32) -> Option<(i64, bool)> {
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
        let sum = |op, text| sum_range(cents, op, Amount::parse(text).unwrap()).unwrap();
        let allows = |sum: SumRange, value: i64| sum.allows([value as u64].into_iter());
        let at_least = sum(Operator::GtEq, "1.1");
        assert!(allows(at_least, 110) && !allows(at_least, 109));
        let above = sum(Operator::Gt, "1.105");
        assert!(allows(above, 111) && !allows(above, 110));
        let below = sum(Operator::Lt, "1.105");
        assert!(allows(below, 110) && !allows(below, 111));
        let between = at_least.and(sum(Operator::LtEq, "2")).unwrap();
        assert!(allows(between, 200) && !allows(between, 201));
        assert_eq!(sum_range(cents, Operator::Eq, Amount::parse("1.105").unwrap()), None);
        // A range up to `i64::MAX` has larger sums, too.
        let whole = NumberKind::Whole { scale: 0 };
        for op in [Operator::LtEq, Operator::Eq] {
            assert_eq!(sum_range(whole, op, Amount::from(i64::MAX)), None);
        }
    }

    #[test]
    fn floating_point_sums_do_not_depend_on_the_order() {
        let sum = sum_range(NumberKind::Real, Operator::GtEq, Amount::from(200)).unwrap();
        let mut values = [66.67_f64, 66.67, 66.66, 1e17, -1e17].map(f64::to_bits);
        assert!(sum.allows(values.into_iter()));
        values.reverse();
        assert!(sum.allows(values.into_iter()));
        assert!(!sum.allows([199.99_f64.to_bits()].into_iter()));
        assert!(sum.allows([f64::NAN.to_bits()].into_iter()));
    }
}
