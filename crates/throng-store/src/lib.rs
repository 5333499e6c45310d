//! Durable state: the rows that Throng must remember across a crash, the traits that store and read
//! them, and their errors. `throng-ledger` implements the traits on SQLite and PostgreSQL; this
//! crate names no SQL driver. `conformance` (a feature) is the suite that every implementation
//! passes.
//!
//! All times are [`throng_model::Timestamp`], passed in by the caller: a ledger does not read the
//! clock. Every method is one transaction; a method that returns an error has changed nothing.

mod access;
mod alerts;
mod audiences;
mod budgets;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "conformance")]
pub mod fixture;
mod history;
mod lists;
mod maintenance;
mod pauses;
mod planning;
mod refresh_groups;
mod removals;
mod retention;
mod sizes;
mod store_writes;
mod stored;
mod sync;
mod sync_ledger;
mod users;

pub use access::{AccessLedger, Grant, NewToken, SessionRow, TokenRow};
pub use alerts::{
    Alert, AlertEvent, AlertEventKind, AlertLedger, AlertTotals, Delivery, DeliveryResult,
    DeliveryState, NewAlert, Receiver,
};
pub use audiences::{
    AudienceLedger, AudienceRow, ClaimFilter, DictionaryShard, NewPart, Part, PartKind, PartState,
    Refresh, RefreshState, RefreshTrigger, Snapshot, SnapshotState,
};
pub use budgets::{AppliedSpec, BudgetDayRow, PredictedSpend, SpecLedger};
pub use error::{DatabaseErrorClass, LedgerError};
pub use history::{HistoryEntry, HistoryLedger, NodeRow};
pub use lists::{
    AlertSort, AlertState, ListLedger, ListPage, RowKey, RowPlace, RunFilter, TaskCount, WorkSort,
};
pub use maintenance::{MaintenanceLedger, ReferencedObject, ReferencedObjects, StoreStamp};
pub use pauses::PauseLedger;
pub use planning::{NewRun, PlanBase, PlanOutcome};
pub use refresh_groups::{NewSnapshot, RefreshGroupLedger, SnapshotBase};
pub use removals::{
    NewRemoval, Removal, RemovalLedger, RemovalRule, SpecApplied, SpecUpdate, removal_subject,
};
pub use retention::expired_versions;
pub use sizes::{SizeLedger, SizeRecord, SizeRetention};
pub use store_writes::{
    NewStoreWrite, StoreCheck, StoreLease, StoreProgress, StoreWrite, StoreWriteLedger,
    StoreWriteState,
};
pub use stored::StoredEnum;
pub use sync::{
    Batch, BatchOutcome, BatchState, Check, DeliveredRecord, ForeignAudience, Hold, HoldCause,
    Operation, PlatformAudience, ReasonCounts, Receipt, RunState, SyncRun, Task, TaskState,
    Verdict,
};
pub use sync_ledger::SyncLedger;
pub use throng_model::{AlertKind, HistoryEvent, SubjectKind};
pub use users::{add_reasons, sum_reasons};

/// The result of a ledger call.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// All traits of the store: a node has one `Arc<dyn Ledger>`.
pub trait Ledger:
    SpecLedger
    + AudienceLedger
    + RefreshGroupLedger
    + SyncLedger
    + PauseLedger
    + RemovalLedger
    + SizeLedger
    + StoreWriteLedger
    + HistoryLedger
    + AlertLedger
    + ListLedger
    + AccessLedger
    + MaintenanceLedger
{
}

impl<T> Ledger for T where
    T: SpecLedger
        + AudienceLedger
        + RefreshGroupLedger
        + SyncLedger
        + PauseLedger
        + RemovalLedger
        + SizeLedger
        + StoreWriteLedger
        + HistoryLedger
        + AlertLedger
        + ListLedger
        + AccessLedger
        + MaintenanceLedger
{
}
