//! Opens CSV and JSON files: decompression, byte order marks, and files of another format.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::discover::DataFile;
use crate::fault::FileFault;

/// Size of the read buffer, in bytes.
const BUFFER: usize = 256 << 10;
/// Bytes at the start of a file that are inspected.
const START: u64 = 512;
pub(crate) const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
const GZIP: &[u8] = &[0x1F, 0x8B];
/// The character by which DOS ends a text.
pub(crate) const CTRL_Z: u8 = 0x1A;

/// Bytes of a file, decompressed and without a byte order mark.
pub type TextReader = BufReader<Box<dyn Read + Send>>;

/// Opens a file.
///
/// # Errors
/// If it cannot be opened, or its first bytes are those of another format than its name has.
pub fn open(file: &DataFile) -> Result<TextReader, FileFault> {
    let path = file.path();
    let fail = |error| FileFault::io(path, &error);
    let plain = File::open(path).map_err(fail)?;
    // An empty file with the ending .gz is accepted as an empty file.
    if file.stamp.bytes == 0 {
        return Ok(BufReader::new(Box::new(std::io::empty())));
    }
    let mut bytes: Box<dyn Read + Send> = if file.gzipped {
        let mut compressed = BufReader::with_capacity(BUFFER, plain);
        if !compressed.fill_buf().map_err(fail)?.starts_with(GZIP) {
            return Err(FileFault::new(
                path,
                None,
                "its name ends with .gz, but it is not compressed by gzip",
            )
            .with_help(
                "remove .gz from its name: the program that copied it has decompressed it",
            ));
        }
        Box::new(MultiGzDecoder::new(compressed))
    } else {
        Box::new(plain)
    };
    let mut start = Vec::new();
    bytes.by_ref().take(START).read_to_end(&mut start).map_err(fail)?;
    if let Some(fault) = other_kind(&start, path) {
        return Err(fault);
    }
    let mut text = start.as_slice();
    // Some programs add a mark to files that have one already.
    while let Some(rest) = text.strip_prefix(BYTE_ORDER_MARK) {
        text = rest;
    }
    let text = text.to_vec();
    Ok(BufReader::with_capacity(BUFFER, Box::new(Cursor::new(text).chain(bytes))))
}

/// The fault and the hint of a byte that is not text, but that programs and systems leave at the end of a file.
pub(crate) fn left_over(byte: u8) -> Option<(&'static str, &'static str)> {
    match byte {
        0 => Some((
            "there are NUL bytes in this line, as after a power failure or on a full disk",
            "write the file again; or, if no row is missing, remove the bytes, for example with `tr -d '\\0'`",
        )),
        CTRL_Z => Some((
            "there is a Ctrl-Z character (0x1A) in this line, which DOS programs write at the end of a file",
            "remove it, for example with `tr -d '\\032'`",
        )),
        _ => None,
    }
}

/// The fault of a file whose start is that of another format, or of UTF-16.
fn other_kind(start: &[u8], path: &Path) -> Option<FileFault> {
    let utf16 = start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]);
    // Without a mark, one byte of each Latin letter is zero.
    let unmarked = matches!(start, [0, b' '..=b'~', ..] | [b' '..=b'~', 0, ..]);
    if utf16 || unmarked {
        return Some(FileFault::new(path, Some(1), "it is UTF-16").with_help(UTF16));
    }
    let page: Vec<u8> =
        start.trim_ascii_start().iter().take(16).map(u8::to_ascii_lowercase).collect();
    let page = ["<!doctype", "<html", "<?xml"].iter().any(|tag| page.starts_with(tag.as_bytes()));
    let (text, help) = match start {
        _ if page => (
            "it is a web page or XML",
            "download the file again: a proxy or a sign-in page may have answered instead",
        ),
        [b'P', b'K', 3, 4, ..] | [0xD0, 0xCF, 0x11, 0xE0, ..] => (
            "it is an Excel file or a ZIP archive",
            "save it as `CSV UTF-8` in Excel, or extract it",
        ),
        [0x1F, 0x8B, ..] => (
            "it is compressed by gzip",
            "add .gz to its name, once for a file that is compressed once",
        ),
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => (
            "it is compressed, but not by gzip",
            "decompress it, or compress it by gzip and add .gz to its name",
        ),
        [b'P', b'A', b'R', b'1', 0x15, ..] => {
            ("it is a Parquet file", "give it a name that ends with .parquet")
        }
        _ => return None,
    };
    Some(FileFault::new(path, None, text).with_help(help))
}

/// The hint for another encoding.
pub(crate) const NOT_UTF8: &str =
    "write the file in UTF-8, for example with `iconv -t UTF-8`, or as `CSV UTF-8` in Excel";
/// The hint for UTF-16.
const UTF16: &str = "write the file in UTF-8, for example with `iconv -f UTF-16 -t UTF-8`, or as `CSV UTF-8` in Excel";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_format_are_identified() {
        let kind = |start: &[u8]| other_kind(start, Path::new("f")).map(|fault| fault.to_string());
        for (start, text) in [
            (&b"\xFF\xFEu\0s\0"[..], "f, line 1: it is UTF-16"),
            (b"u\0s\0e\0", "f, line 1: it is UTF-16"),
            (b"\0u\0s\0e", "f, line 1: it is UTF-16"),
            (b"\n <!DOCTYPE html><html>", "f: it is a web page or XML"),
            (b"<?xml version=\"1.0\"?><Error>", "f: it is a web page or XML"),
            (b"PK\x03\x04\x14", "f: it is an Excel file or a ZIP archive"),
            (b"\x1F\x8B\x08\0", "f: it is compressed by gzip"),
            (b"BZh91AY&SY", "f: it is compressed, but not by gzip"),
            (b"PAR1\x15\x04", "f: it is a Parquet file"),
        ] {
            assert_eq!(kind(start).as_deref(), Some(text));
        }
        for start in [
            &b"user_id,total\n"[..],
            b"\xEF\xBB\xBFuser_id",
            b"PAR1,total\n",
            b"BZh1,b\n",
            b"<id>,b",
            b"u",
            b"",
        ] {
            assert_eq!(kind(start), None);
        }
    }
}
