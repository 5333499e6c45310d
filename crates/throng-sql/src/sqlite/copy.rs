//! A copy of a database that may be in use.

use std::fs::File;
use std::path::Path;

use sqlx::{ConnectOptions, Connection};
use throng_store::{LedgerError, Result};

use super::{SqliteBackend, blocking, integrity, settings};
use crate::failure::{DbResult, Failure};
use crate::migrations::{Migration, newest};

impl SqliteBackend {
    /// Opens an existing file, which a node may have open, and changes nothing: no table is
    /// created, and the checksum of a clean shutdown stays.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if its tables are not those of all migrations,
    /// [`LedgerError::Damaged`] if it has changed since the last clean shutdown,
    /// [`LedgerError::Database`].
    pub async fn attach(path: &Path, migrations: &'static [Migration]) -> Result<Self> {
        let file = path.to_owned();
        let compared = blocking(move || integrity::compare(&file)).await?;
        let attached: DbResult<Self> = async {
            let options = settings(path).create_if_missing(false);
            let mut connection = options.connect().await?;
            let found: i64 = sqlx::query_scalar("SELECT version FROM ledger_schema")
                .fetch_one(&mut connection)
                .await?;
            let known = newest(migrations);
            if found != known {
                return Err(Failure::Ledger(LedgerError::Unreadable {
                    what: "schema",
                    why: format!(
                        "its tables have version {found}, this throng needs version {known}; use \
                         the throng that the node runs, or run `throng migrate` first"
                    ),
                }));
            }
            let mut backend = Self::assemble(path, options, connection).await?;
            // A checksum is a statement that the file is intact: a file that was not compared gets
            // none.
            backend.records_checksum = compared;
            Ok(backend)
        }
        .await;
        attached.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    /// Writes a compact copy of one consistent state to a new file, and syncs it. Does not block
    /// writers. Reads the whole file, so a damaged structure is detected.
    ///
    /// # Errors
    /// [`LedgerError::Database`], also if the file exists.
    pub async fn copy_to(&self, path: &Path) -> Result<()> {
        const DOING: &str = "copying the ledger";
        let copied: DbResult<()> = async {
            let mut connection = settings(&self.path).create_if_missing(false).connect().await?;
            // SQLite takes names in UTF-8 only.
            let name = path
                .to_str()
                .ok_or(sqlx::Error::Configuration("the path of the copy is not UTF-8".into()))?;
            sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await?;
            // Closed, not dropped: a drop would close it, and delete its files, after this returns.
            Ok(connection.close().await?)
        }
        .await;
        copied.map_err(|failure| failure.while_doing(DOING))?;
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| LedgerError::of_system(DOING, error))
    }
}
