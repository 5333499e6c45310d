//! Arithmetic of integers that never wraps around. The engine's `+`, `-`, `*` and negation do, and so does its `sum`.
//!
//! Integers of less than 64 bits are computed in 64 bits. What does not fit then is an error: after the engine has
//! decided the types of an expression, the operators of integers are replaced by functions that check their results.
//! Comparisons stay as they are. `sum` is replaced by [`CheckedSum`]. Decimals are checked by the engine itself.
//!
//! More operations have another result in the engine than in SQL:
//! * floating-point numbers divided by zero are infinite or NaN there, which are more or less than every number. They are
//!   NULL here, as SQL has no such numbers. Integers and decimals divided by zero are an error of the engine;
//! * of a comparison with a conversion that loses digits, such as `CAST(total AS INT) > 2`, the engine's optimizer removes
//!   the conversion, as if it lost none: `2.50` would be more than 2. A function around the conversion prevents that;
//! * the logarithm of a negative number and the like are NaN there, which is more or less than every number. They are NULL
//!   here;
//! * `-0.0` is not `0.0` in some comparisons there: see [`without_sign_of_zero`];
//! * row groups of Parquet files are left out by `CAST(seen AS TIME) > '20:00'` as if later days had later times. A function
//!   around the conversion prevents that too.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Datum, Scalar};
use datafusion::arrow::compute::kernels::numeric::{add, div, mul, neg, rem, sub};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Union, Volatility,
    cast,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::physical_expr_common::datum::apply;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::backslashes::Backslashes;
use crate::checked_sum::CheckedSum;
use crate::durations::Durations;
use crate::exact_factors::ExactFactors;
use crate::fine_times::with_all_digits;
use crate::float_comparisons::without_sign_of_zero;
use crate::wide_dates::WideDates;

/// Types of the operands of functions of integers.
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
/// Types of the operands of divisions.
const FLOATS: [DataType; 2] = [DataType::Float32, DataType::Float64];
/// Functions that have no value for some numbers, of which the engine makes NaN.
const PARTIAL: [&str; 9] =
    ["ln", "log", "log2", "log10", "power", "acos", "asin", "acosh", "atanh"];
/// Has every integer of 64 bits, with and without a sign.
const ALL_INTEGERS: DataType = DataType::Decimal128(20, 0);

/// Makes a session in which integers do not wrap around, and which knows the functions for it. Floating-point numbers
/// divided by zero are NULL, and so are logarithms of negative ones; zero has no sign; conversions that lose digits are
/// compared as such, and products with stated fractions exactly. Dates are compared with timestamps over all years, and
/// differences of timestamps with intervals by their length.
pub fn with_checked_integers(mut session: SessionStateBuilder) -> SessionStateBuilder {
    session.aggregate_functions().get_or_insert_default().push(checked_sum());
    let functions = Operation::ALL.map(Operation::function);
    session.scalar_functions().get_or_insert_default().extend(functions);
    let planners = session.expr_planners().get_or_insert_default();
    planners.push(Arc::new(WideIntegers));
    planners.push(Arc::new(WideDates));
    planners.push(Arc::new(Durations));
    planners.push(Arc::new(ExactFactors));
    // After the rules of the engine, which decide the types.
    let rule = ApplyFunctionRewrites::new(vec![Arc::new(CheckedIntegers), Arc::new(Backslashes)]);
    session.with_analyzer_rule(Arc::new(rule)).with_analyzer_rule(Arc::new(NullableQuotients))
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

/// Replaces operators of integers by functions that check their results, divisions of floating-point numbers by functions
/// that are NULL for zero, and puts a function around conversions that lose digits or days, around what may be NaN, and
/// around floating-point numbers that are compared with zero.
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
                Some(operation)
                    if operation.takes(&left.get_type(schema)?)
                        && operation.takes(&right.get_type(schema)?) =>
                {
                    Transformed::yes(operation.function().call(vec![*left, *right]))
                }
                _ => {
                    let comparison = Expr::BinaryExpr(BinaryExpr { left, op, right });
                    with_all_digits(comparison, schema, kept)
                }
            },
            Expr::Negative(of) if is_integer(&of, schema)? => {
                Transformed::yes(Operation::Negation.function().call(vec![*of]))
            }
            Expr::Cast(cast)
                if is_of_types(&cast.expr, cast.field.data_type(), schema, loses_digits) =>
            {
                Transformed::yes(Operation::Conversion.function().call(vec![Expr::Cast(cast)]))
            }
            Expr::TryCast(cast)
                if is_of_types(&cast.expr, cast.field.data_type(), schema, may_have_no_value) =>
            {
                Transformed::yes(Operation::Conversion.function().call(vec![Expr::TryCast(cast)]))
            }
            Expr::ScalarFunction(function) if PARTIAL.contains(&function.name()) => {
                let of = Expr::ScalarFunction(function);
                match Operation::Number.takes(&of.get_type(schema)?) {
                    true => Transformed::yes(Operation::Number.function().call(vec![of])),
                    false => Transformed::no(of),
                }
            }
            other @ (Expr::Between(_) | Expr::InList(_)) => with_all_digits(other, schema, kept),
            other => without_sign_of_zero(other, schema, unsigned),
        })
    }
}

