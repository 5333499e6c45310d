//! Snapshots that runs are planned and sent from.

use std::sync::Arc;

use throng_membership::{MemberSet, MembershipIndex, SnapshotFile};
use throng_model::{AudienceName, SHARD_COUNT, SyncMode};
use throng_store::{LedgerError, RunState, SyncRun};

use super::context::Activation;
use super::errors::InputError;
use crate::RunUsers;

/// The newest runs of a sync that are read to find out what the platform's list may contain.
pub(super) const MAX_RUNS: u32 = 1_000;

/// The versions that may be on the platform in part, besides the delivered one: the targets of runs that failed
/// since then, by `runs` (newest first). A run without a completed batch counts as well: a batch may have arrived
/// without its response. Ended runs do not change, so the result for a run is always the same.
pub(super) fn failed_versions(runs: &[SyncRun]) -> Vec<u64> {
    let mut versions: Vec<u64> = runs
        .iter()
        .take_while(|run| run.state != RunState::Completed)
        .filter(|run| run.state == RunState::Failed)
        .map(|run| run.to_version)
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// Opens a snapshot; `None` if it is no longer kept.
pub(super) async fn snapshot(
    ctx: &Activation,
    audience: &AudienceName,
    version: u64,
) -> Result<Option<Arc<SnapshotFile>>, InputError> {
    let row = match ctx.ledger.snapshot(audience, version).await {
        Ok(row) => row,
        Err(LedgerError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(ctx.node.open_snapshot(&row).await?.map(Arc::new))
}

/// Computes the users of a run from snapshots; see [`RunUsers::compute`].
pub(super) async fn compute_run_users(
    ctx: &Activation,
    audience: &AudienceName,
    mode: SyncMode,
    target: Arc<SnapshotFile>,
    delivered: Option<u64>,
    failed: &[u64],
) -> Result<Option<RunUsers>, InputError> {
    let mut files = Vec::new();
    let mut has_delivered = false;
    for version in delivered.iter().chain(failed) {
        if let Some(file) = snapshot(ctx, audience, *version).await? {
            has_delivered |= delivered == Some(*version);
            files.push(file);
        }
    }
    let computed = tokio::task::spawn_blocking(move || {
        let mut sets: Vec<MemberSet> = files.iter().map(|f| MemberSet::of_snapshot(f)).collect();
        if !has_delivered {
            // No version was delivered completely, so no user is on the platform for certain.
            sets.push(MemberSet::default());
        }
        RunUsers::compute(mode, &MemberSet::of_snapshot(&target), &sets)
    });
    Ok(computed.await.ok())
}

/// Whether the index has every ordinal of the snapshot.
pub(super) fn covers(index: &MembershipIndex, snapshot: &SnapshotFile) -> bool {
    (0..SHARD_COUNT)
        .zip(&snapshot.meta().dictionary_len)
        .all(|(shard, needs)| index.dictionary(shard as u8).map_or(0, |d| d.len()) >= *needs)
}

#[cfg(test)]
mod tests {
    use throng_model::{SyncRunId, Timestamp};

    use super::*;

    fn run(id: i64, to_version: u64, state: RunState, sent: u64) -> SyncRun {
        SyncRun {
            id: SyncRunId(id),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: Some(1),
            to_version,
            state,
            adds: 10,
            removes: 0,
            read: 10,
            sent,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: 10 - sent,
            created_at: Timestamp(0),
            finished_at: None,
            reason: None,
            normalised: Default::default(),
            plan: None,
            users_removed: 0,
        }
    }

    #[test]
    fn failed_runs_after_the_delivered_one_may_have_been_delivered() {
        let runs = [
            run(5, 4, RunState::Failed, 3),
            run(4, 3, RunState::Failed, 10),
            run(3, 2, RunState::Completed, 10),
            run(2, 9, RunState::Failed, 10),
        ];
        assert_eq!(failed_versions(&runs), [3, 4]);
        assert_eq!(failed_versions(&[]), Vec::<u64>::new());
    }
}
