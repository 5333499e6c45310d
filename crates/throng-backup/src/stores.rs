//! What backups need of the process that runs them: its ledgers in files, and the stamps of stores.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use throng_store::{Ledger, LedgerError, StoreStamp};

/// A ledger in a file, which a node may have open.
#[async_trait]
pub trait LedgerFile: Send + Sync {
    /// Its rows.
    fn rows(&self) -> &dyn Ledger;

    /// Writes a copy of one consistent state to a new file, and syncs it. Does not block writers.
    ///
    /// # Errors
    /// [`LedgerError`], also if the file exists.
    async fn copy_to(&self, path: &Path) -> Result<(), LedgerError>;
}

/// Opens and stamps the stores of data directories.
#[async_trait]
pub trait Stores: Send + Sync {
    /// Opens an existing ledger, and changes nothing in it.
    ///
    /// # Errors
    /// [`LedgerError`] if it is damaged, or of another version.
    async fn attach_ledger(&self, path: &Path) -> Result<Box<dyn LedgerFile>, LedgerError>;

    /// The folders below a data directory that carry a stamp.
    fn stamped_folders(&self, data_dir: &Path) -> Vec<PathBuf>;

    /// Replaces the stamp of a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// If the stamp cannot be written.
    fn write_stamp(&self, folder: &Path, stamp: &StoreStamp) -> io::Result<()>;
}
