//! Follows a partition in segment files.
//!
//! A tail of the writing process returns new records from memory: when a commit is durable, the writer
//! thread adds its records to the buffer of each tail. Without that, every commit would be read back from
//! its file, with a copy and a checksum of each value, by the process that has just written it.

use std::sync::Arc;

use async_trait::async_trait;

use super::partition::{FilePartition, NextRecords};
use crate::retry::POLL_INTERVAL;
use crate::{LogError, Record, Result, Tail};

/// The most bytes that are returned at once, unless one record is larger.
const READ_BYTES: usize = 1 << 20;

/// Follows a partition.
pub(super) struct FileTail {
    partition: Arc<FilePartition>,
    /// The number of its buffer; `None` if another process writes the log.
    buffer: Option<u64>,
    position: u64,
}

impl FileTail {
    /// Follows a partition from an offset on. `read_only`: another process writes the log.
    pub(super) fn new(partition: Arc<FilePartition>, read_only: bool, position: u64) -> Self {
        let buffer = (!read_only).then(|| partition.view().tails.add());
        Self { partition, buffer, position }
    }

    /// Reads the next records from the disk. `None` if there are none, and no gap either.
    async fn read(&mut self) -> Result<Option<Vec<Record>>> {
        let (partition, from) = (Arc::clone(&self.partition), self.position);
        let read_only = self.buffer.is_none();
        let read = tokio::task::spawn_blocking(move || {
            if read_only {
                partition.reload()?;
            }
            partition.read(from, READ_BYTES)
        });
        let records = read.await.map_err(|_| LogError::Closed)??;
        self.position = match records.last() {
            Some(last) => last.offset + 1,
            // Only offsets without a record may be left: they are returned as passed.
            None => self.partition.after_gap(from),
        };
        Ok((self.position > from).then_some(records))
    }
}

impl Drop for FileTail {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer {
            self.partition.view().tails.remove(buffer);
        }
    }
}

#[async_trait]
impl Tail for FileTail {
    async fn next(&mut self) -> Result<Vec<Record>> {
        // While records come without a pause, nothing else here waits.
        tokio::task::coop::consume_budget().await;
        let partition = Arc::clone(&self.partition);
        loop {
            let appended = partition.appended.notified();
            tokio::pin!(appended);
            // Registered before the read: an append between the read and the wait would be missed
            // otherwise.
            appended.as_mut().enable();
            let next = match self.buffer {
                Some(buffer) => partition.next_records(buffer, self.position, READ_BYTES),
                None => NextRecords::OnDisk,
            };
            match next {
                NextRecords::InMemory(records) => {
                    self.position = records.last().map_or(self.position, |last| last.offset + 1);
                    return Ok(records);
                }
                NextRecords::OnDisk => {
                    if let Some(records) = self.read().await? {
                        return Ok(records);
                    }
                }
                NextRecords::NotAppended => {}
            }
            match self.buffer {
                Some(_) => appended.await,
                // Appends of another process send no notification: poll.
                None => _ = tokio::time::timeout(POLL_INTERVAL, appended).await,
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }
}
