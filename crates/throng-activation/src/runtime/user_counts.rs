//! How many of the delivered users a run removes, for runs that replace the whole list or start from an unknown one.

use std::sync::Arc;

use throng_membership::{MemberSet, SnapshotFile};
use throng_model::{AudienceName, SyncMode};
use throng_store::{DeliveredRecord, SyncRun};

use super::context::Activation;
use super::delivered_objects::delivered;
use super::errors::{DeliveredError, InputError};
use super::snapshots::snapshot;
use crate::{Delivered, DifferenceFacts, Scan, UserCounts, count_users};

/// What was delivered for a sync whose list is replaced. `None` if no state is recorded, or if it cannot be opened: the
/// run may be the one that was requested because of that.
pub(super) async fn open(
    ctx: &Activation,
    record: &DeliveredRecord,
    keys: &[String],
    runs: &[SyncRun],
) -> Option<Delivered> {
    record.state.as_ref()?;
    match delivered(ctx, Some(record), &record.account, keys, runs).await {
        Ok(delivered) => Some(delivered),
        Err(error) => {
            warn_uncounted(&error);
            None
        }
    }
}

/// Counts the users of a delivered state; `None` without a state, or if it cannot be read. Returns the target too.
pub(super) async fn of_state(
    delivered: Option<Delivered>,
    target: MemberSet,
    scan: &Arc<Scan>,
    keys: &[String],
) -> Result<(Option<UserCounts>, MemberSet), DeliveredError> {
    let Some(delivered) = delivered else { return Ok((None, target)) };
    let (scan, keys) = (Arc::clone(scan), keys.to_vec());
    let counting = tokio::task::spawn_blocking(move || {
        let counted = count_users(&DifferenceFacts {
            delivered: &delivered,
            target: &target,
            scan: &scan,
            mode: SyncMode::Replace,
            replace: true,
            keys: &keys,
            strong: &[],
            identifiers: "",
            adopts: None,
        });
        (counted, target)
    });
    let (counted, target) = counting.await.map_err(|_| DeliveredError::Interrupted)?;
    let counted = counted.inspect_err(|error| warn_uncounted(error)).ok();
    Ok((counted.map(|(before, removed)| UserCounts { before, removed }), target))
}

fn warn_uncounted(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "failed to count delivered users");
}

/// Counts the users of a snapshot; `None` if it is no longer kept.
pub(super) async fn of_snapshots(
    ctx: &Activation,
    audience: &AudienceName,
    version: u64,
    target: &Arc<SnapshotFile>,
) -> Result<Option<UserCounts>, InputError> {
    let Some(old) = snapshot(ctx, audience, version).await? else { return Ok(None) };
    let target = Arc::clone(target);
    let counting = tokio::task::spawn_blocking(move || {
        let old = MemberSet::of_snapshot(&old);
        let removed = old.minus(&MemberSet::of_snapshot(&target)).len();
        UserCounts { before: old.len(), removed }
    });
    Ok(Some(counting.await.map_err(|_| DeliveredError::Interrupted)?))
}
