//! The tables of a folder: every file, and every folder of files, of a format that we read. Symbolic
//! links are followed as far as they stay beneath the source's root: whoever may write into a source
//! must not make the node read other files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::LakeError;

/// How a table's files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Format {
    Parquet,
    Csv { gzipped: bool },
    Json { gzipped: bool },
}

impl Format {
    /// The format and the length of the ending, by a file's name.
    fn of(name: &str) -> Option<(Self, usize)> {
        let lower = name.to_lowercase();
        [
            (".parquet", Self::Parquet),
            (".csv", Self::Csv { gzipped: false }),
            (".csv.gz", Self::Csv { gzipped: true }),
            (".json", Self::Json { gzipped: false }),
            (".json.gz", Self::Json { gzipped: true }),
            (".jsonl", Self::Json { gzipped: false }),
            (".jsonl.gz", Self::Json { gzipped: true }),
            (".ndjson", Self::Json { gzipped: false }),
            (".ndjson.gz", Self::Json { gzipped: true }),
        ]
        .into_iter()
        .find(|(ending, _)| lower.ends_with(ending) && lower.len() > ending.len())
        .map(|(ending, format)| (format, ending.len()))
    }
}

/// A table: files of one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) format: Format,
    /// In order of their names.
    pub(crate) files: Vec<PathBuf>,
}

/// A name as SQL has it: `-` and `.` become `_`.
pub(crate) fn sql_name(name: &str) -> String {
    name.to_lowercase().replace(['-', '.', ' '], "_")
}

/// Levels of folders in a table. More are a circle of links.
const MAX_LEVELS: usize = 64;
/// Files and folders of a table. More come of links that lead to each other.
const MAX_ENTRIES: usize = 2_000_000;

/// What lies in a folder.
struct Entry {
    name: String,
    path: PathBuf,
    /// Whether it is a folder; why it cannot be read.
    is_folder: Result<bool, LakeError>,
}

/// The entries of a folder that lies beneath `root`, which is canonical, in the order of their names.
fn entries(folder: &Path, root: &Path) -> Result<Vec<Entry>, LakeError> {
    let fail = |source| LakeError::Source { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Hidden and underscored names are other programs' bookkeeping.
        if name.starts_with(['.', '_']) {
            continue;
        }
        let path = entry.path();
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_dir() => Ok(true),
            Ok(kind) if kind.is_file() => Ok(false),
            // Other formats are passed over, wherever they are.
            Ok(_) | Err(_) if Format::of(&name).is_none() && !path.is_dir() => continue,
            Ok(kind) if kind.is_symlink() => behind_link(&path, root),
            Ok(_) => Err(irregular(&path)),
            Err(source) => Err(LakeError::Source { path: path.clone(), source }),
        };
        entries.push(Entry { name, path, is_folder });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Whether a link leads to a folder.
fn behind_link(path: &Path, root: &Path) -> Result<bool, LakeError> {
    let fail = |source| LakeError::Source { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(fail)?;
    if !real.starts_with(root) {
        return Err(LakeError::LeadsOut { path: path.to_owned(), root: root.to_owned() });
    }
    let found = std::fs::symlink_metadata(&real).map_err(fail)?;
    if found.is_dir() || found.is_file() { Ok(found.is_dir()) } else { Err(irregular(path)) }
}

/// A pipe or a device: whoever opens one waits, or reads for ever.
fn irregular(path: &Path) -> LakeError {
    let source = std::io::Error::other("not a regular file");
    LakeError::Source { path: path.to_owned(), source }
}

/// The tables of a source's folder by their SQL names, each with its files or with why it has none.
/// Files of other formats are passed over.
///
/// # Errors
/// [`LakeError::LeadsOut`] if the folder does not lie beneath `root`, and for each table of which a
/// link does not; [`LakeError::Source`] if the folder cannot be read.
pub(crate) fn of_folder(
    folder: &Path,
    root: &Path,
) -> Result<BTreeMap<String, Result<Table, LakeError>>, LakeError> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|source| LakeError::Source { path: path.to_owned(), source })
    };
    let root = &real(root)?;
    if !real(folder)?.starts_with(root) {
        return Err(LakeError::LeadsOut { path: folder.to_owned(), root: root.clone() });
    }
    let mut tables = BTreeMap::new();
    for Entry { name, path, is_folder } in entries(folder, root)? {
        let format = Format::of(&name);
        let stem = format.map_or(name.len(), |(_, ending)| name.len() - ending);
        match (is_folder, format) {
            (Ok(true), _) => {
                if let Some(table) = of_table_folder(&path, root).transpose() {
                    tables.insert(sql_name(&name), table);
                }
            }
            (Ok(false), Some((format, _))) => {
                tables.insert(sql_name(&name[..stem]), Ok(Table { format, files: vec![path] }));
            }
            (Ok(false), None) => {}
            (Err(error), _) => {
                tables.insert(sql_name(&name[..stem]), Err(error));
            }
        }
    }
    Ok(tables)
}

