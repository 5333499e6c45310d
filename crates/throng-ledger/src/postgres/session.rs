//! A transaction that may be cut off at any moment.
//!
//! A call of the ledger is a future, and a future may be dropped while it waits: its lease was lost,
//! its client went away, its time was up. sqlx 0.9.0 gives a connection whose `BEGIN` was cut off
//! back to the pool *inside* the transaction (<https://github.com/transact-rs/sqlx/issues/4393>,
//! mended after that version): whoever gets it next sees an old state of the ledger, and what he
//! writes is lost. So the connection of a transaction that did not come to its end is closed here,
//! and the server rolls back.

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};

/// A pooled connection in a transaction.
pub(super) struct Session {
    /// `None` once it went back to the pool.
    connection: Option<PoolConnection<Postgres>>,
}

impl Session {
    /// Takes a connection and begins; `begin` is the whole statement.
    pub(super) async fn begin(pool: &PgPool, begin: &'static str) -> sqlx::Result<Self> {
        let mut session = Self { connection: Some(pool.acquire().await?) };
        sqlx::raw_sql(begin).execute(session.connection()?).await?;
        Ok(session)
    }

    /// The connection, for statements.
    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Ends the transaction; the connection goes back to the pool.
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
    /// What it did stays.
    Commit,
    /// It did nothing.
    Rollback,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Not the pool's any more: it is closed here.
            drop(connection.detach());
        }
    }
}
