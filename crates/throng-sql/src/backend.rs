//! What a database does for the ledger, and how a call of the ledger runs on its connections.

use std::time::Duration;

use async_trait::async_trait;
use throng_store::Result;

use crate::conn::Call;
use crate::durability::Durability;
use crate::failure::{DbResult, Failure};

/// What a call needs of its connection.
#[derive(Debug, Clone, Copy)]
pub enum Access {
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
pub trait Backend: Send + Sync + 'static {
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

/// Runs a call, and fails as a lost connection does if it takes longer than `limit`.
///
/// # Errors
/// As the call, and a lost connection at the limit.
pub async fn with_timeout<T>(
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
pub async fn back_off(attempts: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(attempts.min(20)))).await;
}
