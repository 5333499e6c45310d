//! The sizes of audiences on platforms over time, as checks read them.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{SyncName, SyncRunId, Timestamp};

use crate::Result;

/// The size of a sync's audience that the platform returned at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRecord {
    /// The sync.
    pub sync: SyncName,
    /// The account, such as `meta/12`.
    pub account: String,
    /// The platform's id of the audience.
    pub platform_id: String,
    /// When it was read.
    pub at: Timestamp,
    /// At least this many people, if the platform returned a bound.
    pub lower: Option<u64>,
    /// At most this many people, if the platform returned a bound.
    pub upper: Option<u64>,
    /// Users that were delivered for the sync at that time.
    pub delivered: u64,
    /// The platform was still processing an upload.
    pub settling: bool,
    /// Users whom runs have removed from the audience until that time, in total, counted from its
    /// first size. `None` if an earlier version read the size.
    #[serde(default)]
    pub removed: Option<u64>,
    /// The newest run that `removed` counts. `None` if no run had ended, or an earlier version read
    /// the size.
    #[serde(default)]
    pub removed_run: Option<SyncRunId>,
}

/// Which sizes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRetention {
    /// Older ones are deleted, for every sync.
    pub since: Timestamp,
    /// At most this many per sync: the newest.
    pub rows: u32,
    /// The newest size of an audience is replaced by the next one if it was read sooner than this after the one
    /// before it.
    pub min_interval: Duration,
}

/// Sizes of audiences on platforms.
#[async_trait]
pub trait SizeLedger: Send + Sync {
    /// Adds a size, and deletes what `keep` does not keep. Its time counts as the last reading of
    /// the sync.
    async fn put_size(&self, size: &SizeRecord, keep: SizeRetention) -> Result<()>;

    /// The newest sizes of a sync, the oldest of them first.
    async fn sizes(&self, sync: &SyncName, limit: u32) -> Result<Vec<SizeRecord>>;

    /// The newest size of every sync that has an audience on a platform, by sync.
    async fn newest_sizes(&self) -> Result<Vec<SizeRecord>>;

    /// The syncs that have delivered a version, and whose size was last read at `before` or
    /// earlier. Where it was never read, the time of the delivery counts. The longest waiting
    /// first.
    async fn sizes_due(&self, before: Timestamp) -> Result<Vec<SyncName>>;

    /// Claims the reading of the size of a sync that is due. `false` if it is not due: another
    /// process has claimed it.
    async fn claim_size(&self, sync: &SyncName, before: Timestamp, now: Timestamp) -> Result<bool>;
}
