//! What a person has paused: syncs, and the schedules of audiences.

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, Timestamp};

use crate::Result;

/// Pauses of syncs and audiences, and pinned versions. They last until a person ends them, across
/// restarts and applied specs.
#[async_trait]
pub trait PauseLedger: Send + Sync {
    /// Pauses a sync: no run of it is planned and no task of it is claimed; a running task keeps
    /// its lease. `false` if it is already paused: the first pause stays.
    async fn pause_sync(&self, sync: &SyncName, now: Timestamp) -> Result<bool>;

    /// Ends the pause of a sync, whose queued tasks are enqueued again. `false` if it is not
    /// paused.
    async fn resume_sync(&self, sync: &SyncName) -> Result<bool>;

    /// The paused syncs by name, each with the time of the pause.
    async fn paused_syncs(&self) -> Result<Vec<(SyncName, Timestamp)>>;

    /// Whether a sync is paused. Costs one index lookup.
    async fn is_sync_paused(&self, sync: &SyncName) -> Result<bool>;

    /// Pauses an audience: no refresh of it can be queued; one that is open continues. `false` if
    /// it is already paused: the first pause stays.
    async fn pause_audience(&self, audience: &AudienceName, now: Timestamp) -> Result<bool>;

    /// Ends the pause of an audience. `false` if it is not paused.
    async fn resume_audience(&self, audience: &AudienceName) -> Result<bool>;

    /// Removes the pin that a rollback has set. `false` if the audience is not pinned.
    async fn unpin_audience(&self, audience: &AudienceName) -> Result<bool>;

    /// Records that the schedule fired for the time `fire_at` while the audience is paused or
    /// pinned, so that no refresh was queued. Returns whether this is the first firing since the
    /// pause or pin; `false` also if the audience has neither, or another process has recorded this
    /// firing.
    async fn skip_schedule(&self, audience: &AudienceName, fire_at: Timestamp) -> Result<bool>;

    /// A person ends the backoff of a destination's account: a backoff that began before `now` is
    /// over, on every node.
    async fn end_backoff(&self, destination: &DestinationName, now: Timestamp) -> Result<()>;

    /// When backoffs were last ended, by destination.
    async fn ended_backoffs(&self) -> Result<Vec<(DestinationName, Timestamp)>>;
}
