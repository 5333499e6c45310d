//! The event log: records that survive a crash, in numbered partitions, read by offset.
//! [`FileLog`] keeps them in segment files, [`KafkaLog`] in a topic; `conformance` (a feature) is
//! the suite that both pass. [`Queue`] carries work to any number of processes, and [`Share`] says
//! which partitions are this process's. The only crate with a Kafka client.
//!
//! A log reads no clock: the caller says when a record is appended.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod kafka;
mod queue;

pub use error::{LogError, Result};
pub use file::{
    Disk, DiskFloor, DiskSpace, FileLog, FileLogOptions, MAX_RECORD_BYTES, SEGMENT_BYTES, SetAside,
    SystemDisk, set_damage_aside,
};
pub use kafka::{
    GroupTiming, KafkaLog, KafkaQueue, KafkaSettings, KafkaTable, Sasl, Share, Tls, TopicReport,
    TopicSettings, check_brokers,
};
pub use queue::{MemoryQueue, Message, Queue};

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use throng_model::Timestamp;

/// One record as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition: 0, 1, 2, …, never used again. Without gaps, but for marks of Kafka's
    /// transactions.
    pub offset: u64,
    /// When it was appended, as the appender said.
    pub at: Timestamp,
    /// What was appended.
    pub value: Bytes,
}

/// How much of a log is kept besides what a restart needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many bytes of a partition.
    pub bytes: u64,
    /// At most records of this age.
    pub age: Duration,
}

/// A durable, partitioned, append-only log. Safe to share; appends to one partition are in one
/// order, partitions know nothing of each other.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// How many partitions there are; fixed when the log was made. They are numbered from 0.
    fn partitions(&self) -> u32;

    /// Appends records next to each other and returns the first one's offset. When it returns,
    /// they survive a loss of power; when it fails, none of them will ever be read, except after
    /// [`LogError::Unknown`]. Callers that append at the same time share one sync of the disk. A
    /// caller that goes away while waiting may or may not have appended.
    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64>;

    /// Durable records from `from` on, in order: as many as fit into `max_bytes` of values, and at
    /// least one if there is one. Empty at the end, and where only offsets are left that were skipped.
    /// [`LogError::Gone`] if `from` was truncated.
    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>>;

    /// Follows a partition from `from` on. [`LogError::Gone`] if `from` was truncated.
    async fn tail(&self, partition: u32, from: u64) -> Result<Box<dyn Tail>>;

    /// The offset of the oldest record that is kept (of the next one, if there is none).
    async fn start(&self, partition: u32) -> Result<u64>;

    /// The offset that the next record will get.
    async fn end(&self, partition: u32) -> Result<u64>;

    /// Lets records before `offset` go. Works in whole segments, so that some of them may stay
    /// readable; records from `offset` on always stay. An offset past the end counts as the end.
    async fn truncate_before(&self, partition: u32, offset: u64) -> Result<()>;

    /// Lets records before `before` go that are too many by a rule. Works in whole segments, so that
    /// up to one segment more is kept. A log that has a rule of its own, as Kafka's topics have, does
    /// nothing.
    async fn retain(
        &self,
        _partition: u32,
        _rule: Retention,
        _before: u64,
        _now: Timestamp,
    ) -> Result<()> {
        Ok(())
    }

    /// Leaves offsets out, so that the next record gets `offset`; does nothing if there are as many
    /// already. `false` if this log cannot do that, as Kafka's cannot.
    async fn skip_to(&self, _partition: u32, _offset: u64) -> Result<bool> {
        Ok(false)
    }
}

/// Records of a partition as they come.
#[async_trait]
pub trait Tail: Send {
    /// The next durable records, in order: waits until there is at least one, or until places are
    /// passed that hold none (marks of Kafka's transactions); then it is empty. Safe to drop while it
    /// waits. After an error it is of no more use.
    async fn next(&mut self) -> Result<Vec<Record>>;

    /// The offset that comes next: all records before it have been given out.
    fn position(&self) -> u64;
}
