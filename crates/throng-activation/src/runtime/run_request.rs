//! Runs that a person requests.

use throng_model::{SyncName, SyncRunId, Timestamp};
use throng_store::{DeliveredRecord, Ledger, LedgerError, RunState, SyncRun};

/// Attempts to request a run while the leader records results.
const ATTEMPTS: u32 = 5;

/// What a requested run sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunScope {
    /// What differs from the delivered state.
    Difference,
    /// The whole list, in a replace session.
    Full,
    /// The whole list; the delivered state is discarded as well.
    FullWithoutRecord,
}

/// Requests a run of a sync: the planner compares the audience with the delivered state again, also after a failed run.
/// One run is planned for a request. If it fails, no further one is planned without another request.
///
/// # Errors
/// `WrongState` if the sync is paused, if it has an open run, or if no delivery is recorded yet: then the planner
/// plans a run without a request.
pub async fn request_run(
    ledger: &dyn Ledger,
    now: Timestamp,
    sync: &SyncName,
    scope: RunScope,
) -> Result<(), LedgerError> {
    if ledger.is_sync_paused(sync).await? {
        return Err(wrong(sync, "paused"));
    }
    for _ in 0..ATTEMPTS {
        if try_request(ledger, now, sync, scope).await? {
            return Ok(());
        }
    }
    Err(wrong(sync, "being recorded: try again"))
}

fn wrong(sync: &SyncName, state: &str) -> LedgerError {
    LedgerError::WrongState {
        what: "sync",
        name: sync.to_string(),
        state: state.to_owned(),
        wanted: "run",
    }
}

/// Requests a run. `false` if the leader has changed the delivered state meanwhile: the state that was read names objects
/// that are removed by now.
async fn try_request(
    ledger: &dyn Ledger,
    now: Timestamp,
    sync: &SyncName,
    scope: RunScope,
) -> Result<bool, LedgerError> {
    let newest = ledger.runs(Some(sync), 1).await?;
    let open = |run: &SyncRun| matches!(run.state, RunState::Active | RunState::Held);
    if newest.first().is_some_and(open) {
        return Err(wrong(sync, "running or held already"));
    }
    let record = ledger.delivered_record(sync).await?;
    let record = record.ok_or_else(|| wrong(sync, "without a recorded delivery"))?;
    let mut requested = DeliveredRecord {
        identifiers: String::new(),
        retry_at: Some(now),
        replace: record.replace || scope != RunScope::Difference,
        requested: true,
        ..record.clone()
    };
    let mut discarded = Vec::new();
    if scope == RunScope::FullWithoutRecord {
        requested.state = None;
        discarded = ledger.unrecorded_runs().await?;
        discarded.retain(|run| run.sync == *sync);
    }
    let ids: Vec<SyncRunId> = discarded.iter().map(|run| run.id).collect();
    requested.run = ids.last().copied().unwrap_or(record.run);
    ledger.replace_delivered_record(Some(&record), &requested, &ids).await
}
