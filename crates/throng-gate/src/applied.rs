//! What a gate says about the frames that it has applied.

use serde::{Deserialize, Serialize};
use throng_model::{Micros, Timestamp};

/// The result of applying a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameOutcome {
    /// Its figures replaced the earlier ones.
    Applied {
        /// Ad groups whose figures were replaced.
        updated: usize,
        /// Entries that the catalog does not have: fetch the catalog if there are any.
        unknown: usize,
        /// The frame was made with a newer catalog than the gate's: fetch it.
        catalog_behind: bool,
    },
    /// Older than what the gate has, or the same: nothing changed.
    Ignored,
    /// A delta whose base the gate does not have: ask for a keyframe.
    NeedKeyframe,
}

/// How far a gate has followed a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionVersion {
    /// The partition.
    pub partition: u32,
    /// The epoch.
    pub epoch: u64,
    /// The last version applied.
    pub version: u64,
    /// When its figures were true.
    pub at: Timestamp,
    /// The first offset of the partition's log that is not in its figures, if the frame said so.
    #[serde(default)]
    pub log_position: Option<u64>,
}

/// What a gate knows about an ad group's spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdGroupSpend {
    /// Spent in the current budget day.
    pub actual: Micros,
    /// Expected to be spent by ads already inserted.
    pub in_flight: Micros,
    /// Expected to be spent by this gate's own insertions that `in_flight` does not have yet.
    pub own: Micros,
    /// The day's budget.
    pub budget: Micros,
}
