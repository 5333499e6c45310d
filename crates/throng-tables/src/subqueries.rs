//! Correlated subqueries that the engine runs otherwise than standard SQL says. It joins them to the rows of the query
//! around them: of a row without a match, an aggregate without GROUP BY has one row in SQL and none in the join, OFFSET
//! counts over the rows of all users, a window function is computed over the rows of all users unless it is partitioned by
//! what the rows are joined by, and HAVING of a LATERAL subquery leaves out no row. Pure.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, FetchType, JoinType, LogicalPlan, Operator, SkipType,
    Subquery, Window,
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
const WINDOW: Misread = Misread {
    message: "a window function stands in a subquery above the condition that joins it to the query around it, and is not \
              partitioned by the column of the condition: the engine computes it over the rows of all users",
    word: "OVER",
    help: "write PARTITION BY with the column of the condition, as in row_number() OVER (PARTITION BY o.user_id ORDER BY \
           o.day DESC) … WHERE o.user_id = …",
};
const HAVING: Misread = Misread {
    message: "a LATERAL subquery has a condition on an aggregate without GROUP BY, by which the engine leaves out no row",
    word: "LATERAL",
    help: "write the condition behind the subquery: … JOIN LATERAL (SELECT sum(total) AS s FROM … WHERE … = …) x ON x.s > 100",
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
        if let LogicalPlan::Subquery(of) = node {
            found = found.or(has_window_of_all(&of.subquery).then_some(WINDOW));
        }
        if let LogicalPlan::Join(join) = node
            && join.join_type == JoinType::Inner
            && is_lateral_with_having(&join.right)
        {
            found = found.or(Some(HAVING));
        }
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

/// Whether the right side of a join is a subquery for each row of the left one that has a condition on an aggregate without
/// GROUP BY.
fn is_lateral_with_having(right: &LogicalPlan) -> bool {
    let mut plan = right;
    while let LogicalPlan::SubqueryAlias(of) = plan {
        plan = &of.input;
    }
    let LogicalPlan::Subquery(lateral) = plan else { return false };
    let subquery: &LogicalPlan = &lateral.subquery;
    let conditional = subquery.exists(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(false) };
        let mut input = filter.input.as_ref();
        while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) = input {
            let Some(next) = input.inputs().into_iter().next() else { break };
            input = next;
        }
        let is_of_all = match input {
            LogicalPlan::Aggregate(of) => of.group_expr.is_empty(),
            _ => false,
        };
        Ok(is_of_all && !input.all_out_ref_exprs().is_empty())
    });
    matches!(conditional, Ok(true))
}

/// Whether a subquery has a window function over rows that a condition below it joins to the row around them, and the
/// engine would compute it before they are joined.
fn has_window_of_all(subquery: &LogicalPlan) -> bool {
    let found = subquery.exists(|node| {
        let LogicalPlan::Window(window) = node else { return Ok(false) };
        Ok(match columns_of_conditions(&window.input) {
            Some(columns) => !columns.is_empty() && !is_partitioned_by(window, &columns),
            None => true,
        })
    });
    matches!(found, Ok(true))
}

/// The columns of a plan that its conditions compare with the row around it; `None` if there is another such condition
/// than an equality.
fn columns_of_conditions(plan: &LogicalPlan) -> Option<Vec<Column>> {
    let mut columns = Some(Vec::new());
    // A visitor without errors cannot fail.
    let _ = plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            let conditions = split_conjunction(&filter.predicate).into_iter();
            for condition in conditions.filter(|of| of.contains_outer()) {
                columns = columns.take().zip(compared_column(condition)).map(|(mut of, column)| {
                    of.push(column);
                    of
                });
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    columns
}

/// The column of `column = value of the row around it`.
fn compared_column(condition: &Expr) -> Option<Column> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return None;
    };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), outer) | (outer, Expr::Column(column))
            if !outer.any_column_refs() =>
        {
            Some(column.clone())
        }
        _ => None,
    }
}

/// Whether all functions of a window are computed for each value of these columns.
fn is_partitioned_by(window: &Window, columns: &[Column]) -> bool {
    let mut functions = window.window_expr.iter();
    functions.all(|function| {
        let mut of = function;
        while let Expr::Alias(alias) = of {
            of = &alias.expr;
        }
        let Expr::WindowFunction(function) = of else { return false };
        let by = &function.params.partition_by;
        columns
            .iter()
            .all(|column| by.iter().any(|of| matches!(of, Expr::Column(c) if c == column)))
    })
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
