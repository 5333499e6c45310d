//! One JSON object a line: its scalar values as cells, without an allocation for a row.

use memchr::memchr2;

use crate::cells::Cells;
use crate::reason::{Reason, RowFault};

/// The names of fields, which objects usually have in the same order.
#[derive(Debug)]
pub(crate) struct FieldNames(Vec<Vec<u8>>);

impl FieldNames {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.map(|name| name.as_bytes().to_vec()).collect())
    }

    fn place(&self, name: &[u8], expected: usize) -> Option<usize> {
        if self.0.get(expected).is_some_and(|other| other == name) {
            return Some(expected);
        }
        self.0.iter().position(|other| other == name)
    }
}

/// Parses the object in `block[start..end]`. `cells` has a cell for each field then; `null` and fields that the
/// object lacks are missing.
pub(crate) fn object(
    block: &[u8],
    (start, end): (usize, usize),
    names: &FieldNames,
    cells: &mut Cells,
) -> Result<(), RowFault> {
    cells.reset(names.0.len());
    let mut scanner = Scanner { block, at: start, end };
    let invalid = RowFault::of_row(Reason::NotAnObject);
    let mut seen = [0u64; throng_schema::MAX_FIELDS.div_ceil(64)];
    let mut expected = 0;
    scanner.expect(b'{').ok_or(invalid)?;
    if scanner.next_is(b'}') {
        return if scanner.is_at_end() { Ok(()) } else { Err(invalid) };
    }
    loop {
        scanner.skip_space();
        let name = scanner.string(cells).ok_or(invalid)?;
        let text = match name {
            Text::Block(start, end) => &block[start..end],
            Text::Own(start) => cells.own_since(start),
        };
        let field = names.place(text, expected);
        let field = field.ok_or(RowFault::of_row(Reason::UnknownField))?;
        let (word, bit) = (field / 64, 1u64 << (field % 64));
        if seen[word] & bit != 0 {
            return Err(RowFault::of_field(field, Reason::DuplicateField));
        }
        seen[word] |= bit;
        expected = field + 1;
        scanner.expect(b':').ok_or(invalid)?;
        scanner.skip_space();
        match scanner.peek() {
            Some(b'"') => match scanner.string(cells).ok_or(invalid)? {
                Text::Block(start, end) => cells.set_block(field, start, end),
                Text::Own(start) => cells.set_own(field, start),
            },
            Some(b'{' | b'[') => return Err(RowFault::of_field(field, Reason::NestedValue)),
            Some(_) => {
                let (start, end) = scanner.word();
                match &block[start..end] {
                    b"null" => {}
                    b"true" | b"false" => cells.set_block(field, start, end),
                    text if is_number(text) => cells.set_block(field, start, end),
                    _ => return Err(invalid),
                }
            }
            None => return Err(invalid),
        }
        if scanner.next_is(b',') {
            continue;
        }
        return if scanner.next_is(b'}') && scanner.is_at_end() { Ok(()) } else { Err(invalid) };
    }
}

/// Where the text of a string is.
enum Text {
    Block(usize, usize),
    /// In the buffer of the cells, since this position.
    Own(usize),
}

struct Scanner<'a> {
    block: &'a [u8],
    at: usize,
    end: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        (self.at < self.end).then(|| self.block[self.at])
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Skips white space, and the byte if it is the next one.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.next_is(byte).then_some(())
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at >= self.end
    }

    /// The text up to the next comma, brace or white space.
    fn word(&mut self) -> (usize, usize) {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        (start, self.at)
    }

    /// A string with its quotes; decoded in the buffer of the cells if it has escapes.
    fn string(&mut self, cells: &mut Cells) -> Option<Text> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.at += 1;
        let own = cells.own().len();
        let mut from = self.at;
        let mut is_own = false;
        loop {
            let found = from_here(self.block, from, self.end)?;
            if self.block[found] == b'"' {
                self.at = found + 1;
                if !is_own {
                    return Some(Text::Block(from, found));
                }
                cells.own().extend_from_slice(&self.block[from..found]);
                return Some(Text::Own(own));
            }
            is_own = true;
            cells.own().extend_from_slice(&self.block[from..found]);
            self.at = found + 1;
            self.escape(cells.own())?;
            from = self.at;
        }
    }

    /// Decodes an escape behind its backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        let decoded = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) {
                    if self.block.get(self.at..self.at + 2)? != b"\\u" {
                        return None;
                    }
                    self.at += 2;
                    let low = self.hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let character = char::from_u32(code)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        out.push(decoded);
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let mut value = 0;
        for _ in 0..4 {
            value = value * 16 + char::from(self.peek()?).to_digit(16)?;
            self.at += 1;
        }
        Some(value)
    }
}

/// The position of the next quote or backslash.
fn from_here(block: &[u8], from: usize, end: usize) -> Option<usize> {
    Some(from + memchr2(b'"', b'\\', block.get(from..end)?)?)
}

/// Whether a text is a number of JSON.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let [b'.', fraction @ ..] = rest {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            other => other,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Option<String>>, RowFault> {
        let names = FieldNames::new(["a", "b"].into_iter());
        let mut cells = Cells::default();
        let block = text.as_bytes();
        object(block, (0, block.len()), &names, &mut cells)?;
        let text = |at| cells.get(at, block).map(|t| String::from_utf8_lossy(t).into_owned());
        Ok(vec![text(0), text(1)])
    }

    #[test]
    fn scalar_values_are_cells() {
        let some = |a: &str, b: &str| Ok(vec![Some(a.to_owned()), Some(b.to_owned())]);
        assert_eq!(parse(r#"{"a":"x","b":1.50}"#), some("x", "1.50"));
        assert_eq!(parse(" { \"b\" : true , \"a\" : \"\" } \r"), some("", "true"));
        assert_eq!(
            parse(r#"{"\u0061":"\"\\\n\u00e4\ud83d\ude00","b":-1e9}"#),
            some("\"\\\nä😀", "-1e9")
        );
        assert_eq!(parse(r#"{"a":null}"#), Ok(vec![None, None]));
        assert_eq!(parse("{}"), Ok(vec![None, None]));
    }

    #[test]
    fn other_rows_are_refused_with_the_field() {
        let row = |reason| Err(RowFault::of_row(reason));
        for text in [
            "",
            "[]",
            "1",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\":01}",
            "{\"a\":tru}",
            "{\"a\":\"x}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud83d\"}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":.5}",
        ] {
            assert_eq!(parse(text), row(Reason::NotAnObject), "{text}");
        }
        assert_eq!(parse("{\"c\":1}"), row(Reason::UnknownField));
        let field = |field, reason| Err(RowFault::of_field(field, reason));
        assert_eq!(parse("{\"b\":[1]}"), field(1, Reason::NestedValue));
        assert_eq!(parse("{\"a\":1,\"a\":2}"), field(0, Reason::DuplicateField));
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "[{}\\[\\]\"\\\\abu0-9:, ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
