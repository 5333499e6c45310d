//! Files that get their name when they are finished.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::PartFileError;

/// Numbers the temporary files of this process.
static NEXT_TEMP_FILE: AtomicU64 = AtomicU64::new(0);

/// Creates a folder and its parents, durably. Blocks on the disk.
///
/// # Errors
/// [`PartFileError::Io`].
pub fn create_folder(folder: &Path) -> Result<(), PartFileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(PartFileError::io("create the folder", folder)(e))
        }
        // Also if another builder has just created it: it may not have synced the entry yet, and
        // files in it would be lost with the entry.
        _ => sync_folder(parent.unwrap_or(Path::new("."))),
    }
}

fn sync_folder(folder: &Path) -> Result<(), PartFileError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(PartFileError::io("sync the folder", folder))
}

/// A file that gets its name when it is finished. Dropped before that, it is removed.
#[derive(Debug)]
pub(crate) struct TempFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    /// Whether it has to survive a loss of power.
    durable: bool,
    finished: bool,
}

impl TempFile {
    pub(crate) fn create(path: &Path) -> Result<Self, PartFileError> {
        // Two builders can run the same part after a lease has expired: they must not share a file.
        let number = NEXT_TEMP_FILE.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_added_extension(format!("{}-{number}.tmp", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(PartFileError::io("create", &temporary))?;
        Ok(Self { file, temporary, path: path.to_owned(), durable: true, finished: false })
    }

    /// The file need not reach the disk: this process reads it, and none after it.
    pub(crate) fn set_scratch(&mut self) {
        self.durable = false;
    }

    /// Every further write fails.
    #[cfg(test)]
    pub(crate) fn fill_device(&mut self) -> Result<(), PartFileError> {
        let path = Path::new("/dev/full");
        let opened = OpenOptions::new().write(true).open(path);
        self.file = opened.map_err(PartFileError::io("open", path))?;
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), PartFileError> {
        self.file.write_all(bytes).map_err(PartFileError::io("write", &self.temporary))
    }

    pub(crate) fn finish(mut self) -> Result<(), PartFileError> {
        // Before the rename: after a loss of power the name could refer to a file without contents.
        if self.durable {
            self.file.sync_all().map_err(PartFileError::io("write", &self.temporary))?;
        }
        fs::rename(&self.temporary, &self.path)
            .map_err(PartFileError::io("rename to", &self.path))?;
        self.finished = true;
        if !self.durable {
            return Ok(());
        }
        // The entry too: the ledger names the file next, and after a loss of power it must be
        // there.
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.finished {
            // A file that cannot be removed now is removed with the folder of the refresh.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a small file: it appears whole or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), PartFileError> {
    let mut file = TempFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}
