//! The runtime of activation. The leader plans a run when an audience has a version that its sync has not delivered,
//! and puts due tasks on a queue; any number of workers execute and check them. Queue messages are only hints: the
//! state of a task is its row in the ledger.
//!
//! A task has six forms on its way: [`NewRun`](throng_store::NewRun) (planned), [`Task`](throng_store::Task) (its row,
//! with the rows of its run and batches), `TaskMessage` (on the queue), `ReservedTask` (in the prefetch buffer),
//! [`TaskInput`](crate::TaskInput) (what the worker needs besides the row), and [`SendRequest`](crate::SendRequest)
//! (one request to the platform).

mod account_hold;
mod backoff;
mod checker;
mod context;
mod declaration;
mod deletions;
mod delivered_objects;
mod emptying;
mod enqueue;
mod errors;
mod identifier_scan;
mod leader;
mod planned_run;
mod planner;
mod prefetch;
mod removal;
mod removed_sync;
mod results;
mod resumed_accounts;
mod run_request;
mod schedule;
mod size_poller;
mod size_reading;
mod snapshots;
mod task_input;
mod task_message;
mod user_counts;
mod workers;

pub use account_hold::{account_alert_subject, failed_checks_reason};
pub use context::{Activation, Destinations, IdentifierQueries, NodeState, TaskQueues};
pub use enqueue::enqueue_due_tasks;
pub use errors::{DeliveredError, EnqueueError};
pub use leader::run_leader;
pub use removed_sync::{
    RemovalDefinition, RemovedSync, moved_syncs, removed_syncs, users_of, users_text,
};
pub use run_request::{RunScope, request_run};
pub use size_reading::{MAX_KEPT_SIZES, size_series};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use task_message::is_readable_message;
pub use workers::run_workers;
