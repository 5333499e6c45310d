//! Finds quotes of CSV files that their writer means otherwise than RFC 4180, by which the files are read: rows would
//! become part of a value without an error. It inspects the bytes while they are read, in steps from quote to quote.
//! Pure.

use memchr::memchr;

use crate::text::CTRL_Z;

const AFTER_QUOTE: &str = "text follows the closing quote of a field";
/// Spark and MySQL put a backslash before a quote, unless an option changes that.
const DOUBLE_QUOTES: &str = "write a quote inside of a quoted field as two quotes, and not behind a backslash: \
     `option(\"escape\", \"\\\"\")` in Spark, `ESCAPED BY '\"'` in MySQL";
const COMMAS: &str = "separate columns by commas; or, if the quotes are part of a value, put quotes around it and write those \
     in it twice";
const SPACED: &str =
    "a field begins with white space and a quote, and the quotes would be part of its value";
const NO_SPACE: &str = "remove the white space between the comma and the quote; or, if the quotes are part of the value, put \
     quotes around it and write those in it twice";

/// A quote with another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuoteFault {
    /// Where the field's first quote is, in bytes from the start of the text.
    pub(crate) offset: u64,
    /// What is wrong.
    pub(crate) text: &'static str,
    /// How to fix it.
    pub(crate) help: &'static str,
}

/// What a field has before a place in it, if it does not begin with a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    WhiteSpace,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a field that does not begin with a quote, or before a field.
    Plain(Before),
    Quoted,
    /// Behind a quote in a quoted field: it ends the field, unless another one follows.
    Quote,
    /// Behind a quoted field, and white space or what is left over at the end of a file.
    Closed,
    /// In a field that begins with white space and a quote.
    Spaced {
        /// Whether the quotes in it are of an odd number.
        is_odd: bool,
        /// Whether only white space follows the last of them.
        at_end: bool,
    },
}

/// Inspects the quotes of a text that arrives in pieces.
#[derive(Debug)]
pub(crate) struct QuoteCheck {
    state: State,
    /// Bytes of the pieces before.
    read: u64,
    /// Where the first quote of the field is.
    opened: u64,
    fault: Option<QuoteFault>,
}

impl Default for QuoteCheck {
    fn default() -> Self {
        Self { state: State::Plain(Before::Nothing), read: 0, opened: 0, fault: None }
    }
}

impl QuoteCheck {
    /// Inspects a piece, which follows the pieces before.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let mut at = 0;
        while self.fault.is_none() && at < piece.len() {
            at += match self.state {
                State::Plain(before) => self.plain(&piece[at..], at, before),
                State::Quoted => match memchr(b'"', &piece[at..]) {
                    Some(found) => {
                        self.state = State::Quote;
                        found + 1
                    }
                    None => piece.len() - at,
                },
                State::Quote | State::Closed => {
                    self.behind_quote(piece[at]);
                    1
                }
                State::Spaced { is_odd, .. } => {
                    self.spaced(piece[at], is_odd);
                    1
                }
            };
        }
        self.read += piece.len() as u64;
    }

    /// Goes on behind the next quote of `rest`, or to its end; returns the number of bytes.
    fn plain(&mut self, rest: &[u8], at: usize, before: Before) -> usize {
        let Some(found) = memchr(b'"', rest) else {
            self.state = State::Plain(last(rest, before));
            return rest.len();
        };
        let before = last(&rest[..found], before);
        if before != Before::Text {
            self.opened = self.read + (at + found) as u64;
        }
        self.state = match before {
            Before::Nothing => State::Quoted,
            Before::WhiteSpace => State::Spaced { is_odd: true, at_end: true },
            // As in `5" x`: the quote is a character of the value.
            Before::Text => State::Plain(Before::Text),
        };
        found + 1
    }

    fn behind_quote(&mut self, byte: u8) {
        self.state = match byte {
            b'"' if self.state == State::Quote => State::Quoted,
            b',' | b'\n' | b'\r' => State::Plain(Before::Nothing),
            // White space is part of the value, and refused or warned of as that of other values is.
            b' ' | b'\t' | 0 | CTRL_Z => State::Closed,
            _ => {
                let help = match byte {
                    // A quote is that of the next field, behind a tab or a space.
                    b';' | b'|' | b'"' => COMMAS,
                    _ => DOUBLE_QUOTES,
                };
                let (offset, text) = (self.opened, AFTER_QUOTE);
                self.fault = Some(QuoteFault { offset, text, help });
                return;
            }
        };
    }

    fn spaced(&mut self, byte: u8, is_odd: bool) {
        self.state = match byte {
            b',' | b'\n' | b'\r' => {
                self.fault = self.spaced_fault();
                State::Plain(Before::Nothing)
            }
            b'"' => State::Spaced { is_odd: !is_odd, at_end: true },
            b' ' | b'\t' => return,
            _ => State::Spaced { is_odd, at_end: false },
        };
    }

    /// The fault of a field that begins with white space and a quote, and ends here. It is none if text follows the last
    /// pair of quotes, as in ` "best" offer`: those are probably part of the value.
    fn spaced_fault(&self) -> Option<QuoteFault> {
        let State::Spaced { is_odd, at_end } = self.state else { return None };
        let fault = QuoteFault { offset: self.opened, text: SPACED, help: NO_SPACE };
        (is_odd || at_end).then_some(fault)
    }

    /// The first fault of the text so far, which may end here.
    pub(crate) fn fault(&self) -> Option<QuoteFault> {
        self.fault.or_else(|| self.spaced_fault())
    }
}

