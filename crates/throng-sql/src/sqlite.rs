//! A database in one SQLite file.
//!
//! One connection writes, several read (WAL: readers never wait for the writer). Other processes
//! may have the same file open: every writing transaction is `BEGIN IMMEDIATE`, so that it waits
//! for the write lock at its start. A deferred transaction that reads first and writes later would
//! fail immediately with SQLITE_BUSY_SNAPSHOT if another process wrote in between.
//!
//! **Durability.** A commit survives kill -9 at any time in both [`Durability`] modes, because
//! the operating system has the pages. They differ when the machine loses power. `Full` waits for
//! the disk: for changes that other systems depend on immediately (a publish, after which old files
//! are deleted; a platform's id; an ad group's number). `Relaxed` may lose the last commits, never
//! older ones without the newer ones, and a later `Full` commit makes all earlier ones durable: for
//! claims, leases, receipts and finished batches, whose work is safe to repeat. That saves a disk
//! flush for most calls of the hot path.

mod copy;
mod integrity;
pub(crate) mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use throng_store::{LedgerError, Result};
use tokio::sync::Mutex;

use crate::backend::{Access, Backend};
use crate::conn::{Call, Conn};
use crate::durability::Durability;
use crate::failure::{DbResult, Failure};
use crate::migrations::{Migration, run_missing};
use writer::{WriteConnection, Writer};

/// How long a call waits for other processes that write, before it fails. Shorter than the timeout
/// of a request (`request_timeout_secs`, 30 unless set), so that its error names the lock as the
/// cause.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that read.
const READERS: u32 = 4;
/// The page cache of a connection that reads, in KiB (SQLite's default is 2,000). Each has its own, which grows with
/// the file up to this size; what it does not have is in the cache of the system.
const READER_CACHE_KIB: u32 = 128;
/// The page cache of the connection that writes, in KiB. A transaction that changes more pages writes some of them to
/// the WAL before its end.
const WRITER_CACHE_KIB: u32 = 1_024;
/// Prepared statements that a connection keeps. Each takes some KiB, and every connection meets all statements
/// in time.
const READER_STATEMENTS: usize = 48;
const WRITER_STATEMENTS: usize = 200;

/// A database in a SQLite file. Several processes may open the same file.
#[derive(Debug)]
pub struct SqliteBackend {
    path: PathBuf,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    /// The structure of the file was not checked when it was opened.
    structure_unchecked: bool,
    /// A clean shutdown records the checksum of the file.
    records_checksum: bool,
}

impl SqliteBackend {
    /// Opens the file: creates it if it does not exist (its folder must exist), checks that an
    /// existing one is intact, and runs the migrations that are missing. After a clean shutdown the
    /// whole file is compared with its checksum; after a crash its structure is checked, unless it
    /// is larger than a gigabyte: then [`Backend::check_structure`] does it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if a newer version of Throng wrote it (nothing is changed then),
    /// [`LedgerError::Damaged`], [`LedgerError::Database`] if the file cannot be opened or is not a
    /// ledger.
    pub async fn open(path: &Path, migrations: &'static [Migration]) -> Result<Self> {
        integrity::make_writable_as_ledger(path);
        // Without opening it: closing would release the locks of other connections of this process.
        let facts = std::fs::metadata(path).ok();
        if facts.as_ref().is_some_and(|facts| !facts.is_file()) {
            let why = "it is not a regular file".to_owned();
            return Err(LedgerError::Damaged { path: path.to_owned(), why });
        }
        let bytes = facts.map_or(0, |facts| facts.len());
        let file = path.to_owned();
        let compared = bytes > 0 && blocking(move || integrity::verify(&file)).await?;
        let structure_unchecked = !compared && bytes > integrity::MAX_CHECKED_AT_OPEN_BYTES;
        if bytes > 0 && !compared && !structure_unchecked {
            integrity::check_structure(path).await?;
        }
        let opened: DbResult<Self> = async {
            let mut connection = settings(path).connect().await?;
            switch_to_wal(&mut connection).await?;
            migrate(&mut connection, migrations).await?;
            let options = settings(path).create_if_missing(false);
            let mut backend = Self::assemble(path, options, connection).await?;
            backend.structure_unchecked = structure_unchecked;
            Ok(backend)
        }
        .await;
        opened.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    async fn assemble(
        path: &Path,
        options: SqliteConnectOptions,
        connection: SqliteConnection,
    ) -> DbResult<Self> {
        // Readers open a file that is already in WAL mode, and cannot change it.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(
                options
                    .clone()
                    .statement_cache_capacity(READER_STATEMENTS)
                    .pragma("query_only", "ON")
                    .pragma("cache_size", format!("-{READER_CACHE_KIB}")),
            )
            .await?;
        let writer = Arc::new(Mutex::new(Writer::new(options, connection)));
        let path = path.to_owned();
        Ok(Self { path, writer, readers, structure_unchecked: false, records_checksum: true })
    }

