//! Activation. Whoever leads plans a run when an audience has a version that its sync has not
//! delivered, and puts tasks that are due on a queue; any number of workers take them, and check
//! what was done. The queue only says where to look: what counts stands in the ledger.

mod announce;
mod checker;
mod deletions;
mod delivered;
mod desk;
mod hashing;
mod identifiers;
mod jobs;
mod notice;
mod planner;
mod removals;
mod rests;
mod scans;
mod sizes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use throng_activation::{Quotas, TaskEnd, Worker, WorkerOptions};
use throng_model::{TaskId, Timestamp};
use throng_store::{LedgerError, Task, TaskState};
use throng_telemetry::{metrics, spans};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{Change, NodeContext};

pub(crate) use announce::{AnnounceError, tasks_since};
pub(crate) use checker::{account, failed_checks};
pub(crate) use delivered::ask;
pub use hashing::query_worker;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use notice::is_readable as is_readable_message;
pub(crate) use sizes::{KEEP_ROWS, points};

use desk::Desk;
use jobs::Destinations;

/// How often to look without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After the ledger has failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Sends and checks until `shutdown`. Tasks in hand are given back then, and go on with their next
/// batch elsewhere.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let quotas = Arc::new(Quotas::default());
    let destinations = Arc::new(Destinations::default());
    let desk = Arc::new(Desk::new(Arc::clone(&ctx.queues.tasks), ctx.queues.dead.clone()));
    let workers = ctx.spec.load().node.activation_workers.max(1);
    let mut parts = tokio::task::JoinSet::new();
    for number in 0..workers {
        let worker = Worker {
            ledger: Arc::clone(&ctx.ledger),
            clock: Arc::clone(&ctx.clock),
            seed: ctx.seed,
            quotas: Arc::clone(&quotas),
            // Leases are told apart by their holder, so each worker is one.
            holder: format!("{}/activate-{number}", ctx.holder),
            options: WorkerOptions::default(),
        };
        let (ctx, shutdown) = (Arc::clone(&ctx), shutdown.clone());
        let (destinations, desk) = (Arc::clone(&destinations), Arc::clone(&desk));
        parts.spawn(async move {
            Bench { ctx, worker, destinations, desk, shutdown }.run().await;
        });
    }
    {
        let shutdown = shutdown.clone();
        parts.spawn(async move {
            while !shutdown.is_cancelled() {
                let Err(error) = tokio::select! {
                    () = shutdown.cancelled() => return,
                    filled = desk.fill() => filled,
                };
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no tasks from the queue"
                );
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        parts.spawn(async move { rests::work(&ctx, &quotas, &shutdown).await });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        let destinations = Arc::clone(&destinations);
        parts.spawn(async move {
            deletions::work(&ctx, &quotas, &destinations, &shutdown).await;
        });
    }
    {
        let (ctx, quotas, shutdown) = (Arc::clone(&ctx), Arc::clone(&quotas), shutdown.clone());
        let destinations = Arc::clone(&destinations);
        parts.spawn(async move { sizes::work(&ctx, &quotas, &destinations, &shutdown).await });
    }
    parts.spawn(async move { checker::work(&ctx, &quotas, &destinations, &shutdown).await });
    while parts.join_next().await.is_some() {}
}

/// Plans runs and puts what is due on the queues, while this process leads.
pub async fn lead(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let planner = planner::Planner::default();
    let tidied = AtomicBool::new(false);
    let planning = repeat(&ctx, &shutdown, "plan runs", || async {
        if !ctx.ledger.lead().await? {
            return Ok(false);
        }
        if !tidied.swap(true, Ordering::Relaxed)
            && let Err(error) = delivered::remove_orphans(&ctx).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "objects that nothing names were not removed");
        }
        planner::plan_all(&ctx, &planner).await.map_err(AnnounceError::from)
    });
    let first = AtomicBool::new(true);
    let announcing = repeat(&ctx, &shutdown, "put tasks on the queue", || async {
        if !ctx.ledger.lead().await? {
            first.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        announce::round(&ctx, first.swap(false, Ordering::Relaxed)).await
    });
    tokio::join!(planning, announcing);
}

/// Waits for a signal or the timer. `false` at shutdown.
async fn wait(ctx: &NodeContext, shutdown: &CancellationToken, at_most: Duration) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = ctx.wake_activate.notified() => true,
        () = tokio::time::sleep(ctx.pause(at_most)) => true,
    }
}

