//! One node per data directory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::error::BackendError;

/// The file of the data directory that is locked.
pub(crate) const LOCK_FILE: &str = "lock";

/// The lock of a data directory, held while a node runs. The operating system releases it when the
/// process ends, also after SIGKILL.
#[derive(Debug)]
pub struct DataDirLock(File);

impl DataDirLock {
    /// Takes the lock, and writes the process id to the file for the error of a second node.
    ///
    /// # Errors
    /// [`BackendError::InUse`] if another process has it.
    pub fn take(dir: &Path) -> Result<Self, BackendError> {
        let path = dir.join(LOCK_FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(BackendError::io("open", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Without it the message only lacks the process id.
                let _ = file.read_to_string(&mut text);
                let holder = match text.trim().parse::<u32>() {
                    Ok(process) => format!("process {process}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(BackendError::InUse { dir: dir.to_owned(), holder });
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(BackendError::io("lock", path.display())(error));
            }
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(BackendError::io("write to", path.display()))?;
        Ok(Self(file))
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // The process id of a stopped node would mislead.
        let _ = self.0.set_len(0);
        // Closing is not enough: a child that is being started holds a copy of the handle for a
        // moment, and with it the lock.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_second_node_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(dir.path()).unwrap();
        let second = DataDirLock::take(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }
}
