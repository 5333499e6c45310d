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
/// A read of the newest version that takes longer has failed. In tests nothing depends on how long one takes.
const READ_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 1 });
/// A partition waits for a spec for at most this long. This process switches to a spec about a second after it was
/// applied.
const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 30 });
/// For this long after a read that failed, opening a partition does not make another one: a process that takes many
/// over would wait for the timeout at each.
const FAILURE_LIFETIME: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 5 });
/// A replay asks again for as long as the ledger has not answered for less than this.
const REPLAY_RETRY_TIME: Duration = Duration::from_secs(3);

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
    last: Mutex<Option<LastRead>>,
    timeout: Duration,
}

/// A read of the newest version.
#[derive(Clone, Copy)]
struct LastRead {
    begin: Instant,
    /// What it found; `None` if it failed.
    version: Option<u64>,
    /// The begin of the first read that has failed since the last one that did not.
    failing_since: Option<Instant>,
}

impl SpecVersions {
    pub(super) fn new(newest: Arc<dyn NewestSpec>) -> Self {
        Self { newest, last: Mutex::default(), timeout: TIMEOUT }
    }

    /// Until `interval` after the begin of the last read.
    async fn pause(&self, interval: Duration) {
        let last = *self.last.lock().await;
        if let Some(last) = last {
            tokio::time::sleep_until(last.begin + interval).await;
        }
    }

    /// Whether the last read has failed, within [`FAILURE_LIFETIME`].
    async fn has_just_failed(&self) -> bool {
        let last = *self.last.lock().await;
        last.is_some_and(|last| last.version.is_none() && last.begin.elapsed() < FAILURE_LIFETIME)
    }

    /// Whether every read has failed for [`REPLAY_RETRY_TIME`].
    async fn is_failing(&self) -> bool {
        let since = self.last.lock().await.and_then(|last| last.failing_since);
        since.is_some_and(|since| since.elapsed() >= REPLAY_RETRY_TIME)
    }

