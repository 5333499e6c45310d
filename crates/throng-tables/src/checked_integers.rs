//! Arithmetic of integers that never wraps around. The engine's `+`, `-`, `*` and negation do, and so does its `sum`.
//!
//! Integers of less than 64 bits are computed in 64 bits. What does not fit then is an error: after the engine has
//! decided the types of an expression, the operators of integers are replaced by functions that check their results.
//! Comparisons stay as they are. `sum` is replaced by [`CheckedSum`]. Decimals are checked by the engine itself.

use std::sync::Arc;

use datafusion::arrow::compute::kernels::numeric::{add, mul, neg, sub};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::physical_expr_common::datum::apply;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::checked_sum::CheckedSum;
use crate::durations::Durations;
use crate::wide_dates::WideDates;

/// Types of the operands of the functions.
const INTEGERS: [DataType; 8] = [
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
];
/// Has every integer of 64 bits, with and without a sign.
const ALL_INTEGERS: DataType = DataType::Decimal128(20, 0);

/// Makes a session in which integers do not wrap around, and which knows the functions for it. Dates are compared with
/// timestamps over all years, and differences of timestamps with intervals by their length.
pub fn with_checked_integers(mut session: SessionStateBuilder) -> SessionStateBuilder {
    session.aggregate_functions().get_or_insert_default().push(checked_sum());
    let functions = Operation::ALL.map(Operation::function);
    session.scalar_functions().get_or_insert_default().extend(functions);
    let planners = session.expr_planners().get_or_insert_default();
    planners.push(Arc::new(WideIntegers));
    planners.push(Arc::new(WideDates));
    planners.push(Arc::new(Durations));
    // After the rules of the engine, which decide the types.
    let rule = ApplyFunctionRewrites::new(vec![Arc::new(CheckedIntegers)]);
    session.with_analyzer_rule(Arc::new(rule))
}

/// The function of this name in plans, if it is one of [`with_checked_integers`].
pub fn checked_function(name: &str) -> Option<Arc<ScalarUDF>> {
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
    operation.map(Operation::function)
}

/// The `sum` of sessions of [`with_checked_integers`].
pub fn checked_sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(CheckedSum::default()))
}

/// Plans operators of narrow integers with wider ones.
#[derive(Debug)]
struct WideIntegers;

impl ExprPlanner for WideIntegers {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(PlannerResult::Original(match wide(&expr, schema) {
            Some(wide) => {
                let RawBinaryExpr { op, left, right } = expr;
                RawBinaryExpr { op, left: cast(left, wide.clone()), right: cast(right, wide) }
            }
            None => expr,
        }))
    }
}

/// The type in which an operation is computed, if the engine would take a narrower one.
fn wide(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<DataType> {
    let is_minus = match expr.op {
        BinaryOperator::Minus => true,
        BinaryOperator::Plus | BinaryOperator::Multiply => false,
        // Of a long chain of AND or OR, each type would take as long as the chain.
        _ => return None,
    };
    let (left, right) = (expr.left.get_type(schema).ok()?, expr.right.get_type(schema).ok()?);
    let is_narrow =
        |of: &DataType| of.is_integer() && !matches!(of, DataType::Int64 | DataType::UInt64);
    if is_narrow(&left) && is_narrow(&right) {
        return Some(DataType::Int64);
    }
    // Such as of `row_number()`: the difference may be negative.
    (is_minus && left.is_unsigned_integer() && right.is_unsigned_integer()).then_some(ALL_INTEGERS)
}

/// Replaces operators of integers by functions that check their results.
#[derive(Debug)]
struct CheckedIntegers;

impl FunctionRewrite for CheckedIntegers {
    fn name(&self) -> &str {
        "checked_integers"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Operation::of(op) {
                Some(operation) if is_integer(&left, schema)? && is_integer(&right, schema)? => {
                    Transformed::yes(operation.function().call(vec![*left, *right]))
                }
                _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            },
            Expr::Negative(of) if is_integer(&of, schema)? => {
                Transformed::yes(Operation::Negation.function().call(vec![*of]))
            }
            other => Transformed::no(other),
        })
    }
}

fn is_integer(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.get_type(schema).map(|of| of.is_integer())
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Plus,
    Minus,
    Times,
    Negation,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Plus, Self::Minus, Self::Times, Self::Negation];

    fn of(op: Operator) -> Option<Self> {
        match op {
            Operator::Plus => Some(Self::Plus),
            Operator::Minus => Some(Self::Minus),
            Operator::Multiply => Some(Self::Times),
            _ => None,
        }
    }

    /// The name of the function: executors of a cluster find it by this name.
    fn name(self) -> &'static str {
        match self {
            Self::Plus => "checked_plus",
            Self::Minus => "checked_minus",
            Self::Times => "checked_times",
            Self::Negation => "checked_negation",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus | Self::Negation => "-",
            Self::Times => "*",
        }
    }

    fn function(self) -> Arc<ScalarUDF> {
        let operands = if self == Self::Negation { 1 } else { 2 };
        let signature = Signature::uniform(operands, INTEGERS.to_vec(), Volatility::Immutable);
        Arc::new(ScalarUDF::from(Checked { operation: self, signature }))
    }
}

/// An operation whose operands have one type, which is also that of its result.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn wrong_operands(&self) -> DataFusionError {
        DataFusionError::Internal(format!("{} has other operands", self.operation.name()))
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.operation.name()
    }

    /// As the engine names the operator, so columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let sign = self.operation.sign();
        match args {
            [of] => Ok(format!("({sign} {})", of.schema_name())),
            [left, right] => Ok(format!("{} {sign} {}", left.schema_name(), right.schema_name())),
            _ => Err(self.wrong_operands()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        arg_types.first().cloned().ok_or_else(|| self.wrong_operands())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let of = args.arg_fields.first().ok_or_else(|| self.wrong_operands())?;
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), of.data_type().clone(), nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.operation, args.args.as_slice()) {
            (Operation::Plus, [left, right]) => apply(left, right, add),
            (Operation::Minus, [left, right]) => apply(left, right, sub),
            (Operation::Times, [left, right]) => apply(left, right, mul),
            (Operation::Negation, [ColumnarValue::Array(of)]) => {
                Ok(ColumnarValue::Array(neg(of.as_ref())?))
            }
            (Operation::Negation, [ColumnarValue::Scalar(of)]) => {
                let negated = neg(of.to_array()?.as_ref())?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?))
            }
            _ => Err(self.wrong_operands()),
        }
    }
}
