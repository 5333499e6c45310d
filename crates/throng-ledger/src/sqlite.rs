//! The ledger in one SQLite file.
//!
//! One connection writes, several read (WAL: readers never wait for the writer). Other processes
//! may have the same file open: every writing transaction is `BEGIN IMMEDIATE`, so that it waits
//! for its turn at the start. A deferred one that reads first and writes later would fail at once
//! with SQLITE_BUSY_SNAPSHOT when another process wrote in between.
//!
//! **Durability.** A commit survives kill -9 at any moment in both [`Durability`] modes, because
//! the operating system has the pages. They differ when the machine loses power. `Full` waits for
//! the disk: for what the outside acts on at once (a publish, after which old files are deleted; a
//! platform's id; an ad group's number). `Relaxed` may lose the last commits, never older ones
//! without the newer ones, and a later `Full` commit brings all earlier ones to the disk: for
//! claims, leases, receipts and finished batches, whose work is safe to repeat. That saves a disk
//! flush for most calls of the hot path.
//!
//! The statements are in `sql/`, which PostgreSQL compiles too; what differs between the two is in
//! `migrations/` and in this file.

#[path = "sql/access.rs"]
mod access;
#[path = "sql/alerts.rs"]
mod alerts;
#[path = "sql/audiences.rs"]
mod audiences;
mod copy;
#[path = "sql/delivered.rs"]
mod delivered;
#[path = "sql/dictionary.rs"]
mod dictionary;
#[path = "sql/history.rs"]
mod history;
mod integrity;
#[path = "sql/maintenance.rs"]
mod maintenance;
#[path = "sql/parts.rs"]
mod parts;
#[path = "sql/pauses.rs"]
mod pauses;
#[path = "sql/removals.rs"]
mod removals;
#[path = "sql/runs.rs"]
mod runs;
#[path = "sql/sizes.rs"]
mod sizes;
#[path = "sql/snapshots.rs"]
mod snapshots;
#[path = "sql/spec.rs"]
mod spec;
#[path = "sql/sync.rs"]
mod sync;
#[path = "sql/tasks.rs"]
mod tasks;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite};
use tokio::sync::Mutex;

use crate::failure::{Tried, check_schema};
use crate::{LedgerError, Result};
use writer::Writer;

/// The ledger of this backend.
type Backend = SqliteLedger;
/// Its data base.
type Db = Sqlite;
/// Its connection.
type Conn = SqliteConnection;
/// Its row.
type DbRow = SqliteRow;

/// Put after the inner SELECT of a claim. PostgreSQL needs `FOR UPDATE SKIP LOCKED` there; SQLite
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

/// How long a call waits for other processes that write, before it fails. Shorter than a request may take
/// (`request_timeout_secs`, 30 unless set), so that its answer names the lock and not the time.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
const READERS: u32 = 4;
/// Rows of one INSERT. Below the limit of 32,766 values of SQLite with up to 10 columns.
const ROWS_PER_INSERT: usize = 1_000;

/// When a commit returns; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// After the disk has it.
    Full,
    /// After the operating system has it.
    Relaxed,
}

/// Runs a body in a writing transaction: commits what it did if it returns `Ok`, else nothing. A
/// macro, because a generic function over async closures could not promise that its future is
/// `Send`.
macro_rules! write_tx {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let mut writer = $self.writer.lock().await;
        let tried: crate::failure::Tried<_> = async {
            let mut call = writer.begin(crate::sqlite::Durability::$durability).await?;
            let done: crate::failure::Tried<_> = async {
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

/// Runs a body of one writing statement. A statement on its own is a transaction that takes the
/// write lock at its start, like `BEGIN IMMEDIATE`, but costs one trip to the connection's thread
/// and not three.
macro_rules! write_one {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let mut writer = $self.writer.lock().await;
        let tried: crate::failure::Tried<_> = async {
            let mut call = writer.call(crate::sqlite::Durability::$durability).await?;
            let done: crate::failure::Tried<_> = async {
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

/// Runs a body of one reading statement, which sees one consistent state by itself.
macro_rules! read_one {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let tried: crate::failure::Tried<_> = async {
            let mut call = crate::sqlite::writer::ReadCall::new(&$self.readers).await?;
            let done: crate::failure::Tried<_> = async {
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
        let tried: crate::failure::Tried<_> = async {
            let mut call = crate::sqlite::writer::ReadCall::begin(&$self.readers).await?;
            let done: crate::failure::Tried<_> = async {
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
    unchecked: bool,
    /// A clean end records the checksum of the file.
    records_sum: bool,
}

impl SqliteLedger {
    /// One process has the file.
    #[expect(clippy::unused_async, reason = "the other backend asks its server")]
    async fn lead_here(&self) -> Result<bool> {
        Ok(true)
    }

    /// Opens the ledger, makes the file if there is none (its folder must exist), checks that an
    /// existing file is whole, and brings its tables up to date. After a clean end the whole file is
    /// compared with its checksum; after a crash its structure is checked, unless it is larger than
    /// a gigabyte: then [`MaintenanceLedger::check_structure`](throng_store::MaintenanceLedger) does it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if a newer version of Throng wrote it (nothing is changed then),
    /// [`LedgerError::Damaged`], [`LedgerError::Database`] if the file cannot be opened or is no
    /// ledger.
    pub async fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_or(0, |facts| facts.len());
        let file = path.to_owned();
        let compared = bytes > 0 && blocking(move || integrity::verify(&file)).await?;
        let unchecked = !compared && bytes > integrity::CHECKED_AT_OPEN;
        if bytes > 0 && !compared && !unchecked {
            integrity::check_structure(path).await?;
        }
        let opened: Tried<Self> = async {
            let mut connection = settings(path).connect().await?;
            switch_to_wal(&mut connection).await?;
            migrate(&mut connection).await?;
            let options = settings(path).create_if_missing(false);
            let mut ledger = Self::assemble(path, options, connection).await?;
            ledger.unchecked = unchecked;
            Ok(ledger)
        }
        .await;
        opened.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    async fn assemble(path: &Path, options: SqliteConnectOptions, connection: Conn) -> Tried<Self> {
        // Readers open a file that is in WAL mode already, and can change nothing.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await?;
        let writer = Mutex::new(Writer::new(options, connection));
        let path = path.to_owned();
        Ok(Self { path, writer, readers, unchecked: false, records_sum: true })
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

/// Runs what reads and writes files on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LedgerError::of_system("reading the ledger's file", error))?
}

/// Puts the file into WAL mode, where it then stays.
///
/// Of two processes that do this to a new file at once, SQLite refuses one without waiting: both
/// read the file and want it alone, so neither could ever go on. That one has let go of the file
/// by then and simply tries again.
async fn switch_to_wal(connection: &mut Conn) -> Tried<()> {
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(25);
    const SQLITE_BUSY: &str = "5";
    let mut tries = 0;
    loop {
        let switched = sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut *connection).await;
        tries += 1;
        match switched {
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some(SQLITE_BUSY) && tries < TRIES =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Brings the tables up to date, in one transaction: of two processes that open a new ledger at
/// once, the second waits and finds it done.
async fn migrate(connection: &mut Conn) -> Tried<()> {
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
    use super::*;

    #[tokio::test]
    async fn each_transaction_has_the_durability_it_asked_for() {
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
