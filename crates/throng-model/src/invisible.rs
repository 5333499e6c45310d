//! Characters that are not white space and show nothing.

/// Characters that exports leave around texts and that show nothing: NUL, the soft hyphen, spaces and joiners without
/// width, marks of the direction of writing, and the byte order mark.
pub const INVISIBLE: [char; 30] = [
    '\0', '\u{ad}', '\u{61c}', '\u{180e}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}',
    '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}', '\u{2061}',
    '\u{2062}', '\u{2063}', '\u{2064}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{206a}',
    '\u{206b}', '\u{206c}', '\u{206d}', '\u{206e}', '\u{206f}', '\u{feff}',
];

/// The text without white space and [`INVISIBLE`] characters around it.
///
/// ```
/// use throng_model::trim_invisible;
///
/// assert_eq!(trim_invisible("\u{feff} 42\u{200b}\0"), "42");
/// assert_eq!(trim_invisible("4\u{200b}2"), "4\u{200b}2");
/// ```
pub fn trim_invisible(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

fn is_invisible(c: char) -> bool {
    // Decides it for most characters.
    (c == '\0' || c >= '\u{ad}') && INVISIBLE.contains(&c)
}

/// Whether a text has invisible characters, and besides them at most white space.
pub(crate) fn shows_nothing(text: &[u8]) -> bool {
    // One byte decides it for most texts.
    text.first().is_some_and(|byte| *byte <= b' ' || *byte >= 0x80)
        && std::str::from_utf8(text)
            .is_ok_and(|text| trim_invisible(text).is_empty() && text.contains(is_invisible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_not_white_space() {
        assert!(INVISIBLE.iter().all(|c| is_invisible(*c) && !c.is_whitespace()));
        assert!(!is_invisible('a') && !is_invisible('\u{e9}') && !is_invisible(' '));
    }
}
