//! The ledger in one SQLite file.
//!
//! One connection writes, several read (WAL: readers never wait for the writer). Other processes
//! may have the same file open: every writing transaction is `BEGIN IMMEDIATE`, so that it waits
//! for the write lock at its start. A deferred transaction that reads first and writes later would
//! fail immediately with SQLITE_BUSY_SNAPSHOT if another process wrote in between.
//!
//! **Durability.** A commit survives kill -9 at any time in both [`Durability`](writer::Durability) modes, because
//! the operating system has the pages. They differ when the machine loses power. `Full` waits for
//! the disk: for changes that other systems depend on immediately (a publish, after which old files
//! are deleted; a platform's id; an ad group's number). `Relaxed` may lose the last commits, never
//! older ones without the newer ones, and a later `Full` commit makes all earlier ones durable: for
//! claims, leases, receipts and finished batches, whose work is safe to repeat. That saves a disk
//! flush for most calls of the hot path.
//!
//! The statements are in `sql/`, which the PostgreSQL backend compiles too; the differences between
//! the two are in `migrations/` and in this file.

mod copy;
mod integrity;
#[path = "sql/mod.rs"]
mod sql;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite};
use tokio::sync::Mutex;

use crate::failure::{DbResult, check_schema};
use crate::{LedgerError, Result};
use writer::Writer;

/// The ledger of this backend.
type Backend = SqliteLedger;
/// Its database.
type Db = Sqlite;
/// Its connection.
type Conn = SqliteConnection;
/// Its row.
type DbRow = SqliteRow;

/// Appended to the inner SELECT of a claim. PostgreSQL needs `FOR UPDATE SKIP LOCKED` there; SQLite
/// has one writer at a time and needs nothing.
macro_rules! lock_rows {
    () => {
        ""
    };
}
use lock_rows;

const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../migrations/sqlite/0001_ledger.sql")),
    (2, include_str!("../migrations/sqlite/0002_announcements.sql")),
    (3, include_str!("../migrations/sqlite/0003_nodes.sql")),
    (4, include_str!("../migrations/sqlite/0004_parts.sql")),
    (5, include_str!("../migrations/sqlite/0005_failed_runs.sql")),
    (6, include_str!("../migrations/sqlite/0006_access.sql")),
    (7, include_str!("../migrations/sqlite/0007_stamp.sql")),
    (8, include_str!("../migrations/sqlite/0008_alert_deliveries.sql")),
    (9, include_str!("../migrations/sqlite/0009_snapshot_checksums.sql")),
    (10, include_str!("../migrations/sqlite/0010_refresh_claims.sql")),
    (11, include_str!("../migrations/sqlite/0011_log_partitions.sql")),
    (12, include_str!("../migrations/sqlite/0012_snapshot_tables.sql")),
    (13, include_str!("../migrations/sqlite/0013_delivered_states.sql")),
    (14, include_str!("../migrations/sqlite/0014_pauses.sql")),
    (15, include_str!("../migrations/sqlite/0015_foreign_audiences.sql")),
    (16, include_str!("../migrations/sqlite/0016_sync_removals.sql")),
    (17, include_str!("../migrations/sqlite/0017_platform_sizes.sql")),
];

/// How long a call waits for other processes that write, before it fails. Shorter than the timeout
/// of a request (`request_timeout_secs`, 30 unless set), so that its error names the lock as the
/// cause.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that read.
const READERS: u32 = 4;
/// Rows of one INSERT: with up to 10 columns, below SQLite's limit of 32,766 values.
const ROWS_PER_INSERT: usize = 1_000;

