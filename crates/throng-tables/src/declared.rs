//! Column types that the spec declares. Pure.

use datafusion::arrow::compute::kernels::cast_utils::{Parser, parse_decimal};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use throng_spec::ColumnType;

/// The engine's type.
pub(super) fn data_type(declared: ColumnType) -> DataType {
    match declared {
        ColumnType::Text => DataType::Utf8View,
        ColumnType::Integer => DataType::Int64,
        ColumnType::Decimal { digits, scale } => DataType::Decimal128(digits, scale.cast_signed()),
        ColumnType::Double => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

/// Whether a text is a value of the type, as the engine converts texts: a [`throng_files::IsValue`].
pub(super) fn is_value(declared: ColumnType, text: &str) -> bool {
    match declared {
        ColumnType::Text => true,
        ColumnType::Integer => Int64Type::parse(text).is_some(),
        ColumnType::Decimal { digits, scale } => {
            // The engine would round a number with more digits after the point.
            let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            fraction <= usize::from(scale)
                && !text.contains(['e', 'E'])
                && parse_decimal::<Decimal128Type>(text, digits, scale.cast_signed()).is_ok()
        }
        // A number that no double has would be infinite.
        ColumnType::Double => Float64Type::parse(text).is_some_and(|number| {
            number.is_finite() || !text.contains(|c: char| c.is_ascii_digit())
        }),
        ColumnType::Boolean => {
            text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
        }
        ColumnType::Date => Date32Type::parse(text).is_some(),
        ColumnType::Timestamp => TimestampMicrosecondType::parse(text).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_or_not() {
        let decimal = ColumnType::Decimal { digits: 6, scale: 2 };
        for (declared, text, expected) in [
            (ColumnType::Text, "", true),
            (ColumnType::Integer, "007", true),
            (ColumnType::Integer, "7.0", false),
            (ColumnType::Integer, "9223372036854775808", false),
            (decimal, "1234.5", true),
            (decimal, "1234.567", false),
            (decimal, "12345.67", false),
            (decimal, "1e2", false),
            (ColumnType::Double, "1e3", true),
            (ColumnType::Double, "x", false),
            (ColumnType::Double, "1e308", true),
            (ColumnType::Double, "1e400", false),
            (ColumnType::Double, "-1e400", false),
            (ColumnType::Double, "inf", true),
            (ColumnType::Boolean, "TRUE", true),
            (ColumnType::Boolean, "1", false),
            (ColumnType::Date, "2026-11-25", true),
            (ColumnType::Date, "25.11.2026", false),
            (ColumnType::Timestamp, "2026-11-25 10:00:00", true),
            (ColumnType::Timestamp, "noon", false),
        ] {
            assert_eq!(is_value(declared, text), expected, "{declared:?} {text}");
        }
    }
}
