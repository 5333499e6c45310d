//! Finds the tables of a folder: every file, and every folder of files, of a format that is read.
//! Symbolic links are followed only beneath the source's root: otherwise anyone who may write into
//! a source could make the node read other files.
//!
//! No file is ignored: one that is not read is either listed as passed over, or its table is
//! refused.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::batches::{BATCHES_FOLDER, STAGING_FOLDER, finished_files, read_settled};
use crate::copy_names::refuse_named_copies;
use crate::error::FileError;
use crate::file_names::{check_path, differ_in_ending, refuse_copies};
use crate::format::{FileKind, Format, file_kind, passed_over_by_name, sql_name};
use crate::repeated::repeated;
use crate::stamp::FileStamp;
use crate::table_format::{refuse_part_of_table, refuse_table_format};

/// Levels of folders in a table.
const MAX_LEVELS: usize = 64;
/// Files and folders of a table, at most. Only links to each other give more.
const MAX_ENTRIES: usize = 2_000_000;
/// Why a file is passed over that may have rows.
pub(crate) const UNKNOWN_ENDING: &str = "its ending is not known";
/// Why a link, a pipe or a device is passed over.
pub(crate) const NOT_READ: &str = "its format is not read";

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its path, size and time of change.
    pub stamp: FileStamp,
    /// The format of its rows.
    pub format: Format,
    /// Whether it is compressed by gzip.
    pub gzipped: bool,
    /// The columns in the names of its folders (`day=2026-11-25`), with their values; `None` is
    /// NULL.
    pub folders: Vec<(String, Option<String>)>,
}

impl DataFile {
    fn of(
        path: &Path,
        (format, gzipped): (Format, bool),
        folders: Vec<(String, Option<String>)>,
    ) -> Result<Self, FileError> {
        check_path(path)?;
        Ok(Self { stamp: FileStamp::of(path)?, format, gzipped, folders })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.stamp.path
    }
}

/// A file or folder that is not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Which one.
    pub path: PathBuf,
    /// Why it is not read.
    pub reason: String,
}

/// A table: files, in order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The files that are read.
    pub files: Vec<DataFile>,
    /// Files in the table's folder that are not read.
    pub passed_over: Vec<PassedOver>,
}

/// The tables of a source.
#[derive(Debug, Default)]
pub struct Folder {
    /// By their SQL names, each with its files or with why it cannot be read.
    pub tables: BTreeMap<String, Result<Table, FileError>>,
    /// Files and folders that are not a table.
    pub passed_over: Vec<PassedOver>,
    /// The file or folder that gave each table its name.
    origins: BTreeMap<String, PathBuf>,
}

impl Folder {
    fn insert(&mut self, name: String, path: PathBuf, table: Result<Table, FileError>) {
        let name = name.replace(|c: char| c.is_ascii_control(), "_");
        match self.origins.entry(name.clone()) {
            MapEntry::Vacant(entry) => {
                entry.insert(path);
                self.tables.insert(name, table);
            }
            MapEntry::Occupied(first) => {
                // In one folder their rows would count twice.
                let help = match differ_in_ending(first.get(), &path) {
                    true => {
                        "remove one of them; or, if they have different rows, rename one of them"
                    }
                    false => "rename one of them, or put files of one table into one folder",
                };
                let refusal = FileError::Table {
                    message: format!(
                        "{} and {} are both the table {name}",
                        first.get().display(),
                        path.display()
                    ),
                    help: help.to_owned(),
                };
                self.tables.insert(name, Err(refusal));
            }
        }
    }
}

/// An entry of a folder.
struct Entry {
    name: String,
    path: PathBuf,
    kind: Result<EntryKind, FileError>,
}

