//! Comparisons of floating-point numbers in which zero has no sign. The engine orders `-0.0` before `0.0`, so that a
//! balance of `-0.0`, as `-1 * 0`, `round(-0.3)` and files have it, would not be `= 0` and not `>= 0`. Pure.
//!
//! Where a number is compared with a zero that the SQL states, by `<` and the like, the zero gets the sign by which both
//! zeros are on one side of it: the filters of Parquet files see the column. Otherwise the numbers are compared without the
//! sign of zero.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, Case, InList, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

/// A comparison in which zero has no sign; other expressions stay as they are. The types are those that the engine has
/// decided. `unsigned` makes an expression of a floating-point number one in which zero has no sign.
pub(super) fn without_sign_of_zero(
    expr: Expr,
    schema: &DFSchema,
    unsigned: fn(Expr) -> Expr,
) -> Transformed<Expr> {
    let compared = match &expr {
        Expr::BinaryExpr(of) if is_comparison(of.op) => Some(of.left.as_ref()),
        Expr::Between(of) => Some(of.expr.as_ref()),
        Expr::InList(of) if of.list.iter().any(may_be_zero) => Some(of.expr.as_ref()),
        Expr::Case(of) if of.when_then_expr.iter().any(|(when, _)| may_be_zero(when)) => {
            of.expr.as_deref()
        }
        Expr::ScalarFunction(of) if of.name() == "nullif" => of.args.first(),
        _ => None,
    };
    let Some(kind) = compared.and_then(|of| kind(of, schema)) else {
        return Transformed::no(expr);
    };
    match expr {
        Expr::BinaryExpr(of) => of_operator(of, kind, unsigned),
        Expr::Between(of) => of_between(of, kind, unsigned),
        Expr::InList(of) => of_list(of, kind, unsigned),
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let without = |of: Box<Expr>| Box::new(operand(*of, kind, unsigned));
            let when_then_expr =
                when_then_expr.into_iter().map(|(when, then)| (without(when), then)).collect();
            let expr = expr.map(without);
            Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr }))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let args = args.into_iter().map(|of| operand(of, kind, unsigned)).collect();
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    }
}

/// The type of a floating-point number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float32,
    Float64,
}

/// The type of an expression, if it is a floating-point number.
fn kind(of: &Expr, schema: &DFSchema) -> Option<Kind> {
    match of.get_type(schema) {
        Ok(DataType::Float32) => Some(Kind::Float32),
        Ok(DataType::Float64) => Some(Kind::Float64),
        _ => None,
    }
}

/// Zero with or without a sign.
fn zero(kind: Kind, is_negative: bool) -> Expr {
    lit(match (kind, is_negative) {
        (Kind::Float32, false) => ScalarValue::Float32(Some(0.0)),
        (Kind::Float32, true) => ScalarValue::Float32(Some(-0.0)),
        (Kind::Float64, false) => ScalarValue::Float64(Some(0.0)),
        (Kind::Float64, true) => ScalarValue::Float64(Some(-0.0)),
    })
}

fn of_operator(of: BinaryExpr, kind: Kind, unsigned: fn(Expr) -> Expr) -> Transformed<Expr> {
    let BinaryExpr { left, op, right } = of;
    let (mut left, mut right) = (*left, *right);
    // The engine joins without the sign of zero, and finds what a subquery is joined by only if it stands alone.
    let is_correlated = left.contains_outer() || right.contains_outer();
    if is_correlated || !may_be_zero(&left) || !may_be_zero(&right) {
        return Transformed::no(Expr::BinaryExpr(BinaryExpr {
            left: Box::new(left),
            op,
            right: Box::new(right),
        }));
    }
    match op {
        Operator::Gt | Operator::LtEq if is_zero(&right) => right = zero(kind, false),
        Operator::GtEq | Operator::Lt if is_zero(&right) => right = zero(kind, true),
        Operator::Gt | Operator::LtEq if is_zero(&left) => left = zero(kind, true),
        Operator::GtEq | Operator::Lt if is_zero(&left) => left = zero(kind, false),
        _ => {
            left = operand(left, kind, unsigned);
            right = operand(right, kind, unsigned);
        }
    }
    Transformed::yes(Expr::BinaryExpr(BinaryExpr {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }))
}

fn of_between(of: Between, kind: Kind, unsigned: fn(Expr) -> Expr) -> Transformed<Expr> {
    let Between { expr, negated, low, high } = of;
    let is_computed = |end: &Expr| may_be_zero(end) && !is_zero(end);
    let (mut expr, mut low, mut high) = (*expr, *low, *high);
    if is_computed(&low) || is_computed(&high) {
        expr = operand(expr, kind, unsigned);
        low = operand(low, kind, unsigned);
        high = operand(high, kind, unsigned);
    } else {
        if is_zero(&low) {
            low = zero(kind, true);
        }
        if is_zero(&high) {
            high = zero(kind, false);
        }
    }
    Transformed::yes(Expr::Between(Between {
        expr: Box::new(expr),
        negated,
        low: Box::new(low),
        high: Box::new(high),
    }))
}

