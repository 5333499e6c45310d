//! What serving stores were given: one row for each write of an audience to a store.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, ServingStoreName, Timestamp};

use crate::Result;

/// A write of an audience to a serving store that is to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStoreWrite {
    /// The store.
    pub store: ServingStoreName,
    /// The audience.
    pub audience: AudienceName,
    /// Where and in which form members are written, as text.
    pub place: String,
    /// The version that the store has; `None`: no members.
    pub from_version: Option<u64>,
    /// The version that the store gets; `None`: no members.
    pub to_version: Option<u64>,
    /// Every known user is written, as what the store has is not known.
    pub rewrite: bool,
}

/// The state of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreWriteState {
    /// Batches are missing.
    Open,
    /// The store has the version.
    Done,
    /// It was open, and another write was begun in its place.
    Replaced,
}

/// What a check of a store has found after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCheck {
    /// When.
    pub at: Timestamp,
    /// Sampled users, members and others.
    pub sampled: u64,
    /// Sampled members that the store does not have.
    pub missing: u64,
    /// Sampled users that the store has although they are not members.
    pub unexpected: u64,
}

/// A write, which is also its receipt. A batch that was written and not recorded is written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreWrite {
    /// Its number.
    pub id: i64,
    /// What it writes.
    pub write: NewStoreWrite,
    /// Its state.
    pub state: StoreWriteState,
    /// Users that are added or removed in total; `None` until that is known.
    pub users: Option<u64>,
    /// Batches that are written.
    pub batches: u64,
    /// Users that were added, in these batches.
    pub added: u64,
    /// Users that were removed, in these batches.
    pub removed: u64,
    /// Failed tries since the last batch.
    pub tries: u32,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When its last batch was recorded, or its last try failed.
    pub updated_at: Timestamp,
    /// The newest check since it is done.
    pub check: Option<StoreCheck>,
}

/// Batches of a write that are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreProgress {
    /// Users that are added or removed in total. The write is done once so many are.
    pub users: u64,
    /// See [`StoreWrite::batches`].
    pub batches: u64,
    /// See [`StoreWrite::added`].
    pub added: u64,
    /// See [`StoreWrite::removed`].
    pub removed: u64,
}

/// The lease on a write.
#[derive(Debug, Clone, Copy)]
pub struct StoreLease<'a> {
    /// The write.
    pub id: i64,
    /// Who has it, or wants it.
    pub holder: &'a str,
    /// The time.
    pub now: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

/// Writes of audiences to serving stores: what each store has, how far the write in progress is, and who has its lease.
#[async_trait]
pub trait StoreWriteLedger: Send + Sync {
    /// Begins a write, if the newest write of this audience and store still is `newest` (`None`:
    /// there is none). That one is replaced if it is open; of older ones the newest 20 are kept.
    /// Returns the new write's number; `None` if another write was begun.
    async fn begin_store_write(
        &self,
        write: &NewStoreWrite,
        newest: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<i64>>;

    /// The newest write of each store and audience, by store and audience.
    async fn newest_store_writes(&self) -> Result<Vec<StoreWrite>>;

    /// The newest write of an audience in a store.
    async fn newest_store_write(
        &self,
        store: &ServingStoreName,
        audience: &AudienceName,
    ) -> Result<Option<StoreWrite>>;

    /// The writes of a store, the newest first.
    async fn store_writes(&self, store: &ServingStoreName, limit: u32) -> Result<Vec<StoreWrite>>;

    /// Claims an open write that nobody else has a valid lease on; renews the lease of the holder.
    /// `false` if it is not open, waits for its next try, or another holder has it, or still has a
    /// valid lease on a replaced write of the same audience and store.
    async fn claim_store_write(&self, lease: StoreLease<'_>) -> Result<bool>;

    /// Records batches and renews the lease; the write is done with the last batch. `LeaseLost` if
    /// the write is not open, or another holder has it.
    async fn record_store_progress(&self, lease: StoreLease<'_>, now: StoreProgress) -> Result<()>;

    /// Records a failed try and releases the write; it is tried again at the end of the lease. Does
    /// nothing if another holder has it.
    async fn fail_store_write(&self, lease: StoreLease<'_>, error: &str) -> Result<()>;

    /// Records a check of a write that is done.
    async fn record_store_check(&self, id: i64, check: StoreCheck) -> Result<()>;
}
