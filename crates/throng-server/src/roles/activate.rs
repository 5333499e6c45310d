//! Activation: plans a run when an audience has a version that its sync has not delivered, works
//! on tasks, and checks what was done. All three look at the ledger on a signal and on a timer,
//! and do the same either way.

mod checker;
mod identifiers;
mod jobs;
mod planner;

use std::sync::Arc;
use std::time::Duration;

use throng_activation::{Quotas, TaskEnd, Worker, WorkerOptions};
use throng_ledger::LedgerError;
use throng_model::Clock;
use tokio_util::sync::CancellationToken;

use crate::{Change, NodeContext};

use jobs::Destinations;

/// How often to look without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// However fast the clock runs, the machine is not kept busy by looking.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// After the ledger has failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Runs until `shutdown`. Tasks in hand are given back and go on with their next batch elsewhere.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let quotas = Arc::new(Quotas::default());
    let destinations = Arc::new(Destinations::default());
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
        let destinations = Arc::clone(&destinations);
        parts.spawn(async move { work(&ctx, &worker, &destinations, &shutdown).await });
    }
    {
        let (ctx, shutdown) = (Arc::clone(&ctx), shutdown.clone());
        parts.spawn(async move {
            repeat(&ctx, &shutdown, "plan runs", || planner::plan_all(&ctx)).await;
        });
    }
    {
        let (ctx, shutdown) = (Arc::clone(&ctx), shutdown.clone());
        parts.spawn(async move {
            let check = || checker::check_all(&ctx, &quotas, &destinations);
            repeat(&ctx, &shutdown, "check tasks", check).await;
        });
    }
    while parts.join_next().await.is_some() {}
}

fn wall(clock: &dyn Clock, duration: Duration) -> Duration {
    clock.wall_duration(duration).max(LOOK_AT_MOST_EVERY)
}

/// Waits for a signal or the timer. `false` at shutdown.
async fn wait(ctx: &NodeContext, shutdown: &CancellationToken, at_most: Duration) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = ctx.wake_activate.notified() => true,
        () = tokio::time::sleep(wall(&*ctx.clock, at_most)) => true,
    }
}

/// Does `round` again and again. A round says whether it changed anything.
async fn repeat<F, R>(ctx: &NodeContext, shutdown: &CancellationToken, what: &str, round: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<bool, LedgerError>>,
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

async fn work(
    ctx: &Arc<NodeContext>,
    worker: &Worker,
    destinations: &Destinations,
    shutdown: &CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let pause = match work_once(ctx, worker, destinations, shutdown).await {
            Ok(true) => {
                ctx.changed(Change::Activation);
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
        if !wait(ctx, shutdown, pause).await {
            return;
        }
    }
}

/// Claims a task and works on it. `false` if none is due.
async fn work_once(
    ctx: &Arc<NodeContext>,
    worker: &Worker,
    destinations: &Destinations,
    shutdown: &CancellationToken,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let avoid = worker.quotas.avoid(now, |name| destinations.max_tasks(name));
    let until = now.plus(worker.options.lease);
    let Some(task) = ctx.ledger.claim_task(&worker.holder, &avoid, now, until).await? else {
        return Ok(false);
    };
    ctx.changed(Change::Activation);
    worker.quotas.enter(&task.destination);
    let worked = async {
        let job = jobs::job_for(ctx, destinations, &task).await?;
        worker.work(&task, job.as_ref().map_err(Clone::clone)).await
    };
    let ended = tokio::select! {
        ended = worked => ended,
        () = shutdown.cancelled() => {
            let released =
                ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
            released.map(|()| TaskEnd::Later)
        }
    };
    worker.quotas.leave(&task.destination);
    match ended {
        Ok(_) | Err(LedgerError::LeaseLost { .. }) => Ok(true),
        Err(error) => {
            // Given back at once, instead of when the lease runs out.
            let _ = ctx.ledger.release_task(task.id, &worker.holder, ctx.clock.now()).await;
            Err(error)
        }
    }
}