fn of_list(of: InList, kind: Kind, unsigned: fn(Expr) -> Expr) -> Transformed<Expr> {
    let InList { expr, list, negated } = of;
    let list = list.into_iter().map(|item| operand(item, kind, unsigned)).collect();
    let expr = Box::new(operand(*expr, kind, unsigned));
    Transformed::yes(Expr::InList(InList { expr, list, negated }))
}

/// An operand in which zero has no sign.
fn operand(of: Expr, kind: Kind, unsigned: fn(Expr) -> Expr) -> Expr {
    match is_stated_zero(&of) {
        Some(true) => zero(kind, false),
        Some(false) => of,
        None => unsigned(of),
    }
}

/// Whether an operator compares two values.
fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Whether an expression may be zero: it is one that the SQL does not state as another number.
fn may_be_zero(of: &Expr) -> bool {
    is_stated_zero(of) != Some(false)
}

/// Whether the SQL states zero.
fn is_zero(of: &Expr) -> bool {
    is_stated_zero(of) == Some(true)
}

/// Whether what the SQL states is zero; `None` if it is computed.
fn is_stated_zero(of: &Expr) -> Option<bool> {
    match of {
        Expr::Literal(value, _) => Some(match value {
            ScalarValue::Float64(number) => number.is_some_and(|n| n == 0.0),
            ScalarValue::Float32(number) => number.is_some_and(|n| n == 0.0),
            ScalarValue::Int64(number) => *number == Some(0),
            ScalarValue::UInt64(number) => *number == Some(0),
            ScalarValue::Decimal128(number, ..) => *number == Some(0),
            other => {
                let text = other.try_as_str().flatten().unwrap_or_default();
                text.trim().parse::<f64>().is_ok_and(|n| n == 0.0)
            }
        }),
        Expr::Cast(cast) => is_stated_zero(&cast.expr),
        Expr::Negative(of) => is_stated_zero(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col};

    use super::*;

    fn schema() -> DFSchema {
        use datafusion::arrow::datatypes::{Field, Schema};
        let column = |name: &str, of: DataType| Field::new(name, of, true);
        let columns = vec![
            column("x", DataType::Float64),
            column("y", DataType::Float64),
            column("n", DataType::Int64),
        ];
        DFSchema::try_from(Schema::new(columns)).unwrap()
    }

    fn nullif(left: Expr, right: Expr) -> Expr {
        datafusion::functions::core::nullif().call(vec![left, right])
    }

    fn rewritten(expr: Expr) -> String {
        let unsigned = |of: Expr| -of;
        without_sign_of_zero(expr, &schema(), unsigned).data.to_string()
    }

    #[test]
    fn both_zeros_are_on_one_side_of_a_stated_zero() {
        let x = || col("x");
        let whole = || cast(lit(0_i64), DataType::Float64);
        for (expr, expected) in [
            (x().gt_eq(lit(0.0)), "x >= Float64(-0)"),
            (x().gt_eq(whole()), "x >= Float64(-0)"),
            (x().lt(lit(0.0)), "x < Float64(-0)"),
            (x().gt(lit(-0.0)), "x > Float64(0)"),
            (x().lt_eq(lit(-0.0)), "x <= Float64(0)"),
            (lit(0.0).lt_eq(x()), "Float64(-0) <= x"),
            (lit(-0.0).lt(x()), "Float64(0) < x"),
            (x().between(lit(0.0), lit(1.0)), "x BETWEEN Float64(-0) AND Float64(1)"),
            (x().between(lit(-1.0), lit(-0.0)), "x BETWEEN Float64(-1) AND Float64(0)"),
        ] {
            assert_eq!(rewritten(expr), expected);
        }
    }

    #[test]
    fn other_comparisons_that_may_be_of_zero_have_numbers_without_its_sign() {
        let (x, y) = (|| col("x"), || col("y"));
        for (expr, expected) in [
            (x().eq(lit(-0.0)), "(- x) = Float64(0)"),
            (x().not_eq(cast(lit("0"), DataType::Float64)), "(- x) != Float64(0)"),
            (x().gt_eq(y()), "(- x) >= (- y)"),
            (x().between(lit(0.0), y()), "(- x) BETWEEN Float64(0) AND (- y)"),
            (nullif(x(), lit(0.0)), "nullif((- x), Float64(0))"),
            (x().in_list(vec![lit(-0.0), lit(2.0)], false), "(- x) IN ([Float64(0), Float64(2)])"),
        ] {
            assert_eq!(rewritten(expr), expected);
        }
    }

    #[test]
    fn comparisons_with_other_numbers_stay() {
        let x = || col("x");
        for expr in [
            x().eq(lit(2.5)),
            x().gt(cast(lit(7_i64), DataType::Float64)),
            x().in_list(vec![lit(1.0), lit(2.0)], true),
            x().eq(lit(ScalarValue::Float64(None))),
            col("n").eq(lit(0_i64)),
            x() + lit(0.0),
        ] {
            let text = expr.to_string();
            assert_eq!(rewritten(expr), text);
        }
    }
}
