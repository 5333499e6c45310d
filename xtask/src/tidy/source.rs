//! Rust sources as text: without comments and literals, and the ranges of test code. Not a parser: it
//! expects the output of rustfmt. Pure.

use std::ops::Range;

/// The text with comments and literals replaced by spaces. Offsets and lines stay the same.
pub(super) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let length = blank_length(bytes, at);
        for byte in code.iter_mut().skip(at).take(length) {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    // Only complete characters were replaced, so this is valid UTF-8.
    String::from_utf8_lossy(&code).into_owned()
}

/// The length of the comment or literal at this position; 0 if none begins here.
fn blank_length(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        block_comment(rest)
    } else if let Some(hashes) = raw_string_hashes(bytes, at) {
        raw_string(rest, hashes)
    } else if rest[0] == b'"' {
        string(rest)
    } else if rest[0] == b'\'' {
        character(rest)
    } else {
        0
    }
}

/// The length of a block comment. Block comments are nested.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (1, 2);
    while at < rest.len() && depth > 0 {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
    }
    at.min(rest.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// If `at` is the `r` of a raw string: the number of `#` around it.
fn raw_string_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'r' {
        return None;
    }
    let before = |back: usize| at.checked_sub(back).map(|index| bytes[index]);
    let is_prefixed = matches!(before(1), Some(b'b' | b'c')) && !before(2).is_some_and(is_word);
    if before(1).is_some_and(is_word) && !is_prefixed {
        return None;
    }
    let rest = &bytes[at + 1..];
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    let begin = hashes + 2;
    let ends = |at: &usize| {
        let after = &rest[at + 1..];
        rest[*at] == b'"' && after.len() >= hashes && after[..hashes].iter().all(|b| *b == b'#')
    };
    (begin..rest.len()).find(ends).map_or(rest.len(), |at| at + 1 + hashes)
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// 0 for a lifetime or a label.
fn character(rest: &[u8]) -> usize {
    let Some(first) = rest.get(1) else { return 0 };
    if *first == b'\\' {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(rest.len(), |index| index + 4);
    }
    let width = match *first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// A word, `::`, or any other character of code, with its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Token<'_> {
    pub(super) fn is_word(&self) -> bool {
        self.text.bytes().all(is_word)
    }
}

/// The tokens of code without comments and literals.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let word = rest.bytes().take_while(|byte| is_word(*byte)).count();
        let length = match rest.as_bytes() {
            _ if word > 0 => word,
            [b':', b':', ..] => 2,
            _ => 1,
        };
        if !rest.starts_with(|c: char| c.is_whitespace()) {
            tokens.push(Token { text: &rest[..length], at });
        }
        at += length;
    }
    tokens
}

/// The index after the bracket that closes the one at `open`.
pub(super) fn after_closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth -= 1;
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The test code of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TestItems {
    /// Offsets in the text.
    pub(super) ranges: Vec<Range<usize>>,
    /// Modules in files of their own.
    pub(super) modules: Vec<String>,
}

