//! The engine's optimizer rules, one of which is not applied to plans that it breaks.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rule that turns a single DISTINCT aggregate into two GROUP BYs, which can spill and use
/// every core.
const SINGLE_DISTINCT: &str = "single_distinct_aggregation_to_group_by";

/// The rules of the engine for every query.
pub(crate) fn optimizer_rules() -> Vec<Rule> {
    let rules = Optimizer::new().rules.into_iter();
    rules
        .map(|rule| match rule.name() == SINGLE_DISTINCT {
            true => Arc::new(UnlessDecimalSum(rule)) as Rule,
            false => rule,
        })
        .collect()
}

/// A rule that is not applied to aggregates that add up decimals.
///
/// [`SINGLE_DISTINCT`] adds up the sums of the inner GROUP BY in the outer one. A sum of decimals
/// is ten digits wider than what it adds up, so the column gets another type than the rest of the
/// plan expects, and HAVING fails: "Invalid comparison operation: Decimal128(32, 2) >=
/// Decimal128(22, 2)" (DataFusion 55.2). Sums of all other types keep their type.
#[derive(Debug)]
struct UnlessDecimalSum(Rule);

impl OptimizerRule for UnlessDecimalSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate)
                if aggregate.aggr_expr.iter().any(|e| adds_decimals(e, &aggregate.input)) =>
            {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Whether an aggregate is a sum of decimals, or may be.
fn adds_decimals(aggregate: &Expr, input: &LogicalPlan) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = aggregate else {
        return false;
    };
    let decimal = |argument: &Expr| {
        argument.get_type(input.schema()).map_or(true, |of| {
            matches!(
                of,
                DataType::Decimal32(..)
                    | DataType::Decimal64(..)
                    | DataType::Decimal128(..)
                    | DataType::Decimal256(..)
            )
        })
    };
    func.name() == "sum" && params.args.iter().any(decimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapped_rule_is_one_of_the_engine() {
        let rules = optimizer_rules();
        assert_eq!(rules.iter().filter(|rule| rule.name() == SINGLE_DISTINCT).count(), 1);
        assert_eq!(rules.len(), Optimizer::new().rules.len());
    }
}
