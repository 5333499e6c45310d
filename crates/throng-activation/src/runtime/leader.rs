//! What the leader does: records results, plans runs, enqueues due tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use throng_store::LedgerError;
use tokio_util::sync::CancellationToken;

use super::backoff::PlanBackoff;
use super::context::Activation;
use super::delivered_objects::remove_orphans;
use super::emptying;
use super::enqueue::enqueue_due;
use super::errors::EnqueueError;
use super::planned_run::report_plan_failure;
use super::planner;
use super::results::record_ended;
use super::schedule::repeat;

/// Plans runs and enqueues due tasks while this process leads, until `shutdown`.
pub async fn run_leader(ctx: &Activation, shutdown: CancellationToken) {
    let backoff = PlanBackoff::default();
    let orphans_removed = AtomicBool::new(false);
    let planning = repeat(ctx, &shutdown, "failed to plan runs", || async {
        if !ctx.ledger.acquire_leadership().await? {
            return Ok(false);
        }
        if !orphans_removed.swap(true, Ordering::Relaxed)
            && let Err(error) = remove_orphans(ctx).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to remove unreferenced objects");
        }
        plan(ctx, &backoff).await.map_err(EnqueueError::from)
    });
    let is_first_round = AtomicBool::new(true);
    let enqueueing = repeat(ctx, &shutdown, "failed to enqueue tasks", || async {
        if !ctx.ledger.acquire_leadership().await? {
            is_first_round.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        enqueue_due(ctx, is_first_round.swap(false, Ordering::Relaxed)).await
    });
    tokio::join!(planning, enqueueing);
}

/// One round of planning. Returns whether anything was recorded.
///
/// Results are recorded first: a run is planned from the delivered state, and the state lacks the rows of runs whose
/// results are not recorded.
async fn plan(ctx: &Activation, backoff: &PlanBackoff) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let (mut changed, failed) = record_ended(ctx, |sync| backoff.is_waiting(sync, now)).await?;
    for (sync, error) in failed {
        backoff.record(&sync, false, now);
        changed |= report_plan_failure(ctx, &sync, &error.into(), now).await?;
    }
    changed |= emptying::advance(ctx, backoff).await?;
    let index = ctx.node.membership();
    let served = index.snapshots().map(|(name, it)| (name.clone(), it.meta().version)).collect();
    drop(index);
    for run in ctx.ledger.discard_outdated_runs(&served, now).await? {
        changed = true;
        if let Some(plan) = run.plan {
            // One that remains is removed when the next process leads.
            let _ = ctx.objects.remove(&plan).await;
        }
    }
    changed |= planner::plan_all(ctx, backoff).await?;
    Ok(changed)
}
