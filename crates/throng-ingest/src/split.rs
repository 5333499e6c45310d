//! Cuts CSV and JSON lines into blocks of whole records, which threads parse at the same time.

use memchr::{memchr_iter, memrchr};

use crate::csv::RecordEnds;
use crate::error::IngestError;
use crate::source::Content;

/// Bytes that are read at once.
const READ_BYTES: usize = 2 << 20;
/// A longer record goes to quarantine.
pub(crate) const MAX_RECORD_BYTES: usize = 1 << 20;
/// What some programs begin a file with.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Ctrl-Z, with which programs for DOS end a file.
const CTRL_Z: u8 = 0x1a;

/// Whole records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextBlock {
    pub(crate) bytes: Vec<u8>,
    /// The line of the first record, from 1.
    pub(crate) first_line: u64,
}

/// A part of the content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Block(TextBlock),
    /// A record of this line is longer than the limit, and was skipped. Has its beginning.
    TooLong {
        line: u64,
        beginning: Vec<u8>,
    },
}

/// The ends of records.
enum Ends {
    Quoted(RecordEnds),
    Lines,
}

/// Cuts content into pieces.
pub(crate) struct Splitter<'c, 'b> {
    content: &'c mut Content<'b>,
    ends: Ends,
    /// Records without their end, from what was read before.
    carry: Vec<u8>,
    line: u64,
    /// A record that is too long is being skipped.
    skipping: bool,
    ended: bool,
    read_bytes: usize,
}

fn lines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

impl<'c, 'b> Splitter<'c, 'b> {
    /// `quoted`: line breaks in quotes do not end a record.
    pub(crate) fn new(content: &'c mut Content<'b>, quoted: bool) -> Self {
        let ends = if quoted { Ends::Quoted(RecordEnds::default()) } else { Ends::Lines };
        Self {
            content,
            ends,
            carry: Vec::new(),
            line: 1,
            skipping: false,
            ended: false,
            read_bytes: READ_BYTES,
        }
    }

