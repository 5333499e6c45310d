//! Comparisons of `CASE x WHEN 0 …` and `nullif(x, 0)` with floating-point numbers, in which zero has no sign. The engine
//! distinguishes `-0.0` from `0.0` there, but not in `x = 0`: files, `round(-0.3)` and `-1 * 0` have it. Pure.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable};

/// Such a comparison in which zero has no sign; other expressions stay as they are. The types are those that the engine has
/// decided. `unsigned` makes an expression of a floating-point number one in which zero has no sign.
pub(super) fn without_sign_of_zero(
    expr: Expr,
    schema: &DFSchema,
    unsigned: fn(Expr) -> Expr,
) -> Transformed<Expr> {
    let compared = match &expr {
        Expr::Case(of) => of.expr.as_deref(),
        Expr::ScalarFunction(of) if of.name() == "nullif" => of.args.first(),
        _ => None,
    };
    let is_float =
        |of: &Expr| matches!(of.get_type(schema), Ok(DataType::Float32 | DataType::Float64));
    if !compared.is_some_and(is_float) {
        return Transformed::no(expr);
    }
    match expr {
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let without = |of: Box<Expr>| Box::new(unsigned(*of));
            let when_then_expr =
                when_then_expr.into_iter().map(|(when, then)| (without(when), then)).collect();
            let expr = expr.map(without);
            Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr }))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let args = args.into_iter().map(unsigned).collect();
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{col, lit, when};

    use super::*;

    #[test]
    fn only_numbers_that_are_compared_lose_the_sign_of_zero() {
        let column = |name: &str, of: DataType| Field::new(name, of, true);
        let columns = vec![column("x", DataType::Float64), column("n", DataType::Int64)];
        let schema = DFSchema::try_from(Schema::new(columns)).unwrap();
        let is_changed = |expr: Expr| {
            let unsigned = |of: Expr| -of;
            without_sign_of_zero(expr, &schema, unsigned).transformed
        };
        let nullif =
            |left: Expr, right: Expr| datafusion::functions::core::nullif().call(vec![left, right]);
        assert!(is_changed(nullif(col("x"), lit(0.0))));
        assert!(!is_changed(nullif(col("n"), lit(0_i64))));
        let case = |of: &str| {
            Expr::Case(Case {
                expr: Some(Box::new(col(of))),
                when_then_expr: vec![(Box::new(lit(0.0)), Box::new(lit(true)))],
                else_expr: None,
            })
        };
        assert!(is_changed(case("x")) && !is_changed(case("n")));
        assert!(!is_changed(when(col("x").eq(lit(0.0)), lit(true)).end().unwrap()));
        assert!(!is_changed(col("x").eq(lit(0.0))));
    }
}
