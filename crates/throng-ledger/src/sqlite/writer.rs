//! The connection that writes, and its transactions.
//!
//! A connection whose transaction did not end as it should is closed, and the next call opens
//! another one: sqlx 0.9.0 lowers a connection's transaction depth only when `COMMIT` or `ROLLBACK`
//! succeeds, so a connection on which one of them failed (a full disk) refuses every later `BEGIN`.
//! For the same reason transactions are begun and ended by statements here, not by
//! `sqlx::Transaction`. Closing rolls back, also when the caller is dropped in the middle.

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{Sqlite, pool::PoolConnection};

use super::{Conn, Durability};
use crate::failure::{Failure, Tried};

/// Opens the writing connection when there is none.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: Conn,
    /// What the connection is set to; `None` if that is not certain.
    set_to: Option<Durability>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: Conn) -> Self {
        let open = Open { connection, set_to: Some(Durability::Full) };
        Self { options, open: Some(open) }
    }

    /// A connection that is set to a durability. It belongs to the call until
    /// [`WriteCall::finish`], and is closed if that does not come.
    pub(super) async fn call(&mut self, durability: Durability) -> Tried<WriteCall<'_>> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open { connection: self.options.connect().await?, set_to: None },
        };
        if open.set_to != Some(durability) {
            open.set_to = None;
            let pragma = match durability {
                Durability::Full => "PRAGMA synchronous = FULL",
                Durability::Relaxed => "PRAGMA synchronous = NORMAL",
            };
            // SQLite acts on this pragma when it prepares it, so it must not come from the cache of
            // prepared statements.
            sqlx::raw_sql(pragma).execute(&mut open.connection).await?;
            open.set_to = Some(durability);
        }
        Ok(WriteCall { writer: self, open })
    }

    /// As [`call`](Self::call), in a transaction that waits for its turn at the start.
    pub(super) async fn begin(&mut self, durability: Durability) -> Tried<WriteCall<'_>> {
        let mut call = self.call(durability).await?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(call.connection()).await?;
        Ok(call)
    }

    /// Closes the connection. The next call opens another one.
    pub(super) async fn close(&mut self) -> Tried<()> {
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
    pub(super) fn connection(&mut self) -> &mut Conn {
        &mut self.open.connection
    }

    /// Commits if the body succeeded, else rolls back. The connection is kept only if that worked.
    pub(super) async fn end<T>(mut self, done: Tried<T>) -> Tried<T> {
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match (sqlx::raw_sql(end).execute(self.connection()).await, done) {
            (Ok(_), done) => self.finish(done),
            (Err(error), Ok(_)) => Err(error.into()),
            // What failed first is what is reported.
            (Err(_), failed) => failed,
        }
    }

    /// Gives the connection back, unless the storage failed under it.
    pub(super) fn finish<T>(self, done: Tried<T>) -> Tried<T> {
        if !done.as_ref().is_err_and(Failure::is_of_storage) {
            self.writer.open = Some(self.open);
        }
        done
    }
}

/// A reading transaction. Its connection is closed unless the transaction ends as it should.
pub(super) struct ReadCall {
    connection: Option<PoolConnection<Sqlite>>,
}

impl ReadCall {
    /// A connection for one statement.
    pub(super) async fn new(pool: &SqlitePool) -> Tried<Self> {
        Ok(Self { connection: Some(pool.acquire().await?) })
    }

    /// A connection in a transaction.
    pub(super) async fn begin(pool: &SqlitePool) -> Tried<Self> {
        let mut call = Self::new(pool).await?;
        sqlx::raw_sql("BEGIN").execute(call.connection()?).await?;
        Ok(call)
    }

    pub(super) fn connection(&mut self) -> Tried<&mut Conn> {
        Ok(self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)?)
    }

    /// Ends the transaction; the connection goes back to the pool if that worked.
    pub(super) async fn end<T>(mut self, done: Tried<T>) -> Tried<T> {
        match (sqlx::raw_sql("COMMIT").execute(self.connection()?).await, done) {
            (Ok(_), done) => self.finish(done),
            (Err(error), Ok(_)) => Err(error.into()),
            (Err(_), failed) => failed,
        }
    }

    /// Gives the connection back, unless the storage failed under it.
    pub(super) fn finish<T>(mut self, done: Tried<T>) -> Tried<T> {
        if !done.as_ref().is_err_and(Failure::is_of_storage) {
            drop(self.connection.take());
        }
        done
    }
}

impl Drop for ReadCall {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // It leaves the pool and is closed here.
            drop(connection.detach());
        }
    }
}
