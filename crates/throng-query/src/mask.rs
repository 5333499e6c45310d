//! Masks values of the data in errors of a running query, which are shown in the ledger, on pages
//! and to receivers of alerts.

use throng_files::is_personal;

/// Words after which quotes hold a name of the spec or of a file, not a value.
const NAMES: [&str; 6] = ["column", "field", "type", "function", "table", "file"];

/// The text with every value masked: what is in quotes, unless it is a name, and every number
/// outside of parentheses (`Decimal128(32, 2)` stays). It rather masks too much than too little: an
/// engine puts the value that it cannot convert into its error.
pub fn without_values(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut depth = 0u32;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let in_word = masked.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match c {
            // An apostrophe in a word does not start a quotation.
            '\'' | '"' | '`' if !in_word => {
                let name = NAMES.iter().any(|word| masked.trim_end().ends_with(word));
                // A value can contain quotes itself: it ends at the first one that no letter or
                // digit follows.
                let end = end_of_quote(after, c);
                let inside = &after[..end];
                masked.push(c);
                masked.push_str(if name && !is_personal(inside) { inside } else { "…" });
                rest = &after[end..];
                if let Some(closed) = rest.strip_prefix(c) {
                    masked.push(c);
                    rest = closed;
                }
                continue;
            }
            '0'..='9' if depth == 0 && !in_word => {
                masked.push('…');
                rest = after
                    .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | 'e'));
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        masked.push(c);
        rest = after;
    }
    masked
}

/// Where a quotation ends: at the first quote that no letter or digit follows, or at the end.
fn end_of_quote(text: &str, quote: char) -> usize {
    text.match_indices(quote)
        .find(|(at, _)| !text[at + quote.len_utf8()..].starts_with(|c: char| c.is_alphanumeric()))
        .map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn values_are_masked_and_names_are_kept() {
        for (text, masked) in [
            (
                "Cast error: Cannot cast string 'ann@example.com' to value of Int32 type",
                "Cast error: Cannot cast string '…' to value of Int32 type",
            ),
            (
                "Json error: whilst decoding field 'n': failed to parse \"+4912345\" as Int64",
                "Json error: whilst decoding field 'n': failed to parse \"…\" as Int64",
            ),
            (
                "Arithmetic overflow: Overflow happened on: 9223372036854775807 * 2.5",
                "Arithmetic overflow: Overflow happened on: … * …",
            ),
            (
                "Invalid comparison operation: Decimal128(32, 2) >= Decimal128(22, 2)",
                "Invalid comparison operation: Decimal128(32, 2) >= Decimal128(22, 2)",
            ),
            ("cannot parse 'O'Brien' as a date", "cannot parse '…' as a date"),
            (
                "Json error: whilst decoding field 'ann@example.com': expected a number",
                "Json error: whilst decoding field '…': expected a number",
            ),
            ("it can't cast value 42", "it can't cast value …"),
            ("cannot parse 'ann@example.com", "cannot parse '…"),
            ("the column `amount` is not a number", "the column `amount` is not a number"),
            ("Row data: '[ann, 1]' in line 7", "Row data: '…' in line …"),
            ("", ""),
        ] {
            assert_eq!(without_values(text), masked, "{text}");
        }
    }
}
