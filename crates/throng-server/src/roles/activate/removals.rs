//! Carries out approved removals of syncs. One that empties its audience is a run to nobody, planned here by
//! whoever leads and sent like any other; one that deletes it is a call, see `deletions`.

use throng_activation::{
    DifferenceFacts, PlanFacts, RunRows, Scan, SendClass, SendError, difference, plan_run,
};
use throng_membership::MemberSet;
use throng_model::{SyncName, Timestamp};
use throng_spec::{Destination, Sync};
use throng_store::{
    AlertKind, DeliveredRecord, HistoryEntry, LedgerError, NewAlert, PlatformAudience, Removal,
    RemovalRule, RunState, SyncMode, SyncRun, removal_subject,
};

use super::delivered::{self, DeliveredError, account_of, new_object, pause, salt};
use super::jobs::{JobError, RUNS_LOOKED_AT};
use super::planner::{self, Planner};
use crate::NodeContext;
use crate::removals::{Definition, counted, users_of};

fn stop(message: String) -> SendError {
    SendError::local(SendClass::Stop, message)
}

/// The sync and the destination of a removal. The destination is the one of the applied spec if that is the
/// same account: its secrets may have changed.
///
/// # Errors
/// `Stop` if the definition cannot be read.
pub(super) fn parts(
    ctx: &NodeContext,
    removal: &Removal,
) -> Result<(Sync, Destination), SendError> {
    let Definition { sync, destination } = Definition::of(removal).map_err(|error| {
        stop(format!("the definition of the removed sync {} cannot be read: {error}", removal.sync))
    })?;
    let spec = ctx.spec.load();
    let same = |now: &&Destination| {
        now.name == destination.name && account_of(now) == account_of(&destination)
    };
    let now = spec.destinations.iter().find(same).cloned();
    Ok((sync, now.unwrap_or(destination)))
}

/// The approved removal of a sync, if there is one.
pub(super) async fn approved(
    ctx: &NodeContext,
    sync: &SyncName,
) -> Result<Option<Removal>, LedgerError> {
    let removal = ctx.ledger.removal(sync).await?;
    Ok(removal.filter(|removal| removal.approved_at.is_some()))
}

/// Whether a run was planned to carry out a removal.
pub(super) fn is_of(removal: &Removal, run: &SyncRun) -> bool {
    removal.approved_at.is_some_and(|at| run.created_at >= at)
}

/// What the platform was given for the sync of a removal.
///
/// # Errors
/// `Stop` if that was given to another account than the one that the sync names.
pub(super) async fn record_of(
    ctx: &NodeContext,
    sync: &SyncName,
    account: &str,
) -> Result<Option<DeliveredRecord>, JobError> {
    let records = ctx.ledger.delivered_records().await?;
    let record = records.into_iter().find(|record| record.sync == *sync);
    if let Some(record) = record.as_ref().filter(|record| record.account != account) {
        let message = format!(
            "the audience is on account {}, and the sync was declared for {account} last: it has to be \
             removed there by hand",
            record.account
        );
        return Err(stop(message).into());
    }
    Ok(record)
}

