//! Queues of work, and the one in this process.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

use crate::{LogError, Result};

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is about; messages with one key go one way, in their order.
    pub key: String,
    /// The work, as JSON without personal data.
    pub body: Bytes,
    /// Where it was taken from, for [`Queue::done`].
    pub(crate) place: Option<(i32, i64)>,
}

impl Message {
    /// Work to be put on a queue.
    pub fn new(key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { key: key.into(), body: body.into(), place: None }
    }
}

/// A queue of work. Each message goes to one of the workers; to another one if the first dies
/// before it is [`done`](Self::done), and now and then to two. What is done stands in the ledger,
/// so that a message that comes twice, late or never harms nobody.
#[async_trait]
pub trait Queue: Send + Sync + std::fmt::Debug {
    /// Puts work on the queue. After an error some of it may be there.
    async fn put(&self, messages: Vec<Message>) -> Result<()>;

    /// The next piece of work; waits for it. [`LogError::ReadOnly`] if this node only puts. Safe to
    /// drop while it waits.
    async fn take(&self) -> Result<Message>;

    /// The message needs not come again.
    async fn done(&self, message: &Message) -> Result<()>;
}

/// A queue within one process. What waits is gone with the process; the ledger knows it.
#[derive(Debug)]
pub struct MemoryQueue {
    sender: mpsc::UnboundedSender<Message>,
    receiver: Mutex<mpsc::UnboundedReceiver<Message>>,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn put(&self, messages: Vec<Message>) -> Result<()> {
        messages.into_iter().try_for_each(|m| self.sender.send(m).map_err(|_| LogError::Closed))
    }

    async fn take(&self) -> Result<Message> {
        self.receiver.lock().await.recv().await.ok_or(LogError::Closed)
    }

    async fn done(&self, _message: &Message) -> Result<()> {
        Ok(())
    }
}
