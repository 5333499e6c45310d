//! Recognizes models that keep users by a [`Rule`] over their rows, and separates the rule from the
//! rows.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use throng_query::rule::{RowCountRange, Rule};

use crate::amount::{Amount, NumberKind, sum_range};

/// A plan that is decomposed into rows and a rule over them.
pub(crate) struct DecomposedModel {
    pub(crate) rows: LogicalPlan,
    pub(crate) key: Expr,
    /// What is added up, with its kind.
    pub(crate) value: Option<(Expr, NumberKind)>,
    pub(crate) rule: Rule,
}

/// Decomposes a plan whose last step keeps groups of the key; `None` if it has another form. `key`
/// is the index of the key in the plan's output.
pub(crate) fn decompose(plan: &LogicalPlan, key: usize) -> Option<DecomposedModel> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let Expr::Column(key) = without_alias(projection.expr.get(key)?) else { return None };
    let (aggregate, condition) = match projection.input.as_ref() {
        LogicalPlan::Aggregate(aggregate) => (aggregate, None),
        LogicalPlan::Filter(filter) => {
            let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else { return None };
            (aggregate, Some(parse_predicate(&filter.predicate, aggregate)?))
        }
        _ => return None,
    };
    let [group] = aggregate.group_expr.as_slice() else { return None };
    if matches!(group, Expr::GroupingSet(_)) || output_index(aggregate, key)? != 0 {
        return None;
    }
    let (rule, measure) = condition.map_or((Rule::ANY, Measure::Rows), |f| (f.rule, f.measure));
    let value = match measure {
        Measure::Rows => None,
        Measure::Sum(expr, kind) => Some((expr, kind)),
    };
    let rows = aggregate.input.as_ref().clone();
    Some(DecomposedModel { rows, key: group.clone(), value, rule })
}

/// The rule of a condition on groups, and the kind of what it adds up, if anything; `None` if it is not a rule.
pub(crate) fn rule_of(
    condition: &Expr,
    aggregate: &Aggregate,
) -> Option<(Rule, Option<NumberKind>)> {
    let Predicate { rule, measure } = parse_predicate(condition, aggregate)?;
    let kind = match measure {
        Measure::Rows => None,
        Measure::Sum(_, kind) => Some(kind),
    };
    Some((rule, kind))
}

/// What the condition of a group compares.
#[derive(Debug, Clone, PartialEq)]
enum Measure {
    Rows,
    Sum(Expr, NumberKind),
}

/// A condition on groups.
struct Predicate {
    rule: Rule,
    measure: Measure,
}

fn parse_predicate(predicate: &Expr, aggregate: &Aggregate) -> Option<Predicate> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (left, right) =
                (parse_predicate(left, aggregate)?, parse_predicate(right, aggregate)?);
            let rule = left.rule.and(right.rule)?;
            (left.measure == right.measure).then_some(Predicate { rule, measure: left.measure })
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
            Some(Predicate { rule: low.rule.and(high.rule)?, measure: low.measure })
        }
        _ => None,
    }
}

fn compared(measure: Measure, op: Operator, amount: Amount) -> Option<Predicate> {
    let rule = match &measure {
        Measure::Rows => Rule::Rows(rows(op, amount)?),
        Measure::Sum(_, kind) => Rule::Sum(sum_range(*kind, op, amount)?),
    };
    Some(Predicate { rule, measure })
}

/// `count(*) op amount`.
fn rows(op: Operator, amount: Amount) -> Option<RowCountRange> {
    let number = amount.whole()?;
    let at_least = |n: i64| RowCountRange { min: u64::try_from(n).unwrap_or(0).max(1), max: None };
    // A user with no rows is not scanned, so the range is empty from `count(*) <= 0`.
    let at_most = |n: i64| RowCountRange { min: 1, max: Some(u64::try_from(n).unwrap_or(0)) };
    match op {
        Operator::GtEq => Some(at_least(number)),
        Operator::Gt => Some(at_least(number.checked_add(1)?)),
        Operator::LtEq => Some(at_most(number)),
        Operator::Lt => Some(at_most(number.checked_sub(1)?)),
        Operator::Eq => Some(at_least(number).and(at_most(number))),
        _ => None,
    }
}

pub(crate) fn without_alias(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

fn output_index(aggregate: &Aggregate, column: &Column) -> Option<usize> {
    aggregate.schema.maybe_index_of_column(column)
}

/// The measure of an expression over the aggregation, if it is a plain count of rows or a plain
/// sum.
fn measure(expr: &Expr, aggregate: &Aggregate) -> Option<Measure> {
    let Expr::Column(column) = without_alias(expr) else { return None };
    let index = output_index(aggregate, column)?.checked_sub(aggregate.group_expr.len())?;
    let Expr::AggregateFunction(call) = without_alias(aggregate.aggr_expr.get(index)?) else {
        return None;
    };
    let AggregateFunctionParams { args, distinct: false, filter: None, order_by, .. } =
        &call.params
    else {
        return None;
    };
    match (call.func.name(), args.as_slice()) {
        _ if !order_by.is_empty() => None,
        ("count", []) => Some(Measure::Rows),
        ("count", [Expr::Literal(value, _)]) if !value.is_null() => Some(Measure::Rows),
        ("sum", [value]) => {
            let kind = match value.get_type(aggregate.input.schema()).ok()? {
                DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt8
                | DataType::UInt16
                | DataType::UInt32 => NumberKind::Whole { scale: 0 },
                DataType::Decimal128(digits, scale) if digits <= 18 => {
                    NumberKind::Whole { scale: u32::try_from(scale).ok()? }
                }
                DataType::Float32 | DataType::Float64 => NumberKind::Real,
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
    fn ranges_are_intersected() {
        let range = |op, number| rows(op, Amount::from(number)).unwrap();
        let three_to_five = range(Operator::Gt, 2).and(range(Operator::Lt, 6));
        assert_eq!(three_to_five, RowCountRange { min: 3, max: Some(5) });
        let allowed: Vec<bool> = (2..7).map(|n| three_to_five.allows(n)).collect();
        assert_eq!(allowed, [false, true, true, true, false]);
        let nobody = range(Operator::Eq, 0);
        assert!((0..5).all(|n| !nobody.allows(n)));
        assert_eq!(rows(Operator::Gt, Amount::from(i64::MAX)), None);
        assert_eq!(Rule::Rows(range(Operator::GtEq, -4)), Rule::ANY);
    }
}
