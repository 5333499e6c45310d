//! Tables that are written in batches: a folder `_batches` has a manifest for each finished batch, and only the
//! files that manifests name are rows of the table. A batch is therefore visible whole or not at all, whatever the
//! number of its files.
//!
//! Manifests are read before the folder is walked. The files of a batch are complete before its manifest exists,
//! so every file that is named is found; a batch that finishes later is not part of this reading.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::FileError;

/// The folder of manifests in the folder of a table.
pub const BATCHES_FOLDER: &str = "_batches";
/// The ending of manifests. Other files of the folder are being written.
pub const MANIFEST_ENDING: &str = ".json";
/// The version of manifests. Readers refuse a higher one: it may name the rows of a table in another way.
pub const MANIFEST_VERSION: u32 = 1;
/// The folder of files that are being written.
pub const STAGING_FOLDER: &str = ".staging";

/// How often a table whose batches change is read before its error counts.
const MAX_READS: u32 = 4;

/// A file of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFile {
    /// Relative to the folder of the table.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// What a reader needs of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Files {
    files: Vec<BatchFile>,
}

/// The version of a manifest, which is read before its other fields.
#[derive(Debug, Deserialize)]
struct Version {
    #[serde(default)]
    version: u64,
}

/// Reads the text of the manifest at `path`.
///
/// # Errors
/// [`FileError::Table`] if its version is higher than [`MANIFEST_VERSION`]; [`FileError::Source`] if it is not a
/// manifest.
pub fn parse_manifest<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, FileError> {
    let invalid = |_: serde_json::Error| FileError::Source {
        path: path.to_owned(),
        source: io::Error::other("it is not a manifest of a batch"),
    };
    let Version { version } = serde_json::from_slice(text).map_err(invalid)?;
    if version > u64::from(MANIFEST_VERSION) {
        return Err(FileError::Table {
            message: format!(
                "{} has version {version}, and this version of Throng reads manifests of batches up to version \
                 {MANIFEST_VERSION}",
                path.display()
            ),
            help: "a newer version of Throng has written it: use that version here too".to_owned(),
        });
    }
    serde_json::from_slice(text).map_err(invalid)
}

/// The files of all finished batches of a table, with their sizes; `None` if the table has no batches.
///
/// # Errors
/// [`FileError::Source`] if a manifest cannot be read; those of [`parse_manifest`].
pub fn finished_files(folder: &Path) -> Result<Option<BTreeMap<PathBuf, u64>>, FileError> {
    let manifests = folder.join(BATCHES_FOLDER);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Source { path, source }
    };
    let entries = match std::fs::read_dir(&manifests) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(&manifests)(error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(fail(&manifests))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !name.ends_with(MANIFEST_ENDING) {
            continue;
        }
        let text = throng_fs::read(&path).map_err(fail(&path))?;
        let manifest: Files = parse_manifest(&path, &text)?;
        files.extend(manifest.files.into_iter().map(|file| (PathBuf::from(file.path), file.bytes)));
    }
    Ok(Some(files))
}

/// Reads with a state; again if that fails while the state changes: a file that the state named may have been
/// replaced by then.
pub(crate) fn read_settled<S: Clone + PartialEq, T>(
    state: impl Fn() -> Result<S, FileError>,
    read: impl Fn(S) -> Result<T, FileError>,
) -> Result<T, FileError> {
    let mut before = state()?;
    for _ in 1..MAX_READS {
        match read(before.clone()) {
            Ok(done) => return Ok(done),
            Err(error) => {
                let now = state()?;
                if now == before {
                    return Err(error);
                }
                before = now;
            }
        }
    }
    read(before)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{MAX_READS, read_settled};
    use crate::{FileError, of_folder};

    #[test]
    fn a_table_that_changes_while_it_is_read_is_read_again() {
        let failed = || FileError::Table { message: "missing".to_owned(), help: String::new() };
        // The state changes a few times, and only the last one can be read.
        let read = |changes: u32| {
            let (state, reads) = (Cell::new(0), Cell::new(0));
            let result = read_settled(
                || {
                    state.set(changes.min(state.get() + 1));
                    Ok(state.get())
                },
                |seen| {
                    reads.set(reads.get() + 1);
                    if seen == changes { Ok(seen) } else { Err(failed()) }
                },
            );
            (result.is_ok(), reads.get())
        };
        assert_eq!(read(1), (true, 1));
        assert_eq!(read(3), (true, 3));
        assert_eq!(read(100), (false, MAX_READS));
        let settled = read_settled(|| Ok(()), |()| Err::<(), _>(failed()));
        assert!(settled.is_err());
    }

    #[test]
    fn a_batch_is_part_of_its_table_once_its_manifest_exists() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("t").join(name);
        for folder in ["_batches", ".staging/1", "day=2026-11-25"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["day=2026-11-25/a.csv", "day=2026-11-25/b.csv", ".staging/1/c.csv"] {
            std::fs::write(at(file), "k\n1\n").unwrap();
        }
        let manifest = |name: &str, file: &str, bytes: u64| {
            let text = format!(
                r#"{{"version": 1, "files": [{{"path": "{file}", "bytes": {bytes}, "rows": 1}}]}}"#
            );
            std::fs::write(at("_batches").join(name), text).unwrap();
        };
        let read = || {
            let found = of_folder(dir.path(), dir.path()).unwrap();
            match found.tables.get("t") {
                Some(Ok(table)) => Ok((table.files.len(), table.passed_over.len())),
                Some(Err(error)) => {
                    Err(error.to_string().replace(&*dir.path().to_string_lossy(), ""))
                }
                None => Ok((0, 0)),
            }
        };
        // Without a manifest it has no rows.
        assert_eq!(read(), Ok((0, 0)));
        // A manifest that is being written does not count.
        manifest(".1.tmp", "day=2026-11-25/b.csv", 4);
        manifest("1.json", "day=2026-11-25/a.csv", 4);
        assert_eq!(read(), Ok((1, 1)));
        manifest("2.json", "day=2026-11-25/b.csv", 4);
        assert_eq!(read(), Ok((2, 0)));
        manifest("2.json", "day=2026-11-25/b.csv", 5);
        let size = "/t/day=2026-11-25/b.csv has another size than its batch has written";
        assert_eq!(read(), Err(size.to_owned()));
        manifest("2.json", "day=2026-11-26/b.csv", 4);
        let missing = "/t/day=2026-11-26/b.csv is missing: a batch has written it";
        assert_eq!(read(), Err(missing.to_owned()));
        std::fs::write(at("_batches/2.json"), r#"{"version": 2, "parts": []}"#).unwrap();
        let newer = "/t/_batches/2.json has version 2, and this version of Throng reads manifests of batches up to \
                     version 1";
        assert_eq!(read(), Err(newer.to_owned()));
        std::fs::write(at("_batches/2.json"), "{").unwrap();
        assert!(read().unwrap_err().starts_with("cannot read"));
    }
}
