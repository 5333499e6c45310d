//! Comparisons of the difference of two timestamps with an interval, such as `now() - seen < INTERVAL '30 days'`. The
//! engine compares the months of both first, then their days, then their nanoseconds. A difference has nanoseconds only:
//! it would be less than each interval of a day or more. Both are compared by their length, in which a day has 24 hours
//! and a month 30 days, as in PostgreSQL.
//!
//! Two intervals are not compared: one may be a difference that the SQL has made an interval, as in
//! `coalesce(seen - prev, INTERVAL '0 days') > INTERVAL '30 days'`. The difference of two times of day is an interval of
//! nanoseconds only, so that it is compared with an interval that is stated, of which the length is taken.

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, lit};

use super::wide_dates::is_comparison;

const NANOSECONDS_OF_A_DAY: i128 = 86_400_000_000_000;
/// The error of an interval of which the length is not known when the query is planned.
const NOT_STATED: &str = "a difference of timestamps is compared with an interval that the SQL computes, which the engine \
     does not compare by its length: write it as one interval, as in now() - seen < INTERVAL '30 days', or compare the \
     timestamps, as in seen > now() - …";

/// The error of two intervals.
const INTERVALS: &str = "two intervals are compared, of which the engine compares the months first, then the days, then the \
     hours: compare a difference of timestamps with one interval, as in now() - seen < INTERVAL '30 days', or compare the \
     timestamps, as in seen > now() - …";

/// Plans these comparisons.
#[derive(Debug)]
pub(super) struct Durations;

impl ExprPlanner for Durations {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        // Of a long chain of AND or OR, each type would take as long as the chain.
        if !is_comparison(&expr.op) {
            return Ok(PlannerResult::Original(expr));
        }
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        Ok(PlannerResult::Original(match types {
            (Ok(DataType::Duration(unit)), Ok(DataType::Interval(_))) => {
                let (left, right) = by_length(expr.left, unit, &expr.right)?;
                RawBinaryExpr { op: expr.op, left, right }
            }
            (Ok(DataType::Interval(_)), Ok(DataType::Duration(unit))) => {
                let (right, left) = by_length(expr.right, unit, &expr.left)?;
                RawBinaryExpr { op: expr.op, left, right }
            }
            (Ok(DataType::Interval(_)), Ok(DataType::Interval(_))) => of_times(expr, schema)?,
            _ => expr,
        }))
    }
}

/// A difference, and an interval as a duration of the same unit.
///
/// # Errors
/// If the SQL does not state the interval.
fn by_length(difference: Expr, unit: TimeUnit, interval: &Expr) -> Result<(Expr, Expr)> {
    let Some(length) = nanoseconds(interval) else {
        return Err(DataFusionError::Plan(NOT_STATED.to_owned()));
    };
    let of_unit = nanoseconds_of(unit);
    if length % of_unit == 0 {
        return Ok((difference, lit(duration(length / of_unit, unit))));
    }
    let finest = TimeUnit::Nanosecond;
    let difference = cast(difference, DataType::Duration(finest));
    Ok((difference, lit(duration(length, finest))))
}

/// The comparison of a difference of times of day with another one, or with an interval as nanoseconds only.
///
/// # Errors
/// If it is another comparison of two intervals.
fn of_times(expr: RawBinaryExpr, schema: &DFSchema) -> Result<RawBinaryExpr> {
    let RawBinaryExpr { op, left, right } = expr;
    let in_nanoseconds = |of: Expr| {
        if is_difference_of_times(&of, schema) {
            return Ok(of);
        }
        let stated = nanoseconds(&of).and_then(|length| i64::try_from(length).ok());
        let interval = stated.map(|length| IntervalMonthDayNano::new(0, 0, length));
        let interval = interval.map(|of| lit(ScalarValue::IntervalMonthDayNano(Some(of))));
        interval.ok_or_else(|| DataFusionError::Plan(INTERVALS.to_owned()))
    };
    if !is_difference_of_times(&left, schema) && !is_difference_of_times(&right, schema) {
        return Err(DataFusionError::Plan(INTERVALS.to_owned()));
    }
    Ok(RawBinaryExpr { op, left: in_nanoseconds(left)?, right: in_nanoseconds(right)? })
}

