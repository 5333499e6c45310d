//! Texts that a program has damaged on their way: they are those of no person, and are refused by name. Pure.

/// A text that was read in another encoding than its own: `MÃ¼ller`, or signs in place of its letters.
pub(super) const WRONG_ENCODING: &str = "refused_wrong_encoding";
/// A letter is written as HTML, such as `&uuml;`.
pub(super) const HTML: &str = "refused_html_entity";
/// What a spreadsheet takes for a formula.
pub(super) const FORMULA: &str = "refused_spreadsheet_formula";

/// Why a name of a person or place is plainly damaged; `None` if it is not. `raw` is the text as it was read: a part of the
/// evidence is invisible.
pub(super) fn damage_of_name(raw: &str) -> Option<&'static str> {
    if is_wrongly_decoded(raw) || has_question_mark_in_word(raw) {
        return Some(WRONG_ENCODING);
    }
    has_html_entity(raw).then_some(HTML)
}

/// Whether a text was read in another encoding than its own: it has the sign of an undecodable byte (U+FFFD), or UTF-8
/// that was read as Windows-1252 or Latin-1. Only certain cases: `Å` and `Ã` are letters of names.
pub(super) fn is_wrongly_decoded(raw: &str) -> bool {
    if raw.is_ascii() {
        return false;
    }
    let chars: Vec<char> = raw.chars().collect();
    chars.contains(&'\u{fffd}') || (0..chars.len()).any(|at| is_utf8_as_single_bytes(&chars, at))
}

/// Whether the characters from `at` on are the bytes of one character in UTF-8, and no spelling of their own.
fn is_utf8_as_single_bytes(chars: &[char], at: usize) -> bool {
    let length = match single_byte(chars[at]) {
        // 0xdf is the letter ß.
        Some(0xc2..=0xde) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => return false,
    };
    let Some(sequence) = chars.get(at..at + length) else { return false };
    let bytes: Option<Vec<u8>> = sequence.iter().map(|c| single_byte(*c)).collect();
    if bytes.is_none_or(|bytes| std::str::from_utf8(&bytes).is_err()) {
        return false;
    }
    if !sequence[1..].iter().all(|c| follows_letters(*c)) {
        return true;
    }
    // Characters that also follow a letter in proper texts do so at the end of a word, and in front of a small letter of
    // names only after a particle such as `O’`.
    let is_after_small = at > 0 && chars[at - 1].is_lowercase();
    let is_first = at == 0 || !chars[at - 1].is_alphanumeric();
    let small_after = chars[at + length..].iter().take_while(|c| c.is_lowercase()).count();
    match length {
        // `Úštěk` begins so; of the letters that begin a pair, `Â` to `Å` are the bytes of most letters of Europe.
        2 => is_after_small || (is_first && small_after > 1 && !begins_words(sequence)),
        _ => small_after > 0,
    }
}

/// Whether a word can begin with a pair of letters, or with a particle such as `Ó’`.
fn begins_words(pair: &[char]) -> bool {
    let follows_first = |c: char| c.is_alphabetic() || c == '’';
    matches!(pair, [first, second] if follows_first(*second) && !('\u{c2}'..='\u{c5}').contains(first))
}

/// Characters between U+0080 and U+00BF, in Windows-1252, that follow letters in proper texts.
fn follows_letters(c: char) -> bool {
    c.is_alphabetic()
        || matches!(c, '\u{a0}' | '\u{ad}' | '\u{b0}' | '\u{b4}' | '\u{b7}')
        || matches!(c, '\u{ab}' | '\u{bb}' | '\u{2039}' | '\u{203a}' | '\u{2026}')
        || matches!(c, '\u{2013}' | '\u{2014}' | '\u{2018}'..='\u{201a}' | '\u{201c}'..='\u{201e}')
}

/// The byte of a character in Windows-1252, and in Latin-1 where Windows-1252 has none.
fn single_byte(c: char) -> Option<u8> {
    /// The characters of the bytes from 0x80 on.
    const WINDOWS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    u8::try_from(u32::from(c)).ok().or_else(|| {
        let at = WINDOWS.chars().position(|windows| windows == c)?;
        u8::try_from(0x80 + at).ok()
    })
}

/// A conversion that does not know a letter writes a question mark. No name has one between two letters.
fn has_question_mark_in_word(raw: &str) -> bool {
    let mut parts = raw.split('?');
    let mut before = parts.next().unwrap_or_default();
    parts.any(|after| {
        let is_between =
            before.ends_with(char::is_alphabetic) && after.starts_with(char::is_alphabetic);
        before = after;
        is_between
    })
}

/// Whether a text has a character as HTML: by name (`&uuml;`), or by number (`&#252;`, `&#xFC;`).
fn has_html_entity(raw: &str) -> bool {
    raw.split('&').skip(1).any(|rest| {
        let Some((name, _)) = rest.split_once(';') else { return false };
        let Some(number) = name.strip_prefix('#') else {
            return (2..=32).contains(&name.len())
                && name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|b| b.is_ascii_alphanumeric());
        };
        let (digits, radix) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_wrong_encoding_is_found() {
        for raw in [
            "M\u{fffd}ller",
            "MÃ¼ller",
            "MÃ¼LLER",
            "JosÃ©",
            "NuÃ±ez",
            // As Latin-1 the second byte is invisible, or a space.
            "MartÃ\u{ad}nez",
            "cittÃ\u{a0}",
            "Ã\u{96}zil",
            "Ã–zil",
            "Ãœnal",
            "KÃ¶ln",
            "JerÃ´nimo",
            "Å\u{81}ukasz",
            "SÃ¸ren",
            "Nguyá»…n",
            "Oâ€™Brien",
            "Oâ\u{80}\u{99}Brien",
            "Ð˜Ð²Ð°Ð½",
            "ä¸\u{ad}å›½",
            "ðŸ˜€",
            "ï¿½",
            "M?ller",
            "M??ller Gr?n",
        ] {
            assert_eq!(damage_of_name(raw), Some(WRONG_ENCODING), "{raw:?}");
        }
    }

    #[test]
    fn a_letter_as_html_is_found() {
        for raw in ["M&uuml;ller", "O&#39;Brien", "O&#x27;Brien", "Tom &amp; Ann", "&frac12;"] {
            assert_eq!(damage_of_name(raw), Some(HTML), "{raw}");
        }
    }

    #[test]
    fn names_of_all_scripts_are_not_damaged() {
        for raw in [
            "Müller",
            "Úštěk",
            "Úžice",
            "Íšek",
            "João",
            "IRMÃ",
            "IRMÃ\u{a0}MARIA",
            "IRMÃ–SILVA",
            "SEBASTIÃO",
            "Åsa",
            "Å",
            "Å’s",
            "ÅÄÖ",
            "Ñuñez",
            "D\u{b4}Arcy",
            "Mª José",
            "O’Brien",
            "Ó’brien",
            "René “le Roi”",
            "café’–",
            "«Olá»…",
            "Weiß–Groß",
            "Jean-François",
            "Đặng Thị Ánh",
            "Ólafur Þór Ægisson",
            "Ðorđe",
            "Łukasz",
            "Иван",
            "Σίσυφος",
            "中国",
            "ゆき",
            "عبد الله",
            "ก้อง",
            "Anna?",
            "Anna & Bob",
            "R&D",
            "&;",
            "&#;",
            "&#x;",
            "",
        ] {
            assert_eq!(damage_of_name(raw), None, "{raw:?}");
        }
    }
}
