//! Comparisons of sums and products of exact numbers with fractions that the SQL states, such as `total * 1.19 >= 119`. The
//! engine reads `1.19` as a floating-point number, and computes in these: `3.00 * 1.1` would be more than `3.30`. In SQL they
//! are exact, as they are here where all operands are integers, decimals and stated numbers. A number in quotes, as in
//! `total > '9.995'`, keeps its digits too: the engine would round it to those of the column.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

use super::wide_dates::is_comparison;

/// Digits of a stated number, at most: products with columns of many digits must fit 38.
const MAX_DIGITS: u8 = 9;

/// Plans these comparisons.
#[derive(Debug)]
pub(super) struct ExactFactors;

impl ExprPlanner for ExactFactors {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        // Of a long chain of AND or OR, each type would take as long as the chain.
        let concerns = |side: &Expr| is_text(side) || matches!(side, Expr::BinaryExpr(_));
        if !is_comparison(&expr.op) || !(concerns(&expr.left) || concerns(&expr.right)) {
            return Ok(PlannerResult::Original(expr));
        }
        let is_decimal =
            |side: &Expr| matches!(side.get_type(schema), Ok(DataType::Decimal128(..)));
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match (is_text(&left), is_text(&right)) {
            (false, true) if is_decimal(&left) => (left, number_of(right)),
            (true, false) if is_decimal(&right) => (number_of(left), right),
            _ => (left, right),
        };
        let expr = RawBinaryExpr { op, left, right };
        Ok(PlannerResult::Original(match (exact(&expr.left, schema), exact(&expr.right, schema)) {
            (Some(left), Some(right)) => RawBinaryExpr { op: expr.op, left, right },
            _ => expr,
        }))
    }
}

/// An exact number, in which stated fractions are decimals; `None` if it is none.
fn exact(of: &Expr, schema: &DFSchema) -> Option<Expr> {
    if let Expr::Literal(ScalarValue::Float64(Some(number)), _) = of {
        return decimal(*number);
    }
    match (of.get_type(schema).ok()?, of) {
        (DataType::Decimal128(..), _) => Some(of.clone()),
        (integer, _) if integer.is_integer() => Some(of.clone()),
        (DataType::Float64, Expr::BinaryExpr(BinaryExpr { left, op, right }))
            if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) =>
        {
            let (left, right) = (exact(left, schema)?, exact(right, schema)?);
            let (left, right) = (Box::new(left), Box::new(right));
            let computed = Expr::BinaryExpr(BinaryExpr { left, op: *op, right });
            matches!(computed.get_type(schema), Ok(DataType::Decimal128(..))).then_some(computed)
        }
        _ => None,
    }
}

/// Whether an expression is a text that the SQL states.
fn is_text(of: &Expr) -> bool {
    matches!(of, Expr::Literal(value, _) if value.try_as_str().flatten().is_some())
}

/// A stated text as the decimal that it has, or as it is.
fn number_of(text: Expr) -> Expr {
    let number = match &text {
        Expr::Literal(value, _) => value.try_as_str().flatten().and_then(decimal_of),
        _ => None,
    };
    number.unwrap_or(text)
}

/// The decimal that a number is written as, if it has few digits.
fn decimal(number: f64) -> Option<Expr> {
    // The shortest text of a double is the number that was written.
    decimal_of(&number.to_string())
}

/// The decimal of a text of few digits; `None` of any other text.
fn decimal_of(text: &str) -> Option<Expr> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    if digits.trim_start_matches('-').len() > usize::from(MAX_DIGITS) {
        return None;
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unscaled: i128 = digits.parse().ok()?;
    let scale = i8::try_from(fraction.len()).ok()?;
    Some(lit(ScalarValue::Decimal128(Some(unscaled), MAX_DIGITS, scale)))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::col;

    use super::*;

    #[test]
    fn numbers_of_few_digits_are_decimals() {
        for (number, expected) in [
            (1.19, Some((119, 2))),
            (-0.1, Some((-1, 1))),
            (3.0, Some((3, 0))),
            (1e8, Some((100_000_000, 0))),
            (1e9, None),
            (0.1 + 0.2, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            let expected = expected.map(|(unscaled, scale)| {
                lit(ScalarValue::Decimal128(Some(unscaled), MAX_DIGITS, scale))
            });
            assert_eq!(decimal(number), expected, "{number}");
        }
        assert!(decimal_of("9.995").is_some() && decimal_of("10").is_some());
        for text in ["", ".", "9.-5", "9.9.5", "x", "1e3", "9,95"] {
            assert_eq!(decimal_of(text), None, "{text}");
        }
    }

    #[test]
    fn only_exact_numbers_are_computed_exactly() {
        let column = |name: &str, of: DataType| Field::new(name, of, true);
        let columns = vec![
            column("total", DataType::Decimal128(12, 2)),
            column("qty", DataType::Int64),
            column("x", DataType::Float64),
        ];
        let schema = DFSchema::try_from(Schema::new(columns)).unwrap();
        let (total, qty, x) = (|| col("total"), || col("qty"), || col("x"));
        for (of, is_exact) in [
            (total() * lit(1.1), true),
            (qty() * lit(0.1) - lit(2.5), true),
            (total() * (lit(1_i64) - lit(0.2)), true),
            (total() * qty() + lit(0.5), true),
            (total() * x(), false),
            (x() * lit(1.1), false),
            (total() / lit(3.0), false),
            (x(), false),
        ] {
            let found = exact(&of, &schema);
            assert_eq!(found.is_some(), is_exact, "{of}");
            let types = found.map(|found| found.get_type(&schema).unwrap());
            assert!(types.is_none_or(|of| matches!(of, DataType::Decimal128(..))), "{of}");
        }
    }
}
