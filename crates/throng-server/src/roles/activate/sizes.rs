//! Reads the sizes of audiences on platforms: for the check of a delivery, and again every few hours, as
//! platforms show changes late.

use std::time::Duration;

use throng_activation::{PlatformSize, Quotas, SendClass, SendError, SizePoint, delivered_after};
use throng_model::{DestinationName, SyncName};
use throng_store::{Batch, LedgerError, SizeRecord, SizeRetention, SyncRun};
use tokio_util::sync::CancellationToken;

use super::checker;
use super::delivered::account_of;
use super::jobs::{Destinations, declared};
use crate::{Change, NodeContext};

/// A size is read again after this.
const READ_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// Sizes of a longer time are not kept.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Sizes of a sync that are kept and looked at.
pub(crate) const KEEP_ROWS: u32 = 400;
/// Sizes that are read in one round.
const AT_ONCE: usize = 50;
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// What a platform says about the audience of a sync.
pub(super) struct Reading {
    account: String,
    platform_id: String,
    /// The size.
    pub(super) size: PlatformSize,
}

/// Reads the size of a sync's audience. The inner error says why it cannot be had.
pub(super) async fn read(
    ctx: &NodeContext,
    destinations: &Destinations,
    sync: &SyncName,
) -> Result<Result<Reading, SendError>, LedgerError> {
    let opened = declared(ctx, sync).await?.and_then(|(_, destination)| {
        let open = destinations.open(&destination, &*ctx.env)?;
        Ok((account_of(&destination), open))
    });
    let (account, destination) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let Some(audience) = ctx.ledger.platform_audience(sync).await? else {
        let message = "the platform's audience was never recorded";
        return Ok(Err(SendError::local(SendClass::Stop, message)));
    };
    let platform_id = audience.platform_id;
    let size = destination.size(&platform_id).await;
    Ok(size.map(|size| Reading { account, platform_id, size }))
}

/// Records a size with what is delivered after a run with these batches. All sizes of the audience, this one
/// last.
pub(super) async fn record(
    ctx: &NodeContext,
    run: &SyncRun,
    batches: &[Batch],
    reading: &Reading,
) -> Result<Vec<SizePoint>, LedgerError> {
    let records = ctx.ledger.delivered_records().await?;
    let delivered = match records.into_iter().find(|record| record.sync == run.sync) {
        Some(record) if record.run >= run.id => record.users,
        // The result of the run is recorded by whoever plans.
        record => delivered_after(record.map_or(0, |record| record.users), batches),
    };
    let now = ctx.clock.now();
    let size = SizeRecord {
        sync: run.sync.clone(),
        account: reading.account.clone(),
        platform_id: reading.platform_id.clone(),
        at: now,
        lower: reading.size.lower,
        upper: reading.size.upper,
        delivered,
        settling: reading.size.settling,
    };
    let keep = SizeRetention { since: now.minus(KEEP), rows: KEEP_ROWS };
    ctx.ledger.put_size(&size, keep).await?;
    let sizes = ctx.ledger.sizes(&run.sync, KEEP_ROWS).await?;
    Ok(points(&sizes, &reading.platform_id))
}

/// The sizes of one audience as a series.
pub(crate) fn points(sizes: &[SizeRecord], platform_id: &str) -> Vec<SizePoint> {
    let of = sizes.iter().filter(|size| size.platform_id == platform_id);
    let point = |size: &SizeRecord| SizePoint {
        at: size.at,
        delivered: size.delivered,
        lower: size.lower,
        upper: size.upper,
        settling: size.settling,
    };
    of.map(point).collect()
}

/// Reads sizes that are due, until `shutdown`.
pub(super) async fn work(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    shutdown: &CancellationToken,
) {
    loop {
        let polled = async {
            tokio::time::sleep(ctx.pause(POLL_INTERVAL)).await;
            round(ctx, quotas, destinations).await
        };
        let worked = tokio::select! {
            () = shutdown.cancelled() => return,
            worked = polled => worked,
        };
        match worked {
            Ok(true) => ctx.changed(Change::Activation),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the ledger failed while sizes were read");
            }
        }
    }
}

/// Reads sizes that are due, the longest waiting first. Whether anything was recorded.
async fn round(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
) -> Result<bool, LedgerError> {
    let before = ctx.clock.now().minus(READ_INTERVAL);
    let (mut changed, mut read) = (false, 0);
    for sync in ctx.ledger.sizes_due(before).await? {
        if read >= AT_ONCE {
            break;
        }
        let now = ctx.clock.now();
        let destination = destination_of(ctx, &sync);
        let busy = destination.as_ref().is_some_and(|name| !quotas.wait(name, now).is_zero());
        if busy || !ctx.ledger.claim_size(&sync, before, now).await? {
            continue;
        }
        // Nobody keeps the audience of a removed sync equal.
        let Some(destination) = destination else { continue };
        read += 1;
        changed |= checker::repeat(ctx, quotas, destinations, &sync, &destination).await?;
    }
    Ok(changed)
}

/// The destination of a sync of the applied spec.
fn destination_of(ctx: &NodeContext, sync: &SyncName) -> Option<DestinationName> {
    let spec = ctx.spec.load();
    let declared = spec.syncs.iter().find(|declared| declared.name == *sync);
    declared.map(|declared| declared.destination.clone())
}
