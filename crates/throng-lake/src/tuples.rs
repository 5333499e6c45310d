//! Columns of parameters: their values, and the groups of rows by them.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use throng_query::tuples::{Tuples, append_text};
use throng_spec::ParameterValue;

use crate::LakeError;

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Decimal { scale: u8 },
    Boolean,
    Date,
}

impl Kind {
    /// `None` if no parameter has values of the type.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            DataType::Dictionary(_, value) => Self::of(value).filter(|kind| *kind == Self::Text),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Some(Self::Integer),
            DataType::Decimal128(digits, scale) if *digits <= 18 => {
                u8::try_from(*scale).ok().map(|scale| Self::Decimal { scale })
            }
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
                u8::try_from(*scale).ok().map(|scale| Self::Decimal { scale })
            }
            DataType::Boolean => Some(Self::Boolean),
            DataType::Date32 => Some(Self::Date),
            _ => None,
        }
    }

    /// The column in the one type from which its values are read.
    pub(crate) fn read_type(self) -> DataType {
        match self {
            Self::Text | Self::Date => DataType::Utf8View,
            Self::Integer => DataType::Int64,
            Self::Decimal { scale } => DataType::Decimal128(18, scale.cast_signed()),
            Self::Boolean => DataType::Boolean,
        }
    }

    /// The value of a row of such a column.
    pub(crate) fn value(self, column: &ArrayRef, row: usize) -> ParameterValue {
        match self {
            Self::Text => ParameterValue::Text(column.as_string_view().value(row).to_owned()),
            Self::Date => ParameterValue::Date(column.as_string_view().value(row).to_owned()),
            Self::Integer => ParameterValue::Integer(column.as_primitive::<Int64Type>().value(row)),
            Self::Decimal { scale } => {
                let unscaled = column.as_primitive::<Decimal128Type>().value(row);
                // 18 digits fit.
                ParameterValue::Decimal { unscaled: unscaled as i64, scale }
            }
            Self::Boolean => ParameterValue::Boolean(column.as_boolean().value(row)),
        }
    }

    /// Whether `column = value` is equality of the values as this kind reads them. Where types differ, the engine
    /// converts one of them first.
    pub(crate) fn is_compared_exactly(self, value: &ParameterValue) -> bool {
        matches!(
            (self, value),
            (Self::Text, ParameterValue::Text(_))
                | (Self::Integer, ParameterValue::Integer(_))
                | (Self::Boolean, ParameterValue::Boolean(_))
                | (Self::Date, ParameterValue::Date(_))
        )
    }

    /// Appends the bytes of a row's value, as [`throng_query::tuples::append`] does.
    fn append(self, column: &ArrayRef, row: usize, bytes: &mut Vec<u8>) {
        match self {
            Self::Text | Self::Date => append_text(column.as_string_view().value(row), bytes),
            Self::Integer => {
                bytes.extend(column.as_primitive::<Int64Type>().value(row).to_le_bytes());
            }
            Self::Boolean => bytes.push(u8::from(column.as_boolean().value(row))),
            Self::Decimal { .. } => {
                bytes.extend(column.as_primitive::<Decimal128Type>().value(row).to_le_bytes());
            }
        }
    }
}

/// The group of each row; `None` for rows of no group, such as those with a NULL.
pub(crate) fn groups(
    tuples: &Tuples,
    kinds: &[Kind],
    columns: &[ArrayRef],
    rows: usize,
) -> Result<Vec<Option<u32>>, LakeError> {
    let columns = kinds.iter().zip(columns).map(|(kind, column)| {
        let read = cast(column, &kind.read_type());
        read.map_err(|e| LakeError::engine("reading a compared column", e.into()))
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    let mut bytes = Vec::new();
    let group = |row: usize| {
        bytes.clear();
        for (kind, column) in kinds.iter().zip(&columns) {
            if column.is_null(row) {
                return None;
            }
            kind.append(column, row, &mut bytes);
        }
        tuples.group(&bytes)
    };
    Ok((0..rows).map(group).collect())
}
