//! The role's heartbeat: closes windows, feeds gates, writes checkpoints, tells history and pages.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::days::{Days, StoredDays};
use crate::{Change, NodeContext};

/// Checkpoints are this far apart on the node's clock, so that a replay is short.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// And at least this far apart on the machine's, when the node's clock runs fast.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Budget days go into the ledger this often.
const DAYS_EVERY: Duration = Duration::from_secs(60);
/// A tick is never shorter than this on the machine's clock.
const SHORTEST_TICK: Duration = Duration::from_millis(5);

/// Until `shutdown`: closes windows, feeds gates, writes checkpoints, tells history and pages.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    // Neither a bucket that is slow to take a checkpoint nor a ledger that does not answer holds a
    // frame up.
    let mut loops = tokio::task::JoinSet::new();
    let with = || (Arc::clone(&ctx), shutdown.clone());
    let ((a, stop_a), (b, stop_b), (c, stop_c)) = (with(), with(), with());
    loops.spawn(async move { tell(&a, &stop_a).await });
    loops.spawn(async move { watch_doors(&b, &stop_b).await });
    loops.spawn(async move { keep(&c, &stop_c).await });
    while loops.join_next().await.is_some() {}
    store_days(&ctx, &mut StoredDays::default()).await;
}

/// Waits for the time of a frame. `false` if the node stops.
async fn tick(ctx: &NodeContext, shutdown: &CancellationToken) -> bool {
    let interval = Duration::from_millis(u64::from(ctx.spec.load().node.feed_interval_ms));
    let wait = ctx.clock.wall_duration(interval).max(SHORTEST_TICK);
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

async fn tell(ctx: &NodeContext, shutdown: &CancellationToken) {
    while tick(ctx, shutdown).await {
        if ctx.budgets.tick(&ctx.gate).await {
            ctx.changed(Change::Budgets);
        }
    }
}

async fn watch_doors(ctx: &NodeContext, shutdown: &CancellationToken) {
    while tick(ctx, shutdown).await {
        record_doors(ctx).await;
    }
}

/// Checkpoints, budget days, and answers to whoever stood in for this process.
async fn keep(ctx: &NodeContext, shutdown: &CancellationToken) {
    // By a timer that nobody sets: a clock that is set back must not put checkpoints off.
    let mut checkpoint_at = ctx.clock.elapsed() + CHECKPOINT_EVERY;
    let mut days_at = ctx.clock.elapsed();
    let mut stored = StoredDays::default();
    let mut pause = tokio::time::interval(CHECKPOINT_PAUSE);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = pause.tick() => {}
        }
        ctx.budgets.answer().await;
        ctx.budgets.restart_failed().await;
        ctx.budgets.probe_refusing().await;
        let now = ctx.clock.elapsed();
        if now >= checkpoint_at {
            checkpoint_at = now + CHECKPOINT_EVERY;
            if let Err(error) = ctx.budgets.checkpoint().await {
                ctx.note_storage("checkpoints", &error);
                tracing::error!(error = &error as &dyn std::error::Error, "no checkpoint");
            }
        }
        if now >= days_at {
            days_at = now + DAYS_EVERY;
            store_days(ctx, &mut stored).await;
        }
    }
}

/// Ad groups that opened or closed since the last look go into the history.
async fn record_doors(ctx: &NodeContext) {
    let entries = ctx.budgets.doors();
    if entries.is_empty() {
        return;
    }
    if let Err(error) = ctx.ledger.record(&entries).await {
        tracing::error!(error = &error as &dyn std::error::Error, "history not recorded");
    }
}

async fn store_days(ctx: &NodeContext, stored: &mut StoredDays) {
    let Days { today, past } = ctx.budgets.days(stored);
    if today.is_empty() && past.is_empty() {
        return;
    }
    let written = match ctx.ledger.put_budget_days(&today).await {
        Ok(()) => ctx.ledger.put_past_budget_days(&past).await,
        failed => failed,
    };
    if let Err(error) = written {
        stored.clear();
        tracing::error!(error = &error as &dyn std::error::Error, "budget days not stored");
    }
}
