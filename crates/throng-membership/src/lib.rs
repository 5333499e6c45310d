//! Which users are in which audience. In reading order:
//!
//! 1. [`ShardDictionary`]: user hash → dense ordinal, per user shard, in write-once segment files;
//! 2. [`SnapshotWriter`] and [`SnapshotFile`]: one immutable version of an audience, a Roaring
//!    bitmap of ordinals per shard;
//! 3. [`MemberSet`]: set algebra, and members by rank;
//! 4. [`MembershipIndex`]: all dictionaries and the published snapshots, for lookups.
//!
//! Synchronous, and safe against any bytes on disk: a damaged file is an error when it is opened,
//! never a panic and never a wrong answer.

mod contents;
mod dictionary;
mod durable;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod index;
mod portable;
mod segment;
mod set;
mod shared_bits;
mod snapshot;

pub use dictionary::{
    Assigned, DICTIONARY_FOLDER, ShardDictionary, manifest_files, unreferenced_segments,
};
pub use durable::TEMPORARY_SUFFIX;
pub use error::MembershipError;
pub use index::{AudienceId, Located, MembershipIndex};
pub use set::MemberSet;
pub use shared_bits::{ShardBitmap, ShardBitmaps, SharedBits, write_bitmaps};
pub use snapshot::{
    SnapshotFile, SnapshotIdentity, SnapshotMeta, SnapshotSummary, SnapshotWriter,
    UnwrittenSnapshot, seed_check, write_snapshot, write_snapshots,
};
