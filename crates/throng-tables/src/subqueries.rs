//! Correlated subqueries that the engine runs otherwise than standard SQL says. It joins them to the rows of the query
//! around them: of a row without a match, an aggregate without GROUP BY has one row in SQL and none in the join, and
//! OFFSET counts over the rows of all users. Pure.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, FetchType, LogicalPlan, Operator, SkipType, Subquery,
};

use super::refusal::Misread;

const AGGREGATE: Misread = Misread {
    message: "EXISTS has an aggregate without GROUP BY: it is one row also where no row matches, which the engine does \
              not take into account",
    word: "EXISTS",
    help: "compare the aggregate: (SELECT count(*) FROM … WHERE … = …) < 2; or remove it, if the question is whether \
           there is a row: EXISTS (SELECT 1 FROM … WHERE … = …)",
};
const LIMIT: Misread = Misread {
    message: "EXISTS has OFFSET or LIMIT 0, which the engine does not apply to the rows of each user",
    word: "EXISTS",
    help: "compare a count: (SELECT count(*) FROM … WHERE … = …) > 1",
};
const IN: Misread = Misread {
    message: "IN has a subquery with an aggregate without GROUP BY: it is one row also where no row matches, which the \
              engine does not take into account",
    word: "IN",
    help: "compare the aggregate: x = (SELECT count(*) FROM … WHERE … = …)",
};

/// What of the subqueries of a plan the engine would run differently, if anything.
pub fn misread_subquery(plan: &LogicalPlan) -> Option<Misread> {
    let mut found = None;
    // A visitor without errors cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        let _ = node.apply_expressions(|expr| {
            expr.apply(|inner| {
                found = found.or(match inner {
                    Expr::Exists(exists) => of_exists(&exists.subquery),
                    Expr::InSubquery(of) => of_in(of),
                    _ => None,
                });
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    found
}

fn of_exists(subquery: &Subquery) -> Option<Misread> {
    let top = Top::of(subquery)?;
    if top.is_cut {
        return Some(LIMIT);
    }
    let empty = !top.conditions.iter().any(|condition| is_not_true_without_rows(condition));
    (top.aggregate.is_some() && empty).then_some(AGGREGATE)
}

fn of_in(of: &InSubquery) -> Option<Misread> {
    let aggregate = Top::of(&of.subquery)?.aggregate?;
    // NULL is in nothing, and not in nothing either.
    (of.negated || aggregate.aggr_expr.iter().any(is_count)).then_some(IN)
}

/// The last steps of a correlated subquery.
struct Top<'p> {
    /// An aggregate without GROUP BY.
    aggregate: Option<&'p Aggregate>,
    /// Conditions on its result.
    conditions: Vec<&'p Expr>,
    /// Rows are left out by their number.
    is_cut: bool,
}

impl<'p> Top<'p> {
    /// `None` if the subquery does not depend on the row around it: then the engine runs it as it is written.
    fn of(subquery: &'p Subquery) -> Option<Self> {
        if subquery.outer_ref_columns.is_empty() {
            return None;
        }
        let mut top = Self { aggregate: None, conditions: Vec::new(), is_cut: false };
        let mut plan = subquery.subquery.as_ref();
        loop {
            plan = match plan {
                LogicalPlan::Projection(of) => of.input.as_ref(),
                LogicalPlan::SubqueryAlias(of) => of.input.as_ref(),
                LogicalPlan::Sort(of) => of.input.as_ref(),
                LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref(),
                LogicalPlan::Filter(of) => {
                    // Further up, columns may have other names than the aggregates.
                    if matches!(of.input.as_ref(), LogicalPlan::Aggregate(_)) {
                        top.conditions.extend(split_conjunction(&of.predicate));
                    }
                    of.input.as_ref()
                }
                LogicalPlan::Limit(of) => {
                    let skips = !matches!(of.get_skip_type(), Ok(SkipType::Literal(0)));
                    let is_none = matches!(of.get_fetch_type(), Ok(FetchType::Literal(Some(0))));
                    top.is_cut |= skips || is_none;
                    of.input.as_ref()
                }
                LogicalPlan::Aggregate(of) => {
                    top.aggregate = Some(of).filter(|of| of.group_expr.is_empty());
                    return Some(top);
                }
                _ => return Some(top),
            };
        }
    }
}

/// Whether an aggregate of no rows is a number, and not NULL.
fn is_count(aggregate: &Expr) -> bool {
    let name = aggregate.qualified_name().1.to_lowercase();
    name.contains("count(") || name.contains("approx_distinct(")
}

/// Whether a condition on aggregates is not true if no row is aggregated: counts are 0 then, all others NULL.
fn is_not_true_without_rows(condition: &Expr) -> bool {
    if is_null_without_rows(condition) {
        return true;
    }
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            is_not_true_without_rows(left) || is_not_true_without_rows(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            is_not_true_without_rows(left) && is_not_true_without_rows(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (count, Expr::Literal(value, _)) => is_false_of_none(count, *op, value),
            (Expr::Literal(value, _), count) => {
                op.swap().is_some_and(|op| is_false_of_none(count, op, value))
            }
            _ => false,
        },
        Expr::IsNotNull(value) => is_null_without_rows(value),
        Expr::Between(between) if !between.negated => match between.low.as_ref() {
            Expr::Literal(low, _) => is_false_of_none(&between.expr, Operator::GtEq, low),
            _ => false,
        },
        Expr::InList(list) if !list.negated => list.list.iter().all(|value| match value {
            Expr::Literal(value, _) => is_false_of_none(&list.expr, Operator::Eq, value),
            _ => false,
        }),
        _ => false,
    }
}

/// Whether an expression is NULL if no row is aggregated: an aggregate other than a count, or what is compared with one.
fn is_null_without_rows(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => !is_count(expr),
        Expr::Cast(cast) => is_null_without_rows(&cast.expr),
        Expr::TryCast(cast) => is_null_without_rows(&cast.expr),
        Expr::Not(of) => is_null_without_rows(of),
        Expr::Between(between) => is_null_without_rows(&between.expr),
        Expr::InList(list) => is_null_without_rows(&list.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            is_plain_comparison(*op) && (is_null_without_rows(left) || is_null_without_rows(right))
        }
        _ => false,
    }
}

/// Whether an operator compares two values, and is NULL if one of them is.
fn is_plain_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    )
}

/// Whether `count op value` is false of no rows.
fn is_false_of_none(count: &Expr, op: Operator, value: &ScalarValue) -> bool {
    let is_of_count = matches!(count, Expr::Column(_)) && is_count(count);
    let (true, ScalarValue::Int64(Some(number))) = (is_of_count, value) else { return false };
    match op {
        Operator::Gt => *number >= 0,
        Operator::GtEq => *number > 0,
        Operator::Eq => *number != 0,
        Operator::NotEq => *number == 0,
        Operator::Lt => *number <= 0,
        Operator::LtEq => *number < 0,
        _ => false,
    }
}
