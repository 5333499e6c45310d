//! One node per data directory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use super::NodeError;

/// The file of the data directory that is locked.
pub(super) const LOCK_FILE: &str = "lock";

/// Held while a node runs. The operating system gives it up when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataDirLock(File);

impl DataDirLock {
    /// Takes the lock, and leaves the process id in the file for others to read.
    pub(super) fn take(dir: &Path) -> Result<Self, NodeError> {
        let path = dir.join(LOCK_FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(NodeError::io("open", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who it is only makes the message better.
                let _ = file.read_to_string(&mut text);
                let holder = match text.trim().parse::<u32>() {
                    Ok(process) => format!("process {process}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(NodeError::InUse { dir: dir.to_owned(), holder });
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(NodeError::io("lock", path.display())(error));
            }
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(NodeError::io("write to", path.display()))?;
        Ok(Self(file))
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // The process id of a node that is gone would mislead.
        let _ = self.0.set_len(0);
        // Closing is not enough: a child that is just being started has the handle for a moment too.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(dir.path()).unwrap();
        let second = DataDirLock::take(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        DataDirLock::take(dir.path()).unwrap();
    }
}
