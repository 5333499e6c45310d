//! Reads the sizes of audiences on platforms periodically after the check of a delivery, because platforms show changes
//! late.

use std::time::Duration;

use throng_model::{DestinationName, SyncName};
use throng_store::LedgerError;
use tokio_util::sync::CancellationToken;

use super::checker::recheck;
use super::context::Activation;
use crate::Quotas;

/// The interval in which the size of an audience is read.
const READ_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// The maximum number of sizes that are read in one round.
const MAX_READS_PER_ROUND: usize = 50;
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Reads sizes that are due, until `shutdown`.
pub(super) async fn run(ctx: &Activation, quotas: &Quotas, shutdown: &CancellationToken) {
    loop {
        let polled = async {
            tokio::time::sleep(ctx.node.poll_delay(POLL_INTERVAL)).await;
            round(ctx, quotas).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = polled => result,
        };
        match result {
            Ok(true) => ctx.node.publish_change(),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "failed to read sizes of audiences");
            }
        }
    }
}

/// Reads sizes that are due, longest overdue first. Returns whether anything was recorded.
async fn round(ctx: &Activation, quotas: &Quotas) -> Result<bool, LedgerError> {
    let before = ctx.clock.now().minus(READ_INTERVAL);
    let (mut changed, mut read) = (false, 0);
    for sync in ctx.ledger.sizes_due(before).await? {
        if read >= MAX_READS_PER_ROUND {
            break;
        }
        let now = ctx.clock.now();
        let destination = destination_of(ctx, &sync);
        let busy = destination.as_ref().is_some_and(|name| !quotas.wait(name, now).is_zero());
        if busy || !ctx.ledger.claim_size(&sync, before, now).await? {
            continue;
        }
        // The audience of a removed sync is no longer updated.
        let Some(destination) = destination else { continue };
        read += 1;
        changed |= recheck(ctx, quotas, &sync, &destination).await?;
    }
    Ok(changed)
}

/// The destination of a sync of the applied spec.
fn destination_of(ctx: &Activation, sync: &SyncName) -> Option<DestinationName> {
    let spec = ctx.node.spec();
    let declared = spec.syncs.iter().find(|declared| declared.name == *sync);
    declared.map(|declared| declared.destination.clone())
}