/// The files of a folder and its subfolders, as one table of one format: the first file's.
fn of_table_folder(folder: &Path, root: &Path) -> Result<Option<Table>, LakeError> {
    let mut walk = Walk { root, files: Vec::new(), entries_left: MAX_ENTRIES };
    walk.collect(folder, MAX_LEVELS)?;
    let Some((format, _)) = walk.files.first() else { return Ok(None) };
    let format = *format;
    let files = walk.files.into_iter().filter(|(f, _)| *f == format).map(|(_, path)| path);
    Ok(Some(Table { format, files: files.collect() }))
}

/// A walk through the folders of a table.
struct Walk<'a> {
    /// Canonical.
    root: &'a Path,
    files: Vec<(Format, PathBuf)>,
    entries_left: usize,
}

impl Walk<'_> {
    fn collect(&mut self, folder: &Path, levels_left: usize) -> Result<(), LakeError> {
        let found = entries(folder, self.root)?;
        let left = self.entries_left.checked_sub(found.len());
        let (Some(left), true) = (left, levels_left > 0) else {
            let source = std::io::Error::other("links of its folders lead to each other");
            return Err(LakeError::Source { path: folder.to_owned(), source });
        };
        self.entries_left = left;
        for Entry { name, path, is_folder } in found {
            if is_folder? {
                self.collect(&path, levels_left - 1)?;
            } else if let Some((format, _)) = Format::of(&name) {
                self.files.push((format, path));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_tables() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("Big-Table/day=1")).unwrap();
        for name in [
            "a.csv",
            "b.x.csv.gz",
            "c.txt",
            ".hidden.csv",
            "Big-Table/day=1/1.parquet",
            "Big-Table/2.parquet",
        ] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let tables = of_folder(root, root).unwrap();
        let names: Vec<&str> = tables.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b_x", "big_table"]);
        assert_eq!(tables["b_x"].as_ref().unwrap().format, Format::Csv { gzipped: true });
        assert_eq!(tables["big_table"].as_ref().unwrap().files.len(), 2);
    }

    #[test]
    fn links_are_followed_beneath_the_root_only() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["root/source/table", "root/source", "root/other", "outside"] {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join("x.csv"), "k\n1\n").unwrap();
        }
        // The tables of a source that can be read, and those that cannot.
        let tables = |source: &str, root: &str| {
            let tables = of_folder(&at(source), &at(root)).unwrap();
            let (good, bad): (Vec<_>, Vec<_>) = tables.iter().partition(|(_, table)| table.is_ok());
            let names = |some: Vec<(&String, _)>| {
                some.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ")
            };
            (names(good), names(bad))
        };
        let both = |good: &str, bad: &str| (good.to_owned(), bad.to_owned());
        assert_eq!(tables("root/source", "root"), both("table x", ""));
        symlink(at("root/other/x.csv"), at("root/source/y.csv")).unwrap();
        symlink("../other", at("root/source/z")).unwrap();
        symlink(at("nowhere"), at("root/source/note")).unwrap();
        assert_eq!(tables("root/source", "root"), both("table x y z", ""));
        // The same links lead out of a root that is the source itself.
        assert_eq!(tables("root/source", "root/source"), both("table x", "y z"));
        // Planted deep in a table: a file, a folder, a circle.
        for target in ["outside/x.csv", "outside", "root/source"] {
            let link = at("root/source/table/p.csv");
            symlink(at(target), &link).unwrap();
            assert_eq!(tables("root/source", "root"), both("x y z", "table"), "{target}");
            std::fs::remove_file(link).unwrap();
        }
        // In place of the source.
        symlink(at("outside"), at("root/swapped")).unwrap();
        let swapped = of_folder(&at("root/swapped"), &at("root")).unwrap_err();
        assert!(matches!(swapped, LakeError::LeadsOut { .. }), "{swapped}");
        let pipe = at("root/source/pipe.csv");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        assert_eq!(tables("root/source", "root"), both("table x y z", "pipe"));
    }
}