    /// The next piece; `None` at the end of the content.
    ///
    /// # Errors
    /// [`IngestError::Refused`] for a quote that is not closed; the errors of the content.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, IngestError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let mut start = self.carry.len();
            self.carry.resize(start + self.read_bytes, 0);
            let count = self.content.fill(&mut self.carry[start..])?;
            self.carry.truncate(start + count);
            if self.line == 1 && start == 0 && !self.skipping {
                self.skip_byte_order_mark()?;
            }
            if count < self.read_bytes {
                self.ended = true;
                while self.carry.last() == Some(&CTRL_Z) {
                    self.carry.pop();
                }
            }
            start = start.min(self.carry.len());
            let (first, mut last) = self.scan(start);
            if self.ended {
                self.check_closed()?;
                last = Some(self.carry.len());
            }
            // The rest of a record that was too long.
            if self.skipping {
                let Some(end) = first.or(last.filter(|_| self.ended)) else {
                    self.line += lines(&self.carry);
                    self.carry.clear();
                    continue;
                };
                self.line += lines(&self.carry[..end]);
                self.carry.drain(..end);
                self.skipping = false;
                last = last.map(|last| last - end);
            }
            match last {
                Some(0) if self.carry.is_empty() => {}
                Some(end) if end > 0 => {
                    let rest = self.carry.split_off(end);
                    let bytes = std::mem::replace(&mut self.carry, rest);
                    let first_line = self.line;
                    self.line += lines(&bytes);
                    return Ok(Some(Piece::Block(TextBlock { bytes, first_line })));
                }
                // The record does not end. Otherwise all that follows would be read into memory.
                _ if self.carry.len() > MAX_RECORD_BYTES => {
                    let line = self.line;
                    self.line += lines(&self.carry);
                    self.skipping = true;
                    let mut beginning = std::mem::take(&mut self.carry);
                    beginning.truncate(MAX_RECORD_BYTES);
                    return Ok(Some(Piece::TooLong { line, beginning }));
                }
                _ => {}
            }
        }
    }

    /// The first and the last end of a record in what was read since `start`.
    fn scan(&mut self, start: usize) -> (Option<usize>, Option<usize>) {
        let piece = &self.carry[start..];
        let (mut first, mut last) = (None, None);
        match &mut self.ends {
            Ends::Quoted(ends) => ends.scan(piece, |end| {
                first.get_or_insert(start + end);
                last = Some(start + end);
            }),
            Ends::Lines => {
                first = memchr::memchr(b'\n', piece).map(|at| start + at + 1);
                last = memrchr(b'\n', piece).map(|at| start + at + 1);
            }
        }
        (first, last)
    }

    fn check_closed(&self) -> Result<(), IngestError> {
        match &self.ends {
            Ends::Quoted(ends) if ends.is_open() => {
                let last = memrchr(b'\n', &self.carry).map_or(0, |_| lines(&self.carry));
                let until = self.line + last;
                let message =
                    format!("a quote that opens in line {} or later is not closed", self.line);
                let help =
                    format!("the content ends in line {until}: close the quote, or remove it");
                Err(IngestError::refused(message, help))
            }
            _ => Ok(()),
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), IngestError> {
        if self.carry.starts_with(BYTE_ORDER_MARK) {
            self.carry.drain(..BYTE_ORDER_MARK.len());
        } else if self.carry.starts_with(&[0xff, 0xfe]) || self.carry.starts_with(&[0xfe, 0xff]) {
            let help = "write the file as UTF-8";
            return Err(IngestError::refused("the content is UTF-16", help));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Encoding;

    fn pieces(text: &[u8], quoted: bool, read_bytes: usize) -> Result<Vec<Piece>, IngestError> {
        let mut content = Content::new(text, Encoding::Identity)?;
        let mut splitter = Splitter::new(&mut content, quoted);
        splitter.read_bytes = read_bytes;
        let mut pieces = Vec::new();
        while let Some(piece) = splitter.next_piece()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[test]
    fn blocks_have_whole_records_and_their_lines() {
        let text = b"\xef\xbb\xbfa,b\n1,\"x\ny\"\n2,z\n3,last";
        for size in [4, 5, 7, 64] {
            let mut joined = Vec::new();
            for piece in pieces(text, true, size).unwrap() {
                let Piece::Block(block) = piece else { panic!() };
                assert_eq!(block.first_line, lines(&joined) + 1, "{size}");
                joined.extend(block.bytes);
            }
            assert_eq!(joined, text[3..], "{size}");
        }
        assert_eq!(pieces(b"", true, 8).unwrap(), []);
        for size in [2, 3, 4, 8] {
            let found = pieces(b"a\n1\n\x1a\x1a", true, size).unwrap();
            let joined = found.iter().flat_map(|piece| match piece {
                Piece::Block(block) => block.bytes.clone(),
                Piece::TooLong { .. } => panic!(),
            });
            assert_eq!(joined.collect::<Vec<u8>>(), b"a\n1\n", "{size}");
        }
        let error = pieces(b"a\n1\n\"x\n2\n", true, 4).unwrap_err();
        assert_eq!(error.to_string(), "a quote that opens in line 3 or later is not closed");
        assert!(pieces(b"\xff\xfea\0", true, 8).is_err());
        // Quotes mean nothing in JSON lines.
        assert_eq!(pieces(b"{\"a\n", false, 8).unwrap().len(), 1);
    }

    #[test]
    fn a_record_that_is_too_long_is_skipped_with_its_line() {
        let long = vec![b'x'; 3 * MAX_RECORD_BYTES];
        for (quoted, size) in [(false, 1 << 20), (true, 1 << 20), (true, 700_000)] {
            let text = [b"a\n1\n", &long[..], b"\n2\n"].concat();
            let found = pieces(&text, quoted, size).unwrap();
            let mut rows = Vec::new();
            let mut too_long = Vec::new();
            for piece in found {
                match piece {
                    Piece::Block(block) => rows.push((block.first_line, block.bytes)),
                    Piece::TooLong { line, beginning } => too_long.push((line, beginning.len())),
                }
            }
            assert_eq!(too_long, [(3, MAX_RECORD_BYTES)], "{quoted} {size}");
            assert_eq!(rows.first().unwrap(), &(1, b"a\n1\n".to_vec()));
            assert_eq!(rows.last().unwrap(), &(4, b"2\n".to_vec()));
        }
    }
}