/// Finds the items with `#[cfg(test)]`, or with the features `conformance` and `fuzzing`.
pub(super) fn test_items(text: &str, tokens: &[Token<'_>]) -> TestItems {
    let mut found = TestItems::default();
    let mut index = 0;
    while index < tokens.len() {
        if !is_attribute(tokens, index) {
            index += 1;
            continue;
        }
        let end = after_closing(tokens, index + 1);
        if !is_test_attribute(&text[tokens[index].at..end_before(tokens, end)]) {
            index = end;
            continue;
        }
        let mut item = end;
        while is_attribute(tokens, item) {
            item = after_closing(tokens, item + 1);
        }
        let after = after_item(tokens, item);
        let words = &tokens[item..after];
        if words.last().is_some_and(|token| token.text == ";")
            && let Some(module) = words.iter().position(|token| token.text == "mod")
            && let Some(name) = words.get(module + 1)
        {
            found.modules.push(name.text.to_owned());
        }
        found.ranges.push(tokens[index].at..end_before(tokens, after));
        index = after.max(index + 1);
    }
    found
}

/// The offset after the token before this index.
fn end_before(tokens: &[Token<'_>], index: usize) -> usize {
    index.checked_sub(1).and_then(|last| tokens.get(last)).map_or(0, |t| t.at + t.text.len())
}

fn is_attribute(tokens: &[Token<'_>], index: usize) -> bool {
    let text = |index: usize| tokens.get(index).map(|token| token.text);
    text(index) == Some("#") && text(index + 1) == Some("[")
}

fn is_test_attribute(attribute: &str) -> bool {
    let text: String = attribute.split_whitespace().collect();
    if !text.starts_with("#[cfg(") {
        return false;
    }
    if text.contains("\"conformance\"") || text.contains("\"fuzzing\"") {
        return true;
    }
    let has =
        |word: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == word);
    has("test") && !has("not")
}

/// The index after an item, which ends with `;` or with its body; a field or a variant ends with a comma.
fn after_item(tokens: &[Token<'_>], item: usize) -> usize {
    let mut index = item;
    while let Some(token) = tokens.get(index) {
        match token.text {
            "(" | "[" => index = after_closing(tokens, index),
            "{" => {
                let after = after_closing(tokens, index);
                let ends_with = tokens.get(after).is_some_and(|token| token.text == ";");
                return after + usize::from(ends_with);
            }
            ";" | "," => return index + 1,
            "}" => return index,
            _ => index += 1,
        }
    }
    tokens.len()
}

/// The code without these ranges; offsets and lines stay the same.
pub(super) fn without(code: &str, ranges: &[Range<usize>]) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for range in ranges {
        for byte in bytes.iter_mut().take(range.end).skip(range.start) {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number of lines of a text outside of these ranges.
pub(super) fn lines_outside(text: &str, ranges: &[Range<usize>]) -> usize {
    let breaks =
        |range: Range<usize>| text.as_bytes()[range].iter().filter(|b| **b == b'\n').count();
    let inside: usize = ranges.iter().map(|range| breaks(range.clone()) + 1).sum();
    text.lines().count().saturating_sub(inside)
}

/// The line number of an offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_else() {
        let text = r##"a /* x /* { */ } */ b // "é
let c = ('"', '\'', 'é', b"\"{", r#"}"{"#, "\\"); 'd: loop {} x::<'e>('{');"##;
        let code = code_of(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.lines().count(), 2);
        let words: Vec<_> = tokens(&code).iter().map(|token| token.text).collect();
        let wanted = "a b let c = ( , , , b , , ) ; ' d : loop { } x :: < ' e > ( ) ;";
        assert_eq!(words, wanted.split(' ').collect::<Vec<_>>());
    }

    fn found(text: &str) -> (Vec<&str>, Vec<String>) {
        let code = code_of(text);
        let items = test_items(text, &tokens(&code));
        (items.ranges.iter().map(|range| &text[range.clone()]).collect(), items.modules)
    }

    #[test]
    fn test_code_is_found() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"b.rs\"]\nmod b;\n#[cfg(not(test))]\nfn c() {}\n\
                    #[cfg(any(test, feature = \"fuzzing\"))]\npub mod d;\n#[cfg(test)]\nmod e { fn f() {} }\nfn g() {}\n";
        let (ranges, modules) = found(text);
        assert_eq!(modules, ["b", "d"]);
        assert_eq!(ranges.len(), 3);
        assert!(ranges[0].starts_with("#[cfg(test)]") && ranges[0].ends_with("mod b;"));
        assert!(ranges[2].ends_with("fn f() {} }"));
        let code = code_of(text);
        let items = test_items(text, &tokens(&code));
        let rest = without(&code, &items.ranges);
        assert!(rest.contains("fn a") && rest.contains("fn c") && rest.contains("fn g"));
        assert!(!rest.contains("mod"));
        assert_eq!(lines_outside(text, &items.ranges), 4);
    }

    #[test]
    fn a_signature_with_brackets_does_not_end_an_item() {
        let (ranges, _) = found("#[cfg(test)]\nfn a(b: [u8; 4]) -> [u8; 4] { c; }\nfn d() {}");
        assert_eq!(ranges, ["#[cfg(test)]\nfn a(b: [u8; 4]) -> [u8; 4] { c; }"]);
    }
}
