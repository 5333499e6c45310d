//! What a database does for the ledger, and how a call of the ledger runs on its connections.

use std::time::Duration;

use async_trait::async_trait;

use crate::Result;
use crate::conn::Call;
use crate::durability::Durability;
use crate::failure::{DbResult, Failure};

/// What a call needs of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// One reading statement, which reads one consistent state without a transaction.
    ReadOne,
    /// Several reading statements, on one consistent state of the ledger.
    ReadMany,
    /// One writing statement, which is a transaction of its own.
    WriteOne(Durability),
    /// Several statements in a transaction that behaves as if it had run alone.
    WriteMany(Durability),
}

/// A database with a ledger.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// A connection for a call, in a transaction if it needs one.
    async fn begin(&self, access: Access) -> DbResult<Call>;

    /// The limit of a call, if connections do not have one.
    fn call_timeout(&self) -> Option<Duration>;

    /// Whether a transaction that was tried so many times has to be tried again, because it conflicts
    /// with another one.
    fn must_retry(&self, failure: &Failure, attempts: u32) -> bool;

    /// See [`SpecLedger::acquire_leadership`](throng_store::SpecLedger::acquire_leadership).
    async fn acquire_leadership(&self) -> Result<bool>;

    /// See [`MaintenanceLedger::check_structure`](throng_store::MaintenanceLedger::check_structure).
    async fn check_structure(&self) -> Result<()>;

    /// See [`MaintenanceLedger::close`](throng_store::MaintenanceLedger::close).
    async fn close(&self) -> Result<()>;
}

/// A ledger in a SQL database: all traits of the store, with the statements of `sql/`.
#[derive(Debug)]
pub struct SqlLedger<B> {
    pub(crate) backend: B,
}

/// Runs a call, and fails as a lost connection does if it takes longer than `limit`.
pub(crate) async fn with_timeout<T>(
    limit: Option<Duration>,
    call: impl Future<Output = DbResult<T>>,
) -> DbResult<T> {
    let Some(limit) = limit else { return call.await };
    match tokio::time::timeout(limit, call).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Driver(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

/// Waits up to 20 ms, so that the conflicting transaction can finish.
pub(crate) async fn back_off(attempts: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(attempts.min(20)))).await;
}

/// Tries a body once on a connection with this access. A macro, because a generic function over async
/// closures cannot declare that its future is `Send`.
macro_rules! try_call {
    ($self:ident, $access:expr, |$tx:ident| $body:expr) => {
        crate::backend::with_timeout($self.backend.call_timeout(), async {
            let mut call = $self.backend.begin($access).await?;
            let done: crate::failure::DbResult<_> = async {
                let $tx: &mut crate::conn::Conn = call.connection()?;
                let done = $body;
                Ok(done)
            }
            .await;
            call.end(done).await
        })
        .await
    };
}
pub(crate) use try_call;

/// Runs a body of one reading statement.
macro_rules! read_one {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {
        crate::backend::try_call!($self, crate::backend::Access::ReadOne, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    };
}
pub(crate) use read_one;

/// Runs a body of several reading statements.
macro_rules! read_tx {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {
        crate::backend::try_call!($self, crate::backend::Access::ReadMany, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    };
}
pub(crate) use read_tx;

/// Runs a body of one writing statement.
macro_rules! write_one {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let access = crate::backend::Access::WriteOne(crate::durability::Durability::$durability);
        crate::backend::try_call!($self, access, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    }};
}
pub(crate) use write_one;

/// Runs a body in a writing transaction: commits if it returns `Ok`, else rolls back. It is tried again
/// after a conflict, so a body may run several times and must not have other effects.
macro_rules! write_tx {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let access = crate::backend::Access::WriteMany(crate::durability::Durability::$durability);
        let mut attempts = 0;
        loop {
            let tried = crate::backend::try_call!($self, access, |$tx| $body);
            attempts += 1;
            match tried {
                Err(failure) if $self.backend.must_retry(&failure, attempts) => {
                    crate::backend::back_off(attempts).await;
                }
                other => break other.map_err(|failure| failure.while_doing($doing)),
            }
        }
    }};
}
pub(crate) use write_tx;
