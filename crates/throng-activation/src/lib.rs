//! Getting audiences onto ad platforms: what a run has to do, how it is cut into batches, what
//! becomes of each row, what follows from a failure, and whether the result can be trusted.
//!
//! This crate knows no platform and speaks no HTTP: a platform is a [`Destination`]. Decisions are
//! pure functions ([`plan_run`], [`decide_after_failure`], [`judge`], [`evaluate_sizes`], [`Quota`],
//! [`difference`]); [`Worker`] is the edge that carries them out.
//!
//! The law of the crate: `read = sent + skipped + rejected + pending` for every run at every
//! moment. A batch moves from `pending` in one ledger transaction, and sending one twice is harmless.

mod adoption;
mod check;
mod delivered;
mod destination;
mod difference;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod identifiers;
mod plan;
mod planned;
mod prepared;
mod quota;
mod scan;
mod sealed;
mod sending;
mod sizes;
mod users;
mod worker;

pub use check::{CheckFacts, Removals, judge};
pub use delivered::{DeliveredState, StateMeta};
pub use destination::{
    Advice, Answer, BatchPart, Cell, Destination, Ensured, Limits, PlatformSize, PreparedRow,
    Schema, SendClass, SendError, SendRequest, SessionStep, Skip, Usage,
};
pub use difference::{Delivered, Difference, DifferenceFacts, EndedRun, difference};
pub use failure::{Decision, FailureFacts, decide_after_failure};
pub use identifiers::{IdentifierRow, IdentifierRows, IdentifierSource, Reasons};
pub use plan::{PlanFacts, RunRows, plan_run};
pub use planned::{PlanFile, PlanMeta};
pub use prepared::{
    NotPrepared, Note, Prepared, decode_noted, decode_prepared, encode_noted, encode_prepared,
};
pub use quota::{Quota, Quotas};
pub use scan::{Scan, ScanWriter};
pub use sealed::{Binding, IdentifierKeys, SealedError};
pub use sizes::{SizeFinding, SizePoint, delivered_after, evaluate_sizes, size_in_words};
pub use users::RunUsers;
pub use worker::{Job, JobRows, TaskEnd, Worker, WorkerOptions};
