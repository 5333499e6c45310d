//! Operations: what a person does to a running node, and what a person reads of it. Each one that changes
//! something checks the state, changes it, records the actor in the history, and wakes the roles that continue
//! the work. The exception is [`runs::enqueue_due`], which writes messages of due tasks again and records no
//! actor. The HTTP API and the pages call them and add nothing but the response, so that none can skip a
//! step. What is read is returned in the types of the API; `mapping` makes them from rows and from values of
//! other crates.
//!
//! The process gives what operations need in [`Operations`], and gets what they report through [`Observer`].
//! This crate knows no HTTP.

pub mod alerts;
pub mod audiences;
pub mod budget_report;
pub mod bulk;
mod check;
mod error;
pub mod history;
pub mod lists;
pub mod mapping;
pub mod members;
mod record;
pub mod removals;
pub mod runs;
pub mod sources;
pub mod stores;
pub mod syncs;
mod workspace;

use std::sync::Arc;

use throng_log::Queue;
use throng_model::{Clock, WorkspaceName};
use throng_objects::Objects;
use throng_refresh::RefreshContext;
use throng_spec::Spec;
use throng_store::Ledger;

pub use check::{CheckError, CheckedModel, CheckedSql, QueryEstimate, check_sql};
pub use error::OperationError;
pub use workspace::WorkspaceSpecs;

/// Receives what operations have changed. The methods must not block.
pub trait Observer: Send + Sync {
    /// A refresh was queued: builders poll the ledger.
    fn refresh_queued(&self);

    /// Planner and workers of syncs poll the ledger.
    fn wake_activation(&self);

    /// The state of an audience, a refresh or a snapshot has changed.
    fn audiences_changed(&self);

    /// The state of a sync, a run or a task has changed.
    fn activation_changed(&self);
}

/// What operations need of their process. Made for each request, so that one operation sees one spec.
pub struct Operations {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots.
    pub objects: Arc<dyn Objects>,
    /// The applied spec; its part that the caller's workspace has, for a caller that is limited to one.
    pub spec: Arc<Spec>,
    /// The workspace that the caller is limited to. Set by [`Operations::limited_to`].
    pub workspace: Option<WorkspaceName>,
    /// The refresh runtime.
    pub refresh: Arc<RefreshContext>,
    /// The queue of tasks that are due.
    pub tasks: Arc<dyn Queue>,
    /// Receives what has changed.
    pub observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}
