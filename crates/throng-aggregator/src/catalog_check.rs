//! Whether the ad groups of a partition are those of the newest spec.
//!
//! In a log that any process may append to, an event can be in the log before this process has switched to the spec
//! that has its ad group. It would be rejected as one of an unknown ad group, for good. So such a record is not
//! applied before it is known that the partition's spec is at least as new as the record. The end of the log is
//! read first, then the version of the newest spec: if the partition has that version, the ad groups that it does
//! not know were unknown when the records before that end were appended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_log::EventLog;
use throng_store::{Ledger, LedgerError};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// Between the begins of two reads of the newest version.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A read of the newest version that takes longer has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// A partition waits for a spec for at most this long. This process switches to a spec about a second after it was
/// applied.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The version of the newest spec, whichever process has applied it.
#[async_trait]
pub trait NewestSpec: Send + Sync {
    /// The version now; 0 if no spec was applied yet.
    ///
    /// # Errors
    /// Those of the ledger.
    async fn newest_version(&self) -> Result<u64, LedgerError>;
}

#[async_trait]
impl NewestSpec for Arc<dyn Ledger> {
    async fn newest_version(&self) -> Result<u64, LedgerError> {
        Ok(self.applied_version().await?.unwrap_or(0))
    }
}

/// Reads the newest version for all partitions of this process.
pub(super) struct SpecVersions {
    newest: Arc<dyn NewestSpec>,
    /// When the last read began, and what it found; `None` if it failed.
    last: Mutex<Option<(Instant, Option<u64>)>>,
    timeout: Duration,
}

impl SpecVersions {
    pub(super) fn new(newest: Arc<dyn NewestSpec>) -> Self {
        Self { newest, last: Mutex::default(), timeout: TIMEOUT }
    }

    /// The newest version at a moment from `since` on; `None` if it cannot be read. `interval`: since the begin of
    /// the last read.
    async fn newest(&self, since: Instant, interval: Duration) -> Option<u64> {
        let mut last = self.last.lock().await;
        if let Some((begin, version)) = *last {
            if begin >= since {
                return version;
            }
            tokio::time::sleep_until(begin + interval).await;
        }
        let begin = Instant::now();
        let read = tokio::time::timeout(READ_TIMEOUT, self.newest.newest_version()).await;
        let version = match read {
            Ok(Ok(version)) => Some(version),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the version of the newest spec"
                );
                None
            }
            Err(_) => {
                tracing::warn!("failed to read the version of the newest spec: timeout");
                None
            }
        };
        *last = Some((begin, version));
        version
    }
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The partition has the newest spec.
    Newest,
    /// There is a newer one.
    Behind,
    /// The log or the ledger did not answer.
    Unknown,
}

/// The checks of one partition.
pub(super) struct CatalogCheck {
    partition: u32,
    log: Arc<dyn EventLog>,
    /// `None` if every event was checked before it was appended, or nobody else applies specs.
    versions: Option<Arc<SpecVersions>>,
    /// Records before this offset are settled.
    settled: u64,
    /// The end of the log at the last check.
    end: u64,
    /// The last wait has ended without an answer.
    has_given_up: bool,
    behind: watch::Sender<bool>,
}

impl CatalogCheck {
    /// Settles what is in the log, if `version` is the newest one: no record of a replay has to be looked at then.
    pub(super) async fn open(
        partition: u32,
        log: &Arc<dyn EventLog>,
        versions: Option<Arc<SpecVersions>>,
        version: u64,
    ) -> Self {
        let settled = if versions.is_some() { 0 } else { u64::MAX };
        let behind = watch::Sender::new(false);
        let (log, has_given_up) = (Arc::clone(log), false);
        let mut opened = Self { partition, log, versions, settled, end: 0, has_given_up, behind };
        // At once: a process that starts opens many partitions, one after the other.
        opened.check_after(Duration::ZERO, version).await;
        opened
    }

    /// Records before this offset have no ad groups of a later spec than the partition's. Those from it on may have.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the partition waits for a spec that it is known to lack.
    pub(super) fn is_behind(&self) -> watch::Receiver<bool> {
        self.behind.subscribe()
    }

    /// Compares the version of the partition's ad groups with the newest one. If that is the same, the records that
    /// are in the log now are settled.
    pub(super) async fn check(&mut self, version: u64) -> Freshness {
        self.check_after(POLL_INTERVAL, version).await
    }

