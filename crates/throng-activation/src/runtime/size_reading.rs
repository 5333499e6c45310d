//! Sizes of audiences as platforms report them: how they are read and recorded.

use std::time::Duration;

use throng_model::SyncName;
use throng_store::{Batch, LedgerError, SizeRecord, SizeRetention, SyncRun};

use super::context::Activation;
use super::errors::InputError;
use super::removal::declared;
use crate::{
    PlatformSize, RemovalCount, SendClass, SendError, SizeLimits, SizePoint, delivered_after,
    removed_until,
};

/// Older sizes are removed.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// A size that was read sooner after the one before it is replaced by the next one, so that the kept sizes of a sync
/// that is delivered every few minutes reach back over the lag of its platform too.
const MIN_INTERVAL: Duration = Duration::from_secs(2 * 3_600);
/// Sizes of a sync that are kept and evaluated.
pub const MAX_KEPT_SIZES: u32 = 400;
/// Runs since the newest size whose removals are counted. A size is read after every run.
const MAX_COUNTED_RUNS: u32 = 200;

/// The size of a sync's audience as its platform reports it.
pub(super) struct SizeReading {
    account: String,
    platform_id: String,
    /// What the platform documents about its sizes: see `DestinationLimits`.
    pub(super) size_limits: Option<SizeLimits>,
    /// The size.
    pub(super) size: PlatformSize,
}

/// Reads the size of a sync's audience.
pub(super) async fn read(ctx: &Activation, sync: &SyncName) -> Result<SizeReading, InputError> {
    let (_, declared) = declared(ctx, sync).await?;
    let destination = ctx.destinations.open(&declared)?;
    let audience = ctx.ledger.platform_audience(sync).await?.ok_or_else(|| {
        let message = "the sync has no recorded audience on the platform";
        SendError::local(SendClass::Stop, message)
    })?;
    let platform_id = audience.platform_id;
    let size = destination.size(&platform_id).await?;
    let size_limits = destination.limits().sizes;
    Ok(SizeReading { account: declared.account(), platform_id, size_limits, size })
}

/// Records a size with the number of users delivered after a run with these batches. Returns all sizes of the
/// audience, this one last; none of a platform that does not show people.
pub(super) async fn record(
    ctx: &Activation,
    run: &SyncRun,
    batches: &[Batch],
    reading: &SizeReading,
) -> Result<Vec<SizePoint>, LedgerError> {
    if reading.size_limits.is_none() {
        return Ok(Vec::new());
    }
    let delivered = match ctx.ledger.delivered_record(&run.sync).await? {
        Some(record) if record.run >= run.id => record.users,
        // The leader has not recorded the result of the run yet.
        record => delivered_after(record.map_or(0, |record| record.users), batches),
    };
    let now = ctx.clock.now();
    let removed = removed(ctx, run, &reading.platform_id).await?;
    let size = SizeRecord {
        sync: run.sync.clone(),
        account: reading.account.clone(),
        platform_id: reading.platform_id.clone(),
        at: now,
        lower: reading.size.lower,
        upper: reading.size.upper,
        delivered,
        settling: reading.size.settling,
        removed: Some(removed.users),
        removed_run: removed.run,
    };
    let since = now.minus(RETENTION);
    let retention = SizeRetention { since, rows: MAX_KEPT_SIZES, min_interval: MIN_INTERVAL };
    ctx.ledger.put_size(&size, retention).await?;
    let sizes = ctx.ledger.sizes(&run.sync, MAX_KEPT_SIZES).await?;
    Ok(size_series(&sizes, &reading.platform_id))
}

/// Users whom runs have removed from an audience until now.
async fn removed(
    ctx: &Activation,
    run: &SyncRun,
    platform_id: &str,
) -> Result<RemovalCount, LedgerError> {
    let sizes = ctx.ledger.sizes(&run.sync, MAX_KEPT_SIZES).await?;
    let runs = ctx.ledger.runs(Some(&run.sync), MAX_COUNTED_RUNS).await?;
    Ok(removed_until(&sizes, platform_id, &runs))
}

/// The sizes of one audience as a series.
pub fn size_series(sizes: &[SizeRecord], platform_id: &str) -> Vec<SizePoint> {
    let of_audience = sizes.iter().filter(|size| size.platform_id == platform_id);
    let point = |size: &SizeRecord| SizePoint {
        at: size.at,
        delivered: size.delivered,
        lower: size.lower,
        upper: size.upper,
        settling: size.settling,
        removed: size.removed,
    };
    of_audience.map(point).collect()
}
