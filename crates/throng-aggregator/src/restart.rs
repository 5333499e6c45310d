//! Partitions that failed are reopened from their checkpoints, and problems of partitions are reported to
//! the node's health.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use throng_model::{Clock as _, with_causes};
use throng_telemetry::metrics;

use super::quarantine::{self, QuarantineList};
use super::replica::{PartitionReplica, ReplicaRole};
use super::{Budgets, BudgetsError, ProblemKind};

/// Between two attempts to reopen a partition: doubled with each one, up to the maximum.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// When a partition is reopened, by [`throng_model::Clock::elapsed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restart {
    due: Duration,
    backoff: Duration,
}

impl Restart {
    /// The next attempt: the backoff starts from the minimum if the partition has not failed for some time.
    fn after(before: Option<Self>, now: Duration) -> Self {
        match before {
            // It has failed again soon, most likely for the same reason. Each attempt reads the
            // checkpoint and replays the log: without a longer pause it would take the time of the
            // other partitions.
            Some(before) if now < before.due + before.backoff => {
                let backoff = (before.backoff * 2).min(MAX_BACKOFF);
                Self { due: before.due.max(now) + backoff, backoff }
            }
            _ => Self { due: now + MIN_BACKOFF, backoff: MIN_BACKOFF },
        }
    }
}

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
            let number = failed.number();
            let now = self.clock.elapsed();
            // In each round, also while the backoff lasts: the partition is not aggregated until
            // then.
            self.health.report_problem(
                ProblemKind::Partition,
                &partition_problem_key(number),
                "its task failed; it is being reopened from its checkpoint".to_owned(),
            );
            {
                let mut restarts = self.restarts.lock();
                let before = restarts.get(&number).copied();
                if before.is_some_and(|restart| now < restart.due) {
                    continue;
                }
                restarts.insert(number, Restart::after(before, now));
            }
            metrics::counter!(metrics::PARTITION_RESTARTS_TOTAL).increment(1);
            self.restart(failed).await;
        }
    }

    async fn restart(&self, failed: &Arc<PartitionReplica>) {
        let number = failed.number();
        // `set_assignment` could open the same partition meanwhile, and one replica would fence the
        // other.
        let _assignment = self.assignment.lock().await;
        // It may have been assigned to another process before the lock: opening it would fence that process.
        if !self.led.load().iter().any(|known| Arc::ptr_eq(known, failed)) {
            return failed.stop().await;
        }
        failed.stop().await;
        match self.open(number, ReplicaRole::Leader).await {
            Ok(partition) => {
                let mut led: Vec<Arc<PartitionReplica>> =
                    self.led.load().iter().map(Arc::clone).collect();
                // It may have been assigned to another process meanwhile.
                let index = led.iter().position(|known| Arc::ptr_eq(known, failed));
                let Some(index) = index else { return partition.stop().await };
                led[index] = Arc::clone(&partition);
                self.led.store(Arc::new(led));
                // A spec that was applied while the partition was opened has configured the one before it only.
                self.update_catalog(&partition);
                // The next tick publishes keyframes.
                self.ticks.store(0, Ordering::Relaxed);
                self.clear_partition(number);
                tracing::info!(partition = number, "reopened a failed partition");
            }
            Err(error) => {
                self.report_partition(number, &error);
                tracing::error!(
                    partition = number,
                    error = &error as &dyn std::error::Error,
                    "failed to reopen a partition"
                );
            }
        }
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