    /// The newest version at a moment from `since` on; `None` if it cannot be read. `interval`: since the begin of
    /// the last read.
    async fn newest(&self, since: Instant, interval: Duration) -> Option<u64> {
        let mut last = self.last.lock().await;
        if let Some(last) = *last {
            if last.begin >= since {
                return last.version;
            }
            tokio::time::sleep_until(last.begin + interval).await;
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
        let failing_since = match version {
            Some(_) => None,
            None => {
                // Of a failure of long ago it is not known whether it has lasted until now.
                let recent = last.filter(|last| last.begin.elapsed() < FAILURE_LIFETIME);
                Some(recent.and_then(|last| last.failing_since).unwrap_or(begin))
            }
        };
        *last = Some(LastRead { begin, version, failing_since });
        version
    }
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The partition has the newest spec.
    Newest,
    /// There is a newer one, of this version.
    Behind(u64),
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
    /// The highest newest version for which a wait has ended without it.
    gave_up_on: u64,
    /// The last wait has ended without an answer, and there was none since.
    has_no_answer: bool,
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
        let (log, behind) = (Arc::clone(log), watch::Sender::new(false));
        let (end, gave_up_on, has_no_answer) = (0, 0, false);
        let mut opened =
            Self { partition, log, versions, settled, end, gave_up_on, has_no_answer, behind };
        if let Some(versions) = opened.versions.clone()
            && !versions.has_just_failed().await
        {
            // At once: a process that starts opens many partitions, one after the other.
            opened.check_after(Duration::ZERO, version, None).await;
        }
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
    /// are in the log now are settled, and the one at `offset`, which the caller has read.
    async fn check(&mut self, version: u64, offset: u64) -> Freshness {
        self.check_after(POLL_INTERVAL, version, Some(offset)).await
    }

    /// As [`Self::check`], again for some seconds while there is no answer.
    pub(super) async fn check_in_replay(&mut self, version: u64, offset: u64) -> Freshness {
        let begin = Instant::now();
        loop {
            let found = self.check(version, offset).await;
            let Some(versions) = &self.versions else { return found };
            // Not for as long at each partition of a process that takes many over.
            if found != Freshness::Unknown
                || begin.elapsed() >= REPLAY_RETRY_TIME
                || versions.is_failing().await
            {
                return found;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn check_after(
        &mut self,
        interval: Duration,
        version: u64,
        offset: Option<u64>,
    ) -> Freshness {
        let Some(versions) = &self.versions else { return Freshness::Newest };
        // First: what is appended during the pause is before the end that is read after it.
        versions.pause(interval).await;
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
        // The short interval limits the reads of partitions whose pauses end at the same time.
        match versions.newest(Instant::now(), interval / 10).await {
            Some(newest) if newest <= version => {
                // The log may have lost the record that the caller has, and would end before it forever.
                let read = offset.map_or(0, |offset| offset.saturating_add(1));
                self.settled = self.settled.max(self.end).max(read);
                self.has_no_answer = false;
                Freshness::Newest
            }
            Some(newest) => {
                self.has_no_answer = false;
                Freshness::Behind(newest)
            }
            None => Freshness::Unknown,
        }
    }

    /// Waits until the record at an offset is settled, or the ad groups of the partition change. `version` returns
    /// that of the partition's ad groups. After the timeout the record is settled all the same: a ledger that does not
    /// answer, or a spec to which this process cannot switch, must not keep the partition from all other events. Until
    /// the ledger answers again, or has another version, nothing is waited for.
    pub(super) async fn wait(&mut self, offset: u64, version: impl Fn() -> u64) {
        let Some(timeout) = self.versions.as_ref().map(|versions| versions.timeout) else { return };
        let (begin, before) = (Instant::now(), version());
        loop {
            let found = self.check(version(), offset).await;
            if found == Freshness::Newest || version() != before {
                break;
            }
            let has_given_up = self.has_given_up(found, before);
            if has_given_up || begin.elapsed() >= timeout {
                self.settled = self.settled.max(self.end).max(offset.saturating_add(1));
                if !has_given_up {
                    self.give_up(offset, found);
                }
                break;
            }
            if matches!(found, Freshness::Behind(_)) {
                self.behind.send_replace(true);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.behind.send_replace(false);
    }

    /// Whether a wait has ended with the timeout before for what a check has found.
    fn has_given_up(&self, found: Freshness, version: u64) -> bool {
        match found {
            Freshness::Newest => false,
            Freshness::Behind(newest) => newest <= self.gave_up_on,
            Freshness::Unknown => self.has_no_answer || self.gave_up_on > version,
        }
    }

    /// After the timeout.
    fn give_up(&mut self, offset: u64, found: Freshness) {
        match found {
            Freshness::Newest => {}
            Freshness::Behind(newest) => self.gave_up_on = self.gave_up_on.max(newest),
            Freshness::Unknown => self.has_no_answer = true,
        }
        tracing::error!(
            partition = self.partition,
            offset,
            "events of ad groups that only the newest spec has are rejected: this process does not have it in time"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use throng_log::FileLog;
    use throng_model::Timestamp;

    use super::*;

    /// The newest version; 0 is a ledger that does not answer.
    #[derive(Default)]
    struct Newest {
        version: AtomicU64,
        reads: AtomicU64,
        /// Gets a record during each read.
        appended: Option<Arc<dyn EventLog>>,
    }

    impl Newest {
        fn new(version: u64) -> Arc<Self> {
            Arc::new(Self { version: AtomicU64::new(version), ..Self::default() })
        }

        /// For one check, with this timeout of waits.
        fn versions(self: &Arc<Self>, timeout: Duration) -> Option<Arc<SpecVersions>> {
            let newest = Arc::<Self>::clone(self);
            Some(Arc::new(SpecVersions { timeout, ..SpecVersions::new(newest) }))
        }

        fn reads(&self) -> u64 {
            self.reads.load(Ordering::Relaxed)
        }
    }

    #[async_trait]
    impl NewestSpec for Newest {
        async fn newest_version(&self) -> Result<u64, LedgerError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if let Some(log) = &self.appended {
                log.append(0, Timestamp(1), vec!["later".into()]).await.unwrap();
            }
            match self.version.load(Ordering::Relaxed) {
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
        let newest = Newest::new(2);
        let log = log_of_one(dir.path()).await;
        let mut check = CatalogCheck::open(0, &log, newest.versions(TIMEOUT), 1).await;
        assert_eq!(check.settled(), 0);
        assert_eq!(check.check(1, 0).await, Freshness::Behind(2));
        assert_eq!(check.settled(), 0);
        assert_eq!(check.check(2, 0).await, Freshness::Newest);
        assert_eq!(check.settled(), 1);
        // A ledger that was restored has an earlier one.
        newest.version.store(1, Ordering::Relaxed);
        assert_eq!(check.check(2, 0).await, Freshness::Newest);
        // The log has lost the record.
        assert_eq!(check.check(2, 4).await, Freshness::Newest);
        assert_eq!(check.settled(), 5);
    }

    #[tokio::test]
    async fn a_record_that_is_appended_during_the_read_is_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of_one(dir.path()).await;
        let appended = Some(Arc::clone(&log));
        let newest = Arc::new(Newest { version: AtomicU64::new(1), appended, ..Newest::default() });
        let mut check = CatalogCheck::open(0, &log, newest.versions(TIMEOUT), 1).await;
        assert_eq!((check.settled(), log.end(0).await.unwrap()), (1, 2));
        assert_eq!(check.check(1, 0).await, Freshness::Newest);
        assert_eq!((check.settled(), log.end(0).await.unwrap()), (2, 3));
    }

    #[tokio::test]
    async fn a_ledger_that_does_not_answer_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let newest = Newest::new(0);
        let log = log_of_one(dir.path()).await;
        let versions = newest.versions(Duration::ZERO);
        let mut check = CatalogCheck::open(0, &log, versions.clone(), 1).await;
        assert_eq!(newest.reads(), 1);
        CatalogCheck::open(0, &log, versions, 1).await;
        assert_eq!(newest.reads(), 1, "the next partition does not ask again at once");
        check.wait(0, || 1).await;
        assert_eq!((check.settled(), check.has_no_answer), (1, true));
        // From here on a wait would not end.
        check.versions = newest.versions(TIMEOUT);
        // The record is not in the log at the check.
        check.wait(7, || 1).await;
        assert_eq!(check.settled(), 8);
        newest.version.store(1, Ordering::Relaxed);
        check.wait(7, || 1).await;
        assert!(!check.has_no_answer, "it answers again");
        assert!(!*check.is_behind().borrow());
    }

    /// Of a partition that gets version 2 after some calls: before it, a wait checks at least twice.
    fn later_version(calls: &AtomicU64) -> u64 {
        if calls.fetch_add(1, Ordering::Relaxed) < 4 { 1 } else { 2 }
    }

    #[tokio::test]
    async fn a_spec_that_is_applied_after_a_wait_has_ended_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of_one(dir.path()).await;
        // The wait before has had no answer, or has not got version 2.
        for (before, after) in [(0, 2), (2, 3)] {
            let newest = Newest::new(before);
            let versions = newest.versions(Duration::ZERO);
            let mut check = CatalogCheck::open(0, &log, versions, 1).await;
            check.wait(0, || 1).await;
            assert_eq!(check.settled(), 1, "it gives up");
            check.versions = newest.versions(TIMEOUT);
            check.wait(1, || 1).await;
            assert_eq!(check.settled(), 2, "and does not wait for the same again");
            newest.version.store(after, Ordering::Relaxed);
            let calls = AtomicU64::new(0);
            check.wait(2, || later_version(&calls)).await;
            assert_eq!(check.settled(), 2, "before {before}, after {after}");
            assert!(calls.load(Ordering::Relaxed) > 4);
        }
    }

    #[tokio::test]
    async fn a_spec_that_was_given_up_is_not_waited_for_while_the_ledger_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of_one(dir.path()).await;
        let newest = Newest::new(2);
        let mut check = CatalogCheck::open(0, &log, newest.versions(Duration::ZERO), 1).await;
        check.wait(0, || 1).await;
        check.versions = newest.versions(TIMEOUT);
        newest.version.store(0, Ordering::Relaxed);
        check.wait(1, || 1).await;
        assert_eq!((check.settled(), check.has_no_answer), (2, false));
    }
}
