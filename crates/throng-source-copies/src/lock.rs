//! One update of a copy at a time, in this process and in others.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::CopyError;

/// How often the lock of another process is tried.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// An update of a copy is running. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Updating {
    /// Released first: an update of this process that waits does not find the lock file locked.
    _file: File,
    _in_process: OwnedMutexGuard<()>,
}

impl Updating {
    /// Waits until no other process updates the copy.
    pub(crate) async fn start(
        path: &Path,
        in_process: OwnedMutexGuard<()>,
    ) -> Result<Self, CopyError> {
        let opened = throng_fs::open_lock(path);
        let file = opened.map_err(CopyError::io("open", path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file, _in_process: in_process }),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(CopyError::io("lock", path)(error)),
            }
        }
    }
}
