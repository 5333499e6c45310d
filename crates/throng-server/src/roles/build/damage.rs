//! What is done about snapshots and dictionaries that cannot be served: the node says so, and an
//! audience whose file is damaged is built anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_membership::{MembershipError, MembershipIndex};
use throng_model::{AudienceName, with_causes};
use throng_store::{LedgerError, RefreshState, RefreshTrigger, Snapshot};
use throng_telemetry::metrics;

use super::finish;
use super::membership::{self, Fault};
use super::pool::blocking;
use crate::{Change, NodeContext, ProblemClass};

/// When what could not be fetched is asked for again.
pub(super) const UNREACHABLE_RETRY_DELAY: Duration = Duration::from_secs(5);
/// When a damaged file is looked at again: somebody may have restored it.
pub(super) const DAMAGED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The problems that this process has reported and that are still open.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<BTreeSet<String>>);

impl Reported {
    /// Takes note of the problems that are open now, and returns those that are no longer.
    fn replace(&self, open: BTreeSet<String>) -> Vec<String> {
        let mut reported = self.0.lock();
        let gone = reported.difference(&open).cloned().collect();
        *reported = open;
        gone
    }
}

fn key(fault: &Fault) -> String {
    match fault {
        Fault::Dictionary { shard, .. } => format!("dictionary {shard:02x}"),
        Fault::Snapshot { published, .. } => published.audience.to_string(),
    }
}

/// Reports the faults of the newest load, takes back those that are gone, and queues a refresh of
/// each audience whose snapshot is damaged.
pub(crate) async fn report(ctx: &Arc<NodeContext>, faults: &[Fault]) {
    metrics::gauge!(metrics::SNAPSHOT_FAULTS).set(faults.len() as f64);
    for fault in faults {
        let (Fault::Dictionary { detail, .. } | Fault::Snapshot { detail, .. }) = fault;
        ctx.health.report(ProblemClass::Snapshot, &key(fault), detail.as_str());
    }
    let gone = ctx.faults.replace(faults.iter().map(key).collect());
    for key in &gone {
        ctx.health.clear(ProblemClass::Snapshot, key);
    }
    for fault in faults {
        if let Fault::Snapshot { published, damaged: true, detail, .. } = fault
            && let Err(error) = rebuild(ctx, published, detail).await
        {
            tracing::error!(
                audience = %published.audience,
                error = &error as &dyn std::error::Error,
                "no refresh was queued for a damaged snapshot"
            );
        }
    }
}

/// Looks whether the files that are served are still there with the length that they had, and reports
/// those that are not: what is served is right until the node starts again, or, where a mapped file
/// was shortened, until its end is read.
pub(crate) async fn inspect_files(ctx: &Arc<NodeContext>) {
    // Not while another index takes the place of this one: old copies are removed then.
    let _turn = membership::RELOAD.lock().await;
    let index = ctx.membership.load_full();
    let has_copies = ctx.objects.has_copies();
    let Ok(changed) = blocking(move || Ok(changed_files(&index, has_copies))).await else { return };
    for (key, detail) in &changed {
        ctx.health.report(ProblemClass::Snapshot, key, detail.as_str());
    }
    let gone = ctx.changed_files.replace(changed.into_iter().map(|(key, _)| key).collect());
    for key in &gone {
        ctx.health.clear(ProblemClass::Snapshot, key);
    }
}

fn changed_files(index: &MembershipIndex, has_copies: bool) -> Vec<(String, String)> {
    let snapshots =
        index.snapshots().map(|(name, file)| (format!("file of {name}"), file.changed_on_disk()));
    let dictionaries = (0..=u8::MAX).filter_map(|shard| {
        let dictionary = index.dictionary(shard)?;
        Some((format!("files of dictionary {shard:02x}"), dictionary.changed_on_disk()))
    });
    let changed = snapshots.chain(dictionaries).filter_map(|(key, error)| {
        // A copy that is gone is fetched when it is needed.
        let error = error
            .filter(|error| !has_copies || matches!(error, MembershipError::Damaged { .. }))?;
        Some((key, with_causes(&error)))
    });
    changed.collect()
}

/// Queues a refresh in the place of a damaged snapshot, once: not while one is open, not after one
/// that failed, and not where a person went back to an older version on purpose.
async fn rebuild(
    ctx: &Arc<NodeContext>,
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
    let made_it = newest.is_some_and(|refresh| {
        refresh.state == RefreshState::Completed
            && refresh.snapshot_version == Some(published.version)
    });
    if !made_it {
        return Ok(());
    }
    ctx.ledger.schedule_refresh(name, RefreshTrigger::Apply, ctx.clock.now()).await?;
    finish::record(ctx, name, "damaged", format!("{detail}; another refresh is queued")).await?;
    ctx.wake_build.notify_waiters();
    ctx.changed(Change::Audiences);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_open_is_told_once() {
        let reported = Reported::default();
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        assert!(reported.replace(keys(&["a", "b"])).is_empty());
        assert_eq!(reported.replace(keys(&["b"])), ["a"]);
        assert_eq!(reported.replace(keys(&[])), ["b"]);
        assert!(reported.replace(keys(&[])).is_empty());
    }
}
