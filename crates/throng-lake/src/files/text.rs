//! The bytes of CSV and JSON files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::discover::DataFile;
use super::fault::FileFault;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Bytes of a file, unpacked and without a byte order mark.
pub(crate) type TextReader = BufReader<Box<dyn Read + Send>>;

/// Opens a file.
///
/// # Errors
/// If it cannot be opened, or is UTF-16.
pub(crate) fn open(file: &DataFile) -> Result<TextReader, FileFault> {
    let fail = |error| FileFault::io(file.path(), &error);
    let plain = File::open(file.path()).map_err(fail)?;
    let bytes: Box<dyn Read + Send> = if file.gzipped {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, plain)))
    } else {
        Box::new(plain)
    };
    let mut reader = BufReader::with_capacity(BUFFER, bytes);
    // An empty file that should be packed is an empty file.
    if file.gzipped && file.stamp.bytes == 0 {
        return Ok(BufReader::new(Box::new(std::io::empty())));
    }
    let start = reader.fill_buf().map_err(fail)?;
    let mark = if start.starts_with(&[0xEF, 0xBB, 0xBF]) { 3 } else { 0 };
    if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
        return Err(FileFault::new(file.path(), Some(1), "it is UTF-16").with_help(NOT_UTF8));
    }
    reader.consume(mark);
    Ok(reader)
}

/// How to fix another encoding.
pub(crate) const NOT_UTF8: &str = "write the file in UTF-8, for example with `iconv -t UTF-8`";