enum EntryKind {
    Folder,
    File,
    PassedOver(&'static str),
}

/// The entries of a folder in the order of their names. `root` is canonical.
fn entries(folder: &Path, root: &Path) -> Result<Vec<Entry>, FileError> {
    let fail = |source| FileError::Source { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let (name, kind) = match entry.file_name().into_string() {
            Ok(name) => {
                let kind = kind_of(&entry, &name, root);
                (name, kind)
            }
            // Its path could not be recorded.
            Err(name) => {
                let source = std::io::Error::other("its name is not UTF-8");
                let error = FileError::Source { path: path.clone(), source };
                (name.to_string_lossy().into_owned(), Err(error))
            }
        };
        entries.push(Entry { name, path, kind });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn kind_of(entry: &std::fs::DirEntry, name: &str, root: &Path) -> Result<EntryKind, FileError> {
    let path = entry.path();
    if let Some(reason) = passed_over_by_name(name) {
        return Ok(EntryKind::PassedOver(reason));
    }
    let is_data = !matches!(file_kind(name), FileKind::Other);
    match entry.file_type() {
        Ok(kind) if kind.is_dir() => Ok(EntryKind::Folder),
        Ok(kind) if kind.is_file() => Ok(EntryKind::File),
        Ok(_) | Err(_) if !is_data && !path.is_dir() => Ok(EntryKind::PassedOver(NOT_READ)),
        Ok(kind) if kind.is_symlink() => kind_of_target(&path, root),
        Ok(_) => Err(irregular(&path)),
        Err(source) => Err(FileError::Source { path, source }),
    }
}

/// The kind of a link's target.
fn kind_of_target(path: &Path, root: &Path) -> Result<EntryKind, FileError> {
    let fail = |source| FileError::Source { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(fail)?;
    if !real.starts_with(root) {
        return Err(FileError::LeadsOut { path: path.to_owned(), root: root.to_owned() });
    }
    let found = std::fs::symlink_metadata(&real).map_err(fail)?;
    match (found.is_dir(), found.is_file()) {
        (true, _) => refuse_part_of_table(&real).map(|()| EntryKind::Folder),
        (_, true) => Ok(EntryKind::File),
        _ => Err(irregular(path)),
    }
}

/// A pipe, a socket or a device: opening it blocks, or it never ends.
fn irregular(path: &Path) -> FileError {
    let source = std::io::Error::other("it is a pipe, a socket or a device, not a file");
    FileError::Source { path: path.to_owned(), source }
}

/// The tables of a source's folder.
///
/// # Errors
/// [`FileError::LeadsOut`] if the folder is not beneath `root`; [`FileError::Source`] if it cannot
/// be read; [`FileError::Table`] if it is a table of a format that is not supported, or in one.
/// The error of one table is its entry in the result.
pub fn of_folder(folder: &Path, root: &Path) -> Result<Folder, FileError> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|source| FileError::Source { path: path.to_owned(), source })
    };
    let root = &real(root)?;
    let place = real(folder)?;
    if !place.starts_with(root) {
        return Err(FileError::LeadsOut { path: folder.to_owned(), root: root.clone() });
    }
    refuse_table_format(folder)?;
    refuse_part_of_table(&place)?;
    let mut found = Folder::default();
    for Entry { name, path, kind } in entries(folder, root)? {
        let what = file_kind(&name);
        let stem = match what {
            FileKind::Data { ending, .. } | FileKind::Unreadable { ending, .. } => {
                name.len() - ending
            }
            FileKind::Other => name.len(),
        };
        let pass = |reason: &str| PassedOver { path: path.clone(), reason: reason.to_owned() };
        match (kind, what) {
            (Ok(EntryKind::PassedOver(reason)), _) => found.passed_over.push(pass(reason)),
            (Ok(EntryKind::Folder), _) => match of_table_folder(&path, root) {
                Ok(table) if table.files.is_empty() => {
                    found.passed_over.push(pass("it contains no file of a format that is read"));
                    found.passed_over.extend(table.passed_over);
                }
                table => found.insert(sql_name(&name), path, table),
            },
            (Ok(EntryKind::File), FileKind::Data { format, gzipped, .. }) => {
                let file = DataFile::of(&path, (format, gzipped), Vec::new());
                let table = file.map(|file| Table { files: vec![file], ..Table::default() });
                found.insert(sql_name(&name[..stem]), path, table);
            }
            (Ok(EntryKind::File), FileKind::Unreadable { what, .. }) => {
                let refusal = Err(unreadable(&path, what));
                found.insert(sql_name(&name[..stem]), path, refusal);
            }
            (Ok(EntryKind::File), FileKind::Other) => found.passed_over.push(pass(UNKNOWN_ENDING)),
            (Err(error), _) => found.insert(sql_name(&name[..stem]), path, Err(error)),
        }
    }
    Ok(found)
}

/// The error of a file with rows whose format is not read.
fn unreadable(path: &Path, what: &str) -> FileError {
    FileError::Table {
        message: format!("{} cannot be read: it is {what}", path.display()),
        help:
            "write it as Parquet, as CSV or as JSON lines, plain or compressed by gzip; or give it a \
               name that begins with _"
                .to_owned(),
    }
}

/// The files of a folder and its subfolders.
fn of_table_folder(folder: &Path, root: &Path) -> Result<Table, FileError> {
    read_settled(|| finished_files(folder), |finished| read_table(folder, root, finished))
}

/// The files of a table; of one that is written in batches those of the finished batches.
fn read_table(
    folder: &Path,
    root: &Path,
    finished: Option<BTreeMap<PathBuf, u64>>,
) -> Result<Table, FileError> {
    let mut walk = Walk {
        root,
        table: Table::default(),
        entries_left: MAX_ENTRIES,
        open: Vec::new(),
        folders: Vec::new(),
    };
    walk.collect(folder)?;
    let mut table = walk.table;
    if let Some(finished) = finished {
        keep_finished(&mut table, folder, finished)?;
    }
    pass_over_repeated(&mut table)?;
    refuse_copies(table.files.iter().map(DataFile::path))?;
    refuse_named_copies(table.files.iter().map(|file| &file.stamp))?;
    Ok(table)
}

/// Passes over files that are a file of the table under another name.
fn pass_over_repeated(table: &mut Table) -> Result<(), FileError> {
    let named = table.files.iter().map(|file| (&file.stamp, file.folders.as_slice()));
    let mut repeated = repeated(&named.collect::<Vec<_>>())?;
    for (at, file) in std::mem::take(&mut table.files).into_iter().enumerate() {
        match repeated.remove(&at) {
            Some(first) => table.passed_over.push(PassedOver {
                path: file.stamp.path,
                reason: format!("it is the same file as {}", first.display()),
            }),
            None => table.files.push(file),
        }
    }
    Ok(())
}

/// Keeps the files of finished batches.
///
/// # Errors
/// [`FileError::Table`] if a file that a manifest names is missing, or has another size.
fn keep_finished(
    table: &mut Table,
    folder: &Path,
    mut finished: BTreeMap<PathBuf, u64>,
) -> Result<(), FileError> {
    let damaged = |path: &Path, what: &str| FileError::Table {
        message: format!("{} {what}", path.display()),
        help: "restore the file, or the folder of the table, from a backup".to_owned(),
    };
    let mut kept = Vec::with_capacity(table.files.len());
    for file in std::mem::take(&mut table.files) {
        let relative = file.path().strip_prefix(folder).unwrap_or(file.path());
        match finished.remove(relative) {
            Some(bytes) if bytes == file.stamp.bytes => kept.push(file),
            Some(_) => {
                return Err(damaged(file.path(), "has another size than its batch has written"));
            }
            None => table.passed_over.push(PassedOver {
                path: file.path().to_owned(),
                reason: "no finished batch has it".to_owned(),
            }),
        }
    }
    if let Some((missing, _)) = finished.first_key_value() {
        return Err(damaged(&folder.join(missing), "is missing: a batch has written it"));
    }
    table.files = kept;
    let is_internal = |path: &Path| {
        path.parent() == Some(folder)
            && path.file_name().is_some_and(|name| name == BATCHES_FOLDER || name == STAGING_FOLDER)
    };
    table.passed_over.retain(|one| !is_internal(&one.path));
    Ok(())
}

/// A walk through the folders of a table.
struct Walk<'a> {
    /// Canonical.
    root: &'a Path,
    table: Table,
    entries_left: usize,
    /// The folder that is being read and those above it; canonical.
    open: Vec<PathBuf>,
    /// The columns in the names of these folders.
    folders: Vec<(String, Option<String>)>,
}

