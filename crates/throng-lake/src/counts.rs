//! Models that keep users by how many rows they have: `GROUP BY user HAVING count(*) >= 3`. The
//! build sorts each shard's hashes anyway, so it counts there for nothing, in place of an
//! aggregation of text keys by the engine.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator};
use serde::{Deserialize, Serialize};

/// How many rows a user must have to be a member. A range; empty if `max` is below `min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurs {
    /// At least these; from 1.
    pub min: u64,
    /// At most these; no limit if there is none.
    pub max: Option<u64>,
}

impl Occurs {
    /// Whoever is there at all.
    pub const ONCE: Self = Self { min: 1, max: None };

    /// Whether a user with so many rows is a member.
    pub fn allows(self, rows: u64) -> bool {
        rows >= self.min && self.max.is_none_or(|max| rows <= max)
    }

    fn and(self, other: Self) -> Self {
        let max = match (self.max, other.max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { min: self.min.max(other.min), max }
    }
}

impl Default for Occurs {
    fn default() -> Self {
        Self::ONCE
    }
}

/// The rows to count, the key among them, and the counts that make a member; `None` if the plan is
/// not of this kind. `key` is the place of the key in the plan's output.
pub(crate) fn counted(plan: &LogicalPlan, key: usize) -> Option<(LogicalPlan, Expr, Occurs)> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let Expr::Column(key) = bare(projection.expr.get(key)?) else { return None };
    let (aggregate, occurs) = match projection.input.as_ref() {
        LogicalPlan::Aggregate(aggregate) => (aggregate, Occurs::ONCE),
        LogicalPlan::Filter(filter) => {
            let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else { return None };
            (aggregate, range(&filter.predicate, aggregate)?)
        }
        _ => return None,
    };
    let [group] = aggregate.group_expr.as_slice() else { return None };
    let plain = !matches!(group, Expr::GroupingSet(_)) && place(aggregate, key)? == 0;
    plain.then(|| (aggregate.input.as_ref().clone(), group.clone(), occurs))
}

fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

fn place(aggregate: &Aggregate, column: &Column) -> Option<usize> {
    aggregate.schema.maybe_index_of_column(column)
}

fn range(predicate: &Expr, aggregate: &Aggregate) -> Option<Occurs> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Some(range(left, aggregate)?.and(range(right, aggregate)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if is_count(left, aggregate) {
                compared(*op, whole(right)?)
            } else if is_count(right, aggregate) {
                compared(op.swap()?, whole(left)?)
            } else {
                None
            }
        }
        Expr::Between(between) if !between.negated && is_count(&between.expr, aggregate) => {
            let low = compared(Operator::GtEq, whole(&between.low)?)?;
            Some(low.and(compared(Operator::LtEq, whole(&between.high)?)?))
        }
        _ => None,
    }
}

/// `count op number`.
fn compared(op: Operator, number: i64) -> Option<Occurs> {
    let at_least = |n: i64| Occurs { min: u64::try_from(n).unwrap_or(0).max(1), max: None };
    // Nobody has fewer rows than none.
    let at_most = |n: i64| Occurs { min: 1, max: Some(u64::try_from(n).unwrap_or(0)) };
    match op {
        Operator::GtEq => Some(at_least(number)),
        Operator::Gt => Some(at_least(number.checked_add(1)?)),
        Operator::LtEq => Some(at_most(number)),
        Operator::Lt => Some(at_most(number.checked_sub(1)?)),
        Operator::Eq => Some(at_least(number).and(at_most(number))),
        _ => None,
    }
}

fn whole(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Some(*number),
        Expr::Literal(ScalarValue::UInt64(Some(number)), _) => i64::try_from(*number).ok(),
        _ => None,
    }
}

/// Whether an expression above the aggregation is its plain count of rows.
fn is_count(expr: &Expr, aggregate: &Aggregate) -> bool {
    let Expr::Column(column) = bare(expr) else { return false };
    let Some(made) = place(aggregate, column)
        .and_then(|place| place.checked_sub(aggregate.group_expr.len()))
        .and_then(|place| aggregate.aggr_expr.get(place))
    else {
        return false;
    };
    let Expr::AggregateFunction(call) = bare(made) else { return false };
    let plain = &call.params;
    let every_row = match plain.args.as_slice() {
        [] => true,
        [Expr::Literal(value, _)] => !value.is_null(),
        _ => false,
    };
    let unqualified = !plain.distinct && plain.filter.is_none() && plain.order_by.is_empty();
    call.func.name() == "count" && every_row && unqualified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet() {
        let three_to_five =
            compared(Operator::Gt, 2).unwrap().and(compared(Operator::Lt, 6).unwrap());
        assert_eq!(three_to_five, Occurs { min: 3, max: Some(5) });
        assert_eq!(
            (2..7).map(|n| three_to_five.allows(n)).collect::<Vec<_>>(),
            [false, true, true, true, false]
        );
        let nobody = compared(Operator::Eq, 0).unwrap();
        assert!((0..5).all(|n| !nobody.allows(n)));
        assert_eq!(compared(Operator::Gt, i64::MAX), None);
        assert_eq!(compared(Operator::GtEq, -4), Some(Occurs::ONCE));
    }
}
