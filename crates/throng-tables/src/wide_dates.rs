//! Comparisons of dates with timestamps of nanoseconds, such as `until > now()`. The engine would convert the date to
//! nanoseconds, which have the years 1677 to 2262 only: `9999-12-31`, which files have for "never", would fail the query.
//! Both are compared in microseconds.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Plans these comparisons.
#[derive(Debug)]
pub(super) struct WideDates;

impl ExprPlanner for WideDates {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(PlannerResult::Original(match wide(&expr, schema) {
            Some(wide) => {
                let RawBinaryExpr { op, left, right } = expr;
                RawBinaryExpr { op, left: converted(left, &wide), right: converted(right, &wide) }
            }
            None => expr,
        }))
    }
}

/// The type in which a date and a timestamp are compared, if the engine would take nanoseconds.
fn wide(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<DataType> {
    let is_comparison = matches!(
        expr.op,
        BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
    );
    // Of a long chain of AND or OR, each type would take as long as the chain.
    if !is_comparison {
        return None;
    }
    match (expr.left.get_type(schema).ok()?, expr.right.get_type(schema).ok()?) {
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(TimeUnit::Nanosecond, zone))
        | (DataType::Timestamp(TimeUnit::Nanosecond, zone), DataType::Date32 | DataType::Date64) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, zone))
        }
        _ => None,
    }
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
