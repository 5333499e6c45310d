//! Where the parts of a table are, and the writes that survive a crash.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use throng_files::{BATCHES_FOLDER, MANIFEST_ENDING, STAGING_FOLDER};
use throng_model::{Entropy as _, SystemEntropy, to_hex};

use crate::error::IngestError;

/// The ending of the files of a table.
pub(crate) const FILE_ENDING: &str = ".parquet";
/// The letters of a batch's key in names of files.
const KEY_LETTERS: usize = 32;

/// The folders of one table.
#[derive(Debug, Clone)]
pub(crate) struct TablePaths {
    pub(crate) folder: PathBuf,
}

impl TablePaths {
    /// `lake`: the folder of a workspace.
    pub(crate) fn new(lake: &Path, schema: &str) -> Self {
        Self { folder: lake.join(schema) }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.join(BATCHES_FOLDER)
    }

    pub(crate) fn manifest(&self, key: &str) -> PathBuf {
        self.manifests().join(format!("{key}{MANIFEST_ENDING}"))
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.folder.join(STAGING_FOLDER)
    }

    /// The path of a file of a batch, relative to the folder of the table.
    pub(crate) fn relative(day: i32, key: &str, number: usize) -> PathBuf {
        let day = throng_schema::value::date_text(day);
        PathBuf::from(format!("day={day}")).join(format!("{key}-{number:05}{FILE_ENDING}"))
    }
}

/// The key of a batch in names of files: every id has one, whatever its characters.
pub(crate) fn batch_key(batch: &str) -> String {
    use sha2::{Digest, Sha256};
    to_hex(&Sha256::digest(batch.as_bytes())[..KEY_LETTERS / 2])
}

/// Whether this is the name of a file that [`TablePaths::relative`] has named.
pub(crate) fn is_batch_file(name: &str) -> bool {
    let stem = name.strip_suffix(FILE_ENDING).and_then(|stem| stem.split_once('-'));
    stem.is_some_and(|(key, number)| {
        key.len() == KEY_LETTERS
            && key.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.len() >= 5
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The name of a file or folder, without the folders above it.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Creates a folder with those above it, for this user only. Folders that exist stay as they are.
pub(crate) fn create_folder(path: &Path) -> Result<(), IngestError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(IngestError::io("create the folder", path))
}

/// Creates a file that does not exist yet, for this user only.
pub(crate) fn create_file(path: &Path) -> Result<File, IngestError> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    created.map_err(IngestError::io("create", path))
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), IngestError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(IngestError::io("sync the folder", path))
}

/// Writes a file so that it exists with all of its content, or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), IngestError> {
    let folder = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(aside_name(&name));
    let result = write_synced(&aside, content).and_then(|()| rename_over(&aside, path));
    if result.is_err() {
        // The first error counts.
        let _ = std::fs::remove_file(&aside);
    }
    result?;
    sync_folder(folder)
}

/// A new name for a file that is renamed to `name` once it is complete. Readers pass over it. Two processes, or two
/// threads, that write the same file have different names.
pub(crate) fn aside_name(name: &str) -> String {
    format!(".{name}.{:016x}.tmp", SystemEntropy.next_u64())
}

/// Renames a complete file, also over another one.
pub(crate) fn rename_over(from: &Path, to: &Path) -> Result<(), IngestError> {
    std::fs::rename(from, to).map_err(IngestError::io("rename", from))
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), IngestError> {
    let mut file = create_file(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(IngestError::io("write", path))
}

/// Removes a file, if it exists.
pub(crate) fn remove_file(path: &Path) -> Result<(), IngestError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(IngestError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The entries of a folder; none if it does not exist.
pub(crate) fn entries(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(IngestError::io("read the folder", path)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(IngestError::io("read the folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"22").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"22");
        // A folder of this name: the rename fails.
        std::fs::create_dir(dir.path().join("b.json")).unwrap();
        assert!(write_whole(&dir.path().join("b.json"), b"1").is_err());
        assert_eq!(entries(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn files_of_batches_are_known_by_their_names() {
        let key = batch_key("../x");
        assert_eq!(key.len(), KEY_LETTERS);
        let path = TablePaths::relative(20_782, &key, 7);
        assert_eq!(path, Path::new("day=2026-11-25").join(format!("{key}-00007.parquet")));
        assert!(is_batch_file(path.file_name().unwrap().to_str().unwrap()));
        for other in ["mine.parquet", "a-00001.parquet", "empty.parquet"] {
            assert!(!is_batch_file(other), "{other}");
        }
    }
}