    async fn reader(&self) -> DbResult<Conn> {
        Ok(Conn::sqlite_reader(self.readers.acquire().await?))
    }

    async fn writer(&self, durability: Durability) -> DbResult<Conn> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        Ok(Conn::sqlite_writer(WriteConnection::take(writer, durability).await?))
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn begin(&self, access: Access) -> DbResult<Call> {
        match access {
            Access::ReadOne => Ok(Call::new(self.reader().await?)),
            Access::ReadMany => Call::begin(self.reader().await?, "BEGIN").await,
            // A single statement is a transaction that acquires the write lock at its start, like
            // `BEGIN IMMEDIATE`, but with one round trip to the connection's thread in place of three.
            Access::WriteOne(durability) => Ok(Call::new(self.writer(durability).await?)),
            Access::WriteMany(durability) => {
                Call::begin(self.writer(durability).await?, "BEGIN IMMEDIATE").await
            }
        }
    }

    /// None: a statement waits for `BUSY_TIMEOUT` at most.
    fn call_timeout(&self) -> Option<Duration> {
        None
    }

    /// Never: transactions wait for each other.
    fn must_retry(&self, _: &Failure, _: u32) -> bool {
        false
    }

    /// A SQLite ledger is used by one node, which is always the leader.
    async fn acquire_leadership(&self) -> Result<bool> {
        Ok(true)
    }

    async fn check_structure(&self) -> Result<()> {
        if self.structure_unchecked { integrity::check_structure(&self.path).await } else { Ok(()) }
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        // Closing the last connection writes the write-ahead log into the file.
        let closed = self.writer.lock().await.close().await;
        closed.map_err(|failure| failure.while_doing("closing the ledger"))?;
        if !self.records_checksum {
            return Ok(());
        }
        let path = self.path.clone();
        blocking(move || integrity::record(&path)).await
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
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .statement_cache_capacity(WRITER_STATEMENTS)
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
async fn switch_to_wal(connection: &mut SqliteConnection) -> DbResult<()> {
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
async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &'static [Migration],
) -> DbResult<()> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS ledger_schema (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    run_missing!(tx, migrations);
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_transaction_has_the_requested_durability() {
        let folder = tempfile::tempdir().unwrap();
        let backend = SqliteBackend::open(&folder.path().join("l.db"), &[]).await.unwrap();
        for _ in 0..3 {
            for (durability, level) in [(Durability::Full, 2), (Durability::Relaxed, 1)] {
                let Ok(mut call) = backend.begin(Access::WriteMany(durability)).await else {
                    panic!("no transaction");
                };
                let Ok(connection) = call.connection() else { panic!("no connection") };
                let found = connection.scalar::<i64>("PRAGMA synchronous", ()).await;
                assert!(found.is_ok_and(|found| found == level));
                assert!(call.end(Ok(())).await.is_ok());
            }
        }
    }

    #[tokio::test]
    async fn the_migrations_that_are_missing_run() {
        const FIRST: &[Migration] = &[(1, "CREATE TABLE t (a INTEGER)")];
        const BOTH: &[Migration] = &[FIRST[0], (2, "ALTER TABLE t ADD COLUMN b INTEGER")];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.db");
        // The second migration can run only once, and only after the first one.
        for migrations in [FIRST, BOTH, BOTH] {
            SqliteBackend::open(&path, migrations).await.unwrap().close().await.unwrap();
        }
        // This program may be older than the file.
        let opened = SqliteBackend::open(&path, FIRST).await.unwrap_err();
        assert!(matches!(opened, LedgerError::Unreadable { .. }), "{opened:?}");
        let attached = SqliteBackend::attach(&path, FIRST).await.unwrap_err();
        assert!(matches!(attached, LedgerError::Unreadable { .. }), "{attached:?}");
        SqliteBackend::attach(&path, BOTH).await.unwrap().close().await.unwrap();
    }
}
