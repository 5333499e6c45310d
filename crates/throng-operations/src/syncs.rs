//! Operations on syncs.

use std::collections::{HashMap, HashSet};

use throng_activation::{
    MAX_KEPT_SIZES, RunScope, SizeLimits, account_alert_subject, evaluate_sizes, has_enough_sizes,
    size_series,
};
use throng_api::{ActivationVerdict, NO_MEMBERS, RunRequested, SyncList, SyncSizes, SyncSummary};
use throng_model::SyncName;
use throng_spec::Spec;
use throng_store::{
    AlertKind, AudienceRow, DeliveredRecord, HistoryEvent, LedgerError, RunState, SubjectKind,
    SyncRun,
};

use crate::Operations;
use crate::error::{OperationError, Result};
use crate::mapping::activation as mapping;
use crate::record::Record;

/// The syncs of the applied spec, in its order, each with the state of its audience on the platform.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(operations: &Operations) -> Result<SyncList, LedgerError> {
    let ledger = &operations.ledger;
    let mut delivered: HashMap<_, _> = ledger.delivered().await?.into_iter().collect();
    // In this order: the result of a run that has delivered a version is in one of the two.
    let unrecorded = of_completed(ledger.unrecorded_runs().await?);
    let records = ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let paused: HashMap<_, _> = ledger.paused_syncs().await?.into_iter().collect();
    let sizes = ledger.newest_sizes().await?;
    let mut sizes: HashMap<_, _> =
        sizes.into_iter().map(|size| (size.sync.clone(), size)).collect();
    let members = ledger.audiences().await?;
    let members: HashMap<_, _> = members.iter().map(|row| (&row.name, members_of(row))).collect();
    let open = ledger.incomplete_syncs().await?.into_iter().filter(|(_, state)| is_open(*state));
    let open: HashSet<SyncName> = open.map(|(sync, _)| sync).collect();
    let syncs = operations.spec.syncs.iter().map(|sync| {
        let platform = delivered.remove(&sync.name);
        let record = records.get(&sync.name);
        let due = record.map_or(0, |record| record.due);
        // A size of an earlier audience on the platform says nothing about the current one.
        let size = sizes.remove(&sync.name).filter(|size| {
            platform.as_ref().is_some_and(|platform| platform.platform_id == size.platform_id)
        });
        let members = members.get(&sync.audience).copied().flatten();
        let waits = members.is_some_and(|it| sync.waits_for_members(platform.is_some(), it));
        SyncSummary {
            name: sync.name.clone(),
            audience: sync.audience.clone(),
            destination: sync.destination.clone(),
            mode: mapping::mode(sync.mode),
            paused_at: paused.get(&sync.name).copied(),
            delivered_version: platform.as_ref().and_then(|platform| platform.delivered_version),
            delivered_at: platform.as_ref().and_then(|platform| platform.delivered_at),
            platform_id: platform.map(|platform| platform.platform_id),
            delivered_users: delivered_users(record, &unrecorded),
            removals_due: due,
            removals_retry_at: record.filter(|_| due > 0).and_then(|record| record.retry_at),
            waits_for_members: waits && !open.contains(&sync.name),
            size: size.map(mapping::size),
        }
    });
    let declared = operations.spec.destinations.iter();
    Ok(SyncList {
        syncs: syncs.collect(),
        destinations: declared.map(|destination| destination.name.clone()).collect(),
        next_cursor: None,
        previous_cursor: None,
    })
}

/// The members of the version that an audience serves; `None` until it serves one.
fn members_of(audience: &AudienceRow) -> Option<u64> {
    audience.current.as_ref().map(|current| current.members)
}

/// Whether a run in this state is delivered, or will be after approval.
fn is_open(state: RunState) -> bool {
    matches!(state, RunState::Active | RunState::Held)
}

/// The syncs of these runs that are completed.
fn of_completed(runs: Vec<SyncRun>) -> HashSet<SyncName> {
    let completed = runs.into_iter().filter(|run| run.state == RunState::Completed);
    completed.map(|run| run.sync).collect()
}

/// The users of the delivered version; `None` while they are not counted. `unrecorded`: syncs of which only the users of
/// the version before are counted.
fn delivered_users(
    record: Option<&DeliveredRecord>,
    unrecorded: &HashSet<SyncName>,
) -> Option<u64> {
    record.filter(|record| !unrecorded.contains(&record.sync)).map(|record| record.users)
}

