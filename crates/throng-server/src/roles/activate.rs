//! Activation. The leader plans a run when an audience has a version that its sync has not delivered, and puts due
//! tasks on a queue; any number of workers execute and check them. Queue messages are only hints: the state of a
//! task is its row in the ledger.

mod checker;
mod deletions;
mod delivered;
mod enqueue;
mod hashing;
mod identifiers;
mod planner;
mod prefetch;
mod removals;
mod resumed_accounts;
mod scans;
mod sizes;
mod task_input;
mod task_message;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use throng_activation::{Quotas, TaskOutcome, Worker, WorkerOptions};
use throng_model::{TaskId, Timestamp};
use throng_store::{LedgerError, Task, TaskState};
use throng_telemetry::{metrics, spans};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{Change, NodeContext};

pub(crate) use checker::{account_alert_subject, failed_checks_reason};
pub(crate) use delivered::request_run;
pub(crate) use enqueue::{EnqueueError, enqueue_due_tasks};
pub use hashing::query_worker;
pub(crate) use sizes::{MAX_KEPT_SIZES, size_series};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use task_message::is_readable as is_readable_message;

use prefetch::PrefetchBuffer;
use task_input::Destinations;

/// How often to poll without a signal.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The delay after an error of the ledger.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Sends and checks tasks until `shutdown`. Running tasks are released then, and another process continues them with
/// their next batch.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let quotas = Arc::new(Quotas::default());
    let destinations = Arc::new(Destinations::default());
    let prefetch = Arc::new(PrefetchBuffer::new(
        Arc::clone(&ctx.queues.tasks),
        ctx.queues.dead_letters.clone(),
    ));
    let workers = ctx.spec.load().node.activation_workers.max(1);
    let mut subtasks = tokio::task::JoinSet::new();
    for number in 0..workers {
        let worker = Worker {
            ledger: Arc::clone(&ctx.ledger),
            clock: Arc::clone(&ctx.clock),
            seed: ctx.seed,
            quotas: Arc::clone(&quotas),
            // Leases are identified by their holder, so each worker needs its own name.
            holder: format!("{}/activate-{number}", ctx.holder),
            options: WorkerOptions::default(),
        };
        let (ctx, shutdown) = (Arc::clone(&ctx), shutdown.clone());
        let (destinations, prefetch) = (Arc::clone(&destinations), Arc::clone(&prefetch));
        subtasks.spawn(async move {
            ActivationWorker { ctx, worker, destinations, prefetch, shutdown }.run().await;
        });
    }
    {
        let shutdown = shutdown.clone();
        subtasks.spawn(async move {
            while !shutdown.is_cancelled() {
                let Err(error) = tokio::select! {
                    () = shutdown.cancelled() => return,
                    filled = prefetch.fill() => filled,
                };
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to read task queue"
                );
                tokio::time::sleep(RETRY_DELAY).await;
            }
        });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        subtasks.spawn(async move { resumed_accounts::run(&ctx, &quotas, &shutdown).await });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        let destinations = Arc::clone(&destinations);
        subtasks.spawn(async move {
            deletions::run(&ctx, &quotas, &destinations, &shutdown).await;
        });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        let destinations = Arc::clone(&destinations);
        subtasks.spawn(async move { sizes::run(&ctx, &quotas, &destinations, &shutdown).await });
    }
    subtasks
        .spawn(async move { checker::run_checks(&ctx, &quotas, &destinations, &shutdown).await });
    while subtasks.join_next().await.is_some() {}
}

/// Plans runs and enqueues due tasks while this process leads.
pub async fn run_leader(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let backoff = planner::PlanBackoff::default();
    let orphans_removed = AtomicBool::new(false);
    let planning = repeat(&ctx, &shutdown, "failed to plan runs", || async {
        if !ctx.ledger.acquire_leadership().await? {
            return Ok(false);
        }
        if !orphans_removed.swap(true, Ordering::Relaxed)
            && let Err(error) = delivered::remove_orphans(&ctx).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to remove unreferenced objects");
        }
        planner::plan_all(&ctx, &backoff).await.map_err(EnqueueError::from)
    });
    let is_first_round = AtomicBool::new(true);
    let enqueueing = repeat(&ctx, &shutdown, "failed to enqueue tasks", || async {
        if !ctx.ledger.acquire_leadership().await? {
            is_first_round.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        enqueue::enqueue_due(&ctx, is_first_round.swap(false, Ordering::Relaxed)).await
    });
    tokio::join!(planning, enqueueing);
}

/// Waits for a signal or the timer. `false` at shutdown.
async fn wait(ctx: &NodeContext, shutdown: &CancellationToken, at_most: Duration) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = ctx.wake_activate.notified() => true,
        () = tokio::time::sleep(ctx.poll_delay(at_most)) => true,
    }
}

/// Repeats `round` until `shutdown`. A round returns whether it changed anything. `failure` is the log message of an
/// error.
async fn repeat<F, R>(
    ctx: &NodeContext,
    shutdown: &CancellationToken,
    failure: &'static str,
    round: F,
) where
    F: Fn() -> R,
    R: Future<Output = Result<bool, EnqueueError>>,
{
    loop {
        let pause = tokio::select! {
            () = shutdown.cancelled() => return,
            done = round() => match done {
                Ok(changed) => {
                    if changed {
                        ctx.publish_change(Change::Activation);
                        ctx.wake_activate.notify_waiters();
                    }
                    POLL_INTERVAL
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "{failure}");
                    RETRY_DELAY
                }
            },
        };
        if !wait(ctx, shutdown, pause).await {
            return;
        }
    }
}

/// A worker of this process: takes tasks from the prefetch buffer, claims and executes them.
struct ActivationWorker {
    ctx: Arc<NodeContext>,
    worker: Worker,
    destinations: Arc<Destinations>,
    prefetch: Arc<PrefetchBuffer>,
    shutdown: CancellationToken,
}

impl ActivationWorker {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.work_once().await {
                Ok(true) => {
                    self.ctx.publish_change(Change::Activation);
                    // The leader plans and enqueues what follows this task.
                    self.ctx.wake_activate.notify_waiters();
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
                () = tokio::time::sleep(self.ctx.poll_delay(pause)) => {}
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
        let unavailable = worker.quotas.unavailable(now, |name| self.destinations.max_tasks(name));
        let Some(reserved) = self.prefetch.next(&unavailable, now) else { return Ok(false) };
        let at_most = self.destinations.max_tasks(&reserved.task_message.destination);
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
        ctx.publish_change(Change::Activation);
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
            let input = task_input::task_input(ctx, &self.destinations, task).await?;
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
        let Some(dead) = &self.ctx.queues.dead_letters else { return Ok(()) };
        let task = self.ctx.ledger.task(task.id).await?;
        let reason = task.last_error.clone().unwrap_or_default();
        if let Err(error) = dead.put(vec![task_message::dead_letter(&task, &reason)]).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                task = %task.id,
                "failed to write dead letter"
            );
        }
        Ok(())
    }
}
