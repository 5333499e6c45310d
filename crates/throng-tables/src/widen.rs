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
        // With another scale a number has another text: `42` would be `42.00`.
        (Decimal128(p, s), Decimal128(q, t)) if s == t => Some(Decimal128(*p.max(q), *s)),
        (Decimal128(p, 0), n) | (n, Decimal128(p, 0)) if n.is_integer() => {
            Some(Decimal128(digits(n)?.max(*p), 0))
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

/// Whether a declared type represents every value of a type exactly. A declared decimal may have a larger scale: who
/// declares it chooses the text.
pub(super) fn represents(declared: &DataType, of: &DataType) -> bool {
    let whole = |p: u8, s: i8| i16::from(p) - i16::from(s);
    match (declared, of) {
        (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
            s >= t && whole(*p, *s) >= whole(*q, *t)
        }
        (DataType::Decimal128(p, s), n) if n.is_integer() => {
            digits(n).is_some_and(|digits| whole(*p, *s) >= i16::from(digits))
        }
        _ => widened(declared, of).as_ref() == Some(declared),
    }
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
            ("Decimal128(10, 2)", "Decimal128(12, 2)", Some("Decimal128(12, 2)")),
            ("Decimal128(10, 2)", "Decimal128(12, 4)", None),
            ("Decimal128(10, 2)", "Int32", None),
            ("Decimal128(12, 0)", "Int32", Some("Decimal128(12, 0)")),
            ("Decimal128(12, 0)", "Int64", Some("Decimal128(20, 0)")),
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

    #[test]
    fn a_declared_decimal_represents_numbers_of_fewer_digits() {
        for (declared, of, expected) in [
            ("Decimal128(12, 2)", "Int32", true),
            ("Decimal128(11, 2)", "Int32", false),
            ("Decimal128(12, 2)", "Decimal128(10, 2)", true),
            ("Decimal128(12, 4)", "Decimal128(10, 2)", true),
            ("Decimal128(11, 4)", "Decimal128(10, 2)", false),
            ("Decimal128(12, 2)", "Decimal128(10, 4)", false),
            ("Decimal128(12, 2)", "Utf8View", false),
            ("Utf8View", "Int64", true),
            ("Utf8View", "Decimal128(10, 2)", false),
            ("Int64", "Int32", true),
            ("Int64", "Decimal128(10, 0)", false),
        ] {
            let type_of = |text: &str| text.parse::<DataType>().unwrap();
            assert_eq!(represents(&type_of(declared), &type_of(of)), expected, "{declared} {of}");
        }
    }
}
