//! Opening the budgets of a node.

use std::sync::Arc;
use std::time::Duration;

use throng_aggregator::{APPLY_TIMEOUT, Budgets, BudgetsDeps};
use throng_apply::WrittenSpec;
use throng_backends::Backends;
use throng_log::Retention;
use throng_model::{AdGroupIndex, AdGroupName};

use crate::Health;

use super::{NodeConfig, NodeError};

/// The version of the spec that a process joined, with the feed's numbers of its ad groups.
pub(super) type Joined = Option<(u64, Vec<(AdGroupName, AdGroupIndex)>)>;

/// Applies the spec, and opens the budgets under it. A node with a log of its own restores the
/// budgets under the previous spec before it applies the new one: a replayed event must get the
/// price that it had when it was accepted, not the new one. Where nodes share a log, other nodes
/// may already aggregate it, so only the partition's owner restores, from its checkpoint.
pub(super) async fn open(
    config: &NodeConfig,
    joined: Joined,
    backends: &Backends,
    health: &Arc<Health>,
) -> Result<(Budgets, Option<WrittenSpec>), NodeError> {
    let (spec, clock, ledger) = (&config.spec, &config.clock, &*backends.ledger);
    let parts = parts(config, backends, health);
    let all: Vec<u32> = (0..parts.log.partitions()).collect();
    // Not read again: a spec that was applied since then must be seen as a newer one.
    if let Some((version, indexes)) = joined {
        return Ok((Budgets::new(parts, spec, &indexes, version), None));
    }
    if spec.node.is_shared() {
        let applied = throng_apply::store(ledger, spec, clock.now()).await?;
        let budgets = Budgets::new(parts, spec, &applied.indexes, applied.version);
        return Ok((budgets, Some(applied)));
    }
    let Some(before) = throng_apply::load_previous(ledger).await? else {
        let applied = throng_apply::store(ledger, spec, clock.now()).await?;
        let budgets = Budgets::new(parts, spec, &applied.indexes, applied.version);
        budgets.set_assignment(&all).await?;
        return Ok((budgets, Some(applied)));
    };
    let budgets = Budgets::new(parts, &before.spec, &before.indexes, before.version);
    budgets.set_assignment(&all).await?;
    budgets.checkpoint().await?;
    let applied = throng_apply::store(ledger, spec, clock.now()).await?;
    budgets.apply_spec(spec, &applied.indexes, applied.version);
    if applied.version != before.version {
        // The checkpoint records since when the new prices count: the next start restores under
        // this spec, and without the checkpoint it would replay older events at the new prices.
        budgets.checkpoint().await?;
    }
    Ok((budgets, Some(applied)))
}

fn parts(config: &NodeConfig, backends: &Backends, health: &Arc<Health>) -> BudgetsDeps {
    let settings = &config.spec.node;
    let request_timeout = Duration::from_secs(u64::from(settings.request_timeout_secs));
    BudgetsDeps {
        objects: Arc::clone(&backends.objects),
        log: Arc::clone(&backends.log),
        feed: Arc::clone(&backends.feed),
        clock: Arc::clone(&config.clock),
        retention: Retention {
            bytes: settings.log_retention.bytes,
            age: Duration::from_secs(u64::from(settings.log_retention.hours) * 3_600),
        },
        accept_log_loss: config.accept_log_loss.clone(),
        dedupe_window: Duration::from_secs(u64::from(settings.dedupe_hours) * 3_600),
        // Both shorter than the timeout of a request, whose answer would not say whether events are in the log.
        append_timeout: request_timeout * 2 / 3,
        apply_timeout: APPLY_TIMEOUT.min(request_timeout / 2),
        health: Arc::<Health>::clone(health),
        newest_spec: Some(Arc::new(Arc::clone(&backends.ledger))),
    }
}
