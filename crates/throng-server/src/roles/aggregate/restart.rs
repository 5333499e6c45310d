//! Partitions that failed are opened anew from their checkpoints, and what is wrong with a partition is
//! reported to the health of the node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use throng_model::{Clock as _, with_causes};
use throng_telemetry::metrics;

use super::partition::{Partition, Standing};
use super::quarantine::{self, QuarantineList};
use super::{Budgets, BudgetsError};
use crate::ProblemClass;

/// Between two tries to open a partition anew, doubled up to the longer one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When a partition is opened anew, by the timer of [`throng_model::Clock::elapsed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restart {
    due: Duration,
    pause: Duration,
}

impl Restart {
    /// At once, if it has not failed for some time.
    fn after(before: Option<Self>, now: Duration) -> Self {
        match before {
            Some(before) if now < before.due + before.pause => {
                let pause = (before.pause * 2).min(LONGEST_PAUSE);
                Self { due: before.due.max(now) + pause, pause }
            }
            _ => Self { due: now + FIRST_PAUSE, pause: FIRST_PAUSE },
        }
    }
}

fn partition_key(partition: u32) -> String {
    partition.to_string()
}

fn checkpoint_key(partition: u32) -> String {
    format!("checkpoint/{partition}")
}

impl Budgets {
    pub(super) fn report_partition(&self, partition: u32, error: &BudgetsError) {
        let key = partition_key(partition);
        self.health.report(ProblemClass::Partition, &key, with_causes(error));
    }

    pub(super) fn clear_partition(&self, partition: u32) {
        self.health.clear(ProblemClass::Partition, &partition_key(partition));
    }

    /// Tells the health of the node whether checkpoints are written.
    pub(super) fn note_checkpoint(&self, partition: u32, error: Option<&BudgetsError>) {
        let key = checkpoint_key(partition);
        match error {
            // Reported as a partition's problem, or by its next owner.
            Some(BudgetsError::Unavailable { .. }) => {}
            Some(error) => {
                let class = match (error.is_of_disk(), error) {
                    (true, _) => ProblemClass::Disk,
                    (false, BudgetsError::LogBehind { .. }) => ProblemClass::Partition,
                    (false, BudgetsError::Log(_)) => ProblemClass::Log,
                    (false, _) => ProblemClass::Objects,
                };
                self.health.report(class, &key, with_causes(error));
            }
            None => {
                for class in [
                    ProblemClass::Disk,
                    ProblemClass::Partition,
                    ProblemClass::Log,
                    ProblemClass::Objects,
                ] {
                    self.health.clear(class, &key);
                }
            }
        }
    }

    /// Opens partitions anew whose tasks have failed, each from its checkpoint and the log; after a while
    /// again if that does not work.
    pub(super) async fn restart_failed(&self) {
        let own = self.own.load_full();
        for failed in own.iter().filter(|partition| partition.is_failed() && !partition.is_fenced())
        {
            let number = failed.number();
            let now = self.clock.elapsed();
            self.health.report(
                ProblemClass::Partition,
                &partition_key(number),
                "its task failed; it is opened anew from its checkpoint",
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

    async fn restart(&self, failed: &Arc<Partition>) {
        let number = failed.number();
        let _opening = self.opening.lock().await;
        failed.stop().await;
        match self.open(number, Standing::Owner).await {
            Ok(partition) => {
                let mut own: Vec<Arc<Partition>> = self.own.load().iter().map(Arc::clone).collect();
                // Another process may have been given it meanwhile.
                let place = own.iter().position(|known| Arc::ptr_eq(known, failed));
                let Some(place) = place else { return partition.stop().await };
                own[place] = partition;
                self.own.store(Arc::new(own));
                // The next tick is a keyframe for everybody.
                self.ticks.store(0, Ordering::Relaxed);
                self.clear_partition(number);
                tracing::info!(partition = number, "the partition works again");
            }
            Err(error) => {
                self.report_partition(number, &error);
                tracing::error!(
                    partition = number,
                    error = &error as &dyn std::error::Error,
                    "the partition cannot be opened anew; it is tried again"
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