    async fn check_after(&mut self, interval: Duration, version: u64) -> Freshness {
        let Some(versions) = &self.versions else { return Freshness::Newest };
        match self.log.end(self.partition).await {
            Ok(end) => self.end = end,
            Err(error) => {
                tracing::warn!(
                    partition = self.partition,
                    error = &error as &dyn std::error::Error,
                    "failed to read the end of the event log"
                );
                return Freshness::Unknown;
            }
        }
        // After the end of the log: the result of a read that began before it says nothing about the last records.
        match versions.newest(Instant::now(), interval).await {
            Some(newest) if newest <= version => {
                self.settled = self.settled.max(self.end);
                self.has_given_up = false;
                Freshness::Newest
            }
            Some(_) => Freshness::Behind,
            None => Freshness::Unknown,
        }
    }

    /// Waits until the record at an offset is settled, or the ad groups of the partition change. `version` returns
    /// that of the partition's ad groups. After the timeout the record is settled all the same: a ledger that does not
    /// answer must not keep the partition from all other events. Until it answers again nothing is waited for.
    pub(super) async fn wait(&mut self, offset: u64, version: impl Fn() -> u64) {
        let Some(timeout) = self.versions.as_ref().map(|versions| versions.timeout) else { return };
        let (begin, before) = (Instant::now(), version());
        loop {
            match self.check(version()).await {
                Freshness::Newest => break,
                Freshness::Behind => _ = self.behind.send_replace(true),
                Freshness::Unknown => {}
            }
            if version() != before {
                break;
            }
            if self.has_given_up || begin.elapsed() >= timeout {
                self.give_up(offset);
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.behind.send_replace(false);
    }

    fn give_up(&mut self, offset: u64) {
        self.settled = self.settled.max(self.end).max(offset.saturating_add(1));
        if !std::mem::replace(&mut self.has_given_up, true) {
            tracing::error!(
                partition = self.partition,
                offset,
                "events of ad groups that only the newest spec has are rejected: this process does not have it in time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use throng_log::FileLog;
    use throng_model::Timestamp;

    use super::*;

    /// The newest version; 0 is a ledger that does not answer.
    struct Newest(AtomicU64);

    #[async_trait]
    impl NewestSpec for Newest {
        async fn newest_version(&self) -> Result<u64, LedgerError> {
            match self.0.load(Ordering::Relaxed) {
                0 => Err(LedgerError::not_found("ledger", "any")),
                version => Ok(version),
            }
        }
    }

    async fn log_of_one(dir: &std::path::Path) -> Arc<dyn EventLog> {
        let log = FileLog::open(dir, 1).unwrap();
        log.append(0, Timestamp(1), vec!["record".into()]).await.unwrap();
        Arc::new(log)
    }

    #[tokio::test]
    async fn what_is_in_the_log_is_settled_by_the_version_that_is_read_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let newest = Arc::new(Newest(AtomicU64::new(2)));
        let versions = Arc::new(SpecVersions::new(Arc::<Newest>::clone(&newest)));
        let log = log_of_one(dir.path()).await;
        let mut check = CatalogCheck::open(0, &log, Some(versions), 1).await;
        assert_eq!(check.settled(), 0);
        assert_eq!(check.check(1).await, Freshness::Behind);
        assert_eq!(check.settled(), 0);
        assert_eq!(check.check(2).await, Freshness::Newest);
        assert_eq!(check.settled(), 1);
        // A ledger that was restored has an earlier one.
        newest.0.store(1, Ordering::Relaxed);
        assert_eq!(check.check(2).await, Freshness::Newest);
    }

    #[tokio::test]
    async fn a_ledger_that_does_not_answer_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let newest = Arc::new(Newest(AtomicU64::new(0)));
        let shared = Arc::<Newest>::clone(&newest);
        let versions = SpecVersions { timeout: Duration::ZERO, ..SpecVersions::new(shared) };
        let log = log_of_one(dir.path()).await;
        let mut check = CatalogCheck::open(0, &log, Some(Arc::new(versions)), 1).await;
        check.wait(0, || 1).await;
        assert_eq!((check.settled(), check.has_given_up), (1, true));
        // The record is not in the log at the check.
        check.wait(7, || 1).await;
        assert_eq!(check.settled(), 8);
        newest.0.store(1, Ordering::Relaxed);
        check.wait(7, || 1).await;
        assert!(!check.has_given_up, "it answers again");
        assert!(!*check.is_behind().borrow());
    }
}
