//! `sum` that never wraps around. Integers, decimals and durations are added in 128 bits, so that whether a sum fits its
//! type does not depend on the order of the rows. A sum that does not fit is an error.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type,
    Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, Int64Type, TimeUnit, UInt64Type,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature,
};

/// The engine's `sum`, with other accumulators. It has no rule that makes `sum(a + 1)` of `sum(a)`, which may overflow
/// where the rows do not.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CheckedSum {
    engine: Sum,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let of = args.return_type().clone();
        match is_added_here(&of) {
            true if args.is_distinct => Ok(Box::new(DistinctTotal { of, rows: HashMap::new() })),
            true => Ok(Box::new(Total { of, sum: 0, rows: 0 })),
            false => self.engine.accumulator(args),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match is_added_here(args.return_type()) {
            true => self.accumulator(args),
            false => self.engine.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let of = args.return_type();
        if !is_added_here(of) {
            return self.engine.state_fields(args);
        }
        let return_field = Arc::new(Field::new(args.name, state_type(of), true));
        self.engine.state_fields(StateFieldsArgs { return_field, ..args })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let of = args.return_type().clone();
        match is_added_here(&of) {
            true => Ok(Box::new(Totals { of, sums: Vec::new(), found: Vec::new() })),
            false => self.engine.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.engine.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.engine.set_monotonicity(data_type)
    }
}

/// Whether sums of this type are added here. The engine adds floating-point numbers, which do not wrap around,
/// intervals, and decimals of 256 bits.
fn is_added_here(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Int64
            | DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Duration(_)
    )
}

/// The scale of partial sums of this type.
fn scale(of: &DataType) -> i8 {
    match of {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// The type of partial sums. A value may have a digit more.
fn state_type(of: &DataType) -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale(of))
}

fn overflow() -> ArrowError {
    ArrowError::ArithmeticOverflow("a sum overflows its type".to_owned())
}

fn unexpected(of: &DataType) -> DataFusionError {
    DataFusionError::Internal(format!("a sum of the type {of}"))
}

fn first(values: &[ArrayRef]) -> Result<&ArrayRef> {
    values.first().ok_or_else(|| DataFusionError::Internal("a sum of no column".to_owned()))
}

fn plus(sum: i128, number: i128) -> Result<i128> {
    sum.checked_add(number).ok_or_else(|| overflow().into())
}

/// The values, or partial sums, of an array.
fn numbers(array: &ArrayRef) -> Result<Decimal128Array> {
    Ok(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().unary(i128::from),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().unary(i128::from),
        DataType::Decimal32(..) => array.as_primitive::<Decimal32Type>().unary(i128::from),
        DataType::Decimal64(..) => array.as_primitive::<Decimal64Type>().unary(i128::from),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().clone(),
        DataType::Duration(TimeUnit::Second) => {
            array.as_primitive::<DurationSecondType>().unary(i128::from)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            array.as_primitive::<DurationMillisecondType>().unary(i128::from)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            array.as_primitive::<DurationMicrosecondType>().unary(i128::from)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            array.as_primitive::<DurationNanosecondType>().unary(i128::from)
        }
        other => return Err(unexpected(other)),
    })
}

/// Sums in their type.
///
/// # Errors
/// If one does not fit.
fn typed(sums: &Decimal128Array, of: &DataType) -> Result<ArrayRef> {
    let sums: ArrayRef = match of {
        DataType::Int64 => Arc::new(narrow::<Int64Type>(sums)?),
        DataType::UInt64 => Arc::new(narrow::<UInt64Type>(sums)?),
        DataType::Decimal32(digits, _) => {
            Arc::new(decimals::<Decimal32Type>(sums, *digits)?.with_data_type(of.clone()))
        }
        DataType::Decimal64(digits, _) => {
            Arc::new(decimals::<Decimal64Type>(sums, *digits)?.with_data_type(of.clone()))
        }
        DataType::Decimal128(digits, _) => {
            Arc::new(decimals::<Decimal128Type>(sums, *digits)?.with_data_type(of.clone()))
        }
        DataType::Duration(TimeUnit::Second) => Arc::new(narrow::<DurationSecondType>(sums)?),
        DataType::Duration(TimeUnit::Millisecond) => {
            Arc::new(narrow::<DurationMillisecondType>(sums)?)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            Arc::new(narrow::<DurationMicrosecondType>(sums)?)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            Arc::new(narrow::<DurationNanosecondType>(sums)?)
        }
        other => return Err(unexpected(other)),
    };
    Ok(sums)
}

