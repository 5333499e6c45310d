//! Follows a partition: one task reads batches of records ahead.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{LogError, Record, Result, Tail};

use super::reader::Reader;

/// Batches that are read ahead: one is read while another is applied. With more, the records would have
/// left the processor's caches before they are applied.
const READ_AHEAD_BATCHES: usize = 1;

/// Records, and the offset after them.
type Batch = (Vec<Record>, u64);

/// Follows a partition. Drop ends its task.
pub(super) struct KafkaTail {
    batches: mpsc::Receiver<Result<Batch>>,
    position: u64,
    task: JoinHandle<()>,
}

impl KafkaTail {
    /// Must be called in a Tokio runtime.
    pub(super) fn start(reader: Reader) -> Self {
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES);
        let position = reader.position();
        Self { batches, position, task: tokio::spawn(follow(reader, sender)) }
    }
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self) -> Result<Vec<Record>> {
        let (records, position) = self.batches.recv().await.unwrap_or(Err(LogError::Closed))?;
        self.position = position;
        Ok(records)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut reader: Reader, batches: mpsc::Sender<Result<Batch>>) {
    loop {
        let before = reader.position();
        let batch = reader.next().await.map(|records| (records, reader.position()));
        // An empty fetch: the broker had no record within its wait, so this loop does not spin.
        if batch.as_ref().is_ok_and(|(_, position)| *position == before) {
            continue;
        }
        let failed = batch.is_err();
        // A closed channel: the tail was dropped.
        if batches.send(batch).await.is_err() || failed {
            return;
        }
    }
}
