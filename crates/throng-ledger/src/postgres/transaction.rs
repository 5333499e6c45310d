//! A transaction that can be cancelled at any point.
//!
//! A call of the ledger is a future, and a future can be dropped while it waits: its lease was
//! lost, its client disconnected, its timeout expired. sqlx 0.9.0 returns a connection whose
//! `BEGIN` was cancelled to the pool *inside* the transaction
//! (<https://github.com/transact-rs/sqlx/issues/4393>, fixed after that version): the next caller
//! of that connection would read an old state of the ledger, and its writes would be lost. So the
//! connection of a transaction that did not end is closed here, and the server rolls back.

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};

/// A pooled connection in a transaction.
pub(super) struct PooledTransaction {
    /// `None` once it is back in the pool.
    connection: Option<PoolConnection<Postgres>>,
}

impl PooledTransaction {
    /// Acquires a connection and begins; `begin` is the whole statement.
    pub(super) async fn begin(pool: &PgPool, begin: &'static str) -> sqlx::Result<Self> {
        let mut transaction = Self { connection: Some(pool.acquire().await?) };
        sqlx::raw_sql(begin).execute(transaction.connection()?).await?;
        Ok(transaction)
    }

    /// The connection, for statements.
    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Ends the transaction and returns the connection to the pool.
    pub(super) async fn end(mut self, how: End) -> sqlx::Result<()> {
        let end = match how {
            End::Commit => "COMMIT",
            End::Rollback => "ROLLBACK",
        };
        sqlx::raw_sql(end).execute(self.connection()?).await?;
        drop(self.connection.take());
        Ok(())
    }
}

/// How a transaction ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Its changes are stored.
    Commit,
    /// Its changes are discarded.
    Rollback,
}

impl Drop for PooledTransaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Detached, it does not return to the pool but is closed here.
            drop(connection.detach());
        }
    }
}
