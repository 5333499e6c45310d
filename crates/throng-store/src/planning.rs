//! Runs to be planned, and what they are planned from.

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, DestinationName, SyncMode, SyncName, SyncRunId};

use crate::{DeliveredRecord, Hold, Operation, PlatformAudience, ReasonCounts, SyncRun};

/// A run to be planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRun {
    /// The sync.
    pub sync: SyncName,
    /// The audience.
    pub audience: AudienceName,
    /// The destination.
    pub destination: DestinationName,
    /// The mode.
    pub mode: SyncMode,
    /// The previously delivered version.
    pub from_version: Option<u64>,
    /// The version to deliver.
    pub to_version: u64,
    /// Users to add.
    pub adds: u64,
    /// Users to remove.
    pub removes: u64,
    /// The batches: operation and number of users, cut deterministically.
    pub batches: Vec<(Operation, u64)>,
    /// Tasks with a higher priority go first.
    pub priority: i32,
    /// Why it is held instead of queued, if it is.
    pub held: Option<Hold>,
    /// The object with its rows.
    pub plan: Option<String>,
    /// Identifiers of added users that were changed or refused, by `KEY.reason`.
    pub normalised: ReasonCounts,
    /// Delivered users who are not on the platform's list after the run, including those that a
    /// replace session drops.
    pub users_removed: u64,
}

/// What a planner has read of a sync. A run that was planned from it is recorded only while it is
/// current.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanBase {
    /// The delivered state.
    pub record: Option<DeliveredRecord>,
    /// The platform's audience, with the delivered version.
    pub audience: Option<PlatformAudience>,
    /// The newest run.
    pub newest: Option<SyncRun>,
}

/// Whether a planned run was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanOutcome {
    /// It was recorded under this number.
    Planned(SyncRunId),
    /// The sync has an active or held run, or is paused. Nothing is changed.
    Blocked,
    /// The sync has changed since the base was read: the run has to be planned again from the current
    /// one. Nothing is changed.
    Superseded,
}
