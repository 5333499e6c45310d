//! Whether the result of a query depends on the time.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;

/// Whether a plan has a function whose value depends on the time, or that returns another value each
/// time.
pub(crate) fn is_time_dependent(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                let volatility = match inner {
                    Expr::ScalarFunction(call) => call.func.signature().volatility,
                    Expr::AggregateFunction(call) => call.func.signature().volatility,
                    _ => Volatility::Immutable,
                };
                found |= volatility != Volatility::Immutable;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    // A plan that cannot be visited may have such a function.
    found || visited.is_err()
}

/// As [`is_time_dependent`], of a statement that is not planned.
pub(crate) fn calls_time(state: &SessionState, statement: &Statement) -> bool {
    let Statement::Statement(statement) = statement else { return true };
    let found = ast::visit_expressions(statement.as_ref(), |expr| {
        let ast::Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        // A quoted name is that of the same function.
        let name = call.name.to_string().replace('"', "").to_lowercase();
        let function = state.scalar_functions().get(&name);
        match function.map(|function| function.signature().volatility) {
            None | Some(Volatility::Immutable) => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    });
    found.is_break()
}
