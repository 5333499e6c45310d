//! Following a partition: one task that reads, records in batches.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{LogError, Record, Result, Tail};

use super::reader::Reader;

/// Batches that wait for the follower before the reader does: one is read while another is applied,
/// and what waits longer has left the processor's caches.
const BATCHES: usize = 1;

/// Follows a partition. Dropping it ends its task.
pub(super) struct KafkaTail {
    batches: mpsc::Receiver<Result<Vec<Record>>>,
    task: JoinHandle<()>,
}

impl KafkaTail {
    /// Must be called in a Tokio runtime.
    pub(super) fn start(reader: Reader) -> Self {
        let (sender, batches) = mpsc::channel(BATCHES);
        Self { batches, task: tokio::spawn(follow(reader, sender)) }
    }
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self) -> Result<Vec<Record>> {
        self.batches.recv().await.unwrap_or(Err(LogError::Closed))
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut reader: Reader, batches: mpsc::Sender<Result<Vec<Record>>>) {
    loop {
        let batch = reader.next().await;
        if batch.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        let over = batch.is_err();
        // Nobody listening is no error.
        if batches.send(batch).await.is_err() || over {
            return;
        }
    }
}