/// The sizes that the platform reported for the audience of a sync, oldest first, and what they say together.
///
/// # Errors
/// [`LedgerError`].
pub async fn sizes(operations: &Operations, sync: SyncName) -> Result<SyncSizes, LedgerError> {
    let sizes = operations.ledger.sizes(&sync, MAX_KEPT_SIZES).await?;
    let audience = operations.ledger.platform_audience(&sync).await?;
    let platform_id = audience.map(|audience| audience.platform_id);
    let series = platform_id.as_deref().map(|id| size_series(&sizes, id)).unwrap_or_default();
    let limits = size_limits(&operations.spec, &sync);
    let finding = limits.and_then(|limits| evaluate_sizes(&series, limits));
    let (verdict, reason) = match finding {
        Some(finding) => (Some(mapping::verdict(finding.verdict)), Some(finding.reason)),
        None if limits.is_some() && has_enough_sizes(&series) => {
            (Some(ActivationVerdict::Passed), None)
        }
        None => (None, None),
    };
    let sizes = sizes.into_iter().map(mapping::size).collect();
    Ok(SyncSizes { sync, platform_id, verdict, reason, sizes })
}

/// What the platform of a sync documents about its sizes; `None` if they are not numbers of people.
fn size_limits(spec: &Spec, sync: &SyncName) -> Option<SizeLimits> {
    let declared = spec.syncs.iter().find(|declared| declared.name == *sync);
    let destination = declared.and_then(|declared| {
        spec.destinations.iter().find(|destination| destination.name == declared.destination)
    });
    destination
        .and_then(|destination| throng_destinations::size_limits(destination.platform.name()))
}

/// The name of a sync of the applied spec.
///
/// # Errors
/// [`OperationError`].
pub fn declared(operations: &Operations, name: &str) -> Result<SyncName> {
    let (spec, wanted) = (&operations.spec, operations.qualified(name));
    let found = spec.syncs.iter().find(|sync| sync.name.as_str() == wanted);
    found.map(|sync| sync.name.clone()).ok_or_else(|| {
        OperationError::not_found(format!("no sync `{name}` in the applied spec"))
            .help("`throng sync list` shows the names")
    })
}

/// Plans a run of a sync at once if it has something to send. The answer says if it is blocked.
///
/// # Errors
/// [`OperationError`].
pub async fn run(
    operations: &Operations,
    sync: &SyncName,
    scope: RunScope,
    actor: &str,
) -> Result<RunRequested> {
    refuse_paused(operations, sync).await?;
    refuse_removal(operations, sync).await?;
    let blocked = blocked(operations, sync).await?;
    let now = operations.clock.now();
    throng_activation::request_run(&*operations.ledger, now, sync, scope).await?;
    let why = match scope {
        RunScope::FullWithoutRecord => {
            "all users are sent again; the record of what was delivered is discarded"
        }
        RunScope::Full => "all users are sent again",
        RunScope::Difference => "it is planned again",
    };
    finish(operations, sync, actor, HistoryEvent::RunRequested, why.to_owned()).await?;
    Ok(RunRequested { sync: sync.clone(), blocked })
}

/// Why nothing is delivered for a sync now: its account is held, or its last run failed.
async fn blocked(operations: &Operations, sync: &SyncName) -> Result<Option<String>> {
    let declared = operations.spec.syncs.iter().find(|declared| declared.name == *sync);
    if let Some(declared) = declared {
        let subject = account_alert_subject(&declared.destination);
        let held = operations.ledger.open_alert(AlertKind::RunHeld, &subject).await?;
        if held.is_some() {
            return Ok(held);
        }
    }
    Ok(operations.ledger.open_alert(AlertKind::TaskFailed, sync.as_str()).await?)
}

/// Detaches a sync from its audience on the platform. The next run creates a new audience, or finds one of the
/// same name.
///
/// # Errors
/// [`OperationError`].
pub async fn recreate(operations: &Operations, sync: &SyncName, actor: &str) -> Result<()> {
    refuse_removal(operations, sync).await?;
    let now = operations.clock.now();
    let before = operations.ledger.platform_audience(sync).await?;
    let reason = "the sync was recreated: another audience on the platform replaces it";
    operations.ledger.forget_delivered(sync, reason, now).await?;
    operations.ledger.resolve_alert(AlertKind::TaskFailed, sync.as_str(), now).await?;
    operations.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
    let why = match before {
        Some(before) => format!(
            "audience {} stays on the platform, but is no longer updated",
            before.platform_id
        ),
        None => "it had no audience on the platform".to_owned(),
    };
    finish(operations, sync, actor, HistoryEvent::Recreated, why).await
}

/// Pauses a sync: no run of it is planned and no task of it is claimed until it is resumed. The batch that is
/// being sent is completed.
///
/// # Errors
/// [`OperationError`].
pub async fn pause(operations: &Operations, sync: &SyncName, actor: &str) -> Result<()> {
    if !operations.ledger.pause_sync(sync, operations.clock.now()).await? {
        return Err(paused(sync));
    }
    let why = "no run is planned and no task is claimed until it is resumed";
    finish(operations, sync, actor, HistoryEvent::Paused, why.to_owned()).await
}

