//! E-mail addresses, names and the parts of a birth date in the platform's form. Pure.

use std::borrow::Cow;

use throng_model::is_missing_value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::damage::{FORMULA, WRONG_ENCODING, is_wrongly_decoded};
use crate::platform::LATEST_YEAR;

pub(super) const INVISIBLE: &str = "invisible_characters_removed";
pub(super) const COMPOSED: &str = "composed_to_unicode_nfc";
pub(super) const WIDTH: &str = "full_width_letters_replaced";
pub(super) const SHAPES: &str = "presentation_forms_replaced";
pub(super) const MAILTO: &str = "mailto_removed";
pub(super) const DISPLAY_NAME: &str = "display_name_removed";
pub(super) const PUNCTUATION: &str = "outer_punctuation_removed";
pub(super) const DECIMAL: &str = "decimal_zero_removed";
pub(super) const DATE_PART: &str = "part_of_a_date_taken";
pub(super) const MONTH_NAME: &str = "month_name_replaced";
/// The cell has a text that exports write where a value is missing.
pub(super) const MISSING: &str = "missing_value";
pub(super) const REFUSED: &str = "refused_invalid";
pub(super) const SEVERAL: &str = "refused_several_values";
/// Nobody is born in the future.
pub(super) const FUTURE: &str = "refused_year_in_the_future";
/// The hash of such a text is that of no address.
pub(super) const ENCODED: &str = "refused_percent_encoded";

/// Invisible characters: format controls, soft hyphens, byte order marks, variation selectors, controls. The
/// joiners U+200C and U+200D are part of words in some scripts.
fn is_invisible(c: char, keep_joiners: bool) -> bool {
    match c {
        '\u{200c}' | '\u{200d}' => !keep_joiners,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => {
            true
        }
        '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' => true,
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control() && !c.is_whitespace(),
    }
}

/// The text without invisible characters and outer spaces, in Unicode NFC. `joins`: joiners between letters
/// of other scripts are part of the spelling.
pub(super) fn clean<'a>(raw: &'a str, joins: bool, notes: &mut Vec<&'static str>) -> Cow<'a, str> {
    let trimmed = raw.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if trimmed.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Cow::Borrowed(trimmed);
    }
    let joins = joins && trimmed.chars().any(|c| c > '\u{5ff}' && c.is_alphabetic());
    let visible: String = trimmed.chars().filter(|c| !is_invisible(*c, joins)).collect();
    if visible.len() != trimmed.len() {
        notes.push(INVISIBLE);
    }
    let composed: String = visible.nfc().collect();
    if composed != visible {
        notes.push(COMPOSED);
    }
    Cow::Owned(composed.trim().to_owned())
}

/// Whether a text stands for a missing value in a column of identifiers: one that is missing as a key, other
/// spellings of "not available" with signs, such as `N.A.` and `(n/a)`, and two letters with a slash, such as `s/d`.
/// `NA` without signs is Namibia, a province and a name.
pub(super) fn is_missing(text: &str) -> bool {
    /// Longer texts are values.
    const MOST: usize = 16;
    if text.len() > MOST {
        return false;
    }
    let bare = text.trim_matches(['"', '\'']).trim();
    if is_missing_value(bare.as_bytes()) || bare.eq_ignore_ascii_case("unknown") {
        return true;
    }
    let is_with_slash = matches!(bare.as_bytes(), [a, b'/', b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic());
    let has_sign = bare.chars().any(|c| !c.is_alphanumeric() && !c.is_whitespace());
    let has_digit = bare.chars().any(char::is_numeric);
    is_with_slash || (has_sign && !has_digit && letters(bare) == "na")
}

/// The dots of other scripts, which separate the labels of a domain as `.` does (UTS 46).
const DOTS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// Punctuation and symbols of all scripts but ASCII: neither letters, digits nor marks of letters.
fn is_sign(c: char) -> bool {
    !(c.is_ascii() || c.is_alphanumeric() || is_combining_mark(c))
}

/// What the label of a domain may have. Some signs are a part of words (RFC 5892, appendix A).
fn is_of_label(c: char) -> bool {
    let is_in_words = matches!(c, '\u{b7}' | '\u{375}' | '\u{5f3}' | '\u{5f4}' | '\u{30fb}');
    c == '-' || is_in_words || if c.is_ascii() { c.is_ascii_alphanumeric() } else { !is_sign(c) }
}

/// What separates two addresses in one cell.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || ";,|/".contains(c)
}

