//! The folder of a gate's own copies of dictionaries and snapshots.
//!
//! ```text
//! lock                      held while a process uses the folder; has its process id
//! gate.id                   the id under which the gate reports, if none was given
//! membership.json           what was served last, for a start without the node
//! dictionary/07/….dict      segments, under the names that the node gives them
//! snapshots/buyers/3        version 3 of the audience `buyers`
//! ….part                    a file that has not arrived completely
//! ```
//!
//! Files are written once, under another name until they are complete. A crash at any moment leaves files that are
//! complete, or that the next start removes.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use throng_api::PublishedMembership;
use throng_membership::DICTIONARY_FOLDER;
use throng_model::{Entropy as _, SystemEntropy};

use crate::error::{SidecarError, SyncError};

const LOCK_FILE: &str = "lock";
const GATE_ID_FILE: &str = "gate.id";
const LAST_FILE: &str = "membership.json";
/// The folder of snapshots.
pub(crate) const SNAPSHOT_FOLDER: &str = "snapshots";
/// The suffix of files that are being written.
const PART_SUFFIX: &str = ".part";
/// Whoever can read the files can find out which users are in which audience.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A folder for copies of a node's files, locked for this process until it is dropped.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    _lock: File,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SyncError {
    let path = path.to_owned();
    move |source| SyncError::Cache { doing, path, source }
}

impl Cache {
    /// Creates and locks the folder.
    ///
    /// # Errors
    /// [`SidecarError::CacheInUse`] if another process has it open; [`SidecarError::Sync`] if it cannot be written.
    pub fn open(root: &Path) -> Result<Self, SidecarError> {
        create_folder(root)?;
        let path = root.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut lock = options.open(&path).map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = lock.read_to_string(&mut text);
                let by = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(SidecarError::CacheInUse { folder: root.to_owned(), by });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source).into()),
        }
        // For the error of the next process. On a full disk it stays empty, and the error names no process.
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::debug!(%error, "failed to write the process id");
        }
        let cache = Self { root: root.to_owned(), _lock: lock };
        cache.remove_parts();
        Ok(cache)
    }

    /// The folder, which the names of files are below.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The path under which a file is written until it is complete.
    pub(crate) fn part_path(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}{PART_SUFFIX}"))
    }

    /// Whether a complete file has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// Creates the folder of a file, and an empty part of it. Blocks.
    pub(crate) fn create_part(&self, name: &str) -> Result<File, SyncError> {
        let path = self.part_path(name);
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        options.open(&path).map_err(failed("create", &path))
    }

    /// Opens a part to continue it; `None` if it does not have so many bytes. Blocks.
    pub(crate) fn continue_part(&self, name: &str, written: u64) -> Option<File> {
        let part = OpenOptions::new().append(true).open(self.part_path(name)).ok()?;
        let length = part.metadata().ok()?.len();
        (length == written).then_some(part)
    }

    /// Gives a part its name, once it is on the disk. Blocks.
    pub(crate) fn complete(&self, name: &str, part: &File) -> Result<(), SyncError> {
        let (from, to) = (self.part_path(name), self.path(name));
        part.sync_all().map_err(failed("write", &from))?;
        fs::rename(&from, &to).map_err(failed("rename to", &to))
    }

    /// Removes the part of a file, or nothing. Blocks.
    pub(crate) fn remove_part(&self, name: &str) {
        remove(&self.part_path(name));
    }

    /// Removes a file that turned out to be damaged. Blocks.
    pub(crate) fn remove(&self, name: &str) {
        remove(&self.path(name));
    }

    /// What was served last; `None` if nothing was, or if the file is damaged: then everything is compared with the
    /// node first. Blocks.
    pub(crate) fn last(&self) -> Option<PublishedMembership> {
        serde_json::from_slice(&throng_fs::read(&self.path(LAST_FILE)).ok()?).ok()
    }

    /// Remembers what is served, for the next start. Blocks.
    pub(crate) fn store_last(&self, published: &PublishedMembership) -> Result<(), SyncError> {
        let path = self.path(LAST_FILE);
        let bytes = serde_json::to_vec(published)
            .map_err(|error| failed("write", &path)(io::Error::other(error)))?;
        self.write(LAST_FILE, &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SyncError> {
        let mut part = self.create_part(name)?;
        part.write_all(bytes).map_err(failed("write", &self.part_path(name)))?;
        self.complete(name, &part)
    }

    /// A random id that stays the same for this folder: a gate that restarts is the same gate.
    ///
    /// # Errors
    /// [`SyncError::Cache`].
    pub fn gate_id(&self) -> Result<String, SyncError> {
        let read = throng_fs::read_to_string(&self.path(GATE_ID_FILE)).unwrap_or_default();
        let read = read.trim();
        let is_id = read.strip_prefix("gate-").is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
        });
        if is_id {
            return Ok(read.to_owned());
        }
        let id = format!("gate-{:016x}", SystemEntropy.next_u64());
        self.write(GATE_ID_FILE, id.as_bytes())?;
        Ok(id)
    }

    /// Removes the files of dictionaries and snapshots that are not needed. Those that are mapped keep their bytes.
    /// Blocks.
    pub(crate) fn evict(&self, needed: &HashSet<String>) {
        for name in self.files() {
            if !needed.contains(&name) {
                remove(&self.path(&name));
            }
        }
    }

    /// Bytes of all files of dictionaries and snapshots. Blocks.
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self
            .files()
            .into_iter()
            .filter_map(|name| fs::metadata(self.path(&name)).ok().map(|metadata| metadata.len()));
        sizes.sum()
    }

    /// The names of all files of dictionaries and snapshots, also of parts.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![DICTIONARY_FOLDER.to_owned(), SNAPSHOT_FOLDER.to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(self.root.join(&folder)) else { continue };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let name = format!("{folder}/{name}");
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(name),
                    Ok(_) => names.push(name),
                    Err(_) => {}
                }
            }
        }
        names
    }

    fn remove_parts(&self) {
        for name in self.files().into_iter().filter(|name| name.ends_with(PART_SUFFIX)) {
            remove(&self.path(&name));
        }
    }
}