/// Goes on with the approved removals that empty their audiences. Whether anything was recorded. One
/// sync's trouble is no other's.
pub(super) async fn advance(ctx: &NodeContext, planner: &Planner) -> Result<bool, LedgerError> {
    let mut changed = false;
    for removal in ctx.ledger.removals().await? {
        let approved = removal.rule == RemovalRule::Empty && removal.approved_at.is_some();
        if !approved || planner.rests(&removal.sync, ctx.clock.now()) {
            continue;
        }
        let done = empty(ctx, &removal).await;
        planner.note(&removal.sync, done.is_ok(), ctx.clock.now());
        match done {
            Ok(done) => changed |= done,
            Err(JobError::Ledger(error)) => return Err(error),
            Err(error) => {
                let words = throng_model::with_causes(&error);
                tracing::error!(sync = %removal.sync, error = words, "an audience is not emptied");
                left(ctx, &removal.sync, format!("{words}. It is tried again.")).await?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

/// Says what is left of a removal. An open alert that says the same is left alone.
async fn left(ctx: &NodeContext, sync: &SyncName, why: String) -> Result<(), LedgerError> {
    let subject = removal_subject(sync);
    let message = format!(
        "the audience of the removed sync {sync} is not emptied: {why} `throng sync keep {sync}` leaves \
         it as it is"
    );
    let known = ctx.ledger.open_alert(AlertKind::TaskFailed, &subject).await?;
    if known.as_ref() != Some(&message) {
        let alert = NewAlert { kind: AlertKind::TaskFailed, subject, message };
        ctx.ledger.raise_alert(&alert, ctx.clock.now()).await?;
    }
    Ok(())
}

/// What is to be done next for a removal that empties its audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A run of it is at work, or what it did is not recorded yet.
    Wait,
    /// A run is planned.
    Plan,
    /// Nobody is left, as soon as the newest run is checked.
    Finish,
    /// Users are left; a run is planned at this time.
    Again(Timestamp),
}

/// Decides. `runs`: those of the sync, newest first. Pure.
fn next(removal: &Removal, runs: &[SyncRun], record: Option<&DeliveredRecord>) -> Next {
    let Some(newest) = runs.first() else { return Next::Plan };
    if matches!(newest.state, RunState::Active | RunState::Held) {
        return Next::Wait;
    }
    if !is_of(removal, newest) {
        return Next::Plan;
    }
    let ended = newest.finished_at.unwrap_or(newest.created_at);
    if newest.state == RunState::Completed {
        return match record {
            _ if newest.plan.is_some() => Next::Wait,
            Some(record) if record.users > 0 => {
                Next::Again(record.retry_at.unwrap_or(ended.plus(pause(1))))
            }
            _ => Next::Finish,
        };
    }
    let failed = |run: &&SyncRun| run.state == RunState::Failed && is_of(removal, run);
    let failures = runs.iter().take_while(failed).count();
    Next::Again(ended.plus(pause(u32::try_from(failures).unwrap_or(u32::MAX))))
}

async fn empty(ctx: &NodeContext, removal: &Removal) -> Result<bool, JobError> {
    let sync = &removal.sync;
    let (declared, destination) = parts(ctx, removal)?;
    let account = account_of(&destination);
    let record = record_of(ctx, sync, &account).await?;
    let runs = ctx.ledger.runs(Some(sync), RUNS_LOOKED_AT).await?;
    let newest = runs.first();
    match next(removal, &runs, record.as_ref()) {
        Next::Wait => return Ok(false),
        Next::Finish => {
            let Some(newest) = newest else { return Ok(false) };
            let task = ctx.ledger.task_of_run(newest.id).await?;
            if ctx.ledger.unchecked_task(task.id).await?.is_some() {
                return Ok(false);
            }
            return Ok(finish(ctx, removal, "every user that it was given is removed").await?);
        }
        Next::Again(at) if at > ctx.clock.now() => {
            let users = counted(users_of(record.as_ref()));
            let run = newest.map_or_else(String::new, |run| format!("after run {}, ", run.id));
            let why = format!("{run}{users} may be on its list; it is tried again at {at}.");
            left(ctx, sync, why).await?;
            return Ok(false);
        }
        Next::Again(_) | Next::Plan => {}
    }
    let Some(platform) = ctx.ledger.platform_audience(sync).await? else {
        return Ok(finish(ctx, removal, "it has no audience on the platform").await?);
    };
    let emptying = Emptying { removal, declared, destination, account, record, platform };
    plan(ctx, emptying, runs).await
}

/// A removal for which a run is planned.
struct Emptying<'r> {
    removal: &'r Removal,
    declared: Sync,
    destination: Destination,
    account: String,
    record: Option<DeliveredRecord>,
    platform: PlatformAudience,
}

/// The runs of a sync that are not in its delivered state, the oldest first. `runs`: newest first.
///
/// # Errors
/// `Stop` if it is not known what the platform holds.
fn unrecorded(
    record: Option<&DeliveredRecord>,
    runs: Vec<SyncRun>,
) -> Result<Vec<SyncRun>, SendError> {
    let ended = |run: &SyncRun| matches!(run.state, RunState::Completed | RunState::Failed);
    let unknown = match record {
        Some(record) => record.state.is_none() && record.replace,
        // An earlier version delivered without remembering what.
        None => runs.iter().any(|run| ended(run) && run.plan.is_none()),
    };
    if unknown {
        let message = "what the platform holds is not known, so that it cannot be emptied row by row: \
                       delete the audience there by hand";
        return Err(stop(message.to_owned()));
    }
    let mut found = runs;
    found.retain(|run| {
        ended(run) && run.plan.is_some() && record.is_none_or(|record| run.id > record.run)
    });
    found.reverse();
    Ok(found)
}

/// Plans a run that removes everybody whom the platform was given, or finishes if that is nobody.
async fn plan(
    ctx: &NodeContext,
    emptying: Emptying<'_>,
    runs: Vec<SyncRun>,
) -> Result<bool, JobError> {
    let Emptying { removal, declared, destination, account, record, platform } = emptying;
    let sync = &removal.sync;
    let runs = unrecorded(record.as_ref(), runs)?;
    let columns: Vec<String> =
        declared.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
    let delivered = delivered::delivered(ctx, record.as_ref(), &account, &columns, &runs).await?;
    let keys = delivered.runs.last().map_or(&delivered.state.meta.keys, |run| &run.plan.meta.keys);
    let keys = keys.clone();
    let object = new_object("plans")?;
    let path = delivered::local(ctx, &object);
    let bound = delivered::plan_binding(&account, sync, &object);
    let (secret, salt) = (delivered::keys(ctx).await?, salt()?);
    let strong = throng_destinations::preparation(destination.platform.name())
        .map_or(&[][..], |preparation| preparation.strong_keys);
    let worked = tokio::task::spawn_blocking(move || {
        let facts = DifferenceFacts {
            delivered: &delivered,
            target: &MemberSet::default(),
            scan: &Scan::empty(),
            mode: SyncMode::Mirror,
            replace: false,
            keys: &keys,
            strong,
            // If the sync is declared again, its identifiers are looked at.
            identifiers: "",
        };
        difference(&facts, &path, &secret, bound, salt)
    });
    let found = worked.await.map_err(|_| DeliveredError::Broken)?.map_err(DeliveredError::from)?;
    if found.is_empty() {
        ctx.objects.remove(&object).await?;
        return Ok(finish(ctx, removal, "no user that it was given is left").await?);
    }
    ctx.objects.keep(&object).await?;
    let run = plan_run(PlanFacts {
        sync: sync.clone(),
        audience: declared.audience,
        destination: destination.name,
        mode: SyncMode::Mirror,
        batch_rows: declared.batch_rows,
        priority: declared.priority,
        // A person has approved that everybody leaves.
        max_removed_percent: 100,
        from: platform.delivered_version.map(|version| (version, found.before)),
        // No version has nobody; it is forgotten with the audience.
        to_version: platform.delivered_version.unwrap_or(1),
        leaving: found.leaving,
        rows: RunRows::Planned {
            meta: &found.meta,
            object: &object,
            normalised: &found.normalised,
        },
        hold: None,
    });
    if planner::record(ctx, &run, false).await? {
        return Ok(true);
    }
    ctx.objects.remove(&object).await?;
    Ok(false)
}

/// Forgets a removal that is carried out, with everything about the sync's audience. `false` if somebody
/// else has.
pub(super) async fn finish(
    ctx: &NodeContext,
    removal: &Removal,
    how: &str,
) -> Result<bool, LedgerError> {
    let sync = &removal.sync;
    let now = ctx.clock.now();
    let records = ctx.ledger.delivered_records().await?;
    let states = records.into_iter().filter(|r| r.sync == *sync).filter_map(|r| r.state);
    let runs = ctx.ledger.unrecorded_runs().await?;
    let plans = runs.into_iter().filter(|run| run.sync == *sync).filter_map(|run| run.plan);
    let objects: Vec<String> = states.chain(plans).collect();
    match ctx.ledger.finish_removal(sync, now).await {
        Ok(()) => {}
        Err(LedgerError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    for object in objects {
        // What is left behind here is removed when the next process leads.
        if let Err(error) = ctx.objects.remove(&object).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, object, "an object that nothing names was not removed");
        }
    }
    let by = removal.approved_by.as_deref().unwrap_or("nobody");
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: sync.to_string(),
        what: "removal_done".to_owned(),
        why: format!("{how}; it was approved by {by}, and what was delivered is forgotten"),
        at: now,
        actor: None,
    };
    ctx.ledger.record(&[entry]).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use throng_model::SyncRunId;

    use super::*;

    fn run(id: i64, state: RunState, created: i64, plan: Option<&str>) -> SyncRun {
        SyncRun {
            id: SyncRunId(id),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: Some(1),
            to_version: 1,
            state,
            adds: 0,
            removes: 9,
            read: 9,
            sent: 0,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: 9,
            created_at: Timestamp(created),
            finished_at: Some(Timestamp(created + 1)),
            reason: None,
            normalised: Default::default(),
            plan: plan.map(str::to_owned),
        }
    }

    fn record(users: u64, retry_at: Option<i64>) -> DeliveredRecord {
        DeliveredRecord {
            sync: "s".parse().unwrap(),
            account: "meta/1".to_owned(),
            columns: "EMAIL".to_owned(),
            identifiers: String::new(),
            state: Some("delivered/a".to_owned()),
            users,
            run: SyncRunId(1),
            due: 0,
            retry_at: retry_at.map(Timestamp),
            tries: 0,
            replace: false,
        }
    }

    #[test]
    fn an_emptied_audience_is_finished_and_a_failed_try_comes_again() {
        use RunState::{Active, Completed, Failed, Held};
        let removal = Removal {
            sync: "s".parse().unwrap(),
            rule: RemovalRule::Empty,
            definition: serde_json::Value::Null,
            requested_at: Timestamp(0),
            approved_at: Some(Timestamp(100)),
            approved_by: Some("ann".to_owned()),
            tries: 0,
            retry_at: None,
            last_error: None,
        };
        let next = |runs: &[SyncRun], users, retry_at| {
            next(&removal, runs, Some(&record(users, retry_at)))
        };
        let before = run(1, Failed, 99, None);
        assert_eq!(next(&[], 9, None), Next::Plan);
        assert_eq!(next(std::slice::from_ref(&before), 9, None), Next::Plan);
        for state in [Active, Held] {
            assert_eq!(next(&[run(2, state, 100, Some("p")), before.clone()], 9, None), Next::Wait);
        }
        assert_eq!(next(&[run(2, Completed, 100, Some("p"))], 9, None), Next::Wait);
        assert_eq!(next(&[run(2, Completed, 100, None)], 0, None), Next::Finish);
        let refused = [run(2, Completed, 100, None)];
        assert_eq!(next(&refused, 3, Some(777)), Next::Again(Timestamp(777)));
        assert_eq!(next(&refused, 3, None), Next::Again(Timestamp(101).plus(pause(1))));
        let twice = [run(3, Failed, 200, None), run(2, Failed, 100, None), before];
        assert_eq!(next(&twice, 9, None), Next::Again(Timestamp(201).plus(pause(2))));
    }

    #[test]
    fn what_is_not_known_is_not_emptied() {
        let planned = run(2, RunState::Failed, 5, Some("p"));
        let old = run(1, RunState::Completed, 4, None);
        assert!(unrecorded(None, vec![planned.clone(), old.clone()]).is_err());
        let forgotten = DeliveredRecord { state: None, replace: true, ..record(9, None) };
        assert!(unrecorded(Some(&forgotten), vec![]).is_err());
        let known = unrecorded(Some(&record(9, None)), vec![planned.clone(), old]).unwrap();
        assert_eq!(known, [planned]);
    }
}
