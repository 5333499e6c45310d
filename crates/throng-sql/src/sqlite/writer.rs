//! The connection that writes.
//!
//! A connection whose transaction did not end is closed, and the next call opens another one: sqlx
//! 0.9.0 lowers a connection's transaction depth only when `COMMIT` or `ROLLBACK` succeeds, so a
//! connection on which one of them failed (a full disk) refuses every later `BEGIN`. For the same
//! reason transactions are begun and ended by statements, not by `sqlx::Transaction`. Closing rolls
//! back, also when the call is dropped before its end.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::OwnedMutexGuard;

use crate::durability::Durability;
use crate::failure::DbResult;

/// Owns the writing connection, and opens it when there is none.
#[derive(Debug)]
pub(crate) struct Writer {
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

    /// Closes the connection. The next call opens another one.
    pub(super) async fn close(&mut self) -> DbResult<()> {
        match self.open.take() {
            Some(open) => Ok(open.connection.close().await?),
            None => Ok(()),
        }
    }
}

/// The writing connection while a call has it. It is closed unless it is released.
pub(crate) struct WriteConnection {
    /// Before the guard, because fields are dropped in this order: the next call must not begin while this connection
    /// is still open, with its transaction.
    open: Open,
    writer: OwnedMutexGuard<Writer>,
}

impl WriteConnection {
    /// Takes the connection, and sets it to a durability.
    pub(super) async fn take(
        mut writer: OwnedMutexGuard<Writer>,
        durability: Durability,
    ) -> DbResult<Self> {
        let Writer { options, open } = &mut *writer;
        let mut open = match open.take() {
            Some(open) => open,
            None => Open { connection: options.connect().await?, durability: None },
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
        Ok(Self { writer, open })
    }

    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.open.connection
    }

    /// Gives the connection to the next call.
    pub(crate) fn release(self) {
        let Self { mut writer, open } = self;
        writer.open = Some(open);
    }
}
