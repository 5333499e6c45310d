//! Snapshots and dictionaries that cannot be served: the node reports them, and queues a refresh of
//! an audience whose snapshot is damaged.

use std::sync::Arc;
use std::time::Duration;

use throng_membership::{MembershipError, MembershipIndex};
use throng_model::{AudienceName, with_causes};
use throng_store::{HistoryEvent, LedgerError, RefreshState, RefreshTrigger, Snapshot};
use throng_telemetry::metrics;

use super::faults::ServingFault;
use super::history;
use super::pool::blocking;
use crate::RefreshContext;

/// Delay before another try to download what the object storage did not return.
pub(super) const UNREACHABLE_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Delay before a damaged file is read again: it may have been restored.
pub(super) const DAMAGED_RETRY_DELAY: Duration = Duration::from_secs(60);

fn key(fault: &ServingFault) -> String {
    match fault {
        ServingFault::Dictionary { shard, .. } => format!("dictionary {shard:02x}"),
        ServingFault::Snapshot { published, .. } => published.audience.to_string(),
    }
}

/// Reports the faults of the newest load, clears those that are resolved, and queues a refresh of
/// each audience whose snapshot is damaged.
pub async fn report_faults(ctx: &Arc<RefreshContext>, faults: &[ServingFault]) {
    metrics::gauge!(metrics::SNAPSHOT_FAULTS).set(faults.len() as f64);
    for fault in faults {
        let (ServingFault::Dictionary { detail, .. } | ServingFault::Snapshot { detail, .. }) =
            fault;
        ctx.observer.report_problem(&key(fault), detail);
    }
    // Compared with the last load: a problem would stay open forever if nobody cleared it.
    let resolved = ctx.faults.replace(faults.iter().map(key).collect());
    for key in &resolved {
        ctx.observer.clear_problem(key);
    }
    for fault in faults {
        // Not one that could not be downloaded: its file may be intact, and the source would be
        // queried for nothing.
        if let ServingFault::Snapshot { published, damaged: true, detail, .. } = fault
            && let Err(error) = queue_rebuild(ctx, published, detail).await
        {
            tracing::error!(
                audience = %published.audience,
                error = &error as &dyn std::error::Error,
                "failed to queue a refresh of a damaged snapshot"
            );
        }
    }
}

/// Checks that the files that are served still exist with the length that they had, and reports
/// those that do not. Lookups stay correct until the node restarts; where a mapped file was
/// truncated, only until a page past its new end is read, which kills the process. So this must be
/// reported before.
pub async fn inspect_files(ctx: &Arc<RefreshContext>) {
    // Not while a reload swaps the index: it evicts the copies of the old one, and they would be
    // reported as missing.
    let _guard = ctx.served_rows.lock().await;
    let index = ctx.membership.load_full();
    let has_copies = ctx.objects.has_copies();
    let Ok(changed) = blocking(move || Ok(changed_files(&index, has_copies))).await else { return };
    for (key, detail) in &changed {
        ctx.observer.report_problem(key, detail);
    }
    let resolved = ctx.changed_files.replace(changed.into_iter().map(|(key, _)| key).collect());
    for key in &resolved {
        ctx.observer.clear_problem(key);
    }
}

/// The key of the problem that the file of an audience has changed on the disk.
pub(super) fn file_problem(audience: &AudienceName) -> String {
    format!("file of {audience}")
}

fn changed_files(index: &MembershipIndex, has_copies: bool) -> Vec<(String, String)> {
    let snapshots =
        index.snapshots().map(|(name, file)| (file_problem(name), file.changed_on_disk()));
    let dictionaries = (0..=u8::MAX).filter_map(|shard| {
        let dictionary = index.dictionary(shard)?;
        Some((format!("files of dictionary {shard:02x}"), dictionary.changed_on_disk()))
    });
    let changed = snapshots.chain(dictionaries).filter_map(|(key, error)| {
        // A local copy that is missing is downloaded when it is needed.
        let error = error
            .filter(|error| !has_copies || matches!(error, MembershipError::Damaged { .. }))?;
        Some((key, with_causes(&error)))
    });
    changed.collect()
}

/// Queues a refresh that replaces a damaged snapshot, if the newest refresh is the one that made
/// it.
///
/// So it happens once: not while another refresh is open, not after one that failed (or a source
/// that cannot be read would be queried forever), and not where a person rolled back to an older
/// version.
async fn queue_rebuild(
    ctx: &Arc<RefreshContext>,
    published: &Snapshot,
    detail: &str,
) -> Result<(), LedgerError> {
    let name: &AudienceName = &published.audience;
    if !ctx.spec.load().audiences.iter().any(|audience| audience.name == *name) {
        return Ok(());
    }
    let row = ctx.ledger.audience(name).await?;
    if row.as_ref().is_some_and(|row| row.stopped().is_some()) {
        return Ok(());
    }
    let newest = row.and_then(|row| row.refresh);
    let is_newest = newest.is_some_and(|refresh| {
        refresh.state == RefreshState::Completed
            && refresh.snapshot_version == Some(published.version)
    });
    if !is_newest {
        return Ok(());
    }
    // Before the history: if that fails, the damaged snapshot is replaced nevertheless.
    // Forced: the source may be as it was when the snapshot was made.
    ctx.ledger.force_refresh(name, RefreshTrigger::Apply, ctx.clock.now()).await?;
    history::record(
        ctx,
        name,
        HistoryEvent::Damaged,
        format!("{detail}; another refresh is queued"),
    )
    .await?;
    ctx.wake.notify_waiters();
    ctx.observer.audiences_changed();
    Ok(())
}
