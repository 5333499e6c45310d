//! Splits a JSON file into objects: one a line, one after another, or the items of one array.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::fault::FileFault;
use crate::format::BYTE_ORDER_MARK;
use crate::text::{NOT_UTF8, TextReader, left_over};

/// The longest object, in bytes.
const MAX_OBJECT: usize = 64 << 20;
/// The hint for content that is not an object.
const ONE_A_LINE: &str = "write one object a line, or one array of objects";
/// The hint for commas between objects that are not in an array.
const COMMAS: &str = "remove the commas between the objects, or put all objects into one array";

/// Reads object by object.
pub struct JsonObjects {
    reader: TextReader,
    path: PathBuf,
    /// The line of the next byte, from 1.
    line: u64,
    /// Inside of the array of all objects.
    in_array: bool,
    /// The array was closed: nothing may follow.
    closed: bool,
    /// An object was read since the last comma.
    after_object: bool,
    object: Vec<u8>,
}

/// The state of the scan inside of an object.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the object ends with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

impl JsonObjects {
    /// Reads from `reader`; faults name the file `path`.
    pub fn new(reader: TextReader, path: &Path) -> Self {
        Self {
            reader,
            path: path.to_owned(),
            line: 1,
            in_array: false,
            closed: false,
            after_object: false,
            object: Vec::new(),
        }
    }

    fn fault(&self, text: &str) -> FileFault {
        FileFault::new(&self.path, Some(self.line), text).with_help(ONE_A_LINE)
    }

