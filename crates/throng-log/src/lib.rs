//! The event log: records that survive a crash, in numbered partitions, read by offset.
//! [`FileLog`] stores them in segment files, [`KafkaLog`] in a topic; `conformance` (a feature) is
//! the test suite that both pass. [`Queue`] distributes work over any number of processes, and
//! [`PartitionAssignment`] says which partitions are assigned to this process. The only crate with a
//! Kafka client.
//!
//! A log does not read the clock: the caller passes the time of each record.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod kafka;
mod queue;
mod retry;

pub use error::{LogError, Result};
pub use file::{
    Disk, DiskSpace, FileLog, FileLogOptions, MAX_RECORD_BYTES, MinFreeDisk, RemovedRange,
    SEGMENT_BYTES, SystemDisk, repair_log,
};
pub use kafka::{
    GroupTiming, HAS_KAFKA_TLS, KafkaLog, KafkaOptions, KafkaQueue, KafkaTable,
    PartitionAssignment, Sasl, Tls, TopicDifferences, TopicReport, TopicUse, check_brokers,
    check_topics, wait_until_clients_close,
};
pub use queue::{MemoryQueue, Message, Queue};

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use throng_model::Timestamp;
use tokio::sync::watch;

/// One record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition: 0, 1, 2, …, never reused. Without gaps, except for the control
    /// records of Kafka's transactions and for records that a repair removed.
    pub offset: u64,
    /// The time that the caller of `append` passed.
    pub at: Timestamp,
    /// What was appended.
    pub value: Bytes,
}

/// Limits on the records that are kept in addition to those that a restart needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The largest size of a partition, in bytes.
    pub bytes: u64,
    /// The greatest age of a record.
    pub age: Duration,
}

/// A durable, partitioned, append-only log. Safe to share; appends to one partition are ordered,
/// partitions are independent of each other.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// The number of partitions; fixed when the log is created. They are numbered from 0.
    fn partitions(&self) -> u32;

    /// Whether nothing but this process can append: every record was appended by it, or by a process before
    /// it that had this log to itself. `false` for a log that any process may append to, such as a Kafka
    /// topic.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Whether the servers of the log answer, as far as it is known without an append, and each change of that. While
    /// they do not, an append fails at once with [`LogError::Unreachable`]. `None` for a log without servers.
    fn reachability(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    /// Appends records in order and returns the offset of the first one. Their offsets are consecutive if the
    /// log [is exclusive](Self::is_exclusive). Otherwise records of other processes may be between them: with
    /// more than one record, only the first offset is known. When it returns, they survive a loss of power;
    /// when it fails, none of them is ever read, unless [`LogError::may_be_appended`]. Concurrent appends share one
    /// sync of the disk. If the future is dropped, the records may or may not be appended.
    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64>;

    /// Durable records from offset `from`, in order: as many as fit into `max_bytes` of values, and at
    /// least one if there is one. Empty at the end, and where only skipped offsets are left.
    /// [`LogError::OffsetOutOfRange`] if `from` was truncated.
    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>>;

    /// Follows a partition from offset `from`. [`LogError::OffsetOutOfRange`] if `from` was truncated.
    /// A log in files returns what this process appends from memory, as soon as it is durable.
    async fn tail(&self, partition: u32, from: u64) -> Result<Box<dyn Tail>>;

    /// The offset of the oldest record (of the next one, if there is none).
    async fn start(&self, partition: u32) -> Result<u64>;

    /// The offset of the next record to be appended.
    async fn end(&self, partition: u32) -> Result<u64>;

    /// Deletes records before `offset`. Deletes whole segments only, so some of these records may stay
    /// readable; records from `offset` on always stay. An offset past the end counts as the end.
    async fn truncate_before(&self, partition: u32, offset: u64) -> Result<()>;

    /// Deletes records before `before` that exceed the retention. Deletes whole segments only, so up to
    /// one segment more than the limit stays. Does nothing in a log with its own retention, such as a
    /// Kafka topic.
    async fn retain(
        &self,
        _partition: u32,
        _retention: Retention,
        _before: u64,
        _now: Timestamp,
    ) -> Result<()> {
        Ok(())
    }

    /// Skips offsets, so that the next record gets `offset`; does nothing if the end is at or after it.
    /// `false` if the log does not support it, such as a Kafka topic.
    async fn skip_to(&self, _partition: u32, _offset: u64) -> Result<bool> {
        Ok(false)
    }
}

/// Reads the records of a partition as they are appended.
#[async_trait]
pub trait Tail: Send {
    /// The next durable records, in order. Waits until there is at least one, or until offsets without
    /// a record are passed (control records of Kafka's transactions, records that a repair removed);
    /// then the result is empty. Cancel safe. Not usable after an error.
    async fn next(&mut self) -> Result<Vec<Record>>;

    /// The next offset: all records before it have been returned.
    fn position(&self) -> u64;
}