fn is_several(text: &str) -> bool {
    text.matches('@').count() > 1 && text.contains(is_separator)
}

/// Whether a text has a byte in percent-encoding, such as `%40` for `@`.
fn has_percent_code(text: &str) -> bool {
    let is_code = |three: &[u8]| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit);
    text.as_bytes().windows(3).any(is_code)
}

/// The text of a percent-encoded one; `None` if it is none.
fn percent_decoded(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let ([high, low], after) = rest.split_first_chunk::<2>()?;
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Whether a text is an address or has one among others, also in percent-encoding.
pub(super) fn has_address(text: &str) -> bool {
    if text.is_ascii() && !text.contains(['@', '%']) {
        return false;
    }
    let decoded = percent_decoded(text);
    let text = decoded.as_deref().unwrap_or(text);
    text.split(is_separator).chain([text]).any(|part| email(part, &mut Vec::new()).is_ok())
}

/// Whether a text is plainly an address, although not a valid one: `ann @ example.com`, `ann(at)example.com`. Digits
/// before a name without a dot are a number of a tenant or shop, such as `10045@store12`.
pub(super) fn has_loose_address(text: &str) -> bool {
    if text.is_ascii() && !text.contains(['@', '(', '[', '{']) {
        return false;
    }
    let narrow: String = text.nfkc().filter(|c| !c.is_whitespace()).collect();
    let mut signed = narrow.to_lowercase();
    for at in ["(at)", "[at]", "{at}"] {
        signed = signed.replace(at, "@");
    }
    let is_name = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    let parts: Vec<&str> = signed.split('@').collect();
    parts.windows(2).any(|two| {
        let name = two[0].rsplit(|c: char| !is_name(c)).next().unwrap_or_default();
        let has_letter = name.contains(char::is_alphabetic);
        let is_of_address = has_letter || (!name.is_empty() && two[1].contains('.'));
        is_of_address && two[1].starts_with(char::is_alphabetic)
    })
}

/// An address in lower case: without `mailto:`, a display name, and surrounding quotes and punctuation.
pub(super) fn email(raw: &str, notes: &mut Vec<&'static str>) -> Result<String, &'static str> {
    let mut text = Cow::Borrowed(raw);
    if text.chars().any(|c| ('\u{ff01}'..='\u{ff5e}').contains(&c)) {
        let narrow: String = text.nfkc().collect();
        notes.push(WIDTH);
        text = Cow::Owned(narrow);
    }
    if text.contains(DOTS) {
        if !notes.contains(&WIDTH) {
            notes.push(WIDTH);
        }
        text = Cow::Owned(text.replace(DOTS, "."));
    }
    let mut text = text.to_lowercase();
    if is_several(&text) {
        return Err(SEVERAL);
    }
    if let (Some(open), true) = (text.rfind('<'), text.ends_with('>')) {
        text = text[open + 1..text.len() - 1].to_owned();
        notes.push(DISPLAY_NAME);
    }
    if let Some(rest) = text.strip_prefix("mailto:") {
        // A link may have parameters, and its address may be percent-encoded (RFC 6068).
        let decoded = percent_decoded(rest.split('?').next().unwrap_or_default());
        text = clean(&decoded.ok_or(ENCODED)?, false, notes).to_lowercase();
        notes.push(MAILTO);
        if is_several(&text) {
            return Err(SEVERAL);
        }
    }
    let outer = |c: char| c.is_whitespace() || is_sign(c) || "\"'<>()[],;:".contains(c);
    let bare = text.trim_start_matches(outer);
    let bare = bare.trim_end_matches(|c| outer(c) || ".!?".contains(c));
    if bare.len() != text.len() {
        notes.push(PUNCTUATION);
    }
    if has_percent_code(bare) {
        return Err(ENCODED);
    }
    if bare.starts_with('=') {
        return Err(FORMULA);
    }
    // Of the address alone: the display name is not sent.
    if is_wrongly_decoded(raw.rsplit('<').next().unwrap_or(raw)) {
        return Err(WRONG_ENCODING);
    }
    let (name, domain) = bare.split_once('@').ok_or(REFUSED)?;
    let is_forbidden = |c: char| c.is_whitespace() || "@\"(),:;<>[]\\".contains(c);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(is_of_label)
    };
    let has_misplaced_dots = |t: &str| t.starts_with('.') || t.ends_with('.') || t.contains("..");
    let last = domain.rsplit('.').next().unwrap_or_default();
    let is_valid = (1..=64).contains(&name.len())
        && bare.len() <= 254
        && !name.contains(is_forbidden)
        && !has_misplaced_dots(name)
        && domain.contains('.')
        && domain.split('.').all(label)
        && last.chars().count() >= 2
        && !last.bytes().all(|b| b.is_ascii_digit());
    if is_valid { Ok(bare.to_owned()) } else { Err(REFUSED) }
}

/// A text with the usual letters and digits in place of their presentation forms (Unicode NFKC): ligatures such as `ﬁ`,
/// forms of Arabic letters in a word, full-width letters and digits, letters of mathematics. Other characters stay: NFKC
/// would change the spelling of Thai words, and take apart the accents that stand for apostrophes.
pub(super) fn without_presentation_forms<'a>(
    text: &'a str,
    notes: &mut Vec<&'static str>,
) -> Cow<'a, str> {
    let is_form = |c: char| {
        matches!(c, '\u{fb00}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}' | '\u{ff01}'..='\u{ffee}')
            || ('\u{1d400}'..='\u{1d7ff}').contains(&c)
    };
    if !text.contains(is_form) {
        return Cow::Borrowed(text);
    }
    notes.push(SHAPES);
    let mut usual = String::with_capacity(text.len());
    for c in text.chars() {
        if is_form(c) {
            usual.extend(std::iter::once(c).nfkc());
        } else {
            usual.push(c);
        }
    }
    // A mark of voicing is a character of its own beside a half-width letter.
    Cow::Owned(usual.nfc().collect())
}

