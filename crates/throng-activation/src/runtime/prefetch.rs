//! Prefetch buffer: task messages that this process has taken from the queue and that wait for a worker, the
//! highest priority first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use throng_log::{LogError, Message, Queue};
use throng_model::{DestinationName, TaskId, Timestamp};
use tokio::sync::Notify;

use super::task_message::{TaskMessage, invalid_message};

/// The size of the buffer. More tasks are left in the queue for other processes. Enough for the due tasks of a
/// dozen accounts.
const CAPACITY: usize = 4_096;

/// A task message in the buffer. Its task is not claimed yet.
#[derive(Debug)]
pub(super) struct ReservedTask {
    pub(super) task_message: TaskMessage,
    message: Message,
    not_before: Timestamp,
}

/// Orders tasks: by priority, then by id.
type Rank = (Reverse<i32>, TaskId);

/// The buffer of one process, for all its workers.
#[derive(Debug)]
pub(super) struct PrefetchBuffer {
    queue: Arc<dyn Queue>,
    dead_letters: Option<Arc<dyn Queue>>,
    tasks: Mutex<BTreeMap<Rank, ReservedTask>>,
    /// Notified when a task message was added.
    added: Notify,
    /// Notified when one was removed.
    removed: Notify,
}

impl PrefetchBuffer {
    pub(super) fn new(queue: Arc<dyn Queue>, dead_letters: Option<Arc<dyn Queue>>) -> Self {
        let (tasks, added, removed) = Default::default();
        Self { queue, dead_letters, tasks, added, removed }
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Rank, ReservedTask>> {
        // After a panic of another holder at most one message is missing, and the queue redelivers it.
        self.tasks.lock()
    }

    /// Takes messages from the queue while the buffer has capacity. Returns only on an error.
    pub(super) async fn fill(&self) -> Result<std::convert::Infallible, LogError> {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            if self.tasks().len() >= CAPACITY {
                removed.await;
                continue;
            }
            let message = self.queue.take().await?;
            match TaskMessage::read(&message) {
                Ok(task) => self.add(task, message, Timestamp(i64::MIN)).await,
                Err(reason) => self.reject(&message, &reason).await,
            }
        }
    }

    /// Moves an invalid message to the dead-letter queue.
    async fn reject(&self, message: &Message, reason: &str) {
        tracing::error!(reason, "failed to decode message of task queue");
        if let Some(dead_letters) = &self.dead_letters
            && let Err(error) = dead_letters.put(vec![invalid_message(message, reason)]).await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to write dead letter"
            );
        }
        self.acknowledge(message).await;
    }

    async fn add(&self, task: TaskMessage, message: Message, not_before: Timestamp) {
        let rank = (Reverse(task.priority), task.task);
        let previous =
            self.tasks().insert(rank, ReservedTask { task_message: task, message, not_before });
        self.added.notify_waiters();
        // The same task again: one message is enough.
        if let Some(duplicate) = previous {
            self.acknowledge(&duplicate.message).await;
        }
    }

    /// Removes the next task: not one of an unavailable account, and not before its time.
    pub(super) fn next(
        &self,
        unavailable: &[DestinationName],
        now: Timestamp,
    ) -> Option<ReservedTask> {
        let mut tasks = self.tasks();
        let is_eligible = |reserved: &ReservedTask| {
            let destination = &reserved.task_message.destination;
            reserved.not_before <= now && !unavailable.contains(destination)
        };
        let rank = tasks.iter().find(|(_, task)| is_eligible(task)).map(|(rank, _)| *rank)?;
        let task = tasks.remove(&rank);
        self.removed.notify_waiters();
        task
    }

    /// Returns a task to the buffer until `not_before`.
    pub(super) async fn postpone(&self, reserved: ReservedTask, not_before: Timestamp) {
        self.add(reserved.task_message, reserved.message, not_before).await;
    }

    /// Removes the message of a task from the queue.
    pub(super) async fn done(&self, reserved: &ReservedTask) {
        self.acknowledge(&reserved.message).await;
    }

    async fn acknowledge(&self, message: &Message) {
        if let Err(error) = self.queue.done(message).await {
            // The queue redelivers it, which is harmless.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "failed to acknowledge message"
            );
        }
    }

    /// Waits until a task message is added.
    pub(super) async fn wait_for_task(&self) {
        self.added.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use throng_log::MemoryQueue;

    use super::*;

    fn message(task: i64, priority: i32, destination: &str) -> Message {
        let body = format!(
            r#"{{"version":1,"task":{task},"sync":"s","audience":"a","destination":"{destination}","priority":{priority}}}"#
        );
        Message::new(task.to_string(), body)
    }

    #[tokio::test]
    async fn the_eligible_task_of_the_highest_priority_is_next() {
        let queue = Arc::new(MemoryQueue::default());
        let dead = Arc::new(MemoryQueue::default());
        let buffer = PrefetchBuffer::new(queue.clone(), Some(dead.clone()));
        let messages = vec![
            message(1, 0, "x"),
            message(2, 5, "x"),
            Message::new("bad", "not JSON"),
            message(3, 5, "y"),
            message(2, 5, "x"),
            message(4, -1, "z"),
        ];
        queue.put(messages).await.unwrap();
        tokio::select! {
            _ = buffer.fill() => unreachable!("the queue does not end"),
            letter = dead.take() => assert!(letter.unwrap().body.starts_with(b"{\"version\"")),
        }
        tokio::select! {
            biased;
            _ = buffer.fill() => unreachable!("the queue does not end"),
            () = std::future::ready(()) => {}
        }
        let (x, now) = ("x".parse().unwrap(), Timestamp(10));
        let next = |unavailable: &[DestinationName], now| {
            buffer.next(unavailable, now).map(|task| task.task_message.task.0)
        };
        let third = buffer.next(std::slice::from_ref(&x), now).unwrap();
        assert_eq!(third.task_message.task, TaskId(3));
        buffer.postpone(third, Timestamp(20)).await;
        assert_eq!(next(&[], now), Some(2));
        assert_eq!(next(&[], now), Some(1), "the duplicate of 2 is removed, and 3 waits");
        assert_eq!(next(&[], Timestamp(20)), Some(3));
        assert_eq!(next(&[], now), Some(4));
        assert_eq!(next(&[], now), None);
    }
}
