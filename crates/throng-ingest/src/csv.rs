//! Comma-separated values as in RFC 4180: where records end, and the cells of one. A quote opens a quoted value only
//! at the beginning of a cell. A quote elsewhere, or text after a closing quote, is a fault of the row; both
//! parts of this file then agree on where the row ends.

use memchr::{memchr, memchr2, memchr3};

use crate::cells::Cells;
use crate::reason::Reason;

/// Finds the ends of records in content that arrives in pieces.
#[derive(Debug)]
pub(crate) struct RecordEnds {
    quoted: bool,
    /// The last byte was a quote in a quoted value: it closes the value, unless another one follows.
    pending: bool,
    previous: u8,
}

impl Default for RecordEnds {
    fn default() -> Self {
        Self { quoted: false, pending: false, previous: b'\n' }
    }
}

impl RecordEnds {
    /// Calls `on_end` with the position behind each record that ends in `piece`, which follows the pieces before.
    pub(crate) fn scan(&mut self, piece: &[u8], mut on_end: impl FnMut(usize)) {
        let mut at = 0;
        while at < piece.len() {
            if self.pending {
                self.pending = false;
                if piece[at] == b'"' {
                    at += 1;
                } else {
                    self.quoted = false;
                    self.previous = b'"';
                }
                if self.quoted {
                    continue;
                }
            }
            if self.quoted {
                let Some(found) = memchr(b'"', &piece[at..]) else { return };
                at += found + 1;
                self.pending = true;
                continue;
            }
            let Some(found) = memchr2(b'"', b'\n', &piece[at..]) else {
                self.previous = piece[piece.len() - 1];
                return;
            };
            let place = at + found;
            let before = if found > 0 { piece[place - 1] } else { self.previous };
            self.previous = piece[place];
            at = place + 1;
            if piece[place] == b'\n' {
                on_end(at);
            } else if before == b',' || before == b'\n' {
                self.quoted = true;
            }
        }
    }

    /// Whether the content ends in a quoted value.
    pub(crate) fn is_open(&self) -> bool {
        self.quoted && !self.pending
    }
}

/// A record that was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Behind the record and its line end.
    pub(crate) end: usize,
    /// What is wrong with it.
    pub(crate) fault: Option<Reason>,
}

/// Parses the record of `block` that begins at `start`. `cells` has its cells then, in their order.
pub(crate) fn record(block: &[u8], start: usize, cells: &mut Cells) -> Parsed {
    cells.clear();
    let mut fault = None;
    let mut at = start;
    loop {
        let stop = match block.get(at) {
            Some(b'"') => quoted(block, at, cells, &mut fault),
            _ => plain(block, at, cells, &mut fault),
        };
        match block.get(stop) {
            Some(b',') => at = stop + 1,
            Some(_) => return Parsed { end: stop + 1, fault },
            None => return Parsed { end: block.len(), fault },
        }
    }
}

/// Behind the last byte of a cell that ends at `stop`: without the carriage returns of a line end. A program that
/// writes CR LF to a file that turns LF into CR LF, as Python does on Windows, ends lines with CR CR LF.
fn cell_end(block: &[u8], start: usize, stop: usize) -> usize {
    let mut end = stop;
    if block.get(stop).is_none_or(|byte| *byte == b'\n') {
        while end > start && block[end - 1] == b'\r' {
            end -= 1;
        }
    }
    end
}

/// The length of the line end that `rest` begins with: a line feed or the end of the content, with carriage returns
/// before it. 0 if it begins with something else.
pub(crate) fn line_end(rest: &[u8]) -> usize {
    let returns = rest.iter().take_while(|byte| **byte == b'\r').count();
    match rest.get(returns) {
        Some(b'\n') => returns + 1,
        Some(_) => 0,
        None => returns,
    }
}

/// Parses an unquoted cell; returns the position of the comma or line feed behind it.
fn plain(block: &[u8], start: usize, cells: &mut Cells, fault: &mut Option<Reason>) -> usize {
    let rest = &block[start..];
    let mut stop = memchr3(b',', b'\n', b'"', rest).unwrap_or(rest.len());
    if rest.get(stop) == Some(&b'"') {
        *fault = Some(Reason::MisplacedQuote);
        stop += memchr2(b',', b'\n', &rest[stop..]).unwrap_or(rest.len() - stop);
    }
    let stop = start + stop;
    cells.push_block(start, cell_end(block, start, stop));
    stop
}

