//! Files whose names say that they are copies of another file of their folder, as browsers, file managers and programs
//! that synchronise folders make them: their rows would count twice.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::FileError;
use crate::file_names::stem;
use crate::format::{BYTE_ORDER_MARK, GZIP};
use crate::stamp::FileStamp;

/// Bytes at the start and at the end of files that are compared.
const COMPARED: u64 = 64 << 10;
/// Digits of the number of a copy, at most: `2026` is a year.
const MAX_DIGITS: usize = 3;
/// The first bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";
const STARTS: [&str; 2] = ["copy of ", "kopie von "];
const ENDS: [&str; 4] = [" - copy", " - kopie", " copy", ".tmp"];
/// Before the time of a conflict in names of Syncthing.
const CONFLICT: &str = ".sync-conflict-";

/// The files with one name in a folder, first the one without a sign of a copy, if it is there.
#[derive(Default)]
struct Family<'f> {
    original: Option<&'f FileStamp>,
    copies: Vec<&'f FileStamp>,
}

/// The name that a file was copied from: `x` of `x (1)`, `x - Copy (2)`, `Copy of x`, `x copy 2`, `x.tmp` and
/// `x.sync-conflict-20261125-101010-ABCDEFG`.
fn copied_name(stem: &str) -> Option<&str> {
    let lower = stem.to_ascii_lowercase();
    let length = if let Some(start) = STARTS.iter().find(|start| lower.starts_with(**start)) {
        return stem.get(start.len()..).filter(|rest| !rest.is_empty());
    } else if let Some(at) = lower.find(CONFLICT) {
        at
    } else {
        let name = without_number(&lower);
        let end = ENDS.iter().find(|end| name.ends_with(**end)).map_or(0, |end| end.len());
        name.len() - end
    };
    stem.get(..length).filter(|name| !name.is_empty() && name.len() < stem.len())
}

/// A name without the number of a copy.
fn without_number(name: &str) -> &str {
    let is_number = |text: &str| {
        (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if let Some((before, inner)) = name.strip_suffix(')').and_then(|name| name.rsplit_once(" ("))
        && (is_number(inner) || inner.contains("conflicted copy"))
    {
        return before;
    }
    match name.rsplit_once(' ') {
        Some((before, number)) if is_number(number) && before.ends_with(" copy") => before,
        _ => name,
    }
}

/// A folder, and the name and the ending of a file in it.
type Name<'f> = (Option<&'f Path>, &'f str, &'f str);

fn name_of(path: &Path) -> Option<Name<'_>> {
    let stem = stem(path)?;
    let ending = path.file_name()?.to_str()?.get(stem.len()..)?;
    Some((path.parent(), stem, ending))
}

/// The files that are named as copies, by the names that they were copied from.
fn families<'f>(
    files: impl Iterator<Item = &'f FileStamp> + Clone,
) -> BTreeMap<Name<'f>, Family<'f>> {
    let mut found: BTreeMap<Name<'_>, Family<'_>> = BTreeMap::new();
    for file in files.clone() {
        let Some((folder, stem, ending)) = name_of(&file.path) else { continue };
        if let Some(name) = copied_name(stem) {
            found.entry((folder, name, ending)).or_default().copies.push(file);
        }
    }
    if found.is_empty() {
        return found;
    }
    for file in files {
        if let Some(family) = name_of(&file.path).and_then(|name| found.get_mut(&name)) {
            family.original = Some(file);
        }
    }
    found
}

