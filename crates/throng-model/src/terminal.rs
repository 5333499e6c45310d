//! Text that a terminal shows.

/// Text for a terminal: control characters are escaped, also line breaks and tabs unless they are to be `kept`.
#[must_use]
pub fn printable(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() && !kept.contains(&character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// The lines of a text as one, without empty ones: `a; b`, or `a: b` behind a colon.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if shown.ends_with([':', ';']) {
            shown.push(' ');
        } else if !shown.is_empty() {
            shown.push_str("; ");
        }
        shown.push_str(part);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined() {
        let text = "errors:\n  a.yaml:3: no a\r\n\n  b.yaml:9: no b\n";
        assert_eq!(one_line(text), "errors: a.yaml:3: no a; b.yaml:9: no b");
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn line_breaks_and_tabs_of_a_line_are_kept() {
        let shown = printable("a\tb\nc\r\u{1b}[2J\u{9b}1m", &['\n', '\t']);
        assert_eq!(shown, "a\tb\nc\\r\\u{1b}[2J\\u{9b}1m");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\tb\u{1b}[2J\n", &[]), "a\\tb\\u{1b}[2J\\n");
        assert_eq!(printable("Zo\u{eb} 50%", &[]), "Zo\u{eb} 50%");
    }
}
