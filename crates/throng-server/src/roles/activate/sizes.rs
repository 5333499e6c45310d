//! Reads the sizes of audiences on platforms: for the check of a delivery, and periodically afterwards, because
//! platforms show changes late.

use std::time::Duration;

use throng_activation::{PlatformSize, Quotas, SendClass, SendError, SizePoint, delivered_after};
use throng_model::{DestinationName, SyncName};
use throng_store::{Batch, LedgerError, SizeRecord, SizeRetention, SyncRun};
use tokio_util::sync::CancellationToken;

use super::checker;
use super::delivered::account_of;
use super::task_input::{Destinations, declared};
use crate::{Change, NodeContext};

/// The interval in which the size of an audience is read.
const READ_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// Older sizes are removed.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// A size that was read sooner after the one before it gives way to the next one, so that the kept sizes of a sync
/// that is delivered every few minutes reach back over the lag of its platform too.
const MIN_INTERVAL: Duration = Duration::from_secs(2 * 3_600);
/// Sizes of a sync that are kept and evaluated.
pub(crate) const MAX_KEPT_SIZES: u32 = 400;
/// The maximum number of sizes that are read in one round.
const MAX_READS_PER_ROUND: usize = 50;
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The size of a sync's audience as its platform reports it.
pub(super) struct SizeReading {
    account: String,
    platform_id: String,
    /// The platform shows people: see `Limits`.
    shows_people: bool,
    /// The size.
    pub(super) size: PlatformSize,
}

/// Reads the size of a sync's audience. The inner error is the reason why it cannot be read.
pub(super) async fn read(
    ctx: &NodeContext,
    destinations: &Destinations,
    sync: &SyncName,
) -> Result<Result<SizeReading, SendError>, LedgerError> {
    let opened = declared(ctx, sync).await?.and_then(|(_, destination)| {
        let open = destinations.open(&destination, &*ctx.env)?;
        Ok((account_of(&destination), open))
    });
    let (account, destination) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let Some(audience) = ctx.ledger.platform_audience(sync).await? else {
        let message = "the sync has no recorded audience on the platform";
        return Ok(Err(SendError::local(SendClass::Stop, message)));
    };
    let platform_id = audience.platform_id;
    let size = destination.size(&platform_id).await;
    let shows_people = destination.limits().shows_people;
    Ok(size.map(|size| SizeReading { account, platform_id, shows_people, size }))
}

/// Records a size with the number of users delivered after a run with these batches. Returns all sizes of the
/// audience, this one last; none of a platform that does not show people.
pub(super) async fn record(
    ctx: &NodeContext,
    run: &SyncRun,
    batches: &[Batch],
    reading: &SizeReading,
) -> Result<Vec<SizePoint>, LedgerError> {
    if !reading.shows_people {
        return Ok(Vec::new());
    }
    let records = ctx.ledger.delivered_records().await?;
    let delivered = match records.into_iter().find(|record| record.sync == run.sync) {
        Some(record) if record.run >= run.id => record.users,
        // The leader has not recorded the result of the run yet.
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
    let since = now.minus(RETENTION);
    let retention = SizeRetention { since, rows: MAX_KEPT_SIZES, min_interval: MIN_INTERVAL };
    ctx.ledger.put_size(&size, retention).await?;
    let sizes = ctx.ledger.sizes(&run.sync, MAX_KEPT_SIZES).await?;
    Ok(size_series(&sizes, &reading.platform_id))
}

/// The sizes of one audience as a series.
pub(crate) fn size_series(sizes: &[SizeRecord], platform_id: &str) -> Vec<SizePoint> {
    let of_audience = sizes.iter().filter(|size| size.platform_id == platform_id);
    let point = |size: &SizeRecord| SizePoint {
        at: size.at,
        delivered: size.delivered,
        lower: size.lower,
        upper: size.upper,
        settling: size.settling,
    };
    of_audience.map(point).collect()
}

/// Reads sizes that are due, until `shutdown`.
pub(super) async fn run(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    shutdown: &CancellationToken,
) {
    loop {
        let polled = async {
            tokio::time::sleep(ctx.poll_delay(POLL_INTERVAL)).await;
            round(ctx, quotas, destinations).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = polled => result,
        };
        match result {
            Ok(true) => ctx.publish_change(Change::Activation),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "failed to read sizes of audiences");
            }
        }
    }
}

/// Reads sizes that are due, longest overdue first. Returns whether anything was recorded.
async fn round(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
) -> Result<bool, LedgerError> {
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
        changed |= checker::recheck(ctx, quotas, destinations, &sync, &destination).await?;
    }
    Ok(changed)
}

/// The destination of a sync of the applied spec.
fn destination_of(ctx: &NodeContext, sync: &SyncName) -> Option<DestinationName> {
    let spec = ctx.spec.load();
    let declared = spec.syncs.iter().find(|declared| declared.name == *sync);
    declared.map(|declared| declared.destination.clone())
}