/// Runs a body in a writing transaction: commits if it returns `Ok`, else rolls back. A macro,
/// because a generic function over async closures cannot declare that its future is `Send`.
macro_rules! write_tx {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let mut writer = $self.writer.lock().await;
        let tried: crate::failure::DbResult<_> = async {
            let mut call = writer.begin(crate::sqlite::writer::Durability::$durability).await?;
            let done: crate::failure::DbResult<_> = async {
                let $tx: &mut crate::sqlite::Conn = call.connection();
                let done = $body;
                Ok(done)
            }
            .await;
            call.end(done).await
        }
        .await;
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use write_tx;

/// Runs a body of one writing statement. A single statement is a transaction that acquires the
/// write lock at its start, like `BEGIN IMMEDIATE`, but with one round trip to the connection's
/// thread in place of three.
macro_rules! write_one {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let mut writer = $self.writer.lock().await;
        let tried: crate::failure::DbResult<_> = async {
            let mut call = writer.call(crate::sqlite::writer::Durability::$durability).await?;
            let done: crate::failure::DbResult<_> = async {
                let $tx: &mut crate::sqlite::Conn = call.connection();
                let done = $body;
                Ok(done)
            }
            .await;
            call.finish(done)
        }
        .await;
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use write_one;

/// Runs a body of one reading statement, which reads one consistent state without a transaction.
macro_rules! read_one {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let tried: crate::failure::DbResult<_> = async {
            let mut call = crate::sqlite::writer::ReadCall::new(&$self.readers).await?;
            let done: crate::failure::DbResult<_> = async {
                let $tx: &mut crate::sqlite::Conn = call.connection()?;
                let done = $body;
                Ok(done)
            }
            .await;
            call.finish(done)
        }
        .await;
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use read_one;

/// Runs a body of several reading statements, on one consistent state of the ledger.
macro_rules! read_tx {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let tried: crate::failure::DbResult<_> = async {
            let mut call = crate::sqlite::writer::ReadCall::begin(&$self.readers).await?;
            let done: crate::failure::DbResult<_> = async {
                let $tx: &mut crate::sqlite::Conn = call.connection()?;
                let done = $body;
                Ok(done)
            }
            .await;
            call.end(done).await
        }
        .await;
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use read_tx;

/// A ledger in a SQLite file. Several processes may open the same file.
#[derive(Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    writer: Mutex<Writer>,
    readers: SqlitePool,
    /// The structure of the file was not checked when it was opened.
    structure_unchecked: bool,
    /// A clean shutdown records the checksum of the file.
    records_checksum: bool,
}

impl SqliteLedger {
    /// A SQLite ledger is used by one node, which is always the leader.
    #[expect(clippy::unused_async, reason = "the PostgreSQL backend asks its server here")]
    async fn backend_acquire_leadership(&self) -> Result<bool> {
        Ok(true)
    }

    /// Opens the ledger: creates the file if it does not exist (its folder must exist), checks that
    /// an existing file is intact, and migrates its tables. After a clean shutdown the whole file
    /// is compared with its checksum; after a crash its structure is checked, unless it is larger
    /// than a gigabyte: then
    /// [`MaintenanceLedger::check_structure`](throng_store::MaintenanceLedger) does it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if a newer version of Throng wrote it (nothing is changed then),
    /// [`LedgerError::Damaged`], [`LedgerError::Database`] if the file cannot be opened or is not a
    /// ledger.
    pub async fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_or(0, |facts| facts.len());
        let file = path.to_owned();
        let compared = bytes > 0 && blocking(move || integrity::verify(&file)).await?;
        let structure_unchecked = !compared && bytes > integrity::MAX_CHECKED_AT_OPEN_BYTES;
        if bytes > 0 && !compared && !structure_unchecked {
            integrity::check_structure(path).await?;
        }
        let opened: DbResult<Self> = async {
            let mut connection = settings(path).connect().await?;
            switch_to_wal(&mut connection).await?;
            migrate(&mut connection).await?;
            let options = settings(path).create_if_missing(false);
            let mut ledger = Self::assemble(path, options, connection).await?;
            ledger.structure_unchecked = structure_unchecked;
            Ok(ledger)
        }
        .await;
        opened.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    async fn assemble(
        path: &Path,
        options: SqliteConnectOptions,
        connection: Conn,
    ) -> DbResult<Self> {
        // Readers open a file that is already in WAL mode, and cannot change it.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await?;
        let writer = Mutex::new(Writer::new(options, connection));
        let path = path.to_owned();
        Ok(Self { path, writer, readers, structure_unchecked: false, records_checksum: true })
    }
}

/// How every connection is opened.
fn settings(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .statement_cache_capacity(200)
        .disable_statement_logging()
}

/// Runs work that reads or writes files on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LedgerError::of_system("reading the ledger's file", error))?
}

/// Puts the file into WAL mode, which is stored in the file.
///
/// Of two processes that do this to a new file at the same time, SQLite refuses one without waiting
/// for the busy timeout: both have a read lock and want an exclusive one, so waiting would be a
/// deadlock. The refused process has released its lock and can try again.
async fn switch_to_wal(connection: &mut Conn) -> DbResult<()> {
    const MAX_ATTEMPTS: u32 = 200;
    const RETRY_DELAY: Duration = Duration::from_millis(25);
    const SQLITE_BUSY: &str = "5";
    let mut attempts = 0;
    loop {
        let switched = sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut *connection).await;
        attempts += 1;
        match switched {
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some(SQLITE_BUSY) && attempts < MAX_ATTEMPTS =>
            {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Runs the migrations that are missing, in one transaction: of two processes that open a new
/// ledger at the same time, the second waits for the first and has nothing to do.
async fn migrate(connection: &mut Conn) -> DbResult<()> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS ledger_schema (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM ledger_schema").fetch_optional(&mut *tx).await?;
    let found = found.unwrap_or(0);
    check_schema(found, MIGRATIONS)?;
    for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*statements).execute(&mut *tx).await?;
        sqlx::query(
            "INSERT INTO ledger_schema (only_row, version) VALUES (1, $1)
             ON CONFLICT (only_row) DO UPDATE SET version = excluded.version",
        )
        .bind(*version)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::writer::Durability;
    use super::*;

    #[tokio::test]
    async fn each_transaction_has_the_requested_durability() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("l.db")).await.unwrap();
        let mut writer = ledger.writer.lock().await;
        for _ in 0..3 {
            for (durability, level) in [(Durability::Full, 2), (Durability::Relaxed, 1)] {
                let Ok(mut call) = writer.begin(durability).await else {
                    panic!("no transaction");
                };
                let found: i64 = sqlx::query_scalar("PRAGMA synchronous")
                    .fetch_one(call.connection())
                    .await
                    .unwrap();
                assert_eq!(found, level);
                assert!(call.end(Ok(())).await.is_ok());
            }
        }
    }
}