/// Whether an expression is the difference of two times of day, which has no months and no days.
fn is_difference_of_times(of: &Expr, schema: &DFSchema) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = of else {
        return false;
    };
    let is_time = |side: &Expr| {
        matches!(side.get_type(schema), Ok(DataType::Time32(_) | DataType::Time64(_)))
    };
    is_time(left) && is_time(right)
}

/// The length of an interval that the SQL states.
fn nanoseconds(interval: &Expr) -> Option<i128> {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(of)), _) => {
            let days = 30 * i128::from(of.months) + i128::from(of.days);
            Some(days * NANOSECONDS_OF_A_DAY + i128::from(of.nanoseconds))
        }
        _ => None,
    }
}

fn nanoseconds_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// A duration. One that is longer than all of its unit is the longest, as no difference is longer either.
fn duration(count: i128, unit: TimeUnit) -> ScalarValue {
    let longest = if count < 0 { i64::MIN } else { i64::MAX };
    let count = Some(i64::try_from(count).unwrap_or(longest));
    match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(count),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(count),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(count),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(count),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::col;
    use datafusion::sql::sqlparser::ast::BinaryOperator;

    use super::*;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> Expr {
        let of = IntervalMonthDayNano { months, days, nanoseconds };
        lit(ScalarValue::IntervalMonthDayNano(Some(of)))
    }

    #[test]
    fn an_interval_is_as_long_as_its_days_and_months_of_30_days() {
        let of = |months, days, rest| nanoseconds(&interval(months, days, rest));
        assert_eq!(of(0, 30, 0), of(1, 0, 0));
        assert_eq!(of(0, 1, 0), Some(86_400_000_000_000));
        assert_eq!(of(0, -1, 5), Some(5 - 86_400_000_000_000));
        assert_eq!(nanoseconds(&col("x")), None);
    }

    #[test]
    fn a_difference_of_times_is_compared_with_the_length_of_an_interval() {
        let schema = DFSchema::empty();
        let time = |hour: i64| lit(ScalarValue::Time64Nanosecond(Some(hour * 3_600_000_000_000)));
        let compared = |left: Expr, right: Expr| {
            of_times(RawBinaryExpr { op: BinaryOperator::Gt, left, right }, &schema)
        };
        let difference = time(10) - time(8);
        let hour = interval(0, 0, 3_600_000_000_000);
        let planned = compared(difference.clone(), interval(0, 1, -82_800_000_000_000)).unwrap();
        assert_eq!((planned.left, planned.right), (difference.clone(), hour.clone()));
        let planned = compared(hour.clone(), difference.clone()).unwrap();
        assert_eq!((planned.left, planned.right), (hour.clone(), difference.clone()));
        let planned = compared(difference.clone(), difference.clone()).unwrap();
        assert_eq!(planned.right, difference);
        assert!(compared(hour.clone(), hour.clone()).is_err());
        assert!(compared(difference.clone(), hour.clone() + hour).is_err());
        assert!(compared(difference, interval(i32::MAX, 0, 0)).is_err(), "it has no nanoseconds");
    }

    #[test]
    fn a_duration_has_the_unit_of_the_difference_or_the_finest() {
        let compared = |of: &Expr| by_length(col("d"), TimeUnit::Second, of).unwrap();
        let (difference, days) = compared(&interval(0, 2, 0));
        assert_eq!(difference, col("d"));
        assert_eq!(days, lit(ScalarValue::DurationSecond(Some(172_800))));
        let (difference, fraction) = compared(&interval(0, 0, 1_500_000_000));
        assert_eq!(difference, cast(col("d"), DataType::Duration(TimeUnit::Nanosecond)));
        assert_eq!(fraction, lit(ScalarValue::DurationNanosecond(Some(1_500_000_000))));
        assert!(by_length(col("d"), TimeUnit::Second, &col("x")).is_err());
        let years = duration(i128::from(i64::MAX) + 1, TimeUnit::Nanosecond);
        assert_eq!(years, ScalarValue::DurationNanosecond(Some(i64::MAX)));
    }
}