fn narrow<T>(sums: &Decimal128Array) -> Result<PrimitiveArray<T>, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
{
    sums.try_unary(|sum| T::Native::try_from(sum).map_err(|_| overflow()))
}

/// Sums as decimals of at most so many digits.
fn decimals<T>(sums: &Decimal128Array, digits: u8) -> Result<PrimitiveArray<T>, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
{
    let end = 10_u128.checked_pow(u32::from(digits)).unwrap_or(u128::MAX);
    sums.try_unary(|sum| match sum.unsigned_abs() < end {
        true => T::Native::try_from(sum).map_err(|_| overflow()),
        false => Err(overflow()),
    })
}

/// One sum in its type; `None`: no row had a value.
fn scalar(sum: Option<i128>, of: &DataType) -> Result<ScalarValue> {
    let sums = typed(&Decimal128Array::from(vec![sum]), of)?;
    ScalarValue::try_from_array(&sums, 0)
}

fn partial(sum: Option<i128>, of: &DataType) -> ScalarValue {
    ScalarValue::Decimal128(sum, DECIMAL128_MAX_PRECISION, scale(of))
}

/// A sum of all rows, also of those of a window.
#[derive(Debug)]
struct Total {
    of: DataType,
    sum: i128,
    /// The rows with a value, or the partial sums.
    rows: u64,
}

impl Total {
    fn found(&self) -> Option<i128> {
        (self.rows > 0).then_some(self.sum)
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in numbers(first(values)?)?.iter().flatten() {
            self.sum = plus(self.sum, number)?;
            self.rows += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in numbers(first(values)?)?.iter().flatten() {
            self.sum = self.sum.checked_sub(number).ok_or_else(overflow)?;
            self.rows = self.rows.saturating_sub(1);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![partial(self.found(), &self.of)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        scalar(self.found(), &self.of)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// A sum of different values, also of those of a window.
#[derive(Debug)]
struct DistinctTotal {
    of: DataType,
    /// The rows that have each value.
    rows: HashMap<i128, u64>,
}

impl Accumulator for DistinctTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in numbers(first(values)?)?.iter().flatten() {
            *self.rows.entry(number).or_default() += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for number in numbers(first(values)?)?.iter().flatten() {
            if let Some(rows) = self.rows.get_mut(&number) {
                *rows = rows.saturating_sub(1);
                if *rows == 0 {
                    self.rows.remove(&number);
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for found in first(states)?.as_list::<i32>().iter().flatten() {
            self.update_batch(&[found])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let found: Vec<ScalarValue> =
            self.rows.keys().map(|number| partial(Some(*number), &self.of)).collect();
        let found = ScalarValue::new_list_nullable(&found, &state_type(&self.of));
        Ok(vec![ScalarValue::List(found)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.rows.keys().try_fold(0, |sum, number| plus(sum, *number))?;
        scalar((!self.rows.is_empty()).then_some(sum), &self.of)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.capacity() * size_of::<(i128, u64)>()
    }
}

/// A sum for each group.
#[derive(Debug)]
struct Totals {
    of: DataType,
    sums: Vec<i128>,
    /// Whether a row of the group has a value.
    found: Vec<bool>,
}

impl Totals {
    fn take(&mut self, emit_to: EmitTo) -> Decimal128Array {
        let sums = emit_to.take_needed(&mut self.sums);
        let found = emit_to.take_needed(&mut self.found);
        Decimal128Array::new(sums.into(), Some(NullBuffer::from(found)))
    }
}

/// Whether a row has a value, and the filter of the aggregation allows it.
fn is_added(numbers: &Decimal128Array, filter: Option<&BooleanArray>, row: usize) -> bool {
    numbers.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let numbers = numbers(first(values)?)?;
        self.sums.resize(total_num_groups, 0);
        self.found.resize(total_num_groups, false);
        for (row, group) in group_indices.iter().copied().enumerate() {
            if is_added(&numbers, opt_filter, row) {
                self.sums[group] = plus(self.sums[group], numbers.value(row))?;
                self.found[group] = true;
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        typed(&self.take(emit_to), &self.of)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = self.take(emit_to).with_data_type(state_type(&self.of));
        Ok(vec![Arc::new(sums)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let numbers = numbers(first(values)?)?;
        let added = (0..numbers.len())
            .map(|row| is_added(&numbers, opt_filter, row).then(|| numbers.value(row)));
        let added: Decimal128Array = added.collect();
        Ok(vec![Arc::new(added.with_data_type(state_type(&self.of)))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.found.capacity()
    }
}
