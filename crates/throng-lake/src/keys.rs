//! Columns of keys → hashes, in each key's canonical form (see [`throng_model::UserKey`]).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use throng_files::shown_name;
use throng_model::{HashSeed, UserHash, UserKey, is_missing_value};
use throng_query::keys::{decimal, is_padded};
use throng_query::model::KeyKind;
use throng_tables::{as_written, is_text};

use crate::LakeError;

/// The kind of a column of this type.
pub(crate) fn kind_of(column: &str, data_type: &DataType) -> Result<KeyKind, LakeError> {
    match data_type {
        of if is_text(of) => Ok(KeyKind::Text),
        DataType::Dictionary(_, value) => kind_of(column, value),
        // A decimal is written with the digits of its type: `12.00`.
        t if t.is_decimal() => Ok(KeyKind::Text),
        t if t.is_integer() => Ok(KeyKind::Integer),
        DataType::FixedSizeBinary(16) => Ok(KeyKind::Uuid),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Ok(KeyKind::Binary),
        other => {
            let column = shown_name(column);
            Err(LakeError::Key {
                message: format!(
                    "the key column {column} is of type {other}, which is not a user key"
                ),
                help: format!(
                    "a key is text, a number without exponent, a UUID or bytes: to use the text of the \
                     file, declare `columns: {{ {column}: text }}` in the source; to use another text, \
                     write CAST({column} AS VARCHAR)"
                ),
            })
        }
    }
}

/// A column of keys; decimals, and values that the engine would write differently from the file,
/// are text.
pub(crate) fn key_column(column: &ArrayRef, written: Option<&str>) -> Result<ArrayRef, LakeError> {
    if written.is_none() && !column.data_type().is_decimal() {
        return Ok(Arc::clone(column));
    }
    as_text(column, written)
}

/// A column as text, as its files write it.
pub(crate) fn as_text(column: &ArrayRef, written: Option<&str>) -> Result<ArrayRef, LakeError> {
    as_written(column, written).map_err(|e| LakeError::engine("writing a column as text", e.into()))
}

/// Calls `each` with the canonical bytes of every key; `None` for NULL, and for a text that [`is_missing_value`].
/// Allocates nothing per row for text and integers.
pub(crate) fn for_each_key(
    column: &ArrayRef,
    each: &mut dyn FnMut(Option<&[u8]>),
) -> Result<(), LakeError> {
    match column.data_type() {
        DataType::Dictionary(_, value) => {
            let plain = cast(column, value)
                .map_err(|e| LakeError::engine("unpacking the key column", e.into()))?;
            return for_each_key(&plain, each);
        }
        DataType::Utf8 => texts(column.as_string::<i32>().iter(), each),
        DataType::LargeUtf8 => texts(column.as_string::<i64>().iter(), each),
        DataType::Utf8View => texts(column.as_string_view().iter(), each),
        DataType::Int8 => integers(column.as_primitive::<Int8Type>(), each),
        DataType::Int16 => integers(column.as_primitive::<Int16Type>(), each),
        DataType::Int32 => integers(column.as_primitive::<Int32Type>(), each),
        DataType::Int64 => integers(column.as_primitive::<Int64Type>(), each),
        DataType::UInt8 => integers(column.as_primitive::<UInt8Type>(), each),
        DataType::UInt16 => integers(column.as_primitive::<UInt16Type>(), each),
        DataType::UInt32 => integers(column.as_primitive::<UInt32Type>(), each),
        DataType::UInt64 => integers(column.as_primitive::<UInt64Type>(), each),
        DataType::Binary => column.as_binary::<i32>().iter().for_each(|key| binary(key, each)),
        DataType::LargeBinary => column.as_binary::<i64>().iter().for_each(|key| binary(key, each)),
        DataType::BinaryView => column.as_binary_view().iter().for_each(|key| binary(key, each)),
        DataType::FixedSizeBinary(_) => fixed(column.as_fixed_size_binary(), each),
        other => {
            kind_of("key", other)?;
        }
    }
    Ok(())
}

fn texts<'k>(keys: impl Iterator<Item = Option<&'k str>>, each: &mut dyn FnMut(Option<&[u8]>)) {
    keys.for_each(|key| each(key.map(str::as_bytes).filter(|key| !is_missing_value(key))));
}

fn binary(key: Option<&[u8]>, each: &mut dyn FnMut(Option<&[u8]>)) {
    match key {
        Some(bytes) if !bytes.is_empty() => each(Some(UserKey::binary(bytes).as_str().as_bytes())),
        _ => each(None),
    }
}