/// Refuses a file with rows that is named as a copy of another one, and has its size and its bytes at the start and at
/// the end.
///
/// # Errors
/// [`FileError::Table`] naming both.
pub(crate) fn refuse_named_copies<'f>(
    files: impl Iterator<Item = &'f FileStamp> + Clone,
) -> Result<(), FileError> {
    for family in families(files).into_values() {
        let mut sizes: BTreeMap<u64, Vec<&FileStamp>> = BTreeMap::new();
        for file in family.original.into_iter().chain(family.copies) {
            sizes.entry(file.bytes).or_default().push(file);
        }
        for files in sizes.into_values().filter(|files| files.len() > 1) {
            let Some((first, file)) = alike(&files) else { continue };
            return Err(FileError::Table {
                message: format!(
                    "{} is a copy of {}, by its name, its size, and its first and last bytes: their rows would count \
                     twice",
                    file.path.display(),
                    first.path.display()
                ),
                help: "remove one of them; or, if both have rows of the table, rename one of them"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

/// The first two of files of one size with rows that have the same bytes at the start and at the end. A file that cannot
/// be read is refused where it is read.
fn alike<'f>(files: &[&'f FileStamp]) -> Option<(&'f FileStamp, &'f FileStamp)> {
    // Hashes, since the bytes of thousands of files need much memory.
    let mut seen: BTreeMap<u64, &FileStamp> = BTreeMap::new();
    for &file in files {
        let Some(ends) = Ends::of(file).ok().filter(Ends::has_rows) else { continue };
        match seen.get(&ends.hash()).copied() {
            None => {
                seen.insert(ends.hash(), file);
            }
            Some(first) if Ends::of(first).is_ok_and(|of| of == ends) => {
                return Some((first, file));
            }
            Some(_) => {}
        }
    }
    None
}

/// The first and the last bytes of a file, which overlap if it is short.
#[derive(PartialEq, Eq)]
struct Ends {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Ends {
    fn of(file: &FileStamp) -> std::io::Result<Self> {
        let mut opened = throng_fs::open(&file.path)?;
        let (mut start, mut end) = (Vec::new(), Vec::new());
        Read::by_ref(&mut opened).take(COMPARED).read_to_end(&mut start)?;
        opened.seek(SeekFrom::Start(file.bytes.saturating_sub(COMPARED)))?;
        opened.take(COMPARED).read_to_end(&mut end)?;
        Ok(Self { start, end })
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.start);
        hasher.write(&self.end);
        hasher.finish()
    }

    /// Whether the file has rows, as far as its start says: files with a header alone are equal, and none is a copy.
    fn has_rows(&self) -> bool {
        let mut unpacked = Vec::new();
        let start = if self.start.starts_with(GZIP) {
            // What is cut off is an error behind the bytes that are needed.
            let _ = MultiGzDecoder::new(self.start.as_slice())
                .take(COMPARED)
                .read_to_end(&mut unpacked);
            unpacked.as_slice()
        } else {
            self.start.as_slice()
        };
        match start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii() {
            // A copy of an object of a bucket that is not needed has no content, only its size.
            [0, ..] => false,
            [b'[', rest @ ..] => !rest.trim_ascii_start().starts_with(b"]"),
            [b'{', ..] => true,
            text => text.starts_with(PARQUET) || text.iter().any(|b| matches!(b, b'\n' | b'\r')),
        }
    }
}

/// A warning about files of a table that are named as copies of another one of their folder; `None` if there is none.
pub fn named_copies<'f>(files: impl Iterator<Item = &'f FileStamp> + Clone) -> Option<String> {
    let found = families(files);
    let mut pairs = found.values().filter_map(|family| Some((family.original?, &family.copies)));
    let (original, copies) = pairs.next()?;
    let first = copies.first()?;
    let more = copies.len() - 1 + pairs.map(|(_, copies)| copies.len()).sum::<usize>();
    let more = match more {
        0 => String::new(),
        1 => " (and 1 more file of the table)".to_owned(),
        more => format!(" (and {more} more files of the table)"),
    };
    Some(format!(
        "{} is named as a copy of {}{more}: rows that both have count twice; remove it if it is one, or give it a name \
         of its own",
        first.path.display(),
        original.path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::of_folder;

    #[test]
    fn names_of_copies_have_the_name_of_the_file() {
        for (stem, name) in [
            ("x (1)", Some("x")),
            ("x - Copy", Some("x")),
            ("x - Copy (2)", Some("x")),
            ("Copy of x", Some("x")),
            ("Kopie von x", Some("x")),
            ("x copy", Some("x")),
            ("x copy 2", Some("x")),
            ("x.tmp", Some("x")),
            ("x.sync-conflict-20261125-101010-ABCDEFG", Some("x")),
            ("x (Zoe's conflicted copy 2026-11-25)", Some("x")),
            ("x", None),
            ("x (2026)", None),
            ("x (eu)", None),
            ("x 2", None),
            ("x(1)", None),
            (" copy", None),
            ("copy of ", None),
            ("İ (1)", Some("İ")),
        ] {
            assert_eq!(copied_name(stem), name, "{stem}");
        }
    }

    /// What is said of a table with these files, without their folder: of an error, or of names.
    fn said(files: &[(&str, &str)]) -> Result<Option<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join("t").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let prefix = format!("{}/t/", dir.path().display());
        let table = of_folder(dir.path(), dir.path()).unwrap().tables.remove("t").unwrap();
        let plain = |text: String| text.replace(&prefix, "");
        match table {
            Ok(table) => Ok(named_copies(table.files.iter().map(|file| &file.stamp)).map(plain)),
            Err(error) => Err(plain(format!("{error}; {}", error.help()))),
        }
    }

    #[test]
    fn a_copy_in_the_folder_of_a_table_is_refused_by_name() {
        for copy in ["x (1).csv", "x - Copy.csv", "Copy of x.csv", "x.tmp.csv"] {
            let refusal = said(&[("x.csv", "id\n1\n"), (copy, "id\n1\n")]).unwrap_err();
            assert!(refusal.starts_with(&format!("{copy} is a copy of x.csv, ")), "{refusal}");
            assert!(refusal.contains("; remove one of them; or, "), "{refusal}");
        }
        // Copies whose original was removed.
        let refusal = said(&[("x (1).csv", "id\n1\n"), ("x (2).csv", "id\n1\n")]).unwrap_err();
        assert!(refusal.starts_with("x (2).csv is a copy of x (1).csv, "), "{refusal}");
        for line in ["[{\"id\":1}]", "{\"id\":1}\n"] {
            assert!(said(&[("x.json", line), ("x (1).json", line)]).is_err(), "{line}");
        }
        // Among files without rows and other ones.
        let files = [("x (1).csv", "id\n1\n"), ("x (2).csv", "id\n2\n"), ("x (3).csv", "id\n")];
        let again = [("x (4).csv", "id\n"), ("x (5).csv", "id\n2\n")];
        let refusal = said(&[&files[..], &again].concat()).unwrap_err();
        assert!(refusal.starts_with("x (5).csv is a copy of x (2).csv, "), "{refusal}");
        // Files of which more is equal than what is compared are distinguished at their ends.
        let long = |end: &str| format!("id\n{}{end}\n", "12345\n".repeat(40_000));
        assert!(said(&[("x.csv", &long("1")), ("x (1).csv", &long("2"))]).is_ok());
        assert!(said(&[("x.csv", &long("1")), ("x (1).csv", &long("1"))]).is_err());
    }

    #[test]
    fn rows_are_found_in_compressed_files() {
        use std::io::Write;
        for (text, has_rows) in [("id,n\n", false), ("id,n\n1,2\n", true), ("{\"id\":1}", true)] {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            let ends = Ends { start: packed.finish().unwrap(), end: Vec::new() };
            assert_eq!(ends.has_rows(), has_rows, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_named_as_a_copy_and_has_other_rows_is_doubtful() {
        let warning = said(&[("x.csv", "id\n1\n"), ("x (1).csv", "id\n2\n")]).unwrap().unwrap();
        assert!(warning.starts_with("x (1).csv is named as a copy of x.csv: rows"), "{warning}");
        let files = [("x.csv", "id\n1\n"), ("x copy.csv", "id\n2\n"), ("x.tmp.csv", "id\n3\n")];
        assert!(said(&files).unwrap().unwrap().contains("x.csv (and 1 more file of the table)"));
        for files in [
            // Parts of one export.
            &[("x (1).csv", "id\n1\n"), ("x (2).csv", "id\n2\n")][..],
            &[("a.csv", "id\n1\n"), ("b.csv", "id\n1\n")],
            &[("x.csv", "id\n1\n"), ("x (1).parquet", "id\n1\n")],
            &[("day=1/x.csv", "id\n1\n"), ("day=2/x (1).csv", "id\n1\n")],
            // Without content.
            &[("a (1).csv", "\0\0\0"), ("a (2).csv", "\0\0\0")],
            &[("a (1).csv", ""), ("a (2).csv", "")],
            // Without rows.
            &[("a (1).csv", "id,n\n"), ("a (2).csv", "id,n\n")],
            &[("a (1).csv", "\u{feff}id\r\n\r\n"), ("a (2).csv", "\u{feff}id\r\n\r\n")],
            &[("a (1).json", "[ ]\n"), ("a (2).json", "[ ]\n")],
        ] {
            assert_eq!(said(files), Ok(None), "{files:?}");
        }
    }
}
