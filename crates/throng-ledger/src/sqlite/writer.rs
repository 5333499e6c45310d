//! The connection that writes, and its transactions.
//!
//! A connection whose transaction did not end is closed, and the next call opens another one: sqlx
//! 0.9.0 lowers a connection's transaction depth only when `COMMIT` or `ROLLBACK` succeeds, so a
//! connection on which one of them failed (a full disk) refuses every later `BEGIN`. For the same
//! reason transactions are begun and ended by statements here, not by `sqlx::Transaction`. Closing
//! rolls back, also when the call is dropped before its end.

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{Sqlite, pool::PoolConnection};

use crate::failure::{DbResult, Failure};

/// When a commit returns; the documentation of `sqlite` says what depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// After it is on the disk.
    Full,
    /// After the operating system has its pages.
    Relaxed,
}

/// Owns the writing connection, and opens it when there is none.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: SqliteConnection,
    /// The durability that the connection is set to; `None` if that is unknown.
    durability: Option<Durability>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let open = Open { connection, durability: Some(Durability::Full) };
        Self { options, open: Some(open) }
    }

    /// A connection that is set to a durability. It belongs to the call until
    /// [`WriteCall::finish`], and is closed if that is never called.
    pub(super) async fn call(&mut self, durability: Durability) -> DbResult<WriteCall<'_>> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open { connection: self.options.connect().await?, durability: None },
        };
        if open.durability != Some(durability) {
            open.durability = None;
            let pragma = match durability {
                Durability::Full => "PRAGMA synchronous = FULL",
                Durability::Relaxed => "PRAGMA synchronous = NORMAL",
            };
            // SQLite applies this pragma when it prepares it, so it must not come from the cache of
            // prepared statements.
            sqlx::raw_sql(pragma).execute(&mut open.connection).await?;
            open.durability = Some(durability);
        }
        Ok(WriteCall { writer: self, open })
    }

    /// As [`call`](Self::call), in a transaction that waits for the write lock at its start.
    pub(super) async fn begin(&mut self, durability: Durability) -> DbResult<WriteCall<'_>> {
        let mut call = self.call(durability).await?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(call.connection()).await?;
        Ok(call)
    }

    /// Closes the connection. The next call opens another one.
    pub(super) async fn close(&mut self) -> DbResult<()> {
        use sqlx::Connection;
        match self.open.take() {
            Some(open) => Ok(open.connection.close().await?),
            None => Ok(()),
        }
    }
}

/// The writing connection while a call has it.
pub(super) struct WriteCall<'a> {
    writer: &'a mut Writer,
    open: Open,
}

impl WriteCall<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.open.connection
    }

    /// Commits if the body succeeded, else rolls back. The connection is reused only if that
    /// succeeds.
    pub(super) async fn end<T>(mut self, done: DbResult<T>) -> DbResult<T> {
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match (sqlx::raw_sql(end).execute(self.connection()).await, done) {
            (Ok(_), done) => self.finish(done),
            (Err(error), Ok(_)) => Err(error.into()),
            // The first failure is the one to report.
            (Err(_), failed) => failed,
        }
    }

    /// Returns the connection, unless the storage failed under it.
    pub(super) fn finish<T>(self, done: DbResult<T>) -> DbResult<T> {
        if !done.as_ref().is_err_and(Failure::is_storage_failure) {
            self.writer.open = Some(self.open);
        }
        done
    }
}

/// A reading transaction. Its connection is closed unless the transaction ends.
pub(super) struct ReadCall {
    connection: Option<PoolConnection<Sqlite>>,
}

impl ReadCall {
    /// A connection for one statement.
    pub(super) async fn new(pool: &SqlitePool) -> DbResult<Self> {
        Ok(Self { connection: Some(pool.acquire().await?) })
    }

    /// A connection in a transaction.
    pub(super) async fn begin(pool: &SqlitePool) -> DbResult<Self> {
        let mut call = Self::new(pool).await?;
        sqlx::raw_sql("BEGIN").execute(call.connection()?).await?;
        Ok(call)
    }

    pub(super) fn connection(&mut self) -> DbResult<&mut SqliteConnection> {
        Ok(self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)?)
    }

    /// Ends the transaction and returns the connection to the pool if that succeeds.
    pub(super) async fn end<T>(mut self, done: DbResult<T>) -> DbResult<T> {
        match (sqlx::raw_sql("COMMIT").execute(self.connection()?).await, done) {
            (Ok(_), done) => self.finish(done),
            (Err(error), Ok(_)) => Err(error.into()),
            (Err(_), failed) => failed,
        }
    }

    /// Returns the connection, unless the storage failed under it.
    pub(super) fn finish<T>(mut self, done: DbResult<T>) -> DbResult<T> {
        if !done.as_ref().is_err_and(Failure::is_storage_failure) {
            drop(self.connection.take());
        }
        done
    }
}

impl Drop for ReadCall {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Detached, it does not return to the pool but is closed here.
            drop(connection.detach());
        }
    }
}
