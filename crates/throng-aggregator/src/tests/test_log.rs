//! Logs of tests: in files, with what a shared log does and with faults.

use async_trait::async_trait;
use bytes::Bytes;
use throng_log::{LogError, Record, Tail};
use tokio::sync::watch;

use super::*;

/// What becomes of appends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Appends {
    Stored,
    /// The client keeps the records.
    Pending,
    /// No broker answers.
    Refused,
}

/// A log in files that can be broken.
#[derive(Debug)]
pub(super) struct TestLog {
    log: FileLog,
    is_exclusive: bool,
    appends: Mutex<Appends>,
    /// Its tails wait while it is false.
    is_readable: watch::Sender<bool>,
}

struct TestTail {
    tail: Box<dyn Tail>,
    is_readable: watch::Receiver<bool>,
}

impl TestLog {
    pub(super) fn set_appends(&self, appends: Appends) {
        *self.appends.lock() = appends;
    }

    pub(super) fn set_readable(&self, is_readable: bool) {
        self.is_readable.send_replace(is_readable);
    }
}

impl Fixture {
    /// The log in `dir` as one that any process may append to, and that cannot skip offsets, such as a topic.
    pub(super) fn shared_log(&self, dir: &Path) -> Arc<TestLog> {
        self.test_log(dir, false)
    }

    /// The log in `dir`, of this process alone.
    pub(super) fn own_log(&self, dir: &Path) -> Arc<TestLog> {
        self.test_log(dir, true)
    }

    fn test_log(&self, dir: &Path, is_exclusive: bool) -> Arc<TestLog> {
        Arc::new(TestLog {
            log: self.log(dir).unwrap(),
            is_exclusive,
            appends: Mutex::new(Appends::Stored),
            is_readable: watch::Sender::new(true),
        })
    }

    /// Budgets on the shared log in `dir`.
    pub(super) async fn open_shared(
        &self,
        dir: &Path,
        accept_log_loss: &[u32],
    ) -> Result<Arc<Budgets>, BudgetsError> {
        self.open_on(self.shared_log(dir), dir, accept_log_loss).await
    }
}

#[async_trait]
impl EventLog for TestLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    async fn append(
        &self,
        partition: u32,
        at: Timestamp,
        values: Vec<Bytes>,
    ) -> throng_log::Result<u64> {
        let appends = *self.appends.lock();
        match appends {
            Appends::Stored => self.log.append(partition, at, values).await,
            Appends::Pending => std::future::pending().await,
            Appends::Refused => Err(LogError::Unreachable { topic: "throng.events".to_owned() }),
        }
    }

    async fn read(
        &self,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> throng_log::Result<Vec<Record>> {
        self.log.read(partition, from, max_bytes).await
    }

    async fn tail(&self, partition: u32, from: u64) -> throng_log::Result<Box<dyn Tail>> {
        let tail = self.log.tail(partition, from).await?;
        Ok(Box::new(TestTail { tail, is_readable: self.is_readable.subscribe() }))
    }

    async fn start(&self, partition: u32) -> throng_log::Result<u64> {
        self.log.start(partition).await
    }

    async fn end(&self, partition: u32) -> throng_log::Result<u64> {
        self.log.end(partition).await
    }

    async fn truncate_before(&self, partition: u32, offset: u64) -> throng_log::Result<()> {
        self.log.truncate_before(partition, offset).await
    }
}

#[async_trait]
impl Tail for TestTail {
    async fn next(&mut self) -> throng_log::Result<Vec<Record>> {
        let is_readable = self.is_readable.wait_for(|is_readable| *is_readable).await.is_ok();
        if is_readable { self.tail.next().await } else { Err(LogError::Closed) }
    }

    fn position(&self) -> u64 {
        self.tail.position()
    }
}