/// Resumes a paused sync.
///
/// # Errors
/// [`OperationError`].
pub async fn resume(operations: &Operations, sync: &SyncName, actor: &str) -> Result<()> {
    if !operations.ledger.resume_sync(sync).await? {
        return Err(OperationError::wrong_state(format!("sync `{sync}` is not paused")));
    }
    let why = "runs are planned and tasks are claimed again";
    finish(operations, sync, actor, HistoryEvent::Resumed, why.to_owned()).await
}

fn paused(sync: &SyncName) -> OperationError {
    OperationError::wrong_state(format!("sync `{sync}` is paused"))
        .help(format!("`throng sync resume {sync}` resumes it"))
}

/// Refuses an operation that sends something for a paused sync.
pub(crate) async fn refuse_paused(operations: &Operations, sync: &SyncName) -> Result<()> {
    match operations.ledger.is_sync_paused(sync).await? {
        true => Err(paused(sync)),
        false => Ok(()),
    }
}

/// Refuses a sync that was added to the spec again while the audience of the earlier sync of this name is being
/// removed. Both would change the same audience on the platform.
pub(crate) async fn refuse_removal(operations: &Operations, sync: &SyncName) -> Result<()> {
    if operations.ledger.removal(sync).await?.is_none() {
        return Ok(());
    }
    let message =
        format!("the audience of an earlier sync `{sync}` is being removed from the platform");
    Err(OperationError::wrong_state(message)
        .help("it starts after that; `throng sync removals` shows the progress"))
}

/// Refuses a run of a sync that would have nothing to send, and that would create a list on the platform for it.
pub(crate) async fn refuse_without_members(operations: &Operations, sync: &SyncName) -> Result<()> {
    let ledger = &operations.ledger;
    let declared = operations.spec.syncs.iter().find(|declared| declared.name == *sync);
    let Some(declared) = declared else { return Ok(()) };
    let audience = ledger.audience(&declared.audience).await?;
    let Some(members) = audience.as_ref().and_then(members_of) else { return Ok(()) };
    let has_list = ledger.platform_audience(sync).await?.is_some();
    let newest = ledger.runs(Some(sync), 1).await?;
    // One with an open run is refused because of that.
    if !declared.waits_for_members(has_list, members)
        || newest.first().is_some_and(|run| is_open(run.state))
    {
        return Ok(());
    }
    Err(OperationError::wrong_state(format!("sync `{sync}`: {NO_MEMBERS}")))
}

/// Records a change of a sync in its history, and wakes activation.
pub(crate) async fn finish(
    operations: &Operations,
    sync: &SyncName,
    actor: &str,
    what: HistoryEvent,
    why: String,
) -> Result<()> {
    let record =
        Record { subject_kind: SubjectKind::Sync, subject: sync.as_str(), what, why, actor };
    record.write(operations).await?;
    operations.observer.wake_activation();
    operations.observer.activation_changed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use throng_model::{SyncMode, SyncRunId, Timestamp};

    use super::*;

    fn run(sync: &str, state: RunState) -> SyncRun {
        SyncRun {
            id: SyncRunId(2),
            sync: sync.parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: Some(2),
            to_version: 3,
            state,
            adds: 20,
            removes: 0,
            read: 20,
            sent: 20,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: 0,
            created_at: Timestamp(0),
            finished_at: None,
            reason: None,
            normalised: Default::default(),
            plan: Some("plans/a".to_owned()),
            users_removed: 0,
        }
    }

    #[test]
    fn users_of_the_version_before_are_not_shown_beside_the_delivered_version() {
        let record = |sync: &str| DeliveredRecord {
            sync: sync.parse().unwrap(),
            account: String::new(),
            columns: String::new(),
            identifiers: String::new(),
            state: None,
            users: 543,
            run: SyncRunId(1),
            due: 0,
            retry_at: None,
            tries: 0,
            replace: false,
            requested: false,
            tables: None,
        };
        // The run of `b` has failed: the delivered version is still the one before.
        let unrecorded =
            of_completed(vec![run("a", RunState::Completed), run("b", RunState::Failed)]);
        assert_eq!(delivered_users(Some(&record("a")), &unrecorded), None);
        assert_eq!(delivered_users(Some(&record("b")), &unrecorded), Some(543));
        assert_eq!(delivered_users(Some(&record("c")), &unrecorded), Some(543));
        assert_eq!(delivered_users(None, &unrecorded), None);
    }
}
