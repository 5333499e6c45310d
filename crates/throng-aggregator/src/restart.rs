//! Partitions that failed are reopened from their checkpoints, and problems of partitions are reported to
//! the node's health.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use throng_model::{Backoff, Clock as _, with_causes};
use throng_telemetry::metrics;

use super::quarantine::{self, QuarantineList};
use super::replica::{PartitionReplica, ReplicaRole};
use super::{Budgets, BudgetsError, ProblemKind};

/// Between two attempts to reopen a partition.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The last attempt to reopen a partition. Times are by [`throng_model::Clock::elapsed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restart {
    /// Its number, from 1, among attempts that follow each other.
    attempt: u32,
    /// When the next attempt may begin.
    due: Duration,
    /// Why it failed. `None` if the partition was reopened.
    error: Option<String>,
}

impl Restart {
    /// An attempt that lasted from `begin` to `end`. It follows the one before if that failed, or if the
    /// partition has failed again within a minute after the end of that one's backoff. Otherwise it is the
    /// first one, and so is its backoff.
    fn after(before: Option<&Self>, begin: Duration, end: Duration, error: Option<String>) -> Self {
        // Most likely it has failed for the same reason. Each attempt reads the checkpoint and replays
        // the log: without a longer pause it would take the time of the other partitions.
        let follows =
            |before: &&Self| before.error.is_some() || begin < before.due + BACKOFF.longest;
        let attempt = before.filter(follows).map_or(0, |before| before.attempt).saturating_add(1);
        // From the end: by then, an attempt that lasts longer than its backoff would be due again.
        Self { attempt, due: end + BACKOFF.without_jitter(attempt), error }
    }
}

/// The detail of the problem of a failed partition, unless the last attempt to reopen it has failed.
const REOPENING: &str = "its task failed; it is being reopened from its checkpoint";

fn partition_problem_key(partition: u32) -> String {
    partition.to_string()
}

fn checkpoint_problem_key(partition: u32) -> String {
    format!("checkpoint/{partition}")
}

impl Budgets {
    pub(super) fn report_partition(&self, partition: u32, error: &BudgetsError) {
        let key = partition_problem_key(partition);
        self.health.report_problem(ProblemKind::Partition, &key, with_causes(error));
    }

    pub(super) fn clear_partition(&self, partition: u32) {
        self.health.clear_problem(ProblemKind::Partition, &partition_problem_key(partition));
    }

    /// Clears the problems of partitions that do not belong to this process: nothing else would, and the
    /// process that leads them reports its own.
    pub(super) fn clear_unassigned(&self, wanted: &[u32]) {
        for number in (0..self.partitions()).filter(|number| !wanted.contains(number)) {
            self.clear_partition(number);
            self.report_checkpoint(number, None);
            self.restarts.lock().remove(&number);
        }
    }

    /// Reports to the node's health whether checkpoints are written.
    pub(super) fn report_checkpoint(&self, partition: u32, error: Option<&BudgetsError>) {
        let key = checkpoint_problem_key(partition);
        match error {
            // It is reported as a problem of the partition.
            Some(BudgetsError::Unavailable { .. }) => {}
            Some(error) => {
                let kind = match (error.is_disk_error(), error) {
                    (true, _) => ProblemKind::Disk,
                    (false, BudgetsError::LogBehind { .. }) => ProblemKind::Partition,
                    (false, BudgetsError::Log(_)) => ProblemKind::Log,
                    (false, _) => ProblemKind::Objects,
                };
                self.health.report_problem(kind, &key, with_causes(error));
            }
            None => {
                // All kinds: which of them were reported depends on errors that are no longer
                // known.
                for kind in [
                    ProblemKind::Disk,
                    ProblemKind::Partition,
                    ProblemKind::Log,
                    ProblemKind::Objects,
                ] {
                    self.health.clear_problem(kind, &key);
                }
            }
        }
    }

