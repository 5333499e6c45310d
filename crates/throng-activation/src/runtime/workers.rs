//! The workers of a process: they take task messages, claim and execute the tasks, and check and clean up afterwards.

use std::sync::Arc;

use throng_model::{POLL_INTERVAL, RETRY_DELAY, TaskId, Timestamp};
use throng_store::{LedgerError, Task, TaskState};
use throng_telemetry::{metrics, spans};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::context::Activation;
use super::prefetch::PrefetchBuffer;
use super::task_input::task_input;
use super::task_message::dead_letter;
use super::{checker, deletions, resumed_accounts, size_poller};
use crate::{Quotas, TaskOutcome, Worker, WorkerOptions};

/// Sends and checks tasks until `shutdown`. Running tasks are released then, and another process continues them with
/// their next batch.
pub async fn run_workers(ctx: Arc<Activation>, shutdown: CancellationToken) {
    let quotas = Arc::new(Quotas::default());
    let queues = ctx.queues.clone();
    let prefetch = Arc::new(PrefetchBuffer::new(queues.tasks, queues.dead_letters));
    let mut subtasks = JoinSet::new();
    for number in 0..ctx.node.spec().node.activation_workers.max(1) {
        let worker = Worker {
            ledger: Arc::clone(&ctx.ledger),
            clock: Arc::clone(&ctx.clock),
            seed: ctx.seed,
            quotas: Arc::clone(&quotas),
            // Leases are identified by their holder, so each worker needs its own name.
            holder: format!("{}/activate-{number}", ctx.holder),
            options: WorkerOptions::default(),
        };
        let (ctx, prefetch, shutdown) = (Arc::clone(&ctx), Arc::clone(&prefetch), shutdown.clone());
        subtasks.spawn(async move {
            ActivationWorker { ctx, worker, prefetch, shutdown }.run().await;
        });
    }
    {
        let shutdown = shutdown.clone();
        subtasks.spawn(async move { fill(&prefetch, &shutdown).await });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        subtasks.spawn(async move { resumed_accounts::run(&ctx, &quotas, &shutdown).await });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        subtasks.spawn(async move { deletions::run(&ctx, &quotas, &shutdown).await });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        subtasks.spawn(async move { size_poller::run(&ctx, &quotas, &shutdown).await });
    }
    subtasks.spawn(async move { checker::run_checks(&ctx, &quotas, &shutdown).await });
    while subtasks.join_next().await.is_some() {}
}

