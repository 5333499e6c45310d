//! The common type of a column that has several types in several files. Pure.

use datafusion::arrow::datatypes::DataType;

/// The type that represents every value of both types exactly and with the same text; `None` if
/// there is none. Integers and text become text, because an integer has exactly one text.
pub(super) fn widened(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float32, Float64, Null, Timestamp, Utf8View};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Utf8View, n) | (n, Utf8View) if n.is_integer() => Some(Utf8View),
        (m, n) if m.is_integer() && n.is_integer() => integers(m, n),
        (Float32, Float64) | (Float64, Float32) => Some(Float64),
        (Float64, n) | (n, Float64) if bits(n).is_some_and(|(bits, _)| bits <= 32) => Some(Float64),
        (Float32, n) | (n, Float32) if bits(n).is_some_and(|(bits, _)| bits <= 16) => Some(Float32),
        (Decimal128(p, s), Decimal128(q, t)) => decimals((*p, *s), (*q, *t)),
        (Decimal128(p, s), n) | (n, Decimal128(p, s)) if n.is_integer() => {
            decimals((*p, *s), (digits(n)?, 0))
        }
        (Timestamp(u, zone), Timestamp(v, other)) if zone == other => {
            // Units are ordered from seconds to nanoseconds.
            Some(Timestamp((*u).max(*v), zone.clone()))
        }
        _ => None,
    }
}

/// Bits and whether there is a sign.
fn bits(of: &DataType) -> Option<(u8, bool)> {
    Some(match of {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::Int64 => (64, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => return None,
    })
}

/// Digits of the longest number.
fn digits(of: &DataType) -> Option<u8> {
    Some(match bits(of)?.0 {
        8 => 3,
        16 => 5,
        32 => 10,
        _ => 20,
    })
}

fn integers(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((m, m_signed), (n, n_signed)) = (bits(a)?, bits(b)?);
    let needed = match (m_signed, n_signed) {
        (true, true) | (false, false) => m.max(n),
        (true, false) => m.max(n.checked_mul(2)?),
        (false, true) => n.max(m.checked_mul(2)?),
    };
    Some(match (needed, m_signed || n_signed) {
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        _ => return None,
    })
}

fn decimals((p, s): (u8, i8), (q, t): (u8, i8)) -> Option<DataType> {
    let scale = s.max(t);
    let whole = |p: u8, s: i8| i16::from(p) - i16::from(s);
    let digits = u8::try_from(whole(p, s).max(whole(q, t)) + i16::from(scale)).ok()?;
    (digits <= 38).then_some(DataType::Decimal128(digits, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_type_represents_every_value() {
        for (a, b, wider) in [
            ("Int32", "Int64", Some("Int64")),
            ("UInt32", "Int32", Some("Int64")),
            ("UInt64", "Int64", None),
            ("UInt8", "UInt64", Some("UInt64")),
            ("Float32", "Float64", Some("Float64")),
            ("Int32", "Float64", Some("Float64")),
            ("Int64", "Float64", None),
            ("Utf8View", "Int64", Some("Utf8View")),
            ("Utf8View", "Float64", None),
            ("Utf8View", "Boolean", None),
            ("Utf8View", "Date32", None),
            ("Decimal128(10, 2)", "Decimal128(12, 4)", Some("Decimal128(12, 4)")),
            ("Decimal128(38, 2)", "Decimal128(38, 4)", None),
            ("Decimal128(10, 2)", "Int32", Some("Decimal128(12, 2)")),
            ("Timestamp(s)", "Timestamp(µs)", Some("Timestamp(µs)")),
            ("Timestamp(s)", "Date32", None),
            ("Null", "Boolean", Some("Boolean")),
        ] {
            let of = |text: &str| text.parse::<DataType>().unwrap();
            let found = widened(&of(a), &of(b));
            assert_eq!(found, wider.map(of), "{a} {b}");
            assert_eq!(found, widened(&of(b), &of(a)), "{a} {b}");
        }
    }
}