    /// Reopens partitions whose tasks have failed, each from its checkpoint and the log; again after a
    /// backoff if that does not work.
    pub(super) async fn restart_failed(&self) {
        let led = self.led.load_full();
        // A fenced one is opened by `set_assignment`, if it still belongs to this process: opened
        // here, it would fence its new leader.
        for failed in led.iter().filter(|partition| partition.is_failed() && !partition.is_fenced())
        {
            // It may have been revoked while another one was reopened: nobody would clear its problem.
            if !self.is_led(failed) {
                continue;
            }
            let number = failed.number();
            let begin = self.clock.elapsed();
            let before = self.restarts.lock().get(&number).cloned();
            // In each round, also while the backoff lasts: the partition is not aggregated until
            // then. The error of the last attempt says why it is not reopened.
            let error = before.as_ref().and_then(|before| before.error.clone());
            self.health.report_problem(
                ProblemKind::Partition,
                &partition_problem_key(number),
                error.unwrap_or_else(|| REOPENING.to_owned()),
            );
            if before.as_ref().is_some_and(|before| begin < before.due) {
                continue;
            }
            metrics::counter!(metrics::PARTITION_RESTARTS_TOTAL).increment(1);
            if let Some(reopened) = self.restart(failed).await {
                let error = reopened.err().map(|error| with_causes(&error));
                let end = self.clock.elapsed();
                let restart = Restart::after(before.as_ref(), begin, end, error);
                self.restarts.lock().insert(number, restart);
            }
        }
    }

    /// Reopens a partition that this process leads. `None` if it was revoked meanwhile.
    async fn restart(&self, failed: &Arc<PartitionReplica>) -> Option<Result<(), BudgetsError>> {
        let number = failed.number();
        // `set_assignment` could open the same partition meanwhile, and one replica would fence the
        // other.
        let _assignment = self.assignment.lock().await;
        let led = self.led.load_full();
        let index = led.iter().position(|known| Arc::ptr_eq(known, failed));
        failed.stop().await;
        let Some(index) = index else {
            // It was revoked before the lock: opening it would fence the process that leads it.
            self.clear_partition(number);
            return None;
        };
        Some(match self.open(number, ReplicaRole::Leader).await {
            Ok(partition) => {
                let mut led = led.to_vec();
                led[index] = Arc::clone(&partition);
                self.led.store(Arc::new(led));
                // A spec that was applied while the partition was opened has configured the one before it only.
                self.update_catalog(&partition);
                // The next tick publishes keyframes.
                self.ticks.store(0, Ordering::Relaxed);
                self.clear_partition(number);
                tracing::info!(partition = number, "reopened a failed partition");
                Ok(())
            }
            Err(error) => {
                self.report_partition(number, &error);
                tracing::error!(
                    partition = number,
                    error = &error as &dyn std::error::Error,
                    "failed to reopen a partition"
                );
                Err(error)
            }
        })
    }

    /// Records of the log that could not be applied, by partition; those that have none are left out.
    /// Reads one small object for each partition.
    ///
    /// # Errors
    /// [`BudgetsError::Quarantine`].
    pub async fn quarantine(&self) -> Result<Vec<(u32, QuarantineList)>, BudgetsError> {
        let mut all = Vec::new();
        for partition in 0..self.partitions() {
            let list = quarantine::load(&*self.objects, partition).await;
            let list = list.map_err(|source| BudgetsError::Quarantine { partition, source })?;
            if list.total > 0 {
                all.push((partition, list));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_follow_each_other_wait_longer() {
        let secs = Duration::from_secs;
        let failed = || Some("damaged".to_owned());
        let attempt = |before: Option<&Restart>, begin, end, error| {
            let restart = Restart::after(before, secs(begin), secs(end), error);
            let backoff = restart.due - secs(end);
            (restart, backoff.as_secs())
        };
        let (first, backoff) = attempt(None, 0, 30, failed());
        assert_eq!(backoff, 1);
        // Also if attempts, or those of other partitions, last much longer than the backoff.
        let (second, backoff) = attempt(Some(&first), 500, 900, failed());
        assert_eq!(backoff, 2);
        let (third, backoff) = attempt(Some(&second), 902, 950, None);
        assert_eq!(backoff, 4);
        // It was reopened: what counts is how long it has worked.
        assert_eq!(attempt(Some(&third), 954 + 59, 1_100, None).1, 8);
        assert_eq!(attempt(Some(&third), 954 + 60, 1_100, None).1, 1);
        let mut last = third;
        for _ in 0..10 {
            last = attempt(Some(&last), 2_000, 3_000, failed()).0;
        }
        assert_eq!(last.due, secs(3_060));
    }
}
