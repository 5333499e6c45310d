//! Calls for many refreshes at a time. A template has thousands of audiences, whose refreshes are built together: a
//! transaction for each of them takes longer than the scan.

use async_trait::async_trait;
use throng_model::{AudienceName, RefreshId, Timestamp};

use crate::{Refresh, RefreshTrigger, Result, Snapshot};

/// A snapshot to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Why it is held; `None` if it is published.
    pub held: Option<String>,
}

/// What the next snapshot of an audience follows.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotBase {
    /// The audience.
    pub audience: AudienceName,
    /// The highest version that it ever had, also of deleted snapshots; 0 if none.
    pub last_version: u64,
    /// The version that it serves.
    pub current: Option<Snapshot>,
}

/// Calls of [`AudienceLedger`](crate::AudienceLedger) for many refreshes. Each is one transaction, and has the same
/// effects as a call for each of them, one after the other. What one of them has lost, its lease for example, does not
/// affect the others. An error of the whole call has changed nothing.
#[async_trait]
pub trait RefreshGroupLedger: Send + Sync {
    /// [`schedule_refresh`](crate::AudienceLedger::schedule_refresh) for each of these audiences; those that are paused
    /// or pinned are left out. Returns how many refreshes were queued, without those that were open.
    async fn schedule_refreshes(
        &self,
        audiences: &[AudienceName],
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<u64>;

    /// [`fire_schedule`](crate::AudienceLedger::fire_schedule) for each of these audiences and times, each audience
    /// once. Returns how many have fired.
    async fn fire_schedules(
        &self,
        firings: &[(AudienceName, Timestamp)],
        now: Timestamp,
    ) -> Result<u64>;

    /// [`claim_refresh_of`](crate::AudienceLedger::claim_refresh_of) for each of these audiences. Returns the refreshes
    /// that were claimed, in no order.
    async fn claim_refreshes_of(
        &self,
        audiences: &[AudienceName],
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Vec<Refresh>>;

    /// [`record_refresh_progress`](crate::AudienceLedger::record_refresh_progress) with the same figures for each of
    /// these refreshes. Those that `holder` does not have stay as they are.
    async fn record_group_progress(
        &self,
        ids: &[RefreshId],
        holder: &str,
        lease_until: Timestamp,
        rows_read: u64,
        null_keys: u64,
        rows_expected: Option<u64>,
    ) -> Result<()>;

    /// [`halt_refresh`](crate::AudienceLedger::halt_refresh) for each of these refreshes. Those that `holder` does not
    /// have stay as they are.
    async fn halt_refreshes(&self, ids: &[RefreshId], holder: &str, now: Timestamp) -> Result<()>;

    /// Those of the refreshes that have parts, in no order.
    async fn refreshes_with_parts(&self, ids: &[RefreshId]) -> Result<Vec<RefreshId>>;

    /// What the next snapshots of these audiences follow, in no order; audiences that never had a refresh are left out.
    /// The versions are not reserved: see [`next_version`](crate::AudienceLedger::next_version).
    async fn snapshot_bases(&self, audiences: &[AudienceName]) -> Result<Vec<SnapshotBase>>;

    /// [`publish`](crate::AudienceLedger::publish) or [`hold`](crate::AudienceLedger::hold) for each of these snapshots,
    /// with the result of each in their order. Survives a power failure once it has returned.
    async fn record_snapshots(
        &self,
        snapshots: &[NewSnapshot],
        holder: &str,
        now: Timestamp,
    ) -> Result<Vec<Result<()>>>;

    /// [`confirm_unchanged`](crate::AudienceLedger::confirm_unchanged) for each of these refreshes and served versions,
    /// with the result of each in their order.
    async fn confirm_unchanged_refreshes(
        &self,
        served: &[(RefreshId, u64)],
        holder: &str,
        now: Timestamp,
    ) -> Result<Vec<Result<bool>>>;

    /// [`snapshots`](crate::AudienceLedger::snapshots) of all these audiences: of each the newest first.
    async fn snapshots_of(&self, audiences: &[AudienceName]) -> Result<Vec<Snapshot>>;

    /// [`delete_snapshot`](crate::AudienceLedger::delete_snapshot) for each of these versions. Returns those that were
    /// deleted, in no order: the others are served, or are deleted already.
    async fn delete_snapshots(
        &self,
        versions: &[(AudienceName, u64)],
    ) -> Result<Vec<(AudienceName, u64)>>;
}
