//! Regular expressions that search for a backslash. The engine's optimizer makes `LIKE` of an expression without wildcards,
//! and does not escape it: `path ~ 'a\\b'` would search for `ab`. An empty group in front prevents that, and matches
//! nothing more. Pure.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// Puts the group in front of these expressions.
#[derive(Debug)]
pub(super) struct Backslashes;

impl FunctionRewrite for Backslashes {
    fn name(&self) -> &str {
        "backslashes"
    }

    fn rewrite(
        &self,
        expr: Expr,
        _schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_match(op) => with_group(*right)
                .update_data(|right| {
                    Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(right) })
                }),
            // The optimizer makes an operator of it.
            Expr::ScalarFunction(ScalarFunction { func, mut args })
                if func.name() == "regexp_like" && args.len() > 1 =>
            {
                let pattern = with_group(args.remove(1));
                pattern.update_data(|pattern| {
                    args.insert(1, pattern);
                    Expr::ScalarFunction(ScalarFunction { func, args })
                })
            }
            other => Transformed::no(other),
        })
    }
}

/// Whether an operator matches a regular expression.
fn is_match(op: Operator) -> bool {
    matches!(
        op,
        Operator::RegexMatch
            | Operator::RegexIMatch
            | Operator::RegexNotMatch
            | Operator::RegexNotIMatch
    )
}

/// A stated regular expression that may search for a backslash, with an empty group in front.
fn with_group(pattern: Expr) -> Transformed<Expr> {
    match pattern {
        Expr::Cast(Cast { expr, field }) => {
            with_group(*expr).update_data(|expr| Expr::Cast(Cast { expr: Box::new(expr), field }))
        }
        Expr::Literal(value, metadata) => {
            let text = value.try_as_str().flatten().filter(|text| may_have_backslash(text));
            let text = text.map(|text| format!("(){text}"));
            let changed = text.and_then(|text| match &value {
                ScalarValue::Utf8(_) => Some(ScalarValue::Utf8(Some(text))),
                ScalarValue::LargeUtf8(_) => Some(ScalarValue::LargeUtf8(Some(text))),
                ScalarValue::Utf8View(_) => Some(ScalarValue::Utf8View(Some(text))),
                _ => None,
            });
            match changed {
                Some(changed) => Transformed::yes(Expr::Literal(changed, metadata)),
                None => Transformed::no(Expr::Literal(value, metadata)),
            }
        }
        other => Transformed::no(other),
    }
}

/// Whether a regular expression may search for a backslash: as `\\`, or as `\x5c` and the like.
fn may_have_backslash(pattern: &str) -> bool {
    pattern.contains(r"\\") || pattern.contains("5c") || pattern.contains("5C")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{cast, lit};

    use super::*;

    #[test]
    fn only_an_expression_with_a_backslash_gets_a_group() {
        for (pattern, expected) in [
            (r"a\\b", Some(r"()a\\b")),
            (r"^a\x5cb$", Some(r"()^a\x5cb$")),
            (r"a\.b", None),
            ("abc", None),
        ] {
            for of in [lit(pattern), cast(lit(pattern), DataType::Utf8View)] {
                let found = with_group(of.clone());
                assert_eq!(found.transformed, expected.is_some(), "{pattern}");
                let text = found.data.to_string();
                assert!(text.contains(expected.unwrap_or(pattern)), "{text}");
            }
        }
    }
}
