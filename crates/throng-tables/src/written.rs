//! Numbers and timestamps as text, as their files write them. The engine writes a double as `5.0`
//! and a timestamp with `T`; keys and identifiers must have the text of the file, or they would be
//! other users.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, StringViewArray, StringViewBuilder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use throng_model::{UserKey, to_hex};

use super::layout::WRITTEN;

/// How a column is written, if the engine would write it differently.
pub fn is_written(field: &Field) -> Option<&str> {
    field.metadata().get(WRITTEN).map(String::as_str)
}

/// A column as text, as its files write it.
///
/// # Errors
/// If its type cannot be written as text.
pub fn as_written(column: &ArrayRef, written: Option<&str>) -> Result<ArrayRef, ArrowError> {
    match (written, column.data_type()) {
        (_, DataType::Float64) => Ok(shortest(column.as_primitive::<Float64Type>().iter())),
        (_, DataType::Float32) => Ok(shortest(column.as_primitive::<Float32Type>().iter())),
        (_, DataType::FixedSizeBinary(_)) => Ok(as_keys(column.as_fixed_size_binary())),
        (_, DataType::Binary) => Ok(bytes_as_text(column.as_binary::<i32>().iter())),
        (_, DataType::LargeBinary) => Ok(bytes_as_text(column.as_binary::<i64>().iter())),
        (_, DataType::BinaryView) => Ok(bytes_as_text(column.as_binary_view().iter())),
        (Some(form), DataType::Timestamp(..)) => {
            let plain = cast(column, &DataType::Utf8View)?;
            let mut texts = StringViewBuilder::with_capacity(column.len());
            for text in plain.as_string_view() {
                match text {
                    Some(text) => texts.append_value(in_form(text, column.data_type(), form)),
                    None => texts.append_null(),
                }
            }
            Ok(Arc::new(texts.finish()))
        }
        _ => cast(column, &DataType::Utf8View),
    }
}

/// UUIDs and other bytes of one length as keys are written: the engine has no text of them.
fn as_keys(column: &FixedSizeBinaryArray) -> ArrayRef {
    let key = |bytes: &[u8]| match <[u8; 16]>::try_from(bytes) {
        Ok(uuid) => UserKey::uuid(uuid),
        Err(_) => UserKey::binary(bytes),
    };
    let texts = column.iter().map(|bytes| bytes.map(|bytes| key(bytes).as_str().to_owned()));
    Arc::new(texts.collect::<StringViewArray>())
}

/// Bytes that are a text as that text, and others of the length of a SHA-256 in hexadecimal. What is neither has the sign
/// of an undecodable byte (U+FFFD), by which it is refused as an identifier: the engine would make it NULL.
fn bytes_as_text<'a>(column: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    const SHA256_BYTES: usize = 32;
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) if bytes.len() == SHA256_BYTES => to_hex(bytes),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    Arc::new(column.map(|bytes| bytes.map(text)).collect::<StringViewArray>())
}

/// Numbers in their shortest form, whole ones as columns of integers have them. NaN is NULL.
fn shortest<N: PartialOrd + ToString>(numbers: impl Iterator<Item = Option<N>>) -> ArrayRef {
    let numbers = numbers.map(|number| number.filter(|n| n.partial_cmp(n).is_some()));
    Arc::new(numbers.map(|number| number.map(|n| n.to_string())).collect::<StringViewArray>())
}

/// `2026-11-25T10:00:00.5` as a file writes it: all digits of the unit, its separator, its zone.
fn in_form(text: &str, of: &DataType, form: &str) -> String {
    use datafusion::arrow::datatypes::TimeUnit;
    let digits = match of {
        DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 6,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 9,
        _ => 0,
    };
    let (second, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut written = second.to_owned();
    if digits > 0 {
        let _ = write!(written, ".{fraction:0<digits$}");
    }
    if form.starts_with(' ') {
        written = written.replacen('T', " ", 1);
    }
    if form.ends_with('Z') {
        written.push('Z');
    }
    written
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        BinaryArray, BinaryViewArray, Float64Array, LargeBinaryArray, StringArray,
    };
    use datafusion::arrow::datatypes::TimeUnit;
    use throng_files::{InferredType, SHORTEST};

    use super::super::inferred::scalar_type;
    use super::*;

    /// Converts texts to their inferred type and back to text.
    fn round_trip(texts: &[&str]) -> Vec<String> {
        let mut inferred = InferredType::default();
        texts.iter().for_each(|text| inferred.add(text));
        let (of, written) = scalar_type(&inferred).unwrap();
        let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let typed = cast(&column, &of).unwrap();
        let back = as_written(&typed, written).unwrap();
        back.as_string_view().iter().map(|text| text.unwrap().to_owned()).collect()
    }

    #[test]
    fn columns_are_written_as_they_were_read() {
        for texts in [
            &["5", "6.5", "-0.25", "123456789.125"][..],
            &["12.00", "10.10", "-0.05"],
            &["1", "-9223372036854775808"],
            &["true", "false"],
            &["2026-11-25", "0001-01-01"],
            &["2026-11-25T10:00:00", "1969-12-31T23:59:59"],
            &["2026-11-25 10:00:00"],
            &["2026-11-25 10:00:00.120Z", "2026-11-25 10:00:00.000Z"],
            &["2026-11-25T10:00:00.123456"],
            &["2026-11-25T10:00:00.123456789"],
            &["18446744073709551615", "00042", "1e3"],
        ] {
            assert_eq!(round_trip(texts), texts);
        }
    }

    #[test]
    fn uuids_are_in_lower_case_with_hyphens() {
        let uuids = [Some([0xAB_u8; 16]), None];
        let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16);
        let uuids: ArrayRef = Arc::new(uuids.unwrap());
        let written = as_written(&uuids, None).unwrap();
        assert_eq!(written.as_string_view().value(0), "abababab-abab-abab-abab-abababababab");
        assert!(written.is_null(1));
    }

    #[test]
    fn bytes_are_their_text_or_a_hash_or_have_a_sign_that_they_are_neither() {
        let hash = [0xAB_u8; 32];
        let bytes: [Option<&[u8]>; 4] =
            [Some(b"a@x.com"), Some(&hash), Some(b"m\xfcller@x.com"), None];
        let hex = "ab".repeat(32);
        let texts = [Some("a@x.com"), Some(hex.as_str()), Some("m\u{fffd}ller@x.com"), None];
        for column in [
            Arc::new(BinaryArray::from_iter(bytes)) as ArrayRef,
            Arc::new(LargeBinaryArray::from_iter(bytes)) as ArrayRef,
            Arc::new(BinaryViewArray::from_iter(bytes)) as ArrayRef,
        ] {
            let written = as_written(&column, None).unwrap();
            assert_eq!(written.as_string_view().iter().collect::<Vec<_>>(), texts);
        }
    }

    #[test]
    fn nulls_stay_and_other_columns_are_written_by_the_engine() {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(5.0), None]));
        let written = as_written(&numbers, Some(SHORTEST)).unwrap();
        assert_eq!(written.as_string_view().value(0), "5");
        assert!(written.is_null(1));
        assert_eq!(as_written(&numbers, None).unwrap().as_string_view().value(0), "5");
        assert_eq!(
            in_form("2026-01-01T00:00:00", &DataType::Timestamp(TimeUnit::Second, None), "T"),
            "2026-01-01T00:00:00"
        );
    }
}
