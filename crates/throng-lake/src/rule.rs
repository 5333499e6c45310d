//! Models that keep users by how many rows they have, or by a sum over them: `GROUP BY user HAVING
//! count(*) >= 3`, `… HAVING sum(amount) > 100`. The build sorts each shard's hashes anyway, so it
//! counts and adds there, in place of an aggregation of text keys by the engine.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Kind, Sum};

/// Which users of the scanned rows are members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Those with so many rows.
    Rows(Occurs),
    /// Those whose values add up to so much. Every key comes with a value then.
    Sum(Sum),
}

impl Rule {
    /// Whoever has a row.
    pub const ANY: Self = Self::Rows(Occurs { min: 1, max: None });

    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Rows(a), Self::Rows(b)) => Some(Self::Rows(a.and(b))),
            (Self::Sum(a), Self::Sum(b)) => Some(Self::Sum(a.and(b)?)),
            _ => None,
        }
    }
}

/// How many rows a user must have to be a member. A range; empty if `max` is below `min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurs {
    /// At least these; from 1.
    pub min: u64,
    /// At most these; no limit if there is none.
    pub max: Option<u64>,
}

impl Occurs {
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

/// A model taken apart: the rows to scan, what of them, and the rule that the build applies.
pub(crate) struct Apart {
    pub(crate) rows: LogicalPlan,
    pub(crate) key: Expr,
    /// What is added up, with its kind.
    pub(crate) value: Option<(Expr, Kind)>,
    pub(crate) rule: Rule,
}

/// Takes a plan apart whose last step keeps groups of the key; `None` if it is not of this kind.
/// `key` is the place of the key in the plan's output.
pub(crate) fn apart(plan: &LogicalPlan, key: usize) -> Option<Apart> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let Expr::Column(key) = bare(projection.expr.get(key)?) else { return None };
    let (aggregate, found) = match projection.input.as_ref() {
        LogicalPlan::Aggregate(aggregate) => (aggregate, None),
        LogicalPlan::Filter(filter) => {
            let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else { return None };
            (aggregate, Some(found(&filter.predicate, aggregate)?))
        }
        _ => return None,
    };
    let [group] = aggregate.group_expr.as_slice() else { return None };
    if matches!(group, Expr::GroupingSet(_)) || place(aggregate, key)? != 0 {
        return None;
    }
    let (rule, measure) = found.map_or((Rule::ANY, Measure::Rows), |f| (f.rule, f.measure));
    let value = match measure {
        Measure::Rows => None,
        Measure::Sum(expr, kind) => Some((expr, kind)),
    };
    let rows = aggregate.input.as_ref().clone();
    Some(Apart { rows, key: group.clone(), value, rule })
}

/// What a group is judged by.
#[derive(Debug, Clone, PartialEq)]
enum Measure {
    Rows,
    Sum(Expr, Kind),
}

struct Found {
    rule: Rule,
    measure: Measure,
}

fn found(predicate: &Expr, aggregate: &Aggregate) -> Option<Found> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (left, right) = (found(left, aggregate)?, found(right, aggregate)?);
            let rule = left.rule.and(right.rule)?;
            (left.measure == right.measure).then_some(Found { rule, measure: left.measure })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let Some(measure) = measure(left, aggregate) {
                compared(measure, *op, Amount::of(right)?)
            } else {
                compared(measure(right, aggregate)?, op.swap()?, Amount::of(left)?)
            }
        }
        Expr::Between(between) if !between.negated => {
            let measure = measure(&between.expr, aggregate)?;
            let low = compared(measure.clone(), Operator::GtEq, Amount::of(&between.low)?)?;
            let high = compared(measure, Operator::LtEq, Amount::of(&between.high)?)?;
            Some(Found { rule: low.rule.and(high.rule)?, measure: low.measure })
        }
        _ => None,
    }
}

fn compared(measure: Measure, op: Operator, amount: Amount) -> Option<Found> {
    let rule = match &measure {
        Measure::Rows => Rule::Rows(rows(op, amount)?),
        Measure::Sum(_, kind) => Rule::Sum(Sum::compared(*kind, op, amount)?),
    };
    Some(Found { rule, measure })
}

/// `count(*) op amount`.
fn rows(op: Operator, amount: Amount) -> Option<Occurs> {
    let number = amount.whole()?;
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

fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

fn place(aggregate: &Aggregate, column: &Column) -> Option<usize> {
    aggregate.schema.maybe_index_of_column(column)
}

/// What an expression above the aggregation measures, if it is a plain count of rows or a plain sum.
fn measure(expr: &Expr, aggregate: &Aggregate) -> Option<Measure> {
    let Expr::Column(column) = bare(expr) else { return None };
    let place = place(aggregate, column)?.checked_sub(aggregate.group_expr.len())?;
    let Expr::AggregateFunction(call) = bare(aggregate.aggr_expr.get(place)?) else { return None };
    let AggregateFunctionParams { args, distinct: false, filter: None, order_by, .. } =
        &call.params
    else {
        return None;
    };
    match (call.func.name(), args.as_slice()) {
        _ if !order_by.is_empty() => None,
        ("count", []) => Some(Measure::Rows),
        ("count", [Expr::Literal(value, _)]) if !matches!(value, ScalarValue::Null) => {
            (!value.is_null()).then_some(Measure::Rows)
        }
        ("sum", [value]) => {
            let kind = match value.get_type(aggregate.input.schema()).ok()? {
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                    Kind::Whole { scale: 0 }
                }
                DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Kind::Whole { scale: 0 },
                DataType::Decimal128(digits, scale) if digits <= 18 => {
                    Kind::Whole { scale: u32::try_from(scale).ok()? }
                }
                DataType::Float32 | DataType::Float64 => Kind::Real,
                _ => return None,
            };
            Some(Measure::Sum(value.clone(), kind))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet() {
        let range = |op, number| rows(op, Amount::from(number)).unwrap();
        let three_to_five = range(Operator::Gt, 2).and(range(Operator::Lt, 6));
        assert_eq!(three_to_five, Occurs { min: 3, max: Some(5) });
        let allowed: Vec<bool> = (2..7).map(|n| three_to_five.allows(n)).collect();
        assert_eq!(allowed, [false, true, true, true, false]);
        let nobody = range(Operator::Eq, 0);
        assert!((0..5).all(|n| !nobody.allows(n)));
        assert_eq!(rows(Operator::Gt, Amount::from(i64::MAX)), None);
        assert_eq!(Rule::Rows(range(Operator::GtEq, -4)), Rule::ANY);
    }
}