/// Does `round` again and again. A round says whether it changed anything.
async fn repeat<F, R>(ctx: &NodeContext, shutdown: &CancellationToken, what: &str, round: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<bool, AnnounceError>>,
{
    loop {
        let pause = tokio::select! {
            () = shutdown.cancelled() => return,
            done = round() => match done {
                Ok(changed) => {
                    if changed {
                        ctx.changed(Change::Activation);
                        ctx.wake_activate.notify_waiters();
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot {what}");
                    AFTER_TROUBLE
                }
            },
        };
        if !wait(ctx, shutdown, pause).await {
            return;
        }
    }
}

/// A worker at its desk.
struct Bench {
    ctx: Arc<NodeContext>,
    worker: Worker,
    destinations: Arc<Destinations>,
    desk: Arc<Desk>,
    shutdown: CancellationToken,
}

impl Bench {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.work_once().await {
                Ok(true) => {
                    self.ctx.changed(Change::Activation);
                    // What comes after this task is planned and announced by whoever leads.
                    self.ctx.wake_activate.notify_waiters();
                    continue;
                }
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the ledger failed an activation worker"
                    );
                    AFTER_TROUBLE
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.desk.arrival() => {}
                () = tokio::time::sleep(self.ctx.pause(pause)) => {}
            }
        }
    }

    /// Takes a paper, claims its task and works on it. `false` if there is none to work on.
    async fn work_once(&self) -> Result<bool, LedgerError> {
        let (ctx, worker) = (&self.ctx, &self.worker);
        let now = ctx.clock.now();
        let avoid = worker.quotas.avoid(now, |name| self.destinations.max_tasks(name));
        let Some(paper) = self.desk.next(&avoid, now) else { return Ok(false) };
        let at_most = self.destinations.max_tasks(&paper.notice.destination);
        let until = now.plus(worker.options.lease);
        let id = paper.notice.task;
        let claimed = ctx.ledger.claim_this_task(id, &worker.holder, at_most, now, until).await;
        let task = match claimed {
            Ok(Some(task)) => task,
            Ok(None) => {
                if self.is_due(id, now).await? {
                    // Its account is busy elsewhere.
                    self.desk.put_back(paper, now.plus(LOOK_EVERY)).await;
                } else {
                    self.desk.done(&paper).await;
                }
                return Ok(true);
            }
            Err(error) => {
                self.desk.put_back(paper, now.plus(AFTER_TROUBLE)).await;
                return Err(error);
            }
        };
        // From here on the lease brings it back if this process dies.
        self.desk.done(&paper).await;
        ctx.changed(Change::Activation);
        let run = spans::sync_run(Some(task.run), &task.sync, &task.audience);
        let span = run.in_scope(|| spans::task(task.id, &task.destination));
        self.work(&task).instrument(span).await.map(|()| true)
    }

    async fn is_due(&self, id: TaskId, now: Timestamp) -> Result<bool, LedgerError> {
        match self.ctx.ledger.task(id).await {
            // Those of a paused sync are announced when it is resumed.
            Ok(task) => Ok(task.state == TaskState::Queued
                && task.not_before <= now
                && !self.ctx.ledger.is_sync_paused(&task.sync).await?),
            // Of another ledger, or a jest.
            Err(LedgerError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn work(&self, task: &Task) -> Result<(), LedgerError> {
        let (ctx, worker) = (&self.ctx, &self.worker);
        worker.quotas.enter(&task.destination);
        let worked = async {
            let job = jobs::job_for(ctx, &self.destinations, task).await?;
            worker.work(task, job.as_ref().map_err(Clone::clone)).await
        };
        let ended = tokio::select! {
            ended = worked => ended,
            () = self.shutdown.cancelled() => {
                let released =
                    ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
                released.map(|()| TaskEnd::Later)
            }
        };
        worker.quotas.leave(&task.destination);
        self.count(task, &ended).await;
        match ended {
            Ok(TaskEnd::Failed) => self.put_aside(task).await,
            Ok(_) | Err(LedgerError::LeaseLost { .. }) => Ok(()),
            Err(error) => {
                // Given back at once, instead of when the lease runs out.
                let _ = ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
                Err(error)
            }
        }
    }

    /// Counts what was finished, for metrics.
    async fn count(&self, task: &Task, ended: &Result<TaskEnd, LedgerError>) {
        let outcome = match ended {
            Ok(TaskEnd::Done) => Some("completed"),
            Ok(TaskEnd::Failed) => Some("failed"),
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

    /// Tells the dead-letter topic, where there is one. The ledger has the task and an alert.
    async fn put_aside(&self, task: &Task) -> Result<(), LedgerError> {
        let Some(dead) = &self.ctx.queues.dead else { return Ok(()) };
        let task = self.ctx.ledger.task(task.id).await?;
        let reason = task.last_error.clone().unwrap_or_default();
        if let Err(error) = dead.put(vec![notice::dead_letter(&task, &reason)]).await {
            tracing::error!(error = &error as &dyn std::error::Error, task = %task.id, "no dead letter");
        }
        Ok(())
    }
}
