//! The names in a backup, and file I/O with the errors of backups.

use std::path::Path;
use std::sync::Arc;

use crate::error::BackupError;

/// The names in a backup and in a data directory.
pub(crate) const LEDGER: &str = "ledger.db";
pub(crate) const OBJECTS: &str = "objects";
pub(crate) const LOG: &str = "log";

/// Reports the progress of a backup or a restore, in bytes: done and, as far as known, in total.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The error of an operation on a file or folder. `doing` is an infinitive.
pub(crate) fn failed(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { doing, path, source }
}

/// Runs file I/O on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BackupError::Cancelled)?
}
