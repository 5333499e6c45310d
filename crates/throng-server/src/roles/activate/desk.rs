//! Notices that reached this process and wait for a worker, the highest priority first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use throng_log::{LogError, Message, Queue};
use throng_model::{DestinationName, TaskId, Timestamp};
use tokio::sync::Notify;

use super::notice::{Notice, unreadable};

/// More than this are not taken from the queue: they are for other processes. Room for what is on the
/// queue at a time for a dozen of accounts.
const ROOM: usize = 4_096;

/// A notice on the desk.
#[derive(Debug)]
pub(super) struct Paper {
    pub(super) notice: Notice,
    message: Message,
    not_before: Timestamp,
}

type Place = (Reverse<i32>, TaskId);

/// The papers of one process, for all its workers.
#[derive(Debug)]
pub(super) struct Desk {
    queue: Arc<dyn Queue>,
    dead: Option<Arc<dyn Queue>>,
    papers: Mutex<BTreeMap<Place, Paper>>,
    /// Told when a paper came.
    arrived: Notify,
    /// Told when one went.
    left: Notify,
}

impl Desk {
    pub(super) fn new(queue: Arc<dyn Queue>, dead: Option<Arc<dyn Queue>>) -> Self {
        let (papers, arrived, left) = Default::default();
        Self { queue, dead, papers, arrived, left }
    }

    fn papers(&self) -> MutexGuard<'_, BTreeMap<Place, Paper>> {
        // A paper that is lost comes again; a panic elsewhere does no harm.
        self.papers.lock()
    }

    /// Takes from the queue what there is room for. Never ends by itself.
    pub(super) async fn fill(&self) -> Result<std::convert::Infallible, LogError> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.papers().len() >= ROOM {
                left.await;
                continue;
            }
            let message = self.queue.take().await?;
            match Notice::read(&message) {
                Ok(notice) => self.put(notice, message, Timestamp(i64::MIN)).await,
                Err(reason) => self.refuse(&message, &reason).await,
            }
        }
    }

    async fn refuse(&self, message: &Message, reason: &str) {
        tracing::error!(reason, "a message of the queue cannot be read");
        if let Some(dead) = &self.dead
            && let Err(error) = dead.put(vec![unreadable(message, reason)]).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "nor be put aside");
        }
        self.finish(message).await;
    }

    async fn put(&self, notice: Notice, message: Message, not_before: Timestamp) {
        let place = (Reverse(notice.priority), notice.task);
        let before = self.papers().insert(place, Paper { notice, message, not_before });
        self.arrived.notify_waiters();
        // The same task again: one paper is enough.
        if let Some(twin) = before {
            self.finish(&twin.message).await;
        }
    }

    /// The next paper to work on: not one of an account to avoid, nor before its time.
    pub(super) fn next(&self, avoid: &[DestinationName], now: Timestamp) -> Option<Paper> {
        let mut papers = self.papers();
        let fits =
            |paper: &Paper| paper.not_before <= now && !avoid.contains(&paper.notice.destination);
        let place = papers.iter().find(|(_, paper)| fits(paper)).map(|(place, _)| *place)?;
        let paper = papers.remove(&place);
        self.left.notify_waiters();
        paper
    }

    /// Puts a paper back until later.
    pub(super) async fn put_back(&self, paper: Paper, not_before: Timestamp) {
        self.put(paper.notice, paper.message, not_before).await;
    }

    /// The paper is of no more use here.
    pub(super) async fn done(&self, paper: &Paper) {
        self.finish(&paper.message).await;
    }

    async fn finish(&self, message: &Message) {
        if let Err(error) = self.queue.done(message).await {
            // It comes again, which is harmless.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a message is not off the queue"
            );
        }
    }

    /// Waits until a paper comes.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
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
    async fn the_highest_priority_that_may_go_is_next() {
        let queue = Arc::new(MemoryQueue::default());
        let dead = Arc::new(MemoryQueue::default());
        let desk = Desk::new(queue.clone(), Some(dead.clone()));
        let messages = vec![
            message(1, 0, "x"),
            message(2, 5, "x"),
            Message::new("bad", "nonsense"),
            message(3, 5, "y"),
            message(2, 5, "x"),
            message(4, -1, "z"),
        ];
        queue.put(messages).await.unwrap();
        tokio::select! {
            _ = desk.fill() => unreachable!("the queue does not end"),
            letter = dead.take() => assert!(letter.unwrap().body.starts_with(b"{\"version\"")),
        }
        tokio::select! {
            biased;
            _ = desk.fill() => unreachable!("the queue does not end"),
            () = std::future::ready(()) => {}
        }
        let (x, now) = ("x".parse().unwrap(), Timestamp(10));
        let next = |avoid: &[DestinationName], now| desk.next(avoid, now).map(|p| p.notice.task.0);
        let third = desk.next(std::slice::from_ref(&x), now).unwrap();
        assert_eq!(third.notice.task, TaskId(3));
        desk.put_back(third, Timestamp(20)).await;
        assert_eq!(next(&[], now), Some(2));
        assert_eq!(next(&[], now), Some(1), "the twin of 2 is gone, and 3 waits");
        assert_eq!(next(&[], Timestamp(20)), Some(3));
        assert_eq!(next(&[], now), Some(4));
        assert_eq!(next(&[], now), None);
    }
}
