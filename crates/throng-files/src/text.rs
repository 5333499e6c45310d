//! Opens CSV and JSON files: decompression, byte order marks, and files of another format.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::discover::DataFile;
use crate::fault::FileFault;
use crate::format::{BYTE_ORDER_MARK, GZIP};

/// Size of the read buffer, in bytes.
const BUFFER: usize = 256 << 10;
/// Bytes at the start of a file that are inspected.
const START: u64 = 512;
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
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
    let plain = throng_fs::open(path).map_err(fail)?;
    // An empty file with the ending .gz is accepted as an empty file.
    if file.stamp.bytes == 0 {
        return Ok(BufReader::new(Box::new(std::io::empty())));
    }
    let mut bytes: Box<dyn Read + Send> = if file.gzipped {
        let mut compressed = BufReader::with_capacity(BUFFER, plain);
        let start = compressed.fill_buf().map_err(fail)?;
        if let Some(fault) = pointer(start, path) {
            return Err(fault);
        }
        if !start.starts_with(GZIP) {
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

/// The fault of a file that is a pointer of Git LFS; `None` if it is not one, or cannot be read.
pub fn git_lfs_pointer(path: &Path) -> Option<FileFault> {
    let mut start = Vec::new();
    throng_fs::open(path).ok()?.take(START).read_to_end(&mut start).ok()?;
    pointer(&start, path)
}

/// The fault of a file whose start is that of a pointer of Git LFS.
fn pointer(start: &[u8], path: &Path) -> Option<FileFault> {
    let fault = || {
        FileFault::new(path, None, "it is a pointer of Git LFS and not the file itself")
            .with_help("download the file with `git lfs pull`")
    };
    start.starts_with(LFS_POINTER).then(fault)
}

/// The name and the hint of the encoding of a file that begins with these bytes, if it is UTF-16 or UTF-32. Without a
/// mark, bytes of each Latin letter are zero.
fn wide_encoding(start: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match start {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => ("it is UTF-32", UTF32),
        [b' '..=b'~', 0, 0, 0, ..] => ("it is UTF-32", UTF32_LE),
        [0, 0, 0, b' '..=b'~', ..] => ("it is UTF-32", UTF32_BE),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => ("it is UTF-16", UTF16),
        [b' '..=b'~', 0, ..] => ("it is UTF-16", UTF16_LE),
        [0, b' '..=b'~', ..] => ("it is UTF-16", UTF16_BE),
        _ => return None,
    })
}

/// The fault of a file whose start is that of another format, or of another encoding.
fn other_kind(start: &[u8], path: &Path) -> Option<FileFault> {
    if let Some((text, help)) = wide_encoding(start) {
        return Some(FileFault::new(path, Some(1), text).with_help(help));
    }
    if let Some(fault) = pointer(start, path) {
        return Some(fault);
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

/// The hint for another encoding. `iconv` has to know it: by default it takes that of the terminal.
pub(crate) const NOT_UTF8: &str = "write the file in UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8` if it is of Windows \
     in Western Europe, or as `CSV UTF-8` in Excel";

/// The hint for an encoding whose name is known.
macro_rules! write_in_utf8 {
    ($from:literal) => {
        concat!(
            "write the file in UTF-8, for example with `iconv -f ",
            $from,
            " -t UTF-8`, or as `CSV UTF-8` in Excel"
        )
    };
}
const UTF16: &str = write_in_utf8!("UTF-16");
const UTF16_LE: &str = write_in_utf8!("UTF-16LE");
const UTF16_BE: &str = write_in_utf8!("UTF-16BE");
const UTF32: &str = write_in_utf8!("UTF-32");
const UTF32_LE: &str = write_in_utf8!("UTF-32LE");
const UTF32_BE: &str = write_in_utf8!("UTF-32BE");

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
            (b"\xFE\xFF\0u\0s", "f, line 1: it is UTF-16"),
            (b"\xFF\xFE\0\0u\0\0\0", "f, line 1: it is UTF-32"),
            (b"\0\0\xFE\xFF\0\0\0u", "f, line 1: it is UTF-32"),
            (b"u\0\0\0s\0\0\0", "f, line 1: it is UTF-32"),
            (b"\0\0\0u\0\0\0s", "f, line 1: it is UTF-32"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
                "f: it is a pointer of Git LFS and not the file itself",
            ),
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

    #[test]
    fn the_hint_has_the_encoding_of_the_file() {
        for (start, encoding) in [
            (&b"\xFF\xFEu\0"[..], "-f UTF-16 -t UTF-8"),
            (b"u\0s\0", "-f UTF-16LE -t UTF-8"),
            (b"\0u\0s", "-f UTF-16BE -t UTF-8"),
            (b"\xFF\xFE\0\0", "-f UTF-32 -t UTF-8"),
            (b"u\0\0\0", "-f UTF-32LE -t UTF-8"),
            (b"\0\0\0u", "-f UTF-32BE -t UTF-8"),
        ] {
            let fault = other_kind(start, Path::new("f")).unwrap();
            assert!(fault.help().contains(encoding), "{}", fault.help());
        }
        assert!(NOT_UTF8.contains("iconv -f WINDOWS-1252 -t UTF-8"));
    }

    #[test]
    fn a_pointer_of_git_lfs_is_recognized_before_gzip() {
        use crate::format::Format;
        use crate::stamp::FileStamp;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.csv.gz");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
            .unwrap();
        let stamp = FileStamp::of(&path).unwrap();
        let file = DataFile { stamp, format: Format::Csv, gzipped: true, folders: Vec::new() };
        let fault = open(&file).err().unwrap();
        assert!(fault.to_string().contains("a pointer of Git LFS"), "{fault}");
        assert_eq!(git_lfs_pointer(&path), Some(fault));
        std::fs::write(&path, "user_id\n").unwrap();
        assert_eq!(git_lfs_pointer(&path), None);
    }
}