/// Lower case without spaces, digits, punctuation and symbols; letters of every script stay. Empty without a letter.
pub(super) fn letters(raw: &str) -> String {
    // The text as a whole: a capital sigma has another small letter at the end of a word.
    let lower = raw.to_lowercase();
    if !lower.contains(char::is_alphabetic) {
        return String::new();
    }
    // Marks and joiners of scripts such as Devanagari are neither letters to `char` nor ASCII punctuation:
    // they are kept.
    lower
        .chars()
        .filter(|c| {
            let is_other = c.is_ascii() || c.is_whitespace() || c.is_numeric();
            c.is_alphabetic() || !(is_other || is_punctuation(*c) || is_symbol(*c))
        })
        .nfc()
        .collect()
}

/// A person's name.
pub(super) fn person(raw: &str) -> String {
    letters(raw)
}

/// Arrows, dingbats, emoji and the like.
fn is_symbol(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{a1}'..='\u{bf}' | '\u{2010}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}')
}

/// A part of a birth date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    Month,
    Day,
}

/// An export of numbers with missing values writes 1990 as 1990.0.
pub(super) fn without_decimal_zero<'a>(raw: &'a str, notes: &mut Vec<&'static str>) -> &'a str {
    let zeros = |t: &str| !t.is_empty() && t.bytes().all(|b| b == b'0');
    match raw.split_once('.') {
        Some((whole, rest)) if zeros(rest) && rest.len() <= 2 => {
            notes.push(DECIMAL);
            whole
        }
        _ => raw,
    }
}

/// Year, month and day of a text that begins with a date in the form of ISO 8601. `Err` if there is no such day, such as
/// `1900-01-00`, which spreadsheets write for an empty cell.
fn iso_date(raw: &str) -> Option<Result<[u32; 3], &'static str>> {
    let (date, rest) = raw.as_bytes().split_first_chunk::<10>()?;
    let is_date = date.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if !is_date || rest.first().is_some_and(|b| !b"T ".contains(b)) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let [year, month, day] = [number(&date[..4]), number(&date[5..7]), number(&date[8..])];
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 0,
    };
    Some(if (1..=days).contains(&day) { Ok([year, month, day]) } else { Err(REFUSED) })
}

/// Year, month or day: a number, a number with `.0`, the part of an ISO date, or an English name of a
/// month. `this_year`: later years are refused.
pub(super) fn number(
    raw: &str,
    part: Part,
    this_year: u32,
    notes: &mut Vec<&'static str>,
) -> Result<u32, &'static str> {
    let is_valid = |number: u32| match part {
        Part::Year if (1900..=this_year).contains(&number) => Ok(number),
        Part::Year if (1900..=LATEST_YEAR).contains(&number) => Err(FUTURE),
        Part::Month if (1..=12).contains(&number) => Ok(number),
        Part::Day if (1..=31).contains(&number) => Ok(number),
        Part::Year | Part::Month | Part::Day => Err(REFUSED),
    };
    if let Some(date) = iso_date(raw) {
        let [year, month, day] = date?;
        notes.push(DATE_PART);
        return is_valid(match part {
            Part::Year => year,
            Part::Month => month,
            Part::Day => day,
        });
    }
    let text = without_decimal_zero(raw, notes);
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(number) = digits.then(|| text.parse::<u32>().ok()).flatten() {
        return is_valid(number);
    }
    if part == Part::Month { month_of_name(text, notes).ok_or(REFUSED) } else { Err(REFUSED) }
}

