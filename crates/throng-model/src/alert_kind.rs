//! The kinds of alerts.

use serde::{Deserialize, Serialize};

use crate::Severity;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A refresh failed three times.
    RefreshFailed,
    /// A snapshot is held by its guard.
    SnapshotHeld,
    /// A task failed three times, or in a way that only a person can fix.
    TaskFailed,
    /// A run is held by its guard, or all of an account by its checks, or a removal waits for
    /// approval.
    RunHeld,
    /// A check did not pass.
    CheckFailed,
    /// A file system or a bucket has no space.
    DiskFull,
    /// The ledger, the event log or the object storage fails.
    StorageFailed,
    /// A file is damaged, or is not the one that the ledger names.
    Damaged,
    /// A partition of the event log is not aggregated.
    PartitionFailed,
    /// Something else is wrong with a node: it cannot run queries, or use a certificate or a
    /// setting.
    NodeProblem,
    /// Many rows of an audience's query have no key, or some files lack its column, or keys have white space around
    /// them.
    NullKeys,
    /// An audience has not been refreshed in time.
    Overdue,
    /// 80 % of an ad group's budget of today are spent.
    BudgetNearlySpent,
    /// An ad group's budget of today is spent.
    BudgetSpent,
    /// An ad group has spent more than its budget of today.
    Overdelivery,
    /// A gate no longer reports.
    GateSilent,
    /// A partition of the feed has no new frames, or gates lack them.
    FeedStale,
    /// Records of the event log cannot be applied and are skipped.
    RecordsQuarantined,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::RefreshFailed,
        Self::SnapshotHeld,
        Self::TaskFailed,
        Self::RunHeld,
        Self::CheckFailed,
        Self::DiskFull,
        Self::StorageFailed,
        Self::Damaged,
        Self::PartitionFailed,
        Self::NodeProblem,
        Self::NullKeys,
        Self::Overdue,
        Self::BudgetNearlySpent,
        Self::BudgetSpent,
        Self::Overdelivery,
        Self::GateSilent,
        Self::FeedStale,
        Self::RecordsQuarantined,
    ];

    /// Its name in the ledger, APIs, metrics and events, such as `refresh_failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RefreshFailed => "refresh_failed",
            Self::SnapshotHeld => "snapshot_held",
            Self::TaskFailed => "task_failed",
            Self::RunHeld => "run_held",
            Self::CheckFailed => "check_failed",
            Self::DiskFull => "disk_full",
            Self::StorageFailed => "storage_failed",
            Self::Damaged => "damaged",
            Self::PartitionFailed => "partition_failed",
            Self::NodeProblem => "node_problem",
            Self::NullKeys => "null_keys",
            Self::Overdue => "overdue",
            Self::BudgetNearlySpent => "budget_nearly_spent",
            Self::BudgetSpent => "budget_spent",
            Self::Overdelivery => "overdelivery",
            Self::GateSilent => "gate_silent",
            Self::FeedStale => "feed_stale",
            Self::RecordsQuarantined => "records_quarantined",
        }
    }

    /// How urgent it is: what waits for a decision is a warning, what has stopped working is
    /// critical.
    pub fn severity(self) -> Severity {
        match self {
            Self::SnapshotHeld
            | Self::RunHeld
            | Self::CheckFailed
            | Self::NodeProblem
            | Self::NullKeys
            | Self::BudgetNearlySpent
            | Self::BudgetSpent
            | Self::Overdelivery
            | Self::GateSilent => Severity::Warning,
            Self::RefreshFailed
            | Self::Overdue
            | Self::TaskFailed
            | Self::DiskFull
            | Self::StorageFailed
            | Self::Damaged
            | Self::PartitionFailed
            | Self::FeedStale
            | Self::RecordsQuarantined => Severity::Critical,
        }
    }
}