/// Fills the prefetch buffer until `shutdown`.
async fn fill(prefetch: &PrefetchBuffer, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let Err(error) = tokio::select! {
            () = shutdown.cancelled() => return,
            filled = prefetch.fill() => filled,
        };
        tracing::error!(error = &error as &dyn std::error::Error, "failed to read task queue");
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// A worker of this process: takes tasks from the prefetch buffer, claims and executes them.
struct ActivationWorker {
    ctx: Arc<Activation>,
    worker: Worker,
    prefetch: Arc<PrefetchBuffer>,
    shutdown: CancellationToken,
}

impl ActivationWorker {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.work_once().await {
                Ok(true) => {
                    self.ctx.node.publish_change();
                    // The leader plans and enqueues what follows this task.
                    self.ctx.node.wake().notify_waiters();
                    continue;
                }
                Ok(false) => POLL_INTERVAL,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "failed to work on task"
                    );
                    RETRY_DELAY
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.prefetch.wait_for_task() => {}
                () = tokio::time::sleep(self.ctx.node.poll_delay(pause)) => {}
            }
        }
    }

    /// Takes a task from the buffer, claims it and works on it. `false` if there is no eligible task.
    ///
    /// The message is acknowledged only after the claim: if the process dies before, the queue redelivers it; if it dies
    /// afterwards, the lease expires and the leader enqueues the task again.
    async fn work_once(&self) -> Result<bool, LedgerError> {
        let (ctx, worker) = (&self.ctx, &self.worker);
        let now = ctx.clock.now();
        let unavailable = worker.quotas.unavailable(now, |name| ctx.destinations.max_tasks(name));
        let Some(reserved) = self.prefetch.next(&unavailable, now) else { return Ok(false) };
        let at_most = ctx.destinations.max_tasks(&reserved.task_message.destination);
        let until = now.plus(worker.options.lease);
        let id = reserved.task_message.task;
        let claimed = ctx.ledger.claim_task(id, &worker.holder, at_most, now, until).await;
        let task = match claimed {
            Ok(Some(task)) => task,
            Ok(None) => {
                if self.is_due(id, now).await? {
                    // Other processes run the maximum number of tasks of the account.
                    self.prefetch.postpone(reserved, now.plus(POLL_INTERVAL)).await;
                } else {
                    self.prefetch.done(&reserved).await;
                }
                return Ok(true);
            }
            Err(error) => {
                self.prefetch.postpone(reserved, now.plus(RETRY_DELAY)).await;
                return Err(error);
            }
        };
        self.prefetch.done(&reserved).await;
        ctx.node.publish_change();
        let run = spans::sync_run(Some(task.run), &task.sync, &task.audience);
        let span = run.in_scope(|| spans::task(task.id, &task.destination));
        self.work(&task).instrument(span).await.map(|()| true)
    }

    async fn is_due(&self, id: TaskId, now: Timestamp) -> Result<bool, LedgerError> {
        match self.ctx.ledger.task(id).await {
            // Tasks of a paused sync are enqueued when it is resumed.
            Ok(task) => Ok(task.state == TaskState::Queued
                && task.not_before <= now
                && !self.ctx.ledger.is_sync_paused(&task.sync).await?),
            // A message of another deployment, or an invalid one.
            Err(LedgerError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn work(&self, task: &Task) -> Result<(), LedgerError> {
        let (ctx, worker) = (&self.ctx, &self.worker);
        worker.quotas.task_started(&task.destination);
        let work = async {
            let input = match task_input(ctx, task).await {
                Ok(input) => Ok(input),
                Err(error) => Err(error.into_send_error()?),
            };
            worker.work(task, input.as_ref().map_err(Clone::clone)).await
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = self.shutdown.cancelled() => {
                let released =
                    ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
                released.map(|()| TaskOutcome::Rescheduled)
            }
        };
        worker.quotas.task_ended(&task.destination);
        self.count_metrics(task, &ended).await;
        match ended {
            Ok(TaskOutcome::Failed) => self.write_dead_letter(task).await,
            Ok(_) | Err(LedgerError::LeaseLost { .. }) => Ok(()),
            Err(error) => {
                // Released at once, so that others need not wait until the lease expires.
                let _ = ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
                Err(error)
            }
        }
    }

    /// Updates the metrics of runs and batches.
    async fn count_metrics(&self, task: &Task, ended: &Result<TaskOutcome, LedgerError>) {
        let outcome = match ended {
            Ok(TaskOutcome::Completed) => Some("completed"),
            Ok(TaskOutcome::Failed) => Some("failed"),
            _ => None,
        };
        if let Some(outcome) = outcome {
            metrics::counter!(metrics::SYNC_RUNS_TOTAL, "outcome" => outcome).increment(1);
        }
        if let Ok(now) = self.ctx.ledger.task(task.id).await {
            let finished = now.batches_done.saturating_sub(task.batches_done);
            metrics::counter!(metrics::BATCHES_TOTAL).increment(u64::from(finished));
        }
    }

    /// Writes a dead letter if there is a dead-letter topic. The ledger has the task and an alert anyway.
    async fn write_dead_letter(&self, task: &Task) -> Result<(), LedgerError> {
        let Some(dead_letters) = &self.ctx.queues.dead_letters else { return Ok(()) };
        let task = self.ctx.ledger.task(task.id).await?;
        let reason = task.last_error.clone().unwrap_or_default();
        if let Err(error) = dead_letters.put(vec![dead_letter(&task, &reason)]).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                task = %task.id,
                "failed to write dead letter"
            );
        }
        Ok(())
    }
}
