//! Records the results of ended runs: the delivered state of each sync, and when refused removals and additions that are
//! not confirmed are retried.

use std::time::Duration;

use throng_model::{Backoff, SyncName, SyncRunId, Timestamp};
use throng_store::{Batch, DeliveredRecord, LedgerError, Operation, RunState, SyncRun};

use super::context::Activation;
use super::delivered_objects::{delivered, write_delivered};
use super::errors::DeliveredError;
use super::removal;
use crate::RemovalCounts;
use crate::sending::NOT_CONFIRMED;

/// The backoff of refused removals, and of additions that are not confirmed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(6 * 3_600) };

/// Records the results of completed runs, except for syncs that are backing off after a failure. Returns whether
/// there were any, and the failures: a failure of one sync does not affect others.
pub(super) async fn record_ended(
    ctx: &Activation,
    is_backing_off: impl Fn(&SyncName) -> bool,
) -> Result<(bool, Vec<(SyncName, DeliveredError)>), LedgerError> {
    let ended = ctx.ledger.unrecorded_runs().await?;
    let (mut recorded, mut failed) = (false, Vec::new());
    let mut syncs: Vec<&SyncName> = ended.iter().map(|run| &run.sync).collect();
    syncs.dedup();
    syncs.sort_unstable();
    syncs.dedup();
    for sync in syncs {
        let mut runs: Vec<SyncRun> = ended.iter().filter(|r| r.sync == *sync).cloned().collect();
        // A failed run can be requeued as long as it is the newest one, so its result is not final.
        while runs.last().is_some_and(|run| run.state == RunState::Failed) {
            runs.pop();
        }
        if runs.is_empty() || is_backing_off(sync) {
            continue;
        }
        match record_sync(ctx, sync, &runs).await {
            Ok(()) => recorded = true,
            Err(DeliveredError::Ledger(error)) => return Err(error),
            Err(error) => failed.push((sync.clone(), error)),
        }
    }
    Ok((recorded, failed))
}

async fn record_sync(
    ctx: &Activation,
    sync: &SyncName,
    runs: &[SyncRun],
) -> Result<(), DeliveredError> {
    let Some(last) = runs.last() else { return Ok(()) };
    let ids: Vec<SyncRunId> = runs.iter().map(|run| run.id).collect();
    let before = ctx.ledger.delivered_record(sync).await?;
    let spec = ctx.node.spec();
    let declared = spec.destinations.iter().find(|d| d.name == last.destination);
    let account = match (&before, declared) {
        (Some(record), _) => record.account.clone(),
        (None, Some(destination)) => destination.account(),
        (None, None) => match removal::approved(ctx, sync).await? {
            Some(removal) => match removal::sync_and_destination(ctx, &removal) {
                Ok((_, destination)) => destination.account(),
                Err(_) => return Ok(()),
            },
            None => return Ok(()),
        },
    };
    let delivered = delivered(ctx, before.as_ref(), &account, &[], runs).await?;
    let newest = delivered.runs.last();
    let due = newest.map_or(0, |run| RemovalCounts::of(&run.batches).rejected);
    let identifiers = newest.map_or_else(String::new, |run| run.plan.meta.identifiers.clone());
    // A run that removes all users reads no identifiers.
    let tables = newest.and_then(|run| run.plan.meta.tables.clone());
    let tables = tables.or_else(|| before.as_ref().and_then(|record| record.tables.clone()));
    let is_retried = due > 0 || newest.is_some_and(|run| has_unconfirmed(&run.batches));
    let (object, meta) = write_delivered(ctx, delivered, &account, sync).await?;
    let tries = if is_retried { before.as_ref().map_or(0, |r| r.tries) + 1 } else { 0 };
    let record = DeliveredRecord {
        sync: sync.clone(),
        account,
        columns: meta.keys.join(","),
        identifiers,
        state: Some(object),
        users: meta.users,
        run: last.id,
        due,
        retry_at: is_retried.then(|| ctx.clock.now().plus(retry_delay(tries))),
        tries,
        // Planning a run clears `requested`: if it is set, a person has requested another run since.
        replace: before.as_ref().is_some_and(|record| record.requested && record.replace),
        requested: before.as_ref().is_some_and(|record| record.requested),
        tables,
    };
    if !ctx.ledger.replace_delivered_record(before.as_ref(), &record, &ids).await? {
        // A run was requested since: the next round begins with that record.
        if let Some(object) = record.state {
            ctx.objects.remove(&object).await?;
        }
        return Ok(());
    }
    // Objects that a crash leaves behind here are removed when the next process leads.
    let old = before.and_then(|record| record.state);
    for name in runs.iter().filter_map(|run| run.plan.clone()).chain(old) {
        ctx.objects.remove(&name).await?;
    }
    Ok(())
}

/// The delay after this many consecutive tries.
pub(super) fn retry_delay(tries: u32) -> Duration {
    BACKOFF.without_jitter(tries)
}

/// Whether additions of a run are to be sent again although nothing has changed: those that the platform has not
/// confirmed. What it refuses for its content would be refused again: only another run of the sync sends it. A replace
/// session would send the whole list again for a single row: its next run does, with the next version.
fn has_unconfirmed(batches: &[Batch]) -> bool {
    let additions = batches.iter().filter(|batch| batch.operation == Operation::Add);
    let mut outcomes = additions.filter_map(|batch| batch.outcome.as_ref());
    outcomes.any(|outcome| outcome.rejected.contains_key(NOT_CONFIRMED))
}

/// Whether refused removals, or additions that are not confirmed, are due for a retry.
pub(super) fn is_due(record: Option<&DeliveredRecord>, now: Timestamp) -> bool {
    record.is_some_and(|record| match record.retry_at {
        Some(at) => at <= now,
        None => record.due > 0,
    })
}

#[cfg(test)]
mod tests {
    use throng_store::{BatchOutcome, BatchState, ReasonCounts};

    use super::*;

    #[test]
    fn only_additions_that_are_not_confirmed_are_sent_again_without_a_change() {
        let of = |operation, reason: &str| {
            let rejected = ReasonCounts::from([(reason.to_owned(), 3)]);
            let outcome = Some(BatchOutcome { rejected, ..BatchOutcome::default() });
            let state = BatchState::Done;
            [Batch { number: 0, operation, first_rank: 0, rows: 3, state, outcome }]
        };
        assert!(has_unconfirmed(&of(Operation::Add, NOT_CONFIRMED)));
        assert!(!has_unconfirmed(&of(Operation::Replace, NOT_CONFIRMED)));
        assert!(!has_unconfirmed(&of(Operation::Add, "invalid hash")));
        assert!(!has_unconfirmed(&of(Operation::Remove, NOT_CONFIRMED)));
        assert!(!has_unconfirmed(&[]));
    }

    #[test]
    fn a_retry_is_due_at_its_time_with_or_without_removals() {
        let is_due_at = |due, retry_at: Option<i64>| {
            let record = DeliveredRecord {
                sync: "s".parse().unwrap(),
                account: String::new(),
                columns: String::new(),
                identifiers: String::new(),
                state: None,
                users: 0,
                run: SyncRunId(1),
                due,
                retry_at: retry_at.map(Timestamp),
                tries: 0,
                replace: false,
                requested: false,
                tables: None,
            };
            is_due(Some(&record), Timestamp(100))
        };
        for due in [0, 2] {
            assert!(is_due_at(due, Some(100)) && !is_due_at(due, Some(101)));
        }
        assert!(is_due_at(2, None) && !is_due_at(0, None) && !is_due(None, Timestamp(100)));
    }
}
