//! Delivers audiences to ad platforms: what a run has to send, how it is cut into batches, the outcome of
//! each row, how to continue after a failure, and whether the result can be trusted.
//!
//! This crate knows no platform, no SQL and no HTTP: a platform is a [`Destination`], and identifiers come from an
//! [`IdentifierSource`]. Decisions are pure functions ([`plan_run`], `decide_after_failure`, `evaluate_check`,
//! [`evaluate_sizes`], [`Quota`], [`difference`]); [`Worker`] sends one task. The runtime around them is started by
//! [`run_leader`] and [`run_workers`], on the parts of a node that [`Activation`] names.
//!
//! Invariant: `read = sent + skipped + rejected + pending` for every run at any time. A batch leaves
//! `pending` in one ledger transaction, and sending it twice is harmless.

mod adoption;
mod check;
mod destination;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod identifiers;
mod plan;
mod postponement;
mod quota;
mod runtime;
mod sending;
mod size_evaluation;
mod sizes;
mod worker;

pub(crate) use check::{CheckFacts, RemovalCounts, evaluate_check};
pub use destination::{
    Advice, BatchPart, Destination, DestinationLimits, EnsuredAudience, PlatformSize, Schema,
    SendClass, SendError, SendRequest, SendResponse, SessionStep, SizeLimits, Usage,
};
pub(crate) use failure::{FailureFacts, decide_after_failure};
pub use identifiers::{IdentifierRows, IdentifierSource};
pub use plan::{PlanFacts, RunRows, plan_run};
pub use quota::{Quota, Quotas};
pub use runtime::{
    Activation, DeliveredError, Destinations, EnqueueError, IdentifierQueries, MAX_KEPT_SIZES,
    NodeState, RemovalDefinition, RemovedSync, RunScope, TaskQueues, account_alert_subject,
    enqueue_due_tasks, failed_checks_reason, moved_syncs, removed_syncs, request_run, run_leader,
    run_workers, size_series, users_of, users_text,
};
pub use size_evaluation::{SizeFinding, evaluate_sizes, has_enough_sizes};
pub use sizes::SizePoint;
pub(crate) use sizes::{RemovalCount, delivered_after, removed_until};
// Rows, delivered states and plans are part of this crate's interface.
pub use throng_delivered::{
    Binding, Cell, Delivered, DeliveredColumns, DeliveredState, Difference, DifferenceFacts,
    EndedRun, IdentifierKeys, IdentifierRow, InvalidPreparedRow, Note, PlanFile, PlanMeta,
    Prepared, PreparedRow, Reasons, RunUsers, Scan, ScanWriter, SealedError, Skip, StateMeta,
    UserCounts, count_users, decode_with_notes, difference, encode_with_notes, remove_stale_scans,
};
pub use worker::{TaskInput, TaskOutcome, TaskRows, Worker, WorkerOptions};
