//! A copy of a ledger that may be in use.

use std::fs::File;
use std::path::Path;

use sqlx::{ConnectOptions, Connection};

use super::{MIGRATIONS, SqliteLedger, integrity, settings};
use crate::failure::{Failure, Tried};
use crate::{LedgerError, Result};

impl SqliteLedger {
    /// Opens an existing ledger beside the node that may have it open, and changes nothing: no
    /// table is made, and the checksum of a clean end stays. For backups and inspection.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if its tables are not of this version,
    /// [`LedgerError::Damaged`] if it is not what the last node left, [`LedgerError::Database`].
    pub async fn attach(path: &Path) -> Result<Self> {
        let file = path.to_owned();
        let compared = super::blocking(move || integrity::compare(&file)).await?;
        let attached: Tried<Self> = async {
            let options = settings(path).create_if_missing(false);
            let mut connection = options.connect().await?;
            let found: i64 = sqlx::query_scalar("SELECT version FROM ledger_schema")
                .fetch_one(&mut connection)
                .await?;
            let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
            if found != known {
                return Err(Failure::Ledger(LedgerError::Unreadable {
                    what: "schema",
                    why: format!(
                        "its tables are of version {found}, this throng's of version {known}; use \
                         the throng that the node runs, or `throng migrate` first"
                    ),
                }));
            }
            let mut ledger = Self::assemble(path, options, connection).await?;
            // What nobody compared or checked is not declared whole.
            ledger.records_sum = compared;
            Ok(ledger)
        }
        .await;
        attached.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    /// Writes a compact copy of one consistent state to a new file, and syncs it. Writers are not
    /// held up. Reads the whole ledger, so that a damaged structure is found.
    ///
    /// # Errors
    /// [`LedgerError::Database`], also if the file exists.
    pub async fn copy_to(&self, path: &Path) -> Result<()> {
        const DOING: &str = "copying the ledger";
        let copied: Tried<()> = async {
            let mut connection = settings(&self.path).create_if_missing(false).connect().await?;
            // Not UTF-8: SQLite could not name it either.
            let name = path
                .to_str()
                .ok_or(sqlx::Error::Configuration("the path of the copy is not UTF-8".into()))?;
            sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await?;
            // Not only dropped: its files are gone when this returns.
            Ok(connection.close().await?)
        }
        .await;
        copied.map_err(|failure| failure.while_doing(DOING))?;
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| LedgerError::of_system(DOING, error))
    }

    pub(super) async fn check_structure_here(&self) -> Result<()> {
        if self.unchecked { integrity::check_structure(&self.path).await } else { Ok(()) }
    }

    /// Ends all connections; see [`MaintenanceLedger::close`](throng_store::MaintenanceLedger::close).
    pub(super) async fn close_here(&self) -> Result<()> {
        self.readers.close().await;
        // The last connection to close brings the write-ahead log into the file.
        let closed = self.writer.lock().await.close().await;
        closed.map_err(|failure| failure.while_doing("closing the ledger"))?;
        if !self.records_sum {
            return Ok(());
        }
        let path = self.path.clone();
        super::blocking(move || integrity::record(&path)).await
    }
}
