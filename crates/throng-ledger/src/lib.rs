//! The ledger: everything Throng must remember across a crash, behind traits. SQLite (embedded)
//! and PostgreSQL (many processes) implement them with the same statements, which both compile from
//! `sql/`; `conformance` (a feature) is the suite that every backend passes. The only crate that
//! names an SQL driver.
//!
//! All times are [`throng_model::Timestamp`], passed in by the caller: a ledger reads no clock.
//! Every method is one transaction; a method that returns an error has changed nothing.

mod access;
mod alerts;
mod audiences;
mod budgets;
#[cfg(feature = "conformance")]
pub mod conformance;
mod failure;
mod history;
mod maintenance;
mod pauses;
mod postgres;
mod removals;
mod rows;
mod sizes;
mod sqlite;
mod sync;

pub use access::{AccessLedger, Grant, NewToken, SessionRow, TokenRow};
pub use alerts::{
    Alert, AlertEvent, AlertEventKind, AlertKind, AlertLedger, AlertTotals, Delivery,
    DeliveryResult, DeliveryState, NewAlert, Receiver, Severity,
};
pub use audiences::{
    AudienceLedger, AudienceRow, DictionaryShard, NewPart, Part, PartKind, PartState, Refresh,
    RefreshState, RefreshTrigger, Snapshot, SnapshotState,
};
pub use budgets::{AppliedSpec, BudgetDayRow, SpecLedger};
pub use history::{HistoryEntry, HistoryLedger, NodeRow};
pub use maintenance::{MaintenanceLedger, NamedObject, NamedObjects, StoreStamp};
pub use pauses::PauseLedger;
pub use postgres::{PostgresLedger, PostgresLook, is_plain_remote_postgres};
pub use removals::{
    NewRemoval, Removal, RemovalLedger, RemovalRule, SpecApplied, SpecUpdate, removal_subject,
};
pub use sizes::{SizeLedger, SizeRecord, SizeRetention};
pub use sqlite::SqliteLedger;
pub use sync::{
    Batch, BatchOutcome, BatchState, Check, DeliveredRecord, ForeignAudience, Hold, HoldCause,
    NewRun, Operation, PlatformAudience, ReasonCounts, Receipt, RunState, SyncLedger, SyncMode,
    SyncRun, Task, TaskState, Verdict,
};

use throng_model::{Fault, Retry, StorageProblem};

/// Why a ledger call failed. It changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The object is not there.
    #[error("no {what} `{name}` in the ledger")]
    NotFound {
        /// The kind of object: `audience`, `snapshot`, `task`, …
        what: &'static str,
        /// Its name or number.
        name: String,
    },
    /// The object is in a state that does not allow this.
    #[error("{what} `{name}` is {state}, so it cannot be {wanted}")]
    WrongState {
        /// The kind of object.
        what: &'static str,
        /// Its name or number.
        name: String,
        /// The state it is in.
        state: String,
        /// What was wanted, as a participle: `approved`, `finished`.
        wanted: &'static str,
    },
    /// The caller's lease ran out and somebody else has the work now. Stop working on it.
    #[error("the lease on {what} `{name}` belongs to somebody else now")]
    LeaseLost {
        /// The kind of object.
        what: &'static str,
        /// Its name or number.
        name: String,
    },
    /// What was to be stored contradicts itself or the ledger: a bug of the caller.
    #[error("the ledger refuses this {what}: {why}")]
    Refused {
        /// The kind of object.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A row of the ledger cannot be understood: it was written by a newer version, or damaged.
    #[error("the ledger holds a {what} that this version cannot read: {why}")]
    Unreadable {
        /// The kind of row.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger's file is not what a node left there.
    #[error(
        "the ledger {} is damaged: {why}. Restore a backup with `throng restore` \
         (docs/operate/backup.md)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The data base itself failed.
    #[error("the ledger's data base failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LedgerError {
    /// Whether the object was in a state that does not allow the call.
    pub fn is_wrong_state(&self) -> bool {
        matches!(self, Self::WrongState { .. })
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } | Self::WrongState { .. } => Fault::User,
            Self::LeaseLost { .. } | Self::Database { .. } | Self::Damaged { .. } => {
                Fault::External
            }
            Self::Unreadable { .. } | Self::Refused { .. } => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Database { source, .. } if is_denied(&**source) => Retry::Never,
            Self::Database { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

impl LedgerError {
    /// Which class of problem of the database or its disk this is; `None` if it is none.
    pub fn problem(&self) -> Option<StorageProblem> {
        match self {
            Self::Database { source, .. } => match source.downcast_ref::<sqlx::Error>() {
                Some(error) => failure::storage_problem(error),
                None => StorageProblem::in_causes(&**source),
            },
            Self::Damaged { .. } => Some(StorageProblem::Damaged),
            _ => None,
        }
    }
}

/// Whether the server does not let this user in: codes of class 28 of
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_denied(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    error.and_then(|error| error.code()).is_some_and(|code| code.starts_with("28"))
}

/// The result of a ledger call.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// Everything in one: what a node holds as `Arc<dyn Ledger>`.
pub trait Ledger:
    SpecLedger
    + AudienceLedger
    + SyncLedger
    + PauseLedger
    + RemovalLedger
    + SizeLedger
    + HistoryLedger
    + AlertLedger
    + AccessLedger
    + MaintenanceLedger
{
}

impl<T> Ledger for T where
    T: SpecLedger
        + AudienceLedger
        + SyncLedger
        + PauseLedger
        + RemovalLedger
        + SizeLedger
        + HistoryLedger
        + AlertLedger
        + AccessLedger
        + MaintenanceLedger
{
}
