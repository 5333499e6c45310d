//! Files whose names say that they are copies of another file of their folder, as browsers, file managers and programs
//! that synchronise folders make them: their rows would count twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::FileError;
use crate::file_names::stem;
use crate::stamp::FileStamp;

/// Bytes at the start and at the end of files that are compared.
const COMPARED: u64 = 64 << 10;
/// Digits of the number of a copy, at most: `2026` is a year.
const MAX_DIGITS: usize = 3;
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

/// Refuses a file that is named as a copy of another one, and has its size and its bytes at the start and at the end.
///
/// # Errors
/// [`FileError::Table`] naming both.
pub(crate) fn refuse_named_copies<'f>(
    files: impl Iterator<Item = &'f FileStamp> + Clone,
) -> Result<(), FileError> {
    for family in families(files).into_values() {
        let all: Vec<&FileStamp> = family.original.into_iter().chain(family.copies).collect();
        for (at, file) in all.iter().enumerate() {
            let Some(first) = all[..at].iter().find(|first| are_alike(first, file)) else {
                continue;
            };
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

/// Whether files have one size, and the same bytes at the start and at the end. A file that cannot be read is refused
/// where it is read.
fn are_alike(one: &FileStamp, other: &FileStamp) -> bool {
    one.bytes == other.bytes
        && match (ends(one), ends(other)) {
            // A copy of an object of a bucket that is not needed has no content, only its size.
            (Ok(a), Ok(b)) => a == b && a.first().is_some_and(|byte| *byte != 0),
            _ => false,
        }
}

fn ends(file: &FileStamp) -> std::io::Result<Vec<u8>> {
    let mut opened = File::open(&file.path)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut opened).take(COMPARED).read_to_end(&mut bytes)?;
    opened.seek(SeekFrom::Start(file.bytes.saturating_sub(COMPARED)))?;
    opened.take(COMPARED).read_to_end(&mut bytes)?;
    Ok(bytes)
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
        // Files of which more is equal than what is compared are distinguished at their ends.
        let long = |end: &str| format!("id\n{}{end}\n", "12345\n".repeat(40_000));
        assert!(said(&[("x.csv", &long("1")), ("x (1).csv", &long("2"))]).is_ok());
        assert!(said(&[("x.csv", &long("1")), ("x (1).csv", &long("1"))]).is_err());
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
        ] {
            assert_eq!(said(files), Ok(None), "{files:?}");
        }
    }
}