/// What a field has before the end of `text`, with `before` it.
fn last(text: &[u8], before: Before) -> Before {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let spaces = text.iter().rev().take_while(|byte| is_space(byte)).count();
    let before = match text.iter().rev().nth(spaces) {
        None => before,
        Some(b',' | b'\n' | b'\r') => Before::Nothing,
        Some(_) => Before::Text,
    };
    if spaces > 0 && before == Before::Nothing { Before::WhiteSpace } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fault of a text in pieces of some bytes, and where its field begins.
    fn found(text: &str, size: usize) -> Option<(u64, &'static str)> {
        let mut check = QuoteCheck::default();
        text.as_bytes().chunks(size).for_each(|piece| check.add(piece));
        check.fault().map(|fault| (fault.offset, fault.text))
    }

    #[test]
    fn text_behind_a_closing_quote_is_a_fault_of_its_field() {
        for (text, offset) in [
            // Backslashes: the second field ends at the quote that begins the next one.
            ("c,k\n\"26\\\"\",u1\n\"28\\\"\",u2\nx,u3\n", 4),
            ("k,c\nu1,\"said \\\"no\\\" twice\"\n", 7),
            ("\"a\"x,b\n", 0),
            ("a,\"b\"c", 2),
            ("\"a\" b\n", 0),
            ("\"a\" \"b\"\n", 0),
            ("a\r\"b\"\"\"c\n", 2),
        ] {
            for size in 1..=text.len() {
                assert_eq!(found(text, size), Some((offset, AFTER_QUOTE)), "{text:?} {size}");
            }
        }
    }

    #[test]
    fn another_separator_behind_a_closing_quote_has_a_hint_of_its_own() {
        for (text, help) in [
            ("\"user_id\";\"email\"\n", COMMAS),
            ("user_id;n\n\"u1\";\"5\"\n", COMMAS),
            ("\"u1\"\t\"5\"\n", COMMAS),
            ("\"u1\"|5\n", COMMAS),
            ("\"26\\\"x\",u1\n", DOUBLE_QUOTES),
        ] {
            let mut check = QuoteCheck::default();
            check.add(text.as_bytes());
            assert_eq!(check.fault().unwrap().help, help, "{text:?}");
        }
    }

    #[test]
    fn white_space_before_the_quotes_around_a_field_is_a_fault() {
        for (text, offset) in [
            ("a, \"1\"\n", 3),
            (" \"a\",b\r\n", 1),
            ("a\n\t \"b\" \n", 4),
            ("a, \"b", 3),
            ("a, \"b,c\"\n", 3),
            ("\"a\", \"b\"", 5),
        ] {
            for size in 1..=text.len() {
                assert_eq!(found(text, size), Some((offset, SPACED)), "{text:?} {size}");
            }
        }
        for text in
            ["a, \"best\" offer\n", "a, b \"c\"\n", "\"a\" ,\"b\"\n", " a\n\"b\"\n", " ,\"b\"\n"]
        {
            for size in 1..=text.len() {
                assert_eq!(found(text, size), None, "{text:?} {size}");
            }
        }
    }

    #[test]
    fn quotes_as_in_rfc_4180_and_in_plain_fields_are_none() {
        for text in [
            "",
            "\"a\",\"b\"\r\n\"c\"\"\",\"\"\n\"\"\"d\"\"\"\r\"e,\n\"",
            "5\" x,b\"\n'\"a\"',b\n",
            "\"a\" ,\"b\"\t\n\"c\" ",
            "\"a\"\0\0",
            "\"a\"\u{1a}",
            "\u{feff}\"a\"b\n",
            "\"not closed",
            "a\\\"b\n",
        ] {
            for size in 1..=text.len().max(1) {
                assert_eq!(found(text, size), None, "{text:?} {size}");
            }
        }
    }
}