fn fixed(array: &FixedSizeBinaryArray, each: &mut dyn FnMut(Option<&[u8]>)) {
    for key in array.iter() {
        match key.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
            Some(uuid) => each(Some(UserKey::uuid(uuid).as_str().as_bytes())),
            None => binary(key, each),
        }
    }
}

fn integers<T>(array: &PrimitiveArray<T>, each: &mut dyn FnMut(Option<&[u8]>))
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let mut buffer = [0u8; 40];
    for key in array.iter() {
        match key {
            Some(number) => each(Some(decimal(number.into(), &mut buffer))),
            None => each(None),
        }
    }
}

/// Hashes a column of keys, and adds those with white space around them to `padded`. Returns the hashes of those
/// that are not missing, and how many are.
pub(crate) fn hash_column(
    column: &ArrayRef,
    seed: HashSeed,
    padded: &mut u64,
) -> Result<(Vec<UserHash>, u64), LakeError> {
    let mut hashes = Vec::with_capacity(column.len());
    let mut null_keys = 0;
    for_each_key(column, &mut |key| match key {
        Some(bytes) => {
            *padded += u64::from(is_padded(bytes));
            hashes.push(UserHash::of_canonical(bytes, seed));
        }
        None => null_keys += 1,
    })?;
    Ok((hashes, null_keys))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BinaryArray, Int64Array, StringArray, StringViewArray, UInt64Array,
    };

    use super::*;

    fn keys(column: &ArrayRef) -> Result<Vec<Option<UserKey>>, LakeError> {
        let mut keys = Vec::with_capacity(column.len());
        for_each_key(column, &mut |key| {
            keys.push(key.map(|bytes| UserKey::text(String::from_utf8_lossy(bytes).into_owned())));
        })?;
        Ok(keys)
    }

    fn canonical(column: ArrayRef) -> Vec<Option<String>> {
        let keys = keys(&column).unwrap();
        keys.into_iter().map(|k| k.map(|k| k.as_str().to_owned())).collect()
    }

    #[test]
    fn integers_are_written_in_decimal() {
        let column = Int64Array::from(vec![Some(0), Some(-42), None, Some(i64::MIN)]);
        let expected = [Some("0"), Some("-42"), None, Some("-9223372036854775808")];
        assert_eq!(canonical(Arc::new(column)), expected.map(|k| k.map(str::to_owned)));
        let column = UInt64Array::from(vec![u64::MAX]);
        assert_eq!(canonical(Arc::new(column)), [Some("18446744073709551615".to_owned())]);
    }

    #[test]
    fn sixteen_bytes_are_a_uuid_and_others_are_hexadecimal() {
        let uuid = FixedSizeBinaryArray::try_from_iter([[0xAB; 16]].into_iter()).unwrap();
        let text = "abababab-abab-abab-abab-abababababab".to_owned();
        assert_eq!(canonical(Arc::new(uuid)), [Some(text)]);
        let bytes = BinaryArray::from_vec(vec![b"\x00\xff"]);
        assert_eq!(canonical(Arc::new(bytes)), [Some("00ff".to_owned())]);
    }

    #[test]
    fn an_empty_key_counts_as_none() {
        let texts = [Some(""), Some("a"), None, Some(" ")];
        let expected = [None, Some("a"), None, Some(" ")].map(|k| k.map(str::to_owned));
        assert_eq!(canonical(Arc::new(StringArray::from(texts.to_vec()))), expected);
        let column: ArrayRef = Arc::new(StringViewArray::from(texts.to_vec()));
        assert_eq!(canonical(Arc::clone(&column)), expected);
        assert_eq!(hash_column(&column, HashSeed(7), &mut 0).unwrap().1, 2);
        let column: ArrayRef =
            Arc::new(StringArray::from(vec!["NULL", "\\N", "nan", "Nan", "#N/A"]));
        assert_eq!(canonical(column), [None, None, None, Some("Nan".to_owned()), None]);
        let bytes = BinaryArray::from_vec(vec![&b""[..], &b"a"[..]]);
        assert_eq!(canonical(Arc::new(bytes)), [None, Some("61".to_owned())]);
    }

    #[test]
    fn floats_are_not_keys() {
        let error = kind_of("price", &DataType::Float64).unwrap_err();
        assert!(error.help().unwrap().contains("CAST(price AS VARCHAR)"));
    }
}
