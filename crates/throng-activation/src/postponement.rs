//! A task whose account has used its quota of calls: it waits, and other accounts get the worker.

use std::time::Duration;

use throng_store::{LedgerError, Task};

use crate::{SendError, TaskOutcome, Worker};

/// A task is taken from the queue so much before there is quota: a worker may look for tasks a little later.
const START_EARLY: Duration = Duration::from_secs(10);
/// The shortest wait: a task that is due at once would be claimed and postponed without a pause until there is quota.
const MIN_WAIT: Duration = Duration::from_secs(1);

impl Worker {
    /// Returns a task to the queue until its account has quota again. It does not count as a failure.
    pub(crate) async fn postpone(
        &self,
        task: &Task,
        error: &SendError,
        wait: Duration,
    ) -> Result<TaskOutcome, LedgerError> {
        let now = self.clock.now();
        let wait = wait.saturating_sub(START_EARLY).max(MIN_WAIT);
        self.quotas.postpone_tasks(&task.destination, wait, now);
        let (retry_at, counts) = (Some(now.plus(wait)), false);
        let postponed = self
            .ledger
            .fail_task(task.id, &self.holder, &error.message, retry_at, counts, now)
            .await;
        match postponed {
            Ok(_) => Ok(TaskOutcome::Rescheduled),
            Err(LedgerError::LeaseLost { .. }) => Ok(TaskOutcome::LeaseLost),
            Err(error) => Err(error),
        }
    }
}
