//! Columns that have another type than when a version was made from them. A type is its text, such as `Int64` or
//! `Decimal128(18, 2)`. Pure.

use throng_files::{FileError, shown_name};

use crate::model::ColumnFacts;

/// Whether a column of a type cannot replace one of another type in a model: it is of another kind (number, text,
/// boolean, date, timestamp). `is_key`: keys have the text of its values, which must stay: `42` and `42.00` differ.
pub fn is_retyped(of: &str, before: &str, is_key: bool) -> bool {
    let rescaled = || decimals(of).zip(decimals(before)).is_some_and(|(of, before)| of != before);
    kind(of) != kind(before) || (is_key && rescaled())
}

/// The refusal of a column that [`is_retyped`]. `place`: the file, or the table.
pub fn refusal(before: &ColumnFacts, after: &ColumnFacts, place: &str) -> FileError {
    let name = shown_name(&before.name);
    let help = if is_retyped(&after.of, &before.of, false) {
        format!(
            "correct the file; or accept the change: declare the column's type in the source, such as `columns: {{ \
             {name}: text }}`"
        )
    } else {
        let earlier = match before.of.split_once('(') {
            Some((_, digits)) => format!("DECIMAL({digits}"),
            None => "BIGINT".to_owned(),
        };
        format!(
            "the keys would have another text, as `42` and `42.00` differ, and be other users: correct the file, or \
             write CAST({name} AS {earlier}) in the SQL; or accept other users: declare the column's type in the source"
        )
    };
    FileError::Table {
        message: format!(
            "column {name} is {} in {place}, and was {} when the served version was made",
            after.of, before.of
        ),
        help,
    }
}

/// The kind of a type.
fn kind(of: &str) -> &str {
    match of {
        _ if decimals(of).is_some() || of.starts_with("Float") => "number",
        _ if of.starts_with("Timestamp(") => "timestamp",
        other => other,
    }
}

/// The digits after the point with which every number of a type is written. Doubles have no fixed number of them.
fn decimals(of: &str) -> Option<i8> {
    let bits = of.strip_prefix('U').unwrap_or(of).strip_prefix("Int");
    if bits.is_some_and(|bits| bits.parse::<u8>().is_ok()) {
        return Some(0);
    }
    let (_, scale) = of.strip_prefix("Decimal")?.split_once(',')?;
    scale.trim_end_matches(')').trim().parse().ok().map(|scale: i8| scale.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_replace_each_other_except_with_another_text_in_keys() {
        for (a, b, replaced, replaced_in_keys) in [
            ("Int64", "Decimal128(18, 2)", true, false),
            ("Decimal128(18, 2)", "Decimal128(18, 3)", true, false),
            ("Decimal128(10, 2)", "Decimal256(40, 2)", true, true),
            ("Int64", "Decimal128(20, 0)", true, true),
            ("Int32", "UInt64", true, true),
            // `42` and `6.5` of a CSV file, in their shortest form.
            ("Int32", "Float64", true, true),
            ("Decimal128(18, 1)", "Float64", true, true),
            ("text", "Int64", false, false),
            ("text", "text", true, true),
            ("Timestamp(s)", "Timestamp(ns)", true, true),
            ("Date32", "text", false, false),
            ("Boolean", "text", false, false),
            ("Interval(DayTime)", "Int64", false, false),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert_eq!(!is_retyped(a, b, false), replaced, "{a} {b}");
                assert_eq!(!is_retyped(a, b, true), replaced_in_keys, "{a} {b} in keys");
            }
        }
    }

    #[test]
    fn the_hint_has_the_earlier_type() {
        let column = |of: &str| ColumnFacts {
            name: "id".to_owned(),
            of: of.to_owned(),
            declared: false,
            is_key: true,
        };
        for (before, after, hint) in [
            ("Int64", "Decimal128(18, 2)", "CAST(id AS BIGINT)"),
            ("Decimal128(18, 2)", "Int64", "CAST(id AS DECIMAL(18, 2))"),
            ("Int64", "text", "`columns: { id: text }`"),
        ] {
            let FileError::Table { message, help } =
                refusal(&column(before), &column(after), "t.parquet")
            else {
                panic!("another error");
            };
            assert!(message.contains(&format!("column id is {after} in t.parquet")), "{message}");
            assert!(help.contains(hint), "{help}");
        }
    }
}
