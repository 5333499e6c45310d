//! The tables of a folder: every file, and every folder of files, of a format that we read.

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

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, LakeError> {
    let fail = |source| LakeError::Source { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Hidden and underscored names are other programs' bookkeeping.
        if !name.starts_with(['.', '_']) {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// The tables of a source's folder by their SQL names. Files of other formats are passed over.
pub(crate) fn of_folder(folder: &Path) -> Result<BTreeMap<String, Table>, LakeError> {
    let mut tables = BTreeMap::new();
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            let mut files = Vec::new();
            collect(&path, &mut files)?;
            if let Some((first, _)) = files.first() {
                let format = *first;
                // A folder is one table of one format: the first file's.
                let files =
                    files.into_iter().filter(|(f, _)| *f == format).map(|(_, p)| p).collect();
                tables.insert(sql_name(&name), Table { format, files });
            }
        } else if let Some((format, ending)) = Format::of(&name) {
            let stem = &name[..name.len() - ending];
            tables.insert(sql_name(stem), Table { format, files: vec![path] });
        }
    }
    Ok(tables)
}

fn collect(folder: &Path, files: &mut Vec<(Format, PathBuf)>) -> Result<(), LakeError> {
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some((format, _)) = Format::of(&name) {
            files.push((format, path));
        }
    }
    Ok(())
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
        let tables = of_folder(root).unwrap();
        let names: Vec<&str> = tables.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b_x", "big_table"]);
        assert_eq!(tables["b_x"].format, Format::Csv { gzipped: true });
        assert_eq!(tables["big_table"].files.len(), 2);
    }
}
