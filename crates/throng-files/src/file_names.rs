//! Names of files that cannot be in one folder, or in no source.

use std::collections::HashMap;
use std::path::Path;

use crate::error::FileError;
use crate::format::{FileKind, file_kind};

/// A file's name without its ending; `None` if it has no ending of files with rows.
pub(crate) fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    match file_kind(name) {
        FileKind::Data { ending, .. } | FileKind::Unreadable { ending, .. } => {
            name.get(..name.len().checked_sub(ending)?)
        }
        FileKind::Other => None,
    }
}

/// Whether two files of one folder differ only in their endings, as a file and its compressed copy.
pub(crate) fn differ_in_ending(one: &Path, other: &Path) -> bool {
    stem(one).is_some() && stem(one) == stem(other)
}

/// Refuses files of one folder that differ only in their endings: probably they have the same rows, which would count
/// twice. `gzip -k` and a gzip that has not finished give such files.
///
/// # Errors
/// [`FileError::Table`] naming two of them.
pub(crate) fn refuse_copies<'a>(files: impl Iterator<Item = &'a Path>) -> Result<(), FileError> {
    let mut known: HashMap<(Option<&Path>, &str), &Path> = HashMap::new();
    for path in files {
        let Some(stem) = stem(path) else { continue };
        if let Some(first) = known.insert((path.parent(), stem), path) {
            return Err(FileError::Table {
                message: format!(
                    "{} and {} differ only in their endings: rows that both have would count twice",
                    first.display(),
                    path.display()
                ),
                help: "remove one of them; or, if they have different rows, rename one of them"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

/// Refuses a file that the engine cannot locate.
///
/// # Errors
/// [`FileError::Table`] if there is a control character in its path.
pub(crate) fn check_path(path: &Path) -> Result<(), FileError> {
    let shown = path.display().to_string();
    if !shown.contains(|c: char| c.is_ascii_control()) {
        return Ok(());
    }
    let mut escaped = String::with_capacity(shown.len());
    for c in shown.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Err(FileError::Table {
        message: format!(
            "there is a control character, such as a tab or a line break, in the path {escaped}"
        ),
        help: "rename the file or its folder".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use crate::of_folder;

    /// What is said of the only table of a source with these files, and the hint.
    fn said(names: &[&str]) -> Option<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("id\n{name}\n")).unwrap();
        }
        let tables = of_folder(dir.path(), dir.path()).unwrap().tables;
        assert_eq!(tables.len(), 1, "{names:?}");
        let error = tables.into_values().find_map(Result::err)?;
        let message = error.to_string().replace(&format!("{}/", dir.path().display()), "");
        Some((message, error.help().to_owned()))
    }

    #[test]
    fn files_that_differ_only_in_their_endings_are_refused() {
        for (one, other) in [
            ("t/a.csv", "t/a.csv.gz"),
            ("t/a.csv", "t/a.parquet"),
            ("t/a.json", "t/a.jsonl.gz"),
            ("t/day=1/a.CSV", "t/day=1/a.csv.GZ"),
        ] {
            let (message, help) = said(&[one, other]).unwrap();
            let wanted = format!(
                "{one} and {other} differ only in their endings: rows that both have would count twice"
            );
            assert_eq!(message, wanted);
            assert!(help.starts_with("remove one of them"), "{help}");
        }
        for others in [
            &["t/a.csv", "t/b.csv.gz"][..],
            &["t/day=1/a.csv", "t/day=2/a.csv.gz"],
            &["t/a.csv", "t/a.csv.tmp", "t/_a.csv.gz"],
        ] {
            assert_eq!(said(others), None, "{others:?}");
        }
    }

    #[test]
    fn a_file_beside_its_compressed_copy_is_not_to_be_moved_into_a_folder() {
        let (message, help) = said(&["users.csv", "users.csv.gz"]).unwrap();
        assert_eq!(message, "users.csv and users.csv.gz are both the table users");
        assert!(help.starts_with("remove one of them"), "{help}");
        let (_, help) = said(&["a-b.csv", "a_b.csv"]).unwrap();
        assert!(help.starts_with("rename one of them, or put"), "{help}");
    }

    #[test]
    fn a_path_with_a_control_character_is_refused() {
        for (name, shown) in [
            ("t/tab\t.csv", "t/tab\\t.csv"),
            ("new\nline.csv", "new\\nline.csv"),
            ("t/day=\u{7f}/1.csv", "t/day=\\u{7f}/1.csv"),
        ] {
            let (message, help) = said(&[name]).unwrap();
            let wanted =
                "there is a control character, such as a tab or a line break, in the path ";
            assert_eq!(message, format!("{wanted}{shown}"));
            assert_eq!(help, "rename the file or its folder");
        }
        // Not read anyway.
        assert_eq!(said(&["t/1.csv", "t/Icon\r"]), None);
        assert_eq!(said(&["t/a\u{a0}ü b.csv"]), None);
    }
}