impl Walk<'_> {
    fn collect(&mut self, folder: &Path) -> Result<(), FileError> {
        refuse_table_format(folder)?;
        let fail = |source| FileError::Source { path: folder.to_owned(), source };
        let real = folder.canonicalize().map_err(fail)?;
        if self.open.contains(&real) || self.open.len() >= MAX_LEVELS {
            return Err(fail(std::io::Error::other("links of its folders form a cycle")));
        }
        self.open.push(real);
        let found = entries(folder, self.root)?;
        self.entries_left = self
            .entries_left
            .checked_sub(found.len())
            .ok_or_else(|| fail(std::io::Error::other("it contains more than 2000000 entries")))?;
        for Entry { name, path, kind } in found {
            let pass = |reason: &str| PassedOver { path: path.clone(), reason: reason.to_owned() };
            match (kind?, file_kind(&name)) {
                (EntryKind::PassedOver(reason), _) => self.table.passed_over.push(pass(reason)),
                (EntryKind::Folder, _) => {
                    let column = partition(&name);
                    let has_column = column.is_some();
                    self.folders.extend(column);
                    self.collect(&path)?;
                    if has_column {
                        self.folders.pop();
                    }
                }
                (EntryKind::File, FileKind::Data { format, gzipped, .. }) => {
                    let folders = self.folders.clone();
                    self.table.files.push(DataFile::of(&path, (format, gzipped), folders)?);
                }
                (EntryKind::File, FileKind::Unreadable { what, .. }) => {
                    return Err(unreadable(&path, what));
                }
                (EntryKind::File, FileKind::Other) => {
                    self.table.passed_over.push(pass(UNKNOWN_ENDING));
                }
            }
        }
        self.open.pop();
        Ok(())
    }
}

