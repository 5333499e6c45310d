//! Files that are in a table under several names: links to a file of the same table.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::FileError;
use crate::stamp::FileStamp;

/// A file of a table, with the columns in the names of its folders.
pub(crate) type NamedFile<'a> = (&'a FileStamp, &'a [(String, Option<String>)]);

/// What makes two names those of one file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// Where the links of a path lead.
    Path(PathBuf),
    /// Device and inode of a file with hard links. Those of other files may not be unique on file systems of buckets.
    Inode(u64, u64),
}

impl Identity {
    fn of(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError::Source { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(fail)?;
        match metadata.nlink() {
            0 | 1 => Ok(Self::Path(path.canonicalize().map_err(fail)?)),
            _ => Ok(Self::Inode(metadata.dev(), metadata.ino())),
        }
    }
}

/// The files of a table that are a file of it under another name, by their places, each with the name that is read: the
/// rows of such a file would count twice. Files in folders with other values of a column have other rows:
/// `day=1/a.csv` and `day=2/a.csv` are both read.
///
/// # Errors
/// [`FileError::Source`] if a file is missing by now.
pub(crate) fn repeated(files: &[NamedFile<'_>]) -> Result<BTreeMap<usize, PathBuf>, FileError> {
    // A file has one size and time under all of its names, so most files need not be inspected.
    let mut alike: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
    for (at, (stamp, _)) in files.iter().enumerate() {
        alike.entry((stamp.bytes, stamp.modified)).or_default().push(at);
    }
    let mut names: BTreeMap<Identity, Vec<usize>> = BTreeMap::new();
    for at in alike.into_values().filter(|alike| alike.len() > 1).flatten() {
        names.entry(Identity::of(&files[at].0.path)?).or_default().push(at);
    }
    let mut repeated = BTreeMap::new();
    for mut same in names.into_values().filter(|same| same.len() > 1) {
        // The name with the most columns is read, and rather the file than a link.
        same.sort_by_cached_key(|at| {
            let (stamp, folders) = files[*at];
            (Reverse(folders.len()), stamp.path.is_symlink(), *at)
        });
        let mut read: Vec<usize> = Vec::new();
        for at in same {
            match read.iter().find(|first| agree(files[**first].1, files[at].1)) {
                Some(first) => {
                    repeated.insert(at, files[*first].0.path.clone());
                }
                None => read.push(at),
            }
        }
    }
    Ok(repeated)
}

/// Whether no column has two values.
fn agree(a: &[(String, Option<String>)], b: &[(String, Option<String>)]) -> bool {
    let differs = |(name, value): &(String, Option<String>)| {
        b.iter().any(|(other, found)| other == name && found != value)
    };
    !a.iter().any(differs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::of_folder;

    #[test]
    fn a_file_under_several_names_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let at = |name: &str| root.join(name);
        for folder in ["t/day=1", "t/day=2", "u"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        // Other files, although they have the same rows.
        for name in ["t/day=1/1.csv", "t/day=1/2.csv", "u/1.csv"] {
            std::fs::write(at(name), "id\n1\n").unwrap();
        }
        symlink("1.csv", at("t/day=1/0.csv")).unwrap();
        symlink("day=1", at("t/current")).unwrap();
        std::fs::hard_link(at("u/1.csv"), at("u/2.csv")).unwrap();
        symlink("2.csv", at("u/0.csv")).unwrap();
        // The rows have another day, or are of another table.
        std::fs::hard_link(at("t/day=1/2.csv"), at("t/day=2/2.csv")).unwrap();
        symlink("u/1.csv", at("v.csv")).unwrap();
        let tables = of_folder(root, root).unwrap().tables;
        let prefix = format!("{}/", root.display());
        let of = |name: &str| {
            let table = tables[name].as_ref().unwrap();
            let read = table.files.iter().map(|file| file.path().display().to_string());
            let passed_over = table.passed_over.iter();
            let passed_over =
                passed_over.map(|file| format!("{}: {}", file.path.display(), file.reason));
            let texts = read.chain(passed_over).map(|text| text.replace(&prefix, ""));
            texts.collect::<Vec<_>>()
        };
        assert_eq!(
            of("t"),
            [
                "t/day=1/1.csv",
                "t/day=1/2.csv",
                "t/day=2/2.csv",
                "t/current/0.csv: it is the same file as t/day=1/1.csv",
                "t/current/1.csv: it is the same file as t/day=1/1.csv",
                "t/current/2.csv: it is the same file as t/day=1/2.csv",
                "t/day=1/0.csv: it is the same file as t/day=1/1.csv",
            ]
        );
        assert_eq!(
            of("u"),
            [
                "u/1.csv",
                "u/0.csv: it is the same file as u/1.csv",
                "u/2.csv: it is the same file as u/1.csv",
            ]
        );
        assert_eq!(of("v"), ["v.csv"]);
    }
}