fn create_folder(path: &Path) -> Result<(), SyncError> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(failed("create the folder", path))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "failed to remove a file of the cache");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_process_at_a_time_uses_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let first = Cache::open(&root).unwrap();
        let own = std::process::id();
        match Cache::open(&root).unwrap_err() {
            SidecarError::CacheInUse { folder, by } => {
                assert_eq!((folder, by), (root.clone(), Some(own)));
            }
            other => panic!("{other}"),
        }
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FOLDER_MODE);
        let id = first.gate_id().unwrap();
        drop(first);
        assert_eq!(Cache::open(&root).unwrap().gate_id().unwrap(), id);
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut part = cache.create_part("snapshots/a/1").unwrap();
        part.write_all(b"abc").unwrap();
        assert!(!cache.has("snapshots/a/1"));
        cache.complete("snapshots/a/1", &part).unwrap();
        assert!(cache.has("snapshots/a/1"));
        let mut left = cache.create_part("snapshots/a/2").unwrap();
        left.write_all(b"de").unwrap();
        assert!(cache.continue_part("snapshots/a/2", 1).is_none(), "another length");
        assert!(cache.continue_part("snapshots/a/3", 0).is_none(), "no such part");
        cache.continue_part("snapshots/a/2", 2).unwrap().write_all(b"f").unwrap();
        assert_eq!(fs::read(cache.part_path("snapshots/a/2")).unwrap(), b"def");
        drop(cache);
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.files(), ["snapshots/a/1"], "parts of an earlier process are removed");
        assert_eq!(cache.bytes(), 3);
        cache.evict(&HashSet::new());
        assert!(cache.files().is_empty());
    }
}
