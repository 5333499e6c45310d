//! Texts that exports write where a value is missing.

use crate::invisible::shows_nothing;

/// Defines [`MISSING_VALUES`] and a comparison with them that needs no loop.
macro_rules! missing_values {
    ($($text:literal),+ $(,)?) => {
        /// What exports write where a value is missing, besides nothing: see [`is_missing_value`].
        pub const MISSING_VALUES: &[&[u8]] = &[$($text),+];

        fn is_listed(text: &[u8]) -> bool {
            matches!(text, $($text)|+)
        }
    };
}

missing_values! {
    b"-", b"NULL", b"null", b"(null)", b"<null>", b"[NULL]", b"\\N", b"None", b"nan",
    b"NaN", b"NaT", b"<NA>", b"n/a", b"N/A", b"undefined",
    b"#N/A", b"#NULL!", b"#REF!", b"#VALUE!", b"#NAME?", b"#NUM!", b"#DIV/0!",
}

/// Whether a text stands for a missing value: it is empty, or exactly what exports write for one. MySQL and database
/// tools write `NULL` and `(null)`, `COPY` of PostgreSQL `\N`, pandas and NumPy `nan`, `NaN`, `NaT` and `<NA>`, Python
/// `None`, JavaScript `null` and `undefined`, spreadsheets `#N/A` and their errors, and logs `-`. So does a text of
/// [`INVISIBLE`](crate::INVISIBLE) characters and white space. As a key it would be one user in place of all users
/// without one.
///
/// Other spellings, such as the names `Null` and `Nan`, are values. So is `NA`, which is a country and a name too.
///
/// ```
/// use throng_model::is_missing_value;
///
/// assert!(is_missing_value(b"") && is_missing_value(b"NULL") && is_missing_value(b"\\N"));
/// assert!(!is_missing_value(b"Null") && !is_missing_value(b" NULL") && !is_missing_value(b"NA"));
/// ```
pub fn is_missing_value(text: &[u8]) -> bool {
    text.is_empty() || is_listed(text) || shows_nothing(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_texts_are_missing_values() {
        assert!(MISSING_VALUES.iter().all(|text| is_missing_value(text)));
        for text in
            ["", "NULL", "null", "\\N", "None", "nan", "NaN", "<NA>", "#N/A", "undefined", "-"]
        {
            assert!(is_missing_value(text.as_bytes()), "{text}");
            if !text.is_empty() {
                assert!(!is_missing_value(format!("{text} ").as_bytes()), "{text} and a space");
            }
        }
        for text in
            ["Null", "Nan", "none", "NONE", "NA", "0", "--", "N", "nann", "\\N\\N", "Undefined"]
        {
            assert!(!is_missing_value(text.as_bytes()), "{text}");
        }
        for text in ["\u{200b}", "\0", "\0\0", "\u{feff}\u{200e}", " \u{ad}\u{a0}"] {
            assert!(is_missing_value(text.as_bytes()), "{text:?}");
        }
        for text in [" ", "\u{a0}", "\t", "\u{200b}1", "1\u{200b}", "\u{200b}NULL", "\u{e9}"] {
            assert!(!is_missing_value(text.as_bytes()), "{text:?}");
        }
    }
}
