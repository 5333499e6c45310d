//! Event logs and queues: the test suite of all backends, crashes, damage and disk failures of the file
//! log, and Kafka.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod crash;
mod damage;
mod disk;
mod kafka;
mod random;
mod reading;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use throng_log::conformance::{LogBackend, QueueBackend, queue_suite, suite};
use throng_log::{EventLog, FileLog, FileLogOptions, MemoryQueue, Queue};

/// Options of a log with small segments.
pub(crate) fn options(partitions: u32, segment_bytes: u64) -> FileLogOptions {
    FileLogOptions { segment_bytes, ..FileLogOptions::new(partitions) }
}

struct Files {
    root: PathBuf,
    segment_bytes: u64,
}

#[async_trait]
impl LogBackend for Files {
    async fn open(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(FileLog::open_with(&self.root.join(name), options(3, self.segment_bytes)).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_log_passes_the_suite() {
    // Small segments, so that every case spans several of them.
    for segment_bytes in [100, 1_000, throng_log::SEGMENT_BYTES] {
        let root = tempfile::tempdir().unwrap();
        suite(&Files { root: root.path().to_owned(), segment_bytes }).await;
    }
}

/// One queue for all consumers.
struct InMemory(Arc<MemoryQueue>);

#[async_trait]
impl QueueBackend for InMemory {
    async fn consumer(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.0) as Arc<dyn Queue>
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_in_memory_passes_the_suite() {
    queue_suite(&InMemory(Arc::default())).await;
}
