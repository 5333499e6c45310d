//! Names of columns: masking them in errors, logs and listings, and comparing their spellings.
//! Pure.
//!
//! The first line of a CSV file that has no header, and the keys of JSON objects, can be values of
//! the data. A name that looks like personal data is masked wherever it is shown.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use crate::node::Step;

/// The fewest digits of a phone number.
const PHONE_DIGITS: usize = 7;
/// A run of digits that no name has; dates have eight.
const LONG_DIGITS: usize = 9;
/// Digits of the shortest hash in hexadecimal.
const HASH_DIGITS: usize = 32;
/// Replaces a masked name.
const MASK: &str = "…";

/// A name as it is shown.
pub fn shown_name(name: &str) -> Cow<'_, str> {
    if is_personal(name) { Cow::Borrowed(MASK) } else { Cow::Borrowed(name) }
}

/// The first character of a name that looks like a space or like nothing, such as `U+00A0`; `None` if it has only
/// spaces of ASCII.
///
/// ```
/// assert_eq!(throng_files::unusual_character("user\u{a0}id").as_deref(), Some("U+00A0"));
/// assert_eq!(throng_files::unusual_character("user id"), None);
/// ```
pub fn unusual_character(name: &str) -> Option<String> {
    let unusual = |c: &char| {
        (c.is_whitespace() && *c != ' ')
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
    };
    name.chars().find(unusual).map(|c| format!("U+{:04X}", u32::from(c)))
}

/// A field inside of a column as it is shown, such as `address.zip` or `orders[].total`.
pub fn shown_path(column: &str, path: &[Step]) -> String {
    let mut shown = shown_name(column).into_owned();
    for step in path {
        match step {
            Step::Field(name) => {
                shown.push('.');
                shown.push_str(&shown_name(name));
            }
            Step::Items => shown.push_str("[]"),
        }
    }
    shown
}

/// Whether a name must not be shown.
pub fn is_personal(name: &str) -> bool {
    let mut run = 0;
    let long = name.chars().any(|c| {
        run = if c.is_ascii_digit() { run + 1 } else { 0 };
        run >= LONG_DIGITS
    });
    long || personal(name).is_some()
}

/// The kind of a text that is an identifier of a person or a device as a whole.
pub(crate) fn personal(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let of_phone = |c: char| c.is_ascii_digit() || c.is_whitespace() || "+-()./".contains(c);
    let hex = |c: char| c.is_ascii_hexdigit();
    // `@timestamp` is a name.
    if text.find('@').is_some_and(|at| at > 0) {
        Some("an e-mail address")
    } else if is_uuid(text) {
        Some("a UUID")
    } else if text.len() >= HASH_DIGITS && digits > 0 && text.chars().all(hex) {
        Some("a hash")
    } else if digits >= PHONE_DIGITS && text.chars().all(of_phone) && !is_date(text) {
        Some("a phone number or another long number")
    } else {
        None
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `2026-11-25`, `11/25/2026` and similar dates: some tables have a column for each day.
fn is_date(text: &str) -> bool {
    ['-', '/', '.'].into_iter().any(|separator| {
        let parts: Vec<&str> = text.split(separator).collect();
        let &[first, month, last] = parts.as_slice() else { return false };
        let all_digits = parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let day = |part: &str| (1..=2).contains(&part.len());
        let year = |part: &str| part.len() == 4;
        all_digits && day(month) && ((year(first) && day(last)) || (day(first) && year(last)))
    })
}

/// Normalizes case, separators and composed accents of a name, so that spellings of one name are
/// equal. A separator between two digits is kept: `q1_1` and `q11` are two columns.
pub fn spelling(name: &str) -> String {
    let is_separator = |c: char| {
        c.is_whitespace()
            || matches!(c, '_' | '-' | '.' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
    };
    let mut spelling = String::with_capacity(name.len());
    let mut separated = false;
    for c in name.nfc() {
        if is_separator(c) {
            separated = true;
            continue;
        }
        if separated && c.is_numeric() && spelling.ends_with(char::is_numeric) {
            spelling.push('_');
        }
        separated = false;
        spelling.extend(c.to_lowercase());
    }
    spelling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_personal_data_are_masked() {
        for name in [
            "ann@example.com",
            "mailto:ann@example.com",
            "+49 (30) 123-4567",
            "555-123-4567",
            "15551234567",
            "id 15551234567",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "5e884898da28047151d0e56f8dc62927",
        ] {
            assert_eq!(shown_name(name), "…", "{name}");
        }
        for name in [
            "user_id",
            "@timestamp",
            "revenue_20261125",
            "2026-11-25",
            "11/25/2026",
            "25.11.2026",
            "2025",
            "q1_1",
            "sha256",
            "Größe",
            "",
        ] {
            assert_eq!(shown_name(name), name);
        }
    }

    #[test]
    fn paths_name_every_step() {
        let field = |name: &str| Step::Field(name.to_owned());
        assert_eq!(shown_path("address", &[]), "address");
        let path = [field("lines"), Step::Items, field("zip")];
        assert_eq!(shown_path("address", &path), "address.lines[].zip");
        assert_eq!(shown_path("by_user", &[field("ann@example.com"), field("n")]), "by_user.….n");
    }

    #[test]
    fn spellings_keep_separators_between_digits() {
        for (a, b, same) in [
            ("user_id", "userId", true),
            ("user_id", "User ID", true),
            ("user_id", "user\u{a0}id", true),
            ("user_id", "\u{feff}user-id", true),
            ("a_1", "a1", true),
            ("Gr\u{f6}\u{df}e", "gro\u{308}\u{df}e", true),
            ("q1_1", "q1-1", true),
            ("q1_1", "q11", false),
            ("v1.10", "v11.0", false),
            ("2026_01", "202601", false),
            ("user_id", "user", false),
        ] {
            assert_eq!(spelling(a) == spelling(b), same, "{a} {b}");
        }
    }
}
