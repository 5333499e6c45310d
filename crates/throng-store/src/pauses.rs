//! What a person has stopped for a while: syncs, and the schedules of audiences.

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, Timestamp};

use crate::Result;

/// Pauses of syncs and audiences, and pinned versions. They last until a person ends them, over restarts and applied specs.
#[async_trait]
pub trait PauseLedger: Send + Sync {
    /// From now on no run of this sync is planned and no task of it is claimed; a task in hand keeps
    /// its lease. `false` if it is paused already: the first pause stays.
    async fn pause_sync(&self, sync: &SyncName, now: Timestamp) -> Result<bool>;

    /// Ends the pause of a sync, whose queued tasks are announced again. `false` if it is not paused.
    async fn resume_sync(&self, sync: &SyncName) -> Result<bool>;

    /// The paused syncs by name, with the time of the pause.
    async fn paused_syncs(&self) -> Result<Vec<(SyncName, Timestamp)>>;

    /// Whether a sync is paused. Costs one look-up.
    async fn is_sync_paused(&self, sync: &SyncName) -> Result<bool>;

    /// From now on no refresh of this audience can be queued; one that is open goes on. `false` if it
    /// is paused already: the first pause stays.
    async fn pause_audience(&self, audience: &AudienceName, now: Timestamp) -> Result<bool>;

    /// Ends the pause of an audience. `false` if it is not paused.
    async fn resume_audience(&self, audience: &AudienceName) -> Result<bool>;

    /// Ends the pin that a rollback has set. `false` if the audience is not pinned.
    async fn release_audience(&self, audience: &AudienceName) -> Result<bool>;

    /// Records that the schedule fired for the time `fire_at` while the audience is paused or pinned,
    /// so that no refresh was queued. Whether this is the first firing since; `false` also if the
    /// audience is neither, or somebody else has recorded this firing.
    async fn skip_schedule(&self, audience: &AudienceName, fire_at: Timestamp) -> Result<bool>;

    /// A person ends the rest of a destination: one that began before `now` is over, on every process.
    async fn end_rest(&self, destination: &DestinationName, now: Timestamp) -> Result<()>;

    /// When rests were ended last, by destination.
    async fn ended_rests(&self) -> Result<Vec<(DestinationName, Timestamp)>>;
}
