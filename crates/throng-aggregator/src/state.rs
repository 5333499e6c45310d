//! The state of a partition.

use throng_budget::{Engine, LogPosition};
use throng_feed::Frame;
use throng_log::Record;
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The state of a partition up to an offset of the log.
pub(super) struct PartitionState {
    pub(super) engine: Engine,
    /// The next record of the log to apply.
    pub(super) offset: u64,
    /// The checksum of the record before it: see [`LogPosition`].
    pub(super) last_record: Option<u64>,
    pub(super) epoch: u64,
}

impl PartitionState {
    /// Moves to `position`, after these records were applied.
    pub(super) fn advance(&mut self, position: u64, records: &[Record]) {
        let last = records.last().filter(|last| last.offset + 1 == position);
        match last {
            Some(last) => self.last_record = Some(checksum(last.at, &last.value)),
            // The last offset has no record: it is a marker of a Kafka transaction.
            None if position != self.offset => self.last_record = None,
            None => {}
        }
        self.offset = position;
    }

    /// Makes the next version of the figures and returns it as a delta.
    pub(super) fn next_delta(&mut self, now: Timestamp) -> Frame {
        self.engine.delta_at(now, self.offset)
    }

    /// Its position in the log.
    pub(super) fn position(&self) -> LogPosition {
        LogPosition { next_offset: self.offset, last_record: self.last_record }
    }
}

/// The checksum of a record, by which a checkpoint recognizes the log from which it was made.
pub(super) fn checksum(at: Timestamp, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, at.0.cast_unsigned())
}
