//! Queues of work, and the queue inside one process.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

use crate::{LogError, Result};

/// One message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The key; messages with the same key keep their order.
    pub key: String,
    /// The work, as JSON without personal data.
    pub body: Bytes,
    /// The partition and offset that it was read from, for [`Queue::done`].
    pub(crate) source: Option<(i32, i64)>,
}

impl Message {
    /// A message to put on a queue.
    pub fn new(key: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { key: key.into(), body: body.into(), source: None }
    }
}

/// A queue of work with at-least-once delivery: each message goes to one of the consumers, and to
/// another one if the first dies before it calls [`done`](Self::done). The ledger records what is done,
/// so a message that arrives twice, late or never does no harm.
#[async_trait]
pub trait Queue: Send + Sync + std::fmt::Debug {
    /// Puts messages on the queue. After an error some of them may be on it.
    async fn put(&self, messages: Vec<Message>) -> Result<()>;

    /// Waits for the next message. [`LogError::ReadOnly`] if this process only puts. Cancel safe.
    async fn take(&self) -> Result<Message>;

    /// Acknowledges a message: it is not delivered again.
    async fn done(&self, message: &Message) -> Result<()>;
}

/// A queue inside one process. Its messages are lost when the process ends; the ledger has the work that
/// they name.
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
        // Nothing to note: a message is removed when it is taken, and a restart begins with an
        // empty queue.
        Ok(())
    }
}
