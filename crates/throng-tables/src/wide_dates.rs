//! Comparisons of dates with timestamps of nanoseconds, such as `until > now()`. The engine would convert the date to
//! nanoseconds, which have the years 1677 to 2262 only: `9999-12-31`, which files have for "never", would fail the query.
//! Both are compared in microseconds.
//!
//! Dates are not compared with timestamps of a time zone other than UTC, such as `seen AT TIME ZONE 'Europe/Berlin'`: the
//! engine would take midnight UTC for a date that the SQL states, and midnight of the time zone for that of a column.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// How UTC is written.
const UTC: [&str; 10] =
    ["UTC", "Etc/UTC", "UCT", "Zulu", "GMT", "Etc/GMT", "Z", "+00", "+0000", "+00:00"];

/// Whether a time zone is UTC.
pub(super) fn is_utc(zone: &str) -> bool {
    UTC.contains(&zone)
}

/// Plans these comparisons.
#[derive(Debug)]
pub(super) struct WideDates;

impl ExprPlanner for WideDates {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if let Some(zone) = local_zone(&expr, schema) {
            return Err(DataFusionError::Plan(format!(
                "a date is compared with a timestamp of the time zone {zone}, which the engine does not do as SQL does: \
                 compare dates, as in CAST(seen AT TIME ZONE 'UTC' AT TIME ZONE '{zone}' AS DATE) >= DATE '2026-11-25', or \
                 timestamps, as in TIMESTAMP '2026-11-25 00:00:00'"
            )));
        }
        Ok(PlannerResult::Original(match wide(&expr, schema) {
            Some(wide) => {
                let RawBinaryExpr { op, left, right } = expr;
                RawBinaryExpr { op, left: converted(left, &wide), right: converted(right, &wide) }
            }
            None => expr,
        }))
    }
}

/// The time zone of a timestamp that is compared with a date, if it is not UTC.
fn local_zone(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<Arc<str>> {
    // Of a long chain of AND or OR, each type would take as long as the chain.
    if !is_comparison(&expr.op) {
        return None;
    }
    let zone = match (expr.left.get_type(schema).ok()?, expr.right.get_type(schema).ok()?) {
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(_, zone))
        | (DataType::Timestamp(_, zone), DataType::Date32 | DataType::Date64) => zone?,
        _ => return None,
    };
    (!is_utc(&zone)).then_some(zone)
}

/// Whether an operator compares two values.
pub(super) fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
    )
}

/// The type in which a date and a timestamp are compared, if the engine would take nanoseconds.
fn wide(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<DataType> {
    // Of a long chain of AND or OR, each type would take as long as the chain.
    if !is_comparison(&expr.op) {
        return None;
    }
    let types = (expr.left.get_type(schema).ok()?, expr.right.get_type(schema).ok()?);
    let (date, zone) = match types {
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(TimeUnit::Nanosecond, zone)) => {
            (&expr.left, zone)
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), DataType::Date32 | DataType::Date64) => {
            (&expr.right, zone)
        }
        _ => return None,
    };
    // A cast of the timestamp would hide the column from the filters of Parquet files.
    (!fits_nanoseconds(date)).then_some(DataType::Timestamp(TimeUnit::Microsecond, zone))
}

/// Whether a date is in the years that nanoseconds have: the current one, or one that the SQL states.
fn fits_nanoseconds(date: &Expr) -> bool {
    let stated = match date {
        Expr::ScalarFunction(function) => return function.name() == "current_date",
        Expr::Cast(Cast { expr, .. }) => match expr.as_ref() {
            Expr::Literal(value, _) => value.try_as_str().flatten(),
            _ => None,
        },
        _ => None,
    };
    let year = stated.and_then(|text| text.split_once('-')?.0.parse::<i32>().ok());
    year.is_some_and(|year| (1678..=2261).contains(&year))
}

/// An operand of another type. A timestamp that the SQL states is read as one of this type: `TIMESTAMP '9999-12-31'`.
fn converted(operand: Expr, to: &DataType) -> Expr {
    match operand {
        Expr::Cast(Cast { expr, field })
            if matches!(field.data_type(), DataType::Timestamp(..))
                && matches!(*expr, Expr::Literal(..)) =>
        {
            cast(*expr, to.clone())
        }
        other => cast(other, to.clone()),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn dates_of_the_years_of_nanoseconds_are_known_by_their_text() {
        for (text, fits) in [
            ("2026-01-01", true),
            ("1678-01-01", true),
            ("2261-12-31", true),
            ("1677-12-31", false),
            ("2262-01-01", false),
            ("9999-12-31", false),
            ("20260101", false),
            ("-2026-01-01", false),
        ] {
            assert_eq!(fits_nanoseconds(&cast(lit(text), DataType::Date32)), fits, "{text}");
        }
        assert!(!fits_nanoseconds(&cast(col("until"), DataType::Date32)));
        assert!(!fits_nanoseconds(&col("until")));
    }
}
