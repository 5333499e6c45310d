//! What refreshes (`throng-refresh`) need of a warehouse: a program that runs an audience's SQL and returns the result
//! in pages. `throng-warehouse` implements it.
//!
//! Reading is resumable. The *cursor* of the next page comes with each page; the refresh records both
//! before it reads on, so that another process continues at that page. A cursor belongs to one
//! *job*, which is one run of the SQL: pages of two jobs are never parts of one snapshot, because
//! the tables may have changed in between. A warehouse whose results end with the connection that
//! reads them has one page, which is the whole result; or, if its source is read in key ranges, pages that another
//! connection continues at a later moment.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use throng_model::{AudienceName, HashSeed, Micros, RefreshId, Retry, Timestamp, UserHash};
use throng_spec::WarehouseSource;

use crate::model::{ColumnFacts, KeyKind};

/// One run of an audience's SQL. The same values name the same job in every process and after every
/// crash, so that a job is never started twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarehouseJob {
    /// The deployment, so that two deployments that share a warehouse have different jobs.
    pub deployment: u64,
    /// The audience.
    pub audience: AudienceName,
    /// The refresh.
    pub refresh: RefreshId,
    /// When the refresh was queued: a ledger that was restored from a backup uses the number of the
    /// refresh again.
    pub scheduled_at: Timestamp,
    /// 0, and one more for each earlier job of this refresh whose result was lost.
    pub attempt: u32,
}

/// Asks for a page of a job's result.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// The SQL.
    pub sql: &'a str,
    /// The key column; `None`: the only column.
    pub key: Option<&'a str>,
    /// The job.
    pub job: &'a WarehouseJob,
    /// The page, as the previous one named it; `None`: the first page of the job, which is started
    /// if it does not exist.
    pub cursor: Option<&'a Value>,
    /// Hashes the keys.
    pub seed: HashSeed,
}

/// A page of a result, without its keys. The same request returns the same page, unless the job is lost; if it is a key
/// range, with the rows of the moment at which its connection began to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its rows.
    pub rows: u64,
    /// Rows among them whose key is NULL.
    pub null_keys: u64,
    /// Rows among them whose key has white space around it.
    pub padded_keys: u64,
    /// The rows of the whole result; `None` if only its last page tells.
    pub total_rows: Option<u64>,
    /// Whether its rows are of a later moment than those of the page before it.
    pub is_later: bool,
    /// The key column.
    pub key: ColumnFacts,
    /// The cursor of the next page; `None` after the last one. Only the warehouse understands it. It
    /// is stored in the ledger.
    pub next: Option<Value>,
}

/// The result of checking SQL without running it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryPlan {
    /// The columns of the result, with their types.
    pub columns: Vec<(String, String)>,
    /// The key column.
    pub key_column: String,
    /// The key column's kind.
    pub key_kind: KeyKind,
    /// The rows that a run would return, as the warehouse estimates them.
    pub estimated_rows: Option<u64>,
    /// Bytes that a run would read, if the warehouse knows them.
    pub bytes_processed: Option<u64>,
    /// What a run would cost, if the source has a price.
    pub cost: Option<Micros>,
}

/// Why a warehouse did not do what it was asked for. Has no value of the data and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarehouseError {
    /// The warehouse refuses it, or the settings are wrong: a retry fails in the same way.
    #[error("{message}")]
    Refused {
        /// What it refuses.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The warehouse does not answer, or has no capacity or quota left.
    #[error("{message}")]
    Unavailable {
        /// What was being done, and how it failed.
        message: String,
        /// When a retry makes sense; `None`: after a backoff.
        after: Option<Duration>,
    },
    /// The job or its result no longer exists, so that its remaining pages cannot be read.
    #[error("the job {job} is lost: {why}")]
    JobLost {
        /// The id of the job.
        job: String,
        /// How it was lost.
        why: String,
    },
}

impl WarehouseError {
    /// Whether trying again can help. A lost job is replaced by the refresh; one that remains lost
    /// was replaced several times.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } | Self::JobLost { .. } => Retry::Never,
            Self::Unavailable { after, .. } => after.map_or(Retry::Backoff, Retry::After),
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Refused { help, .. } => help.as_deref(),
            Self::Unavailable { .. } | Self::JobLost { .. } => None,
        }
    }
}

/// Takes the keys of a page while it is read, so that a page may be larger than memory: the hashes of
/// the keys, and how many further rows have NULL as their key. After an error the page is not used.
pub type KeySink<'a> = dyn FnMut(&[UserHash], u64) -> Result<(), WarehouseError> + Send + 'a;

/// What a warehouse keeps between two pages of a job, such as a connection. Who reads the pages one after another holds
/// it; dropping it ends the connection. Nothing depends on it but time: without it the next page is read as well.
#[derive(Default)]
pub struct Session(Option<Box<dyn Any + Send>>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("is_open", &self.0.is_some()).finish()
    }
}

impl Session {
    /// Keeps something for the next page, in place of what was kept before.
    pub fn put<T: Send + 'static>(&mut self, kept: T) {
        self.0 = Some(Box::new(kept));
    }

    /// Takes what was kept, and leaves nothing. `None` if it is nothing, or of another type.
    pub fn take<T: 'static>(&mut self) -> Option<T> {
        let kept = self.0.take()?.downcast::<T>().ok()?;
        Some(*kept)
    }
}

/// A warehouse: the engine that runs the SQL of an audience as a job, whose result is read in pages. A page names its
/// job, so that each call can be repeated, also by another process after a crash.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// Checks SQL, and what a run of it would read. Runs nothing and costs nothing.
    ///
    /// # Errors
    /// [`WarehouseError`].
    async fn check(&self, sql: &str, key: Option<&str>) -> Result<QueryPlan, WarehouseError>;

    /// Reads a page, and passes its keys to `keys`; the first one may take as long as the job. Safe to
    /// repeat, with another `keys`, and to drop. `session` is that of the page before it, or a new one.
    ///
    /// # Errors
    /// [`WarehouseError`].
    async fn page(
        &self,
        request: &PageRequest<'_>,
        keys: &mut KeySink<'_>,
        session: &mut Session,
    ) -> Result<Page, WarehouseError>;
}

/// Opens the warehouses that sources of the spec name. A trait, so that refreshes and checks depend on no client of one.
pub trait Warehouses: Send + Sync {
    /// Opens a source of the spec. Reads its secret, and makes no call.
    ///
    /// # Errors
    /// [`WarehouseError::Refused`].
    fn open(&self, source: &WarehouseSource) -> Result<Arc<dyn Warehouse>, WarehouseError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_taken_once_and_only_as_what_it_is() {
        let mut session = Session::default();
        assert_eq!(session.take::<String>(), None);
        session.put("open".to_owned());
        assert_eq!(session.take::<String>(), Some("open".to_owned()));
        assert_eq!(session.take::<String>(), None);
        session.put(7_u32);
        assert_eq!(session.take::<String>(), None);
        assert_eq!(format!("{session:?}"), "Session { is_open: false }");
    }
}