/// A converted value that the optimizer leaves as it is.
fn kept(of: Expr) -> Expr {
    Operation::Conversion.function().call(vec![of])
}

/// A floating-point number in which zero has no sign.
fn unsigned(of: Expr) -> Expr {
    Operation::Unsigned.function().call(vec![of])
}

/// Computes the schemas of a plan again in which a quotient, or the like, may be NULL although its operands are not.
#[derive(Debug)]
struct NullableQuotients;

impl AnalyzerRule for NullableQuotients {
    fn name(&self) -> &str {
        "nullable_quotients"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let names =
            [Operation::Quotient, Operation::Remainder, Operation::Number].map(Operation::name);
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|inner| {
                    if let Expr::ScalarFunction(function) = inner {
                        found |= names.contains(&function.name());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if !found {
            return Ok(plan);
        }
        let computed = plan.transform_up_with_subqueries(|node| {
            let computed = match node {
                LogicalPlan::Union(union) => nullable_union(union).map(LogicalPlan::Union),
                other => other.recompute_schema(),
            };
            computed.map(Transformed::yes)
        });
        computed.map(|computed| computed.data)
    }
}

/// A union whose columns may be NULL if those of one of its inputs may be. The engine keeps the schema of a union.
fn nullable_union(union: Union) -> Result<Union> {
    let Union { inputs, schema } = union;
    let fields = schema.iter().enumerate().map(|(at, (qualifier, field))| {
        let mut columns = inputs.iter().filter_map(|input| input.schema().fields().get(at));
        let nullable = field.is_nullable() || columns.any(|column| column.is_nullable());
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    Ok(Union { inputs, schema: Arc::new(schema) })
}

/// Whether an expression is converted from such a type to such another one.
fn is_of_types(
    from: &Expr,
    to: &DataType,
    schema: &DFSchema,
    are: fn(&DataType, &DataType) -> bool,
) -> bool {
    from.get_type(schema).is_ok_and(|from| are(&from, to))
}

/// Whether several numbers of a type are one number of another, or several timestamps one time of day.
fn loses_digits(from: &DataType, to: &DataType) -> bool {
    if is_time_of_day(from, to) {
        return true;
    }
    match (scale(from), scale(to)) {
        (Some(from), Some(to)) => from > to,
        _ => false,
    }
}

/// Whether a type may lack numbers of another, which `TRY_CAST` makes NULL, or loses their digits.
fn may_have_no_value(from: &DataType, to: &DataType) -> bool {
    (from != to && scale(from).is_some() && scale(to).is_some()) || is_time_of_day(from, to)
}

/// Whether a timestamp is converted to its time of day.
fn is_time_of_day(from: &DataType, to: &DataType) -> bool {
    matches!(from, DataType::Timestamp(..))
        && matches!(to, DataType::Time32(_) | DataType::Time64(_))
}

/// The digits after the point of a type; `None` if it is not one of exact numbers.
fn scale(of: &DataType) -> Option<i8> {
    match of {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        integer if integer.is_integer() => Some(0),
        _ => None,
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
    /// Of floating-point numbers.
    Quotient,
    /// Of floating-point numbers.
    Remainder,
    /// A converted value, as it is.
    Conversion,
    /// A floating-point number, or NULL for NaN.
    Number,
    /// A floating-point number, or zero without a sign.
    Unsigned,
}

impl Operation {
    const ALL: [Self; 9] = [
        Self::Plus,
        Self::Minus,
        Self::Times,
        Self::Negation,
        Self::Quotient,
        Self::Remainder,
        Self::Conversion,
        Self::Number,
        Self::Unsigned,
    ];

    fn of(op: Operator) -> Option<Self> {
        match op {
            Operator::Plus => Some(Self::Plus),
            Operator::Minus => Some(Self::Minus),
            Operator::Multiply => Some(Self::Times),
            Operator::Divide => Some(Self::Quotient),
            Operator::Modulo => Some(Self::Remainder),
            _ => None,
        }
    }

    /// Whether an operand of an operator may be of this type.
    fn takes(self, operand: &DataType) -> bool {
        match self {
            Self::Quotient | Self::Remainder | Self::Number | Self::Unsigned => {
                FLOATS.contains(operand)
            }
            _ => operand.is_integer(),
        }
    }

    /// The name of the function: executors of a cluster find it by this name.
    fn name(self) -> &'static str {
        match self {
            Self::Plus => "checked_plus",
            Self::Minus => "checked_minus",
            Self::Times => "checked_times",
            Self::Negation => "checked_negation",
            Self::Quotient => "checked_quotient",
            Self::Remainder => "checked_remainder",
            Self::Conversion => "checked_conversion",
            Self::Number => "checked_number",
            Self::Unsigned => "checked_zero",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus | Self::Negation => "-",
            Self::Times => "*",
            Self::Quotient => "/",
            Self::Remainder => "%",
            // The engine names a conversion as what is converted.
            Self::Conversion | Self::Number | Self::Unsigned => "",
        }
    }

    fn function(self) -> Arc<ScalarUDF> {
        let signature = match self {
            Self::Conversion => Signature::any(1, Volatility::Immutable),
            Self::Quotient | Self::Remainder => {
                Signature::uniform(2, FLOATS.to_vec(), Volatility::Immutable)
            }
            Self::Number | Self::Unsigned => {
                Signature::uniform(1, FLOATS.to_vec(), Volatility::Immutable)
            }
            Self::Negation => Signature::uniform(1, INTEGERS.to_vec(), Volatility::Immutable),
            Self::Plus | Self::Minus | Self::Times => {
                Signature::uniform(2, INTEGERS.to_vec(), Volatility::Immutable)
            }
        };
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
            [of] if sign.is_empty() => Ok(of.schema_name().to_string()),
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
        if self.operation == Operation::Conversion {
            // With its metadata: the schema of the plan has it.
            return Ok(Arc::new(of.as_ref().clone().with_name(self.name())));
        }
        let may_be_null = matches!(
            self.operation,
            Operation::Quotient | Operation::Remainder | Operation::Number
        );
        let nullable = may_be_null || args.arg_fields.iter().any(|field| field.is_nullable());
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
            (Operation::Quotient, [left, right]) => {
                apply(left, right, |left, right| by_divisor(left, right, div))
            }
            (Operation::Remainder, [left, right]) => {
                apply(left, right, |left, right| by_divisor(left, right, rem))
            }
            (Operation::Conversion, [of]) => Ok(of.clone()),
            (Operation::Negation, [of]) => computed(of, |of| neg(of.as_ref())),
            (Operation::Number, [of]) => {
                computed(of, |of| Ok(floats(of, |value| (!value.is_nan()).then_some(value))))
            }
            // The sum of zeros of both signs is the one without.
            (Operation::Unsigned, [of]) => {
                computed(of, |of| Ok(floats(of, |value| Some(value + 0.0))))
            }
            _ => Err(self.wrong_operands()),
        }
    }
}

/// A function of one value or of a column.
fn computed(
    of: &ColumnarValue,
    compute: impl Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<ColumnarValue> {
    match of {
        ColumnarValue::Array(of) => Ok(ColumnarValue::Array(compute(of)?)),
        ColumnarValue::Scalar(of) => {
            let result = compute(&of.to_array()?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
        }
    }
}

/// A function of the values of a column of floating-point numbers; other columns stay as they are.
fn floats(of: &ArrayRef, compute: impl Fn(f64) -> Option<f64>) -> ArrayRef {
    match of.data_type() {
        DataType::Float32 => {
            let values = of.as_primitive::<Float32Type>();
            // Neither a value nor its sign is rounded.
            let compute = |value: f32| compute(f64::from(value)).map(|result| result as f32);
            Arc::new(values.unary_opt::<_, Float32Type>(compute))
        }
        DataType::Float64 => {
            let values = of.as_primitive::<Float64Type>();
            Arc::new(values.unary_opt::<_, Float64Type>(compute))
        }
        _ => Arc::clone(of),
    }
}

/// A division that is NULL for a divisor of zero.
fn by_divisor(
    dividend: &dyn Datum,
    divisor: &dyn Datum,
    divide: impl Fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>,
) -> Result<ArrayRef, ArrowError> {
    let (values, is_scalar) = divisor.get();
    // Zero with a sign too.
    let values: ArrayRef = match values.data_type() {
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            Arc::new(values.unary_opt::<_, Float32Type>(|value| (value != 0.0).then_some(value)))
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            Arc::new(values.unary_opt::<_, Float64Type>(|value| (value != 0.0).then_some(value)))
        }
        _ => return divide(dividend, divisor),
    };
    if is_scalar { divide(dividend, &Scalar::new(values)) } else { divide(dividend, &values) }
}
