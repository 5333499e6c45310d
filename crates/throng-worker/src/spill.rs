//! Folders that workers spill to: one for each worker, removed with it. Folders that a crash has
//! left are removed when the next pool opens.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use throng_model::{Entropy, SystemEntropy};

/// Prefix of the names of a pool's folder and of its lock file.
const PREFIX: &str = "query-workers-";
const LOCK: &str = ".lock";

/// A pool's folder below the spill directory. Its lock is held as long as it is used, so that no
/// other process removes it as stale.
#[derive(Debug)]
pub(crate) struct SpillRoot {
    folder: PathBuf,
    lock_file: PathBuf,
    next: AtomicU64,
    // Dropping the file releases the lock.
    _lock: File,
}

impl SpillRoot {
    /// Creates a folder below `spill_dir`, after removing stale ones.
    pub(crate) fn create(spill_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(spill_dir)?;
        remove_stale(spill_dir)?;
        loop {
            let name = format!("{PREFIX}{:016x}", SystemEntropy.next_u64());
            let lock_file = spill_dir.join(format!("{name}{LOCK}"));
            let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock_file);
            let lock = match lock {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                lock => lock?,
            };
            // Another process may have removed the new lock file as stale before it was locked.
            if lock.try_lock().is_err() || !lock_file.exists() {
                continue;
            }
            let folder = spill_dir.join(name);
            DirBuilder::new().mode(0o700).create(&folder)?;
            return Ok(Self { folder, lock_file, next: AtomicU64::new(0), _lock: lock });
        }
    }

    /// A folder for one worker.
    pub(crate) fn folder(self: &Arc<Self>) -> io::Result<SpillFolder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(SpillFolder { folder, _root: Arc::clone(self) })
    }
}

impl Drop for SpillRoot {
    fn drop(&mut self) {
        // A folder that cannot be removed now is removed when the next pool opens.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_file);
    }
}

/// The folder of one worker.
#[derive(Debug)]
pub(crate) struct SpillFolder {
    folder: PathBuf,
    _root: Arc<SpillRoot>,
}

impl SpillFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes stale folders: those whose lock is not held. Does nothing if the directory does not
/// exist.
pub(crate) fn remove_stale(spill_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(spill_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(LOCK)) else { continue };
        if !name.starts_with(PREFIX) {
            continue;
        }
        let lock_file = spill_dir.join(format!("{name}{LOCK}"));
        // Removed by another process in the meantime.
        let Ok(lock) = File::open(&lock_file) else { continue };
        if lock.try_lock().is_ok() {
            match fs::remove_dir_all(spill_dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match fs::remove_file(&lock_file) {
                // Another process removes it at the same time.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_folders_are_removed_and_used_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let used = Arc::new(SpillRoot::create(dir.path()).unwrap());
        let folder = used.folder().unwrap();
        fs::write(folder.path().join("spilled"), "x").unwrap();
        // The folder of a process that was killed: its lock is not held.
        let stale = dir.path().join(format!("{PREFIX}0"));
        fs::create_dir_all(stale.join("0")).unwrap();
        fs::write(stale.join("0/spilled"), "x").unwrap();
        fs::write(dir.path().join(format!("{PREFIX}0{LOCK}")), "").unwrap();
        fs::write(dir.path().join("another-file"), "x").unwrap();
        let other = SpillRoot::create(dir.path()).unwrap();
        assert!(!stale.exists());
        assert!(folder.path().join("spilled").exists());
        let dropped = folder.path().to_owned();
        drop(folder);
        assert!(!dropped.exists());
        drop((used, other));
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["another-file"]);
    }
}