    /// The bytes of the next object, and the line in which it starts; `None` at the end.
    ///
    /// # Errors
    /// If something other than an object follows, or it is not UTF-8.
    pub fn next_object(&mut self) -> Result<Option<(&[u8], u64)>, FileFault> {
        if !self.skip_to_object()? {
            return Ok(None);
        }
        let start = self.line;
        self.object.clear();
        let mut scan = Scan::default();
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => return Err(FileFault::io(&self.path, &error)),
            };
            if bytes.is_empty() {
                if let Some((text, help)) = self.object.last().and_then(|last| left_over(*last)) {
                    return Err(self.fault(text).with_help(help));
                }
                return Err(FileFault::new(&self.path, Some(start), "the object does not end"));
            }
            let end = bytes.iter().position(|byte| scan.ends_with(*byte));
            let taken = &bytes[..end.map_or(bytes.len(), |at| at + 1)];
            self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.object.extend_from_slice(taken);
            let count = taken.len();
            self.reader.consume(count);
            if self.object.len() > MAX_OBJECT {
                return Err(FileFault::new(
                    &self.path,
                    Some(start),
                    "an object has more than 64 MiB",
                ));
            }
            if end.is_some() {
                break;
            }
        }
        self.after_object = true;
        if std::str::from_utf8(&self.object).is_err() {
            let fault = FileFault::new(&self.path, Some(start), "it is not UTF-8");
            return Err(fault.with_help(NOT_UTF8));
        }
        Ok(Some((&self.object, start)))
    }

    /// Skips to the `{` of the next object. False at the end of the file.
    fn skip_to_object(&mut self) -> Result<bool, FileFault> {
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => return Err(FileFault::io(&self.path, &error)),
            };
            let Some(byte) = bytes.first().copied() else {
                return match self.in_array {
                    true => Err(self.fault("the array does not end")),
                    false => Ok(false),
                };
            };
            match byte {
                b'{' if self.closed => return Err(self.fault("an object follows the array")),
                b'{' if self.in_array && self.after_object => {
                    return Err(self.fault("a comma is missing between two objects"));
                }
                b'{' => return Ok(true),
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                // Files with a mark that were joined, as the members of a gzip file.
                0xEF => {
                    self.skip_mark()?;
                    continue;
                }
                b'[' if !self.in_array && !self.closed && !self.after_object => {
                    self.in_array = true
                }
                b',' if self.in_array && self.after_object => self.after_object = false,
                b']' if self.in_array => {
                    self.in_array = false;
                    self.closed = true;
                }
                b',' if !self.in_array && !self.closed && self.after_object => {
                    let text = "a comma follows an object that is not in an array";
                    return Err(self.fault(text).with_help(COMMAS));
                }
                other => {
                    return Err(match left_over(other) {
                        Some((text, help)) => self.fault(text).with_help(help),
                        None => self.fault("expected an object"),
                    });
                }
            }
            self.reader.consume(1);
        }
    }

    /// Skips a byte order mark.
    fn skip_mark(&mut self) -> Result<(), FileFault> {
        let mut mark = [0; BYTE_ORDER_MARK.len()];
        match self.reader.read_exact(&mut mark) {
            Ok(()) if mark == BYTE_ORDER_MARK => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(FileFault::io(&self.path, &error))
            }
            _ => Err(self.fault("expected an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::*;

    /// The objects with their lines, or what is wrong.
    fn of(text: &'static [u8]) -> Vec<String> {
        let bytes: Box<dyn Read + Send> = Box::new(Cursor::new(text));
        // A small buffer, so that objects cross its end.
        let mut objects = JsonObjects::new(BufReader::with_capacity(3, bytes), Path::new("f"));
        let mut found = Vec::new();
        loop {
            match objects.next_object() {
                Ok(Some((object, line))) => {
                    found.push(format!("{line} {}", String::from_utf8_lossy(object)));
                }
                Ok(None) => return found,
                Err(fault) => {
                    found.push(fault.to_string());
                    return found;
                }
            }
        }
    }

    #[test]
    fn objects_are_found_in_every_layout() {
        assert_eq!(of(b"{\"a\":1}\n\n{\"a\":\"}\\\"{\"}"), ["1 {\"a\":1}", "3 {\"a\":\"}\\\"{\"}"]);
        assert_eq!(of(b"[\n {\"a\":[1,2]},\n {}\n]\n"), ["2 {\"a\":[1,2]}", "3 {}"]);
        assert_eq!(of(b"{\n\"a\":{}\n}{}"), ["1 {\n\"a\":{}\n}", "3 {}"]);
        assert_eq!(of(b""), [""; 0]);
        assert_eq!(of(b"[]"), [""; 0]);
        // Files with byte order marks that were joined.
        assert_eq!(of(b"{}\n\xEF\xBB\xBF{}\n\xEF\xBB\xBF"), ["1 {}", "2 {}"]);
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        for (text, fault) in [
            (&b"{}\n7\n"[..], "f, line 2: expected an object"),
            (b"[{}", "f, line 1: the array does not end"),
            (b"[{}\n{}]", "f, line 2: a comma is missing between two objects"),
            (b"[{}] {}", "f, line 1: an object follows the array"),
            (b"{}\n{\"a\":", "f, line 2: the object does not end"),
            (b"{}\n{\"a\":\"\xFC\"}", "f, line 2: it is not UTF-8"),
            (b"{},{}", "f, line 1: a comma follows an object that is not in an array"),
            (b"{},\n{},\n", "f, line 1: a comma follows an object that is not in an array"),
            (b"[{}],", "f, line 1: expected an object"),
            (b"[{},,{}]", "f, line 1: expected an object"),
            (b"{}\n\xEF\xBB{}", "f, line 2: expected an object"),
            (b"{}\n\xEF", "f, line 2: expected an object"),
            (b"[[{}]]", "f, line 1: expected an object"),
        ] {
            assert_eq!(of(text).last().map(String::as_str), Some(fault));
        }
    }

    #[test]
    fn what_is_left_at_the_end_of_a_file_is_refused_with_its_line() {
        for (text, fault) in [
            (&b"{}\n{}\n\0\0\0"[..], "f, line 3: there are NUL bytes in this line"),
            (b"{}\n{\"a\":\"b\0\0\0", "f, line 2: there are NUL bytes in this line"),
            (b"{}\r\n{}\r\n\x1a", "f, line 3: there is a Ctrl-Z character (0x1A) in this line"),
            (b"[{}]\x1a", "f, line 1: there is a Ctrl-Z character (0x1A) in this line"),
        ] {
            let found = of(text).pop().unwrap();
            assert!(found.starts_with(fault), "{found}");
        }
    }
}
