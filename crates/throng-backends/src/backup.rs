//! What backups need of a data directory of a node: its ledger in SQLite, and the stamps of its stores.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use throng_backup::{LedgerFile, Stores};
use throng_ledger::SqliteLedger;
use throng_store::{Ledger, LedgerError, StoreStamp};

use crate::stamps::{stamped_folders, write_stamp};

/// The stores of nodes with local storage.
#[derive(Debug, Clone, Copy)]
pub struct LocalStores;

struct OpenLedger(SqliteLedger);

#[async_trait]
impl LedgerFile for OpenLedger {
    fn rows(&self) -> &dyn Ledger {
        &self.0
    }

    async fn copy_to(&self, path: &Path) -> Result<(), LedgerError> {
        self.0.copy_to(path).await
    }
}

#[async_trait]
impl Stores for LocalStores {
    async fn attach_ledger(&self, path: &Path) -> Result<Box<dyn LedgerFile>, LedgerError> {
        Ok(Box::new(OpenLedger(SqliteLedger::attach(path).await?)))
    }

    fn stamped_folders(&self, data_dir: &Path) -> Vec<PathBuf> {
        stamped_folders(data_dir).into_iter().map(|(_, folder)| folder).collect()
    }

    fn write_stamp(&self, folder: &Path, stamp: &StoreStamp) -> io::Result<()> {
        write_stamp(folder, stamp)
    }
}
