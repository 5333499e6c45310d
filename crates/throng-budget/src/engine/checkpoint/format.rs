//! Formats of checkpoints, and why bytes are not a checkpoint. Pure.

/// The format that is written.
pub(super) const FORMAT: u32 = 6;
/// It has no placements, and impression rates are not learned apart; the rest is as in the next format.
pub(super) const ONE_RATE: u32 = 5;
/// It has no open insertions, and windows with the parts of them whose outcomes have come; the rest is as in
/// the next format.
pub(super) const SETTLED_PARTS: u32 = 4;
/// It has all slices of spend, and names no file of them; the rest is as in the next format.
pub(super) const INLINE_SLICES: u32 = 3;
/// Its ids are hashes of event ids alone ([`legacy_id_of`](crate::engine::dedupe::legacy_id_of)), and spend is by
/// budget day.
pub(super) const LEGACY_IDS: u32 = 2;
/// Its ids are 128 bits long; the rest is as in the next format.
pub(super) const LONG_IDS: u32 = 1;

/// Why bytes are not a checkpoint of this partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheckpoint {
    /// Too short, another format, or changed on disk.
    #[error("the checkpoint is damaged ({0}); replay the log from its beginning instead")]
    Damaged(&'static str),
    /// Written by a newer version.
    #[error("the checkpoint has format {0}, this version reads {FORMAT}: use the newer version")]
    Newer(u32),
    /// A run of ids that it names is missing.
    #[error("the run of ids {0}, which the checkpoint names, is missing")]
    MissingIds(String),
    /// A file of closed slices that it names is missing.
    #[error("the file of closed slices {0}, which the checkpoint names, is missing")]
    MissingSlices(String),
    /// Of another partition.
    #[error("the checkpoint belongs to partition {found}, not {wanted}")]
    OtherPartition {
        /// The partition of the checkpoint.
        found: u32,
        /// The partition that was asked for.
        wanted: u32,
    },
}
