//! The loops of the role: frames, status transitions, checkpoints and budget days.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::AggregatorDeps;
use super::budget_days::{DayRows, WrittenDays};

/// Time between checkpoints on the node's clock: short, so that a replay is short.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the maintenance loop runs, on the machine's clock. With a node's clock that runs fast, this is
/// also the shortest time between checkpoints.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How often budget days are written to the ledger.
const BUDGET_DAYS_INTERVAL: Duration = Duration::from_secs(60);
/// A tick is never shorter than this on the machine's clock.
const MIN_TICK: Duration = Duration::from_millis(5);

/// Until `shutdown`: closes windows, publishes frames, records status transitions, and writes checkpoints
/// and budget days.
pub async fn run(deps: AggregatorDeps, shutdown: CancellationToken) {
    // Separate loops: neither a bucket that is slow to store a checkpoint nor a ledger that does not
    // answer delays a frame.
    let mut loops = tokio::task::JoinSet::new();
    let with = || (deps.clone(), shutdown.clone());
    let ((a, stop_a), (b, stop_b), (c, stop_c)) = (with(), with(), with());
    loops.spawn(async move { publish_loop(&a, &stop_a).await });
    loops.spawn(async move { record_transitions_loop(&b, &stop_b).await });
    loops.spawn(async move { maintenance_loop(&c, &stop_c).await });
    while loops.join_next().await.is_some() {}
    // The last spend before the stop; otherwise the ledger would have it only after the next start.
    write_budget_days(&deps, &mut WrittenDays::default()).await;
}

/// Waits for the time of a frame. `false` if the node stops.
async fn next_tick(deps: &AggregatorDeps, shutdown: &CancellationToken) -> bool {
    let wait = deps.clock.wall_duration(deps.host.feed_interval()).max(MIN_TICK);
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

async fn publish_loop(deps: &AggregatorDeps, shutdown: &CancellationToken) {
    while next_tick(deps, shutdown).await {
        deps.budgets.tick().await;
    }
}

async fn record_transitions_loop(deps: &AggregatorDeps, shutdown: &CancellationToken) {
    while next_tick(deps, shutdown).await {
        record_transitions(deps).await;
    }
}

/// Checkpoints, budget days, failed and superseded partitions.
async fn maintenance_loop(deps: &AggregatorDeps, shutdown: &CancellationToken) {
    // By the monotonic timer: a clock that is set back must not delay checkpoints.
    let mut checkpoint_at = deps.clock.elapsed() + CHECKPOINT_INTERVAL;
    let mut days_at = deps.clock.elapsed();
    let mut written = WrittenDays::default();
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // Before the checkpoints: a partition that has failed has none to write until it is open
        // again.
        deps.budgets.reclaim_superseded().await;
        deps.budgets.restart_failed().await;
        deps.budgets.recheck_clock();
        let now = deps.clock.elapsed();
        if now >= checkpoint_at {
            // From now and not from the time that was due: after a slow round, several checkpoints
            // would follow each other.
            checkpoint_at = now + CHECKPOINT_INTERVAL;
            if let Err(error) = deps.budgets.checkpoint().await {
                deps.host.report_storage_error("checkpoints", &error);
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to write a checkpoint"
                );
            }
        }
        if now >= days_at || deps.budgets.has_removed_days() {
            days_at = now + BUDGET_DAYS_INTERVAL;
            write_budget_days(deps, &mut written).await;
        }
    }
}

/// Records ad groups that opened or closed since the last call in the history.
async fn record_transitions(deps: &AggregatorDeps) {
    let entries = deps.budgets.status_transitions();
    if entries.is_empty() {
        return;
    }
    if let Err(error) = deps.ledger.record_history(&entries).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "failed to record status transitions"
        );
    }
}

async fn write_budget_days(deps: &AggregatorDeps, written: &mut WrittenDays) {
    let DayRows { today, earlier } = deps.budgets.budget_days(written);
    if today.is_empty() && earlier.is_empty() {
        return;
    }
    let result = match deps.ledger.put_budget_days(&today).await {
        Ok(()) => deps.ledger.put_past_budget_days(&earlier).await,
        failed => failed,
    };
    if let Err(error) = result {
        // They were noted as written before the write: without this the ledger would not get them
        // again.
        written.clear();
        tracing::error!(error = &error as &dyn std::error::Error, "failed to write budget days");
    }
}
