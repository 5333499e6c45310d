//! Executes approved removals that empty their audiences: each is a run to an empty list, which the leader plans
//! here and workers send like any other run. A removal that deletes its audience is a call, see `deletions`.

use std::sync::Arc;

use throng_membership::MemberSet;
use throng_model::{SyncMode, SyncName, Timestamp};
use throng_spec::{Destination, Sync};
use throng_store::{
    AlertKind, DeliveredRecord, LedgerError, NewAlert, PlanBase, PlatformAudience, Removal,
    RemovalRule, RunState, SyncRun, removal_subject,
};

use super::backoff::PlanBackoff;
use super::context::Activation;
use super::declaration::keys_of;
use super::delivered_objects::{self, DifferenceInputs, new_object};
use super::errors::InputError;
use super::planned_run::record_run;
use super::removal::{delivered_record, finish, is_run_of, stop_error, sync_and_destination};
use super::removed_sync::{users_of, users_text};
use super::results::retry_delay;
use super::snapshots::MAX_RUNS;
use crate::{DeliveredColumns, PlanFacts, RunRows, Scan, SendError, plan_run};

/// Continues the approved removals that empty their audiences. Returns whether anything was recorded. A failure
/// of one sync does not affect others.
pub(super) async fn advance(ctx: &Activation, backoff: &PlanBackoff) -> Result<bool, LedgerError> {
    let mut changed = false;
    for removal in ctx.ledger.removals().await? {
        let approved = removal.rule == RemovalRule::Empty && removal.approved_at.is_some();
        if !approved || backoff.is_waiting(&removal.sync, ctx.clock.now()) {
            continue;
        }
        let done = empty(ctx, &removal).await;
        backoff.record(&removal.sync, done.is_ok(), ctx.clock.now());
        match done {
            Ok(done) => changed |= done,
            Err(InputError::Ledger(error)) => return Err(error),
            Err(error) => {
                let text = throng_model::with_causes(&error);
                tracing::error!(sync = %removal.sync, error = text, "failed to empty audience");
                alert_not_emptied(ctx, &removal.sync, format!("{text}. It is retried.")).await?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

/// Raises an alert that a removal is not completed. An open alert with the same message is not raised again: it
/// would count a new occurrence in every round.
async fn alert_not_emptied(
    ctx: &Activation,
    sync: &SyncName,
    why: String,
) -> Result<(), LedgerError> {
    let subject = removal_subject(sync);
    let message = format!(
        "the audience of the removed sync {sync} is not emptied: {why} `throng sync keep {sync}` keeps \
         it unchanged"
    );
    let known = ctx.ledger.open_alert(AlertKind::TaskFailed, &subject).await?;
    if known.as_ref() != Some(&message) {
        let alert = NewAlert { kind: AlertKind::TaskFailed, subject, message };
        ctx.ledger.raise_alert(&alert, ctx.clock.now()).await?;
    }
    Ok(())
}

/// The next step of a removal that empties its audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextStep {
    /// A run is in progress, or its result is not recorded yet.
    Wait,
    /// Plan a run.
    Plan,
    /// Finish once the newest run is checked: no user is left.
    Finish,
    /// Users are left; plan another run at this time.
    RetryAt(Timestamp),
}

/// Decides the next step. `runs`: the runs of the sync, newest first. Pure.
///
/// The removal is finished only if the recorded state has no users: a completed run may have refused removals, and
/// with a finished removal nobody would retry them.
fn next_step(removal: &Removal, runs: &[SyncRun], record: Option<&DeliveredRecord>) -> NextStep {
    let Some(newest) = runs.first() else { return NextStep::Plan };
    if matches!(newest.state, RunState::Active | RunState::Held) {
        return NextStep::Wait;
    }
    if !is_run_of(removal, newest) {
        return NextStep::Plan;
    }
    let ended = newest.finished_at.unwrap_or(newest.created_at);
    if newest.state == RunState::Completed {
        return match record {
            _ if newest.plan.is_some() => NextStep::Wait,
            Some(record) if record.users > 0 => {
                NextStep::RetryAt(record.retry_at.unwrap_or(ended.plus(retry_delay(1))))
            }
            _ => NextStep::Finish,
        };
    }
    let failed = |run: &&SyncRun| run.state == RunState::Failed && is_run_of(removal, run);
    let failures = runs.iter().take_while(failed).count();
    NextStep::RetryAt(ended.plus(retry_delay(u32::try_from(failures).unwrap_or(u32::MAX))))
}

async fn empty(ctx: &Activation, removal: &Removal) -> Result<bool, InputError> {
    let sync = &removal.sync;
    let (declared, destination) = sync_and_destination(ctx, removal)?;
    let account = destination.account();
    let record = delivered_record(ctx, sync, &account).await?;
    let runs = ctx.ledger.runs(Some(sync), MAX_RUNS).await?;
    let newest = runs.first();
    match next_step(removal, &runs, record.as_ref()) {
        NextStep::Wait => return Ok(false),
        NextStep::Finish => {
            let Some(newest) = newest else { return Ok(false) };
            let task = ctx.ledger.task_of_run(newest.id).await?;
            if ctx.ledger.unchecked_task(task.id).await?.is_some() {
                return Ok(false);
            }
            return Ok(finish(ctx, removal, "every delivered user is removed").await?);
        }
        NextStep::RetryAt(at) if at > ctx.clock.now() => {
            let users = users_text(users_of(record.as_ref()));
            let run = newest.map_or_else(String::new, |run| format!("after run {}, ", run.id));
            let why = format!("{run}{users} may be on its list; it is retried at {at}.");
            alert_not_emptied(ctx, sync, why).await?;
            return Ok(false);
        }
        NextStep::RetryAt(_) | NextStep::Plan => {}
    }
    let Some(platform) = ctx.ledger.platform_audience(sync).await? else {
        return Ok(finish(ctx, removal, "it has no audience on the platform").await?);
    };
    let inputs = EmptyingInputs { removal, declared, destination, account, record, platform };
    plan(ctx, inputs, runs).await
}

/// The inputs of a run that empties an audience.
struct EmptyingInputs<'r> {
    removal: &'r Removal,
    declared: Sync,
    destination: Destination,
    account: String,
    record: Option<DeliveredRecord>,
    platform: PlatformAudience,
}

/// The ended runs of a sync that are not in its delivered state, oldest first. `runs`: newest first.
///
/// # Errors
/// `Stop` if the platform's list is not known.
fn unrecorded(
    record: Option<&DeliveredRecord>,
    runs: Vec<SyncRun>,
) -> Result<Vec<SyncRun>, SendError> {
    let ended = |run: &SyncRun| matches!(run.state, RunState::Completed | RunState::Failed);
    let unknown = match record {
        Some(record) => record.state.is_none() && record.replace,
        // An earlier version delivered without recording rows.
        None => runs.iter().any(|run| ended(run) && run.plan.is_none()),
    };
    if unknown {
        let message = "the platform's list is not known, so that it cannot be emptied row by row: delete the \
                       audience there by hand";
        return Err(stop_error(message.to_owned()));
    }
    let mut found = runs;
    found.retain(|run| {
        ended(run) && run.plan.is_some() && record.is_none_or(|record| run.id > record.run)
    });
    found.reverse();
    Ok(found)
}

/// The keys with which the delivered rows can be removed.
///
/// # Errors
/// `Stop` if the rows have several column sets: a platform accepts the removal of a row under other keys than those with
/// which it was added, and the row stays.
fn removable_keys(sync: &SyncName, columns: DeliveredColumns) -> Result<Vec<String>, SendError> {
    if !columns.has_several {
        return Ok(columns.keys);
    }
    Err(stop_error(format!(
        "its list has rows of earlier identifier columns, which cannot be removed row by row: delete the audience there \
         by hand; or `throng sync keep {sync}`, declare the sync again, and remove it with `on_remove: delete`, or with \
         `on_remove: empty` after a run with `mode: mirror`, which replaces the list"
    )))
}

/// Plans a run that removes all delivered users, or finishes the removal if there are none.
async fn plan(
    ctx: &Activation,
    inputs: EmptyingInputs<'_>,
    runs: Vec<SyncRun>,
) -> Result<bool, InputError> {
    let EmptyingInputs { removal, declared, destination, account, record, platform } = inputs;
    let sync = &removal.sync;
    let base = PlanBase {
        record: record.clone(),
        audience: Some(platform.clone()),
        newest: runs.first().cloned(),
    };
    let runs = unrecorded(record.as_ref(), runs)?;
    let declared_keys = keys_of(&declared);
    let delivered =
        delivered_objects::delivered(ctx, record.as_ref(), &account, &declared_keys, &runs).await?;
    let (delivered, columns) = delivered_objects::with_columns(delivered).await?;
    let keys = removable_keys(sync, columns)?;
    let object = new_object("plans")?;
    let inputs = DifferenceInputs {
        delivered,
        target: MemberSet::default(),
        scan: Arc::new(Scan::empty()),
        mode: SyncMode::Mirror,
        replace: false,
        keys,
        platform: destination.platform.name(),
        // If the sync is declared again, another fingerprint makes the planner read its identifiers.
        identifiers: String::new(),
        adopts: None,
    };
    let found = inputs.write(ctx, &account, sync, &object).await?;
    if found.is_empty() {
        ctx.objects.remove(&object).await?;
        return Ok(finish(ctx, removal, "no delivered user is left").await?);
    }
    ctx.objects.upload(&object).await?;
    let run = plan_run(PlanFacts {
        sync: sync.clone(),
        audience: declared.audience,
        destination: destination.name,
        mode: SyncMode::Mirror,
        batch_rows: declared.batch_rows,
        priority: declared.priority,
        // A person has approved that all users are removed.
        max_removed_percent: 100,
        from_version: platform.delivered_version,
        users_before: Some(found.users_before),
        // No version of the audience is empty; the number is deleted with the removal.
        to_version: platform.delivered_version.unwrap_or(1),
        users_removed: found.users_removed,
        rows: RunRows::Planned {
            meta: &found.meta,
            object: &object,
            normalised: &found.normalised,
        },
        hold: None,
    });
    if record_run(ctx, &run, &base).await? {
        return Ok(true);
    }
    ctx.objects.remove(&object).await?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use throng_model::SyncRunId;

    use super::*;
    use crate::SendClass;

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
            users_removed: 0,
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
            requested: false,
            tables: None,
        }
    }

    #[test]
    fn an_emptied_audience_is_finished_and_a_failed_run_is_retried() {
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
        let next_step = |runs: &[SyncRun], users, retry_at| {
            next_step(&removal, runs, Some(&record(users, retry_at)))
        };
        let before = run(1, Failed, 99, None);
        assert_eq!(next_step(&[], 9, None), NextStep::Plan);
        assert_eq!(next_step(std::slice::from_ref(&before), 9, None), NextStep::Plan);
        for state in [Active, Held] {
            assert_eq!(
                next_step(&[run(2, state, 100, Some("p")), before.clone()], 9, None),
                NextStep::Wait
            );
        }
        assert_eq!(next_step(&[run(2, Completed, 100, Some("p"))], 9, None), NextStep::Wait);
        assert_eq!(next_step(&[run(2, Completed, 100, None)], 0, None), NextStep::Finish);
        let refused = [run(2, Completed, 100, None)];
        assert_eq!(next_step(&refused, 3, Some(777)), NextStep::RetryAt(Timestamp(777)));
        assert_eq!(
            next_step(&refused, 3, None),
            NextStep::RetryAt(Timestamp(101).plus(retry_delay(1)))
        );
        let twice = [run(3, Failed, 200, None), run(2, Failed, 100, None), before];
        assert_eq!(
            next_step(&twice, 9, None),
            NextStep::RetryAt(Timestamp(201).plus(retry_delay(2)))
        );
    }

    #[test]
    fn a_list_with_rows_of_earlier_columns_is_not_emptied() {
        let sync = "buyers".parse().unwrap();
        let keys = vec!["EMAIL".to_owned()];
        let of = |has_several| {
            removable_keys(&sync, DeliveredColumns { keys: keys.clone(), has_several })
        };
        assert_eq!(of(false).unwrap(), keys);
        let error = of(true).unwrap_err();
        assert_eq!(error.class, SendClass::Stop);
        for part in ["`throng sync keep buyers`", "`on_remove: delete`", "`mode: mirror`"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn an_unknown_list_is_not_emptied() {
        let planned = run(2, RunState::Failed, 5, Some("p"));
        let old = run(1, RunState::Completed, 4, None);
        assert!(unrecorded(None, vec![planned.clone(), old.clone()]).is_err());
        let forgotten = DeliveredRecord { state: None, replace: true, ..record(9, None) };
        assert!(unrecorded(Some(&forgotten), vec![]).is_err());
        let known = unrecorded(Some(&record(9, None)), vec![planned.clone(), old]).unwrap();
        assert_eq!(known, [planned]);
    }
}
