//! Following a partition: one task that reads, records in batches.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{LogError, Record, Result, Tail};

use super::reader::Reader;

/// Batches that wait for the follower before the reader does: one is read while another is applied,
/// and what waits longer has left the processor's caches.
const BATCHES: usize = 1;

/// Records, and the offset after them.
type Batch = (Vec<Record>, u64);

/// Follows a partition. Dropping it ends its task.
pub(super) struct KafkaTail {
    batches: mpsc::Receiver<Result<Batch>>,
    position: u64,
    task: JoinHandle<()>,
}

impl KafkaTail {
    /// Must be called in a Tokio runtime.
    pub(super) fn start(reader: Reader) -> Self {
        let (sender, batches) = mpsc::channel(BATCHES);
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
        if batch.as_ref().is_ok_and(|(_, position)| *position == before) {
            continue;
        }
        let over = batch.is_err();
        // Nobody listening is no error.
        if batches.send(batch).await.is_err() || over {
            return;
        }
    }
}