/// The column that a folder's name gives (`region=0001`), with its value. Percent signs are decoded
/// as Hive and Spark write them.
fn partition(name: &str) -> Option<(String, Option<String>)> {
    let (column, value) = name.split_once('=')?;
    if column.is_empty() {
        return None;
    }
    let value = (value != "__HIVE_DEFAULT_PARTITION__").then(|| percent_decoded(value));
    Some((percent_decoded(column), value))
}

/// Decodes `%3A` and others; returns the text unchanged if the result is not UTF-8.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        // A sign is not a digit.
        let digits = digits.filter(|digits| !digits.starts_with('+'));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
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
            "Big-Table/~$2.xlsx",
            "Big-Table/day=1/1.parquet",
            "Big-Table/2.parquet",
            "Big-Table/_SUCCESS",
        ] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let found = of_folder(root, root).unwrap();
        let names: Vec<&str> = found.tables.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b_x", "big_table"]);
        let table = |name: &str| found.tables[name].as_ref().unwrap();
        assert!(table("b_x").files[0].gzipped);
        let days: Vec<_> = table("big_table").files.iter().map(|f| f.folders.clone()).collect();
        assert_eq!(days, [vec![], vec![("day".to_owned(), Some("1".to_owned()))]]);
        assert_eq!(table("big_table").passed_over.len(), 2);
        let passed: Vec<_> =
            found.passed_over.iter().map(|p| p.path.file_name().unwrap()).collect();
        assert_eq!(passed, [".hidden.csv", "c.txt"]);
    }

    #[test]
    fn files_that_cannot_be_read_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["d/_delta_log", "i/metadata", "u"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for name in [
            "a-b.csv",
            "a_b.csv",
            "u/1.csv",
            "u.csv",
            "p.csv.zst",
            "d/1.parquet",
            "i/1.parquet",
            "i/metadata/v1.metadata.json",
            "good.csv",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink("loop.csv", at("loop.csv")).unwrap();
        let found = of_folder(dir.path(), dir.path()).unwrap();
        let said: Vec<String> = found
            .tables
            .iter()
            .map(|(name, table)| match table {
                Ok(_) => format!("{name}: good"),
                Err(error) => {
                    format!("{name}: {error}").replace(&*dir.path().to_string_lossy(), "")
                }
            })
            .collect();
        assert_eq!(
            said,
            [
                "a_b: /a-b.csv and /a_b.csv are both the table a_b",
                "d: /d is a Delta table, which is not supported",
                "good: good",
                "i: /i is an Iceberg table, which is not supported",
                "loop: cannot read /loop.csv",
                "p: /p.csv.zst cannot be read: it is compressed, but not by gzip",
                "u: /u and /u.csv are both the table u",
            ]
        );
    }

    #[test]
    fn folders_name_columns() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(partition("seen=2026%3A54"), Some(("seen".to_owned(), text("2026:54"))));
        assert_eq!(partition("a=__HIVE_DEFAULT_PARTITION__"), Some(("a".to_owned(), None)));
        assert_eq!(partition("a=b=ü%"), Some(("a".to_owned(), text("b=ü%"))));
        assert_eq!(partition("rise=50%+5"), Some(("rise".to_owned(), text("50%+5"))));
        assert_eq!(partition("plain"), None);
        assert_eq!(partition("=x"), None);
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
            let tables = of_folder(&at(source), &at(root)).unwrap().tables;
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
        // A link deep in a table: to a file, a folder, its own folder.
        for target in ["outside/x.csv", "outside", "root/source"] {
            let link = at("root/source/table/p.csv");
            symlink(at(target), &link).unwrap();
            assert_eq!(tables("root/source", "root"), both("x y z", "table"), "{target}");
            std::fs::remove_file(link).unwrap();
        }
        // A link instead of the source.
        symlink(at("outside"), at("root/swapped")).unwrap();
        let swapped = of_folder(&at("root/swapped"), &at("root")).unwrap_err();
        assert!(matches!(swapped, FileError::LeadsOut { .. }), "{swapped}");
        let pipe = at("root/source/pipe.csv");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        assert_eq!(tables("root/source", "root"), both("table x y z", "pipe"));
    }
}
