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

/// Calls for many refreshes, some of which [`AudienceLedger`](crate::AudienceLedger) has for one. Each is one
/// transaction, and has the same effects as a call for each of them, one after the other. What one of them has lost, its
/// lease for example, does not affect the others. An error of the whole call has changed nothing, unless the answer of the
/// database was lost.
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

    /// Records that the schedules of these audiences, each named once, fired for these times, and queues refreshes. A
    /// time that is not after the last recorded firing changes nothing, because another process was first, nor does one
    /// of an audience that is paused or pinned. Returns how many have fired.
    async fn fire_schedules(
        &self,
        firings: &[(AudienceName, Timestamp)],
        now: Timestamp,
    ) -> Result<u64>;

    /// [`fire_schedules`](Self::fire_schedules) for one audience: whether it has fired.
    async fn fire_schedule(
        &self,
        audience: &AudienceName,
        fire_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        Ok(self.fire_schedules(&[(audience.clone(), fire_at)], now).await? == 1)
    }

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

    /// `processing → halted` for each of these refreshes: another builder can immediately claim it and its unfinished
    /// parts. Those that `holder` does not have stay as they are.
    async fn halt_refreshes(&self, ids: &[RefreshId], holder: &str, now: Timestamp) -> Result<()>;

    /// Those of the refreshes that have parts, in no order.
    async fn refreshes_with_parts(&self, ids: &[RefreshId]) -> Result<Vec<RefreshId>>;

    /// What the next snapshots of these audiences follow, in no order; audiences that never had a refresh are left out.
    /// The numbers of deleted snapshots are not used again. Versions are not reserved: refreshes of one audience do not
    /// run concurrently.
    async fn snapshot_bases(&self, audiences: &[AudienceName]) -> Result<Vec<SnapshotBase>>;

    /// The next snapshot version of one audience, by [`snapshot_bases`](Self::snapshot_bases).
    async fn next_version(&self, audience: &AudienceName) -> Result<u64> {
        let bases = self.snapshot_bases(std::slice::from_ref(audience)).await?;
        Ok(bases.first().map_or(0, |base| base.last_version) + 1)
    }

    /// Publishes these snapshots: inserts each, makes it current, completes its refresh, and deletes the parts of the
    /// refresh. Together with rollback and approval the only way to change the version that an audience serves. One that
    /// is held is inserted as `held`, with its refresh, and the audience still serves its version. Returns the result of
    /// each in their order: `LeaseLost` if another process has the refresh, `Refused` if the version exists, `WrongState`
    /// if it is to be published and the audience is pinned. Survives a power failure once it has returned.
    async fn record_snapshots(
        &self,
        snapshots: &[NewSnapshot],
        holder: &str,
        now: Timestamp,
    ) -> Result<Vec<Result<()>>>;

    /// [`record_snapshots`](Self::record_snapshots) for one that is published.
    async fn publish(&self, snapshot: &Snapshot, holder: &str, now: Timestamp) -> Result<()> {
        let new = NewSnapshot { snapshot: snapshot.clone(), held: None };
        self.record_snapshots(&[new], holder, now).await?.into_iter().collect()
    }

    /// [`record_snapshots`](Self::record_snapshots) for one that is held for this reason.
    async fn hold(
        &self,
        snapshot: &Snapshot,
        holder: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<()> {
        let new = NewSnapshot { snapshot: snapshot.clone(), held: Some(reason.to_owned()) };
        self.record_snapshots(&[new], holder, now).await?.into_iter().collect()
    }

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

    /// Deletes the rows of these snapshots; the caller then deletes their files. Returns the versions that were deleted,
    /// in no order: the others are served, or are deleted already.
    async fn delete_snapshots(
        &self,
        versions: &[(AudienceName, u64)],
    ) -> Result<Vec<(AudienceName, u64)>>;
}
