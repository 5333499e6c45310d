//! Connections to either database, and the statements that run on them.

use std::borrow::Cow;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Postgres, Sqlite};
use throng_store::Result;

use crate::dialect::Dialect;
use crate::failure::{DbResult, Failure};
use crate::rows::{Cell, DbRow};
use crate::sqlite::writer::WriteConnection;
use crate::statement::{Statement, StatementBuilder, Value, Values};

/// A connection to either database.
pub struct Conn(Inner);

enum Inner {
    /// Of SQLite's pool, for reading.
    SqliteReader(PoolConnection<Sqlite>),
    /// SQLite's only one that writes.
    SqliteWriter(WriteConnection),
    /// Of PostgreSQL's pool.
    Postgres(PoolConnection<Postgres>),
}

/// The driver's connection.
enum Driver<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// A statement as a query of a driver.
macro_rules! query_of {
    ($db:ty, $statement:expr) => {{
        let Statement { text, values, persistent } = $statement;
        let mut query = sqlx::query::<$db>(AssertSqlSafe(text)).persistent(persistent);
        for value in values {
            query = match value {
                Value::Int(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Conn {
    pub(crate) fn sqlite_reader(connection: PoolConnection<Sqlite>) -> Self {
        Self(Inner::SqliteReader(connection))
    }

    pub(crate) fn sqlite_writer(writer: WriteConnection) -> Self {
        Self(Inner::SqliteWriter(writer))
    }

    pub(crate) fn postgres(connection: PoolConnection<Postgres>) -> Self {
        Self(Inner::Postgres(connection))
    }

    fn driver(&mut self) -> Driver<'_> {
        match &mut self.0 {
            Inner::SqliteReader(connection) => Driver::Sqlite(connection),
            Inner::SqliteWriter(writer) => Driver::Sqlite(writer.connection()),
            Inner::Postgres(connection) => Driver::Postgres(connection),
        }
    }

    /// The SQL of its database.
    pub fn dialect(&self) -> Dialect {
        match self.0 {
            Inner::SqliteReader(_) | Inner::SqliteWriter(_) => Dialect::Sqlite,
            Inner::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a statement with any number of values.
    pub fn build(&self, text: &'static str) -> StatementBuilder {
        StatementBuilder::new(self.dialect(), text)
    }

    /// Runs a statement that has neither values nor rows, such as `COMMIT`.
    async fn run(&mut self, statement: &'static str) -> DbResult<()> {
        match self.driver() {
            Driver::Sqlite(connection) => {
                sqlx::raw_sql(statement).execute(connection).await?;
            }
            Driver::Postgres(connection) => {
                sqlx::raw_sql(statement).execute(connection).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement. Returns how many rows it has changed.
    pub async fn execute_built(&mut self, statement: Statement) -> DbResult<u64> {
        Ok(match self.driver() {
            Driver::Sqlite(connection) => {
                query_of!(Sqlite, statement).execute(connection).await?.rows_affected()
            }
            Driver::Postgres(connection) => {
                query_of!(Postgres, statement).execute(connection).await?.rows_affected()
            }
        })
    }

    /// All rows of a statement.
    pub async fn rows(&mut self, statement: Statement) -> DbResult<Vec<DbRow>> {
        Ok(match self.driver() {
            Driver::Sqlite(connection) => {
                let rows = query_of!(Sqlite, statement).fetch_all(connection).await?;
                rows.into_iter().map(DbRow::of_sqlite).collect()
            }
            Driver::Postgres(connection) => {
                let rows = query_of!(Postgres, statement).fetch_all(connection).await?;
                rows.into_iter().map(DbRow::of_postgres).collect()
            }
        })
    }

    /// The first row of a statement. The statement ends with it: one that changes rows outside of a
    /// transaction of several statements needs [`rows`](Self::rows), after which it is committed.
    async fn first_row(&mut self, statement: Statement) -> DbResult<Option<DbRow>> {
        Ok(match self.driver() {
            Driver::Sqlite(connection) => {
                let row = query_of!(Sqlite, statement).fetch_optional(connection).await?;
                row.map(DbRow::of_sqlite)
            }
            Driver::Postgres(connection) => {
                let row = query_of!(Postgres, statement).fetch_optional(connection).await?;
                row.map(DbRow::of_postgres)
            }
        })
    }

    /// Runs a statement. Returns how many rows it has changed.
    pub async fn execute(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
    ) -> DbResult<u64> {
        self.execute_built(Statement::new(text, values)).await
    }

    /// All rows of a statement, read by `of`.
    pub async fn all<T>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
        of: impl Fn(&DbRow) -> Result<T>,
    ) -> DbResult<Vec<T>> {
        let rows = self.rows(Statement::new(text, values)).await?;
        Ok(rows.iter().map(of).collect::<Result<_>>()?)
    }

    /// The only row of a statement, if there is one.
    pub async fn optional<T>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
        of: impl Fn(&DbRow) -> Result<T>,
    ) -> DbResult<Option<T>> {
        let row = self.first_row(Statement::new(text, values)).await?;
        Ok(row.as_ref().map(of).transpose()?)
    }

    /// The only row of a statement.
    pub async fn one<T>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
        of: impl Fn(&DbRow) -> Result<T>,
    ) -> DbResult<T> {
        let row = self.optional(text, values, of).await?;
        row.ok_or(Failure::Driver(sqlx::Error::RowNotFound))
    }

    /// The first column of the only row of a statement, if there is one.
    pub async fn maybe_scalar<T: Cell>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
    ) -> DbResult<Option<T>> {
        let row = self.first_row(Statement::new(text, values)).await?;
        Ok(row.as_ref().map(DbRow::first).transpose()?)
    }

    /// The first column of the only row of a statement.
    pub async fn scalar<T: Cell>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
    ) -> DbResult<T> {
        let value = self.maybe_scalar(text, values).await?;
        value.ok_or(Failure::Driver(sqlx::Error::RowNotFound))
    }

    /// The first column of all rows of a statement.
    pub async fn scalars<T: Cell>(
        &mut self,
        text: impl Into<Cow<'static, str>>,
        values: impl Values,
    ) -> DbResult<Vec<T>> {
        let rows = self.rows(Statement::new(text, values)).await?;
        Ok(rows.iter().map(DbRow::first).collect::<sqlx::Result<_>>()?)
    }
}

/// A connection while a call of the ledger has it.
///
/// A call is a future, and a future can be dropped while it waits: its lease was lost, its client
/// disconnected, its timeout expired. sqlx 0.9.0 returns a connection whose `BEGIN` was cancelled to the
/// pool *inside* the transaction (<https://github.com/transact-rs/sqlx/issues/4393>, fixed after that
/// version): the next caller of that connection would read an old state of the ledger, and its writes
/// would be lost. So the connection of a transaction that did not end is closed here, and the database
/// rolls back.
pub struct Call {
    /// `None` once it is returned.
    conn: Option<Conn>,
    in_transaction: bool,
}

impl Call {
    /// A connection for one statement.
    pub(crate) fn new(conn: Conn) -> Self {
        Self { conn: Some(conn), in_transaction: false }
    }

    /// A connection in a transaction, which `begin` begins.
    pub(crate) async fn begin(conn: Conn, begin: &'static str) -> DbResult<Self> {
        let mut call = Self { conn: Some(conn), in_transaction: true };
        call.connection()?.run(begin).await?;
        Ok(call)
    }

    /// The connection.
    ///
    /// # Errors
    /// If it was returned, which [`end`](Self::end) does.
    pub fn connection(&mut self) -> DbResult<&mut Conn> {
        self.conn.as_mut().ok_or(Failure::Driver(sqlx::Error::PoolClosed))
    }

    /// Ends the transaction, if there is one: commits if the body succeeded, else rolls back. The
    /// connection is used again only if that succeeds.
    ///
    /// # Errors
    /// The failure of the body, or of the commit.
    pub async fn end<T>(mut self, done: DbResult<T>) -> DbResult<T> {
        if self.in_transaction {
            let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = self.connection()?.run(end).await;
            if let Err(failure) = ended {
                // The first failure is the one to report.
                return done.and(Err(failure));
            }
        }
        self.release(done.as_ref().is_err_and(Failure::is_storage_failure));
        done
    }

    /// Returns the connection. SQLite's is closed instead if the storage failed under it; PostgreSQL's
    /// pool checks a connection before it is used again.
    fn release(&mut self, is_storage_failure: bool) {
        match self.conn.take() {
            Some(Conn(Inner::Postgres(connection))) => drop(connection),
            Some(conn) if is_storage_failure => self.conn = Some(conn),
            Some(Conn(Inner::SqliteReader(connection))) => drop(connection),
            Some(Conn(Inner::SqliteWriter(writer))) => writer.release(),
            None => {}
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match self.conn.take().map(|Conn(conn)| conn) {
            // Detached, it does not return to the pool but is closed here.
            Some(Inner::SqliteReader(connection)) => drop(connection.detach()),
            Some(Inner::Postgres(connection)) if self.in_transaction => drop(connection.detach()),
            // The writer is closed; another connection of one statement returns to its pool.
            Some(Inner::SqliteWriter(_) | Inner::Postgres(_)) | None => {}
        }
    }
}