/// Parses a quoted cell; returns the position of the comma or line feed behind it.
fn quoted(block: &[u8], start: usize, cells: &mut Cells, fault: &mut Option<Reason>) -> usize {
    let own = cells.own().len();
    let mut is_own = false;
    let mut from = start + 1;
    loop {
        let Some(found) = memchr(b'"', &block[from..]) else {
            // Only a block that was cut at its limit ends like this.
            *fault = Some(Reason::MisplacedQuote);
            cells.push_missing();
            return block.len();
        };
        let close = from + found;
        if block.get(close + 1) == Some(&b'"') {
            is_own = true;
            cells.own().extend_from_slice(&block[from..=close]);
            from = close + 2;
            continue;
        }
        if is_own {
            cells.own().extend_from_slice(&block[from..close]);
            cells.push_own(own);
        } else {
            cells.push_block(start + 1, close);
        }
        let rest = &block[close + 1..];
        let length = memchr2(b',', b'\n', rest).unwrap_or(rest.len());
        let stop = close + 1 + length;
        if cell_end(block, close + 1, stop) > close + 1 {
            *fault = Some(Reason::MisplacedQuote);
        }
        return stop;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells_of(block: &str) -> (Vec<String>, Option<Reason>, usize) {
        let mut cells = Cells::default();
        let parsed = record(block.as_bytes(), 0, &mut cells);
        let texts = (0..cells.len()).map(|at| cells.get(at, block.as_bytes()).unwrap_or(b"-"));
        let texts = texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        (texts, parsed.fault, parsed.end)
    }

    #[test]
    fn records_have_cells() {
        let wrong = Some(Reason::MisplacedQuote);
        for (block, cells, fault, end) in [
            ("a,b\nc", &["a", "b"][..], None, 4),
            ("a,b\r\nc", &["a", "b"], None, 5),
            ("a,\r", &["a", ""], None, 3),
            ("a,b\r\r\nc", &["a", "b"], None, 6),
            ("a,\"b\"\r\r\nc", &["a", "b"], None, 8),
            ("a\r\r,b\n", &["a\r\r", "b"], None, 6),
            ("\"a,\"\"b\"\"\nc\",d", &["a,\"b\"\nc", "d"], None, 13),
            ("\"\",\"\"\r\n", &["", ""], None, 7),
            ("5\" x,b\n", &["5\" x", "b"], wrong, 7),
            ("\"a\"x,b\n", &["a", "b"], wrong, 7),
            ("\"a", &["-"], wrong, 2),
            ("", &[""], None, 0),
        ] {
            let (texts, found, stop) = cells_of(block);
            assert_eq!(
                (texts.as_slice(), found, stop),
                (&cells.iter().map(|c| c.to_string()).collect::<Vec<_>>()[..], fault, end),
                "{block:?}"
            );
        }
    }

    #[test]
    fn line_ends_have_carriage_returns() {
        for (rest, length) in
            [("\na", 1), ("\r\na", 2), ("\r\r\na", 3), ("\r", 1), ("", 0), ("\ra", 0), ("a\n", 0)]
        {
            assert_eq!(line_end(rest.as_bytes()), length, "{rest:?}");
        }
    }

    fn ends(text: &[u8], size: usize) -> Vec<usize> {
        let (mut found, mut scan) = (Vec::new(), RecordEnds::default());
        for (number, piece) in text.chunks(size).enumerate() {
            scan.scan(piece, |end| found.push(number * size + end));
        }
        found
    }

    #[test]
    fn line_breaks_in_quotes_end_no_record() {
        let text = b"a,\"b\n\"\"\n\"\"\"\nc\"d,e\n\"f\"\n\"g\"\"\nh";
        for size in 1..text.len() {
            assert_eq!(ends(text, size), [12, 18, 22], "{size}");
        }
        let mut scan = RecordEnds::default();
        scan.scan(text, |_| {});
        assert!(scan.is_open());
    }

    proptest::proptest! {
        /// The scanner and the parser agree on where records end, whatever the pieces.
        #[test]
        fn records_end_where_the_parser_ends(text in "[a,\"\n\r]{0,40}", size in 1usize..8) {
            let text = text.as_bytes();
            let found = ends(text, size);
            let mut cells = Cells::default();
            let mut at = 0;
            for end in found {
                let parsed = record(text, at, &mut cells);
                proptest::prop_assert_eq!(parsed.end, end);
                at = end;
            }
        }
    }
}