/// The number of a month by its English name, also cut to three letters.
fn month_of_name(text: &str, notes: &mut Vec<&'static str>) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let name = text.trim_end_matches('.').to_lowercase();
    let fits = |month: &&str| **month == name || (name.len() == 3 && month.starts_with(&name));
    let at =
        MONTHS.iter().position(|month| fits(month) || (name == "sept" && *month == "september"))?;
    notes.push(MONTH_NAME);
    u32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_out_of_what_encloses_it_or_refused() {
        for (raw, bare) in [
            ("mailto:anna%40example.com", Ok("anna@example.com")),
            ("MAILTO:Anna%40Example.com?subject=x%20y&cc=b@example.com", Ok("anna@example.com")),
            ("Anna <mailto:%41nna%2Bnews%40example.com>", Ok("anna+news@example.com")),
            ("mailto:anna@example.com?subject=x", Ok("anna@example.com")),
            ("mailto:ann%C3%A9@example.com%20", Ok("ann\u{e9}@example.com")),
            ("mailto:100%25@example.com", Ok("100%@example.com")),
            ("<anna@example.com>", Ok("anna@example.com")),
            ("Anna <anna@example.com>", Ok("anna@example.com")),
            ("\"anna@example.com\"", Ok("anna@example.com")),
            // Encoded twice, no encoding, no UTF-8, and an encoded address without `mailto:`.
            ("mailto:anna%2540example.com", Err(ENCODED)),
            ("mailto:anna%4@example.com", Err(ENCODED)),
            ("mailto:anna%ff@example.com", Err(ENCODED)),
            ("anna%40example.com", Err(ENCODED)),
            ("anna%2Bnews@example.com", Err(ENCODED)),
            ("a@x.com;b@y.com", Err(SEVERAL)),
            ("a@x.com\nb@y.com", Err(SEVERAL)),
            ("Anna <a@x.com>, Bob <b@y.com>", Err(SEVERAL)),
            ("mailto:a%40x.com,b%40y.com", Err(SEVERAL)),
        ] {
            assert_eq!(email(raw, &mut Vec::new()), bare.map(str::to_owned), "{raw}");
        }
    }

    #[test]
    fn an_address_is_found_in_a_text() {
        for raw in ["a@x.com", "7 a@x.com", "a%40x.com", "a@x.com;b@y.com", "a\u{ff20}x.com"] {
            assert!(has_address(raw), "{raw}");
        }
        for raw in ["Cust-7", "100%", "user@7", "a/b|c", "%40", "\u{e9}7"] {
            assert!(!has_address(raw), "{raw}");
        }
    }

    #[test]
    fn dots_and_punctuation_of_other_scripts_are_no_part_of_an_address() {
        let address = |raw| email(raw, &mut Vec::new());
        for (raw, bare) in [
            ("a68@EXAMPLE.com\u{3002}", "a68@example.com"),
            ("a68@example\u{3002}com", "a68@example.com"),
            ("a68@example\u{ff0e}com\u{ff61}", "a68@example.com"),
            ("\u{201c}a68@example.com\u{201d}.", "a68@example.com"),
            ("a68@example.com\u{3001}", "a68@example.com"),
            ("a68@example.com\u{61f}", "a68@example.com"),
            ("a68@example.com!", "a68@example.com"),
            // Letters with marks, and the sign that is a part of Catalan words.
            ("a68@\u{9a8}\u{9be}\u{9ae}.com", "a68@\u{9a8}\u{9be}\u{9ae}.com"),
            ("a68@goril\u{b7}la.cat", "a68@goril\u{b7}la.cat"),
            ("a68@x.\u{b87}\u{ba8}\u{bcd}", "a68@x.\u{b87}\u{ba8}\u{bcd}"),
        ] {
            assert_eq!(address(raw).as_deref(), Ok(bare), "{raw}");
        }
        for raw in ["a68@exa\u{2764}mple.com", "a68@exa\u{3001}mple.com", "a68@exa_mple.com"] {
            assert_eq!(address(raw), Err(REFUSED), "{raw}");
        }
    }
}
