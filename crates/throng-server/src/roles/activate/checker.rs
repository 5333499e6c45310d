//! Checks every finished task: its counts, and what the platform says about the audience. The check of the
//! newest one is repeated when the size of its audience is read again.

use std::time::Duration;

use throng_activation::{CheckFacts, Quotas, Removals, SendClass, SendError, judge};
use throng_log::Message;
use throng_model::{DestinationName, SyncName, Timestamp};
use throng_store::{
    AlertKind, Check, HistoryEntry, LedgerError, NewAlert, RunState, SyncRun, Task, Verdict,
};
use tokio_util::sync::CancellationToken;

use super::announce::AnnounceError;
use super::jobs::Destinations;
use super::notice::Notice;
use super::removals;
use super::sizes::{self, Reading};
use crate::{Change, NodeContext};

/// A platform that is still filling the audience, or cannot be reached, is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Verdicts of an account that are looked at.
const VERDICTS_LOOKED_AT: u32 = 50;
/// Fewer failures than this may be chance.
const FAILED_AT_LEAST: usize = 3;
/// After the ledger or the queue failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// Checks what comes over the queue, one task after the other. What comes to no verdict comes again.
pub(super) async fn work(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    shutdown: &CancellationToken,
) {
    loop {
        let message = tokio::select! {
            () = shutdown.cancelled() => return,
            taken = ctx.queues.checks.take() => taken,
        };
        let worked = match &message {
            Ok(message) => tokio::select! {
                () = shutdown.cancelled() => return,
                checked = look(ctx, quotas, destinations, message) => {
                    checked.map_err(AnnounceError::from)
                }
            },
            Err(_) => Ok(()),
        };
        let done = match message {
            Ok(message) if worked.is_ok() => {
                ctx.queues.checks.done(&message).await.map_err(AnnounceError::from)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = worked.and(done) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot check a task");
            tokio::time::sleep(AFTER_TROUBLE).await;
        }
    }
}

async fn look(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    message: &Message,
) -> Result<(), LedgerError> {
    let notice = match Notice::read(message) {
        Ok(notice) => notice,
        Err(reason) => {
            tracing::error!(reason, "a message of the check queue cannot be read");
            return Ok(());
        }
    };
    let Some(task) = ctx.ledger.unchecked_task(notice.task).await? else { return Ok(()) };
    if check(ctx, quotas, destinations, &task).await? {
        ctx.changed(Change::Activation);
        ctx.wake_activate.notify_waiters();
    }
    Ok(())
}

async fn check(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    task: &Task,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    if !quotas.wait(&task.destination, now).is_zero() {
        return Ok(false);
    }
    let reading = sizes::read(ctx, destinations, &task.sync).await?;
    if let Err(SendError { class: SendClass::Wait(pause), .. }) = &reading {
        quotas.pause(&task.destination, *pause, now);
        return Ok(false);
    }
    let waited = now.since(task.finished_at.unwrap_or(now)) >= PATIENCE;
    let unclear = match &reading {
        Ok(reading) => reading.size.settling,
        Err(error) => error.class == SendClass::Retry,
    };
    if unclear && !waited {
        return Ok(false);
    }
    let run = ctx.ledger.run(task.run).await?;
    conclude(ctx, task, &run, reading, None).await?;
    Ok(true)
}

/// Reads the size of a sync's audience again, and repeats the check of its newest run. Whether anything was
/// recorded.
pub(super) async fn repeat(
    ctx: &NodeContext,
    quotas: &Quotas,
    destinations: &Destinations,
    sync: &SyncName,
    destination: &DestinationName,
) -> Result<bool, LedgerError> {
    let reading = sizes::read(ctx, destinations, sync).await?;
    if let Err(error) = &reading {
        if let SendClass::Wait(pause) = error.class {
            quotas.pause(destination, pause, ctx.clock.now());
        }
        // What is wrong with the account, or ends by itself, is no fault of the audience.
        if error.class != SendClass::Stop {
            tracing::warn!(%sync, error = %error.message, "a size was not read");
            return Ok(false);
        }
    }
    let Some(run) = ctx.ledger.runs(Some(sync), 1).await?.pop() else { return Ok(false) };
    let task = ctx.ledger.task_of_run(run.id).await?;
    let before = ctx.ledger.check_of(task.id).await?;
    if run.state == RunState::Completed && before.is_some() {
        conclude(ctx, &task, &run, reading, before.as_ref()).await?;
        return Ok(true);
    }
    // Only the size: a run that is completed will be checked, and any other has a state that says more.
    let Ok(reading) = &reading else { return Ok(false) };
    sizes::record(ctx, &run, &ctx.ledger.batches(task.id).await?, reading).await?;
    Ok(true)
}

/// Judges a finished task, and records the verdict. `before`: an earlier one.
async fn conclude(
    ctx: &NodeContext,
    task: &Task,
    run: &SyncRun,
    reading: Result<Reading, SendError>,
    before: Option<&Check>,
) -> Result<(), LedgerError> {
    let removal = removals::approved(ctx, &task.sync).await?;
    let empties = removal.is_some_and(|removal| removals::is_of(&removal, run));
    // Without the snapshot the size has nothing to be compared with; what was added is the least.
    let members = match ctx.ledger.snapshot(&run.audience, run.to_version).await {
        _ if empties => 0,
        Ok(row) => row.members,
        Err(LedgerError::NotFound { .. }) => run.adds,
        Err(error) => return Err(error),
    };
    let batches = ctx.ledger.batches(task.id).await?;
    let points = match &reading {
        Ok(reading) => sizes::record(ctx, run, &batches, reading).await?,
        Err(_) => Vec::new(),
    };
    let facts = CheckFacts {
        run,
        removals: Removals::of(&batches),
        members,
        size: match &reading {
            Ok(reading) => Ok(&reading.size),
            Err(error) => Err(error.message_for(&task.sync)),
        },
        sizes: &points,
    };
    let (verdict, reasons) = judge(&facts);
    record(ctx, task, run, verdict, reasons, before).await
}

async fn record(
    ctx: &NodeContext,
    task: &Task,
    run: &SyncRun,
    verdict: Verdict,
    reasons: Vec<String>,
    before: Option<&Check>,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let subject = task.sync.to_string();
    let what = match verdict {
        Verdict::Passed => "check_passed",
        Verdict::Suspect => "check_suspect",
        Verdict::Failed => "check_failed",
    };
    let why = format!("version {}: {}", run.to_version, reasons.join("; "));
    let is_new = before.is_none_or(|b| b.verdict != verdict || b.reasons != reasons);
    if verdict == Verdict::Passed {
        ctx.ledger.resolve_alert(AlertKind::CheckFailed, &subject, now).await?;
    } else {
        if is_new {
            tracing::warn!(sync = %task.sync, task = %task.id, why, "{what}");
        }
        let message = why.clone();
        let alert = NewAlert { kind: AlertKind::CheckFailed, subject: subject.clone(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    }
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject,
        what: what.to_owned(),
        why,
        at: now,
        actor: None,
    };
    if is_new {
        ctx.ledger.record(&[entry]).await?;
    }
    // One task counts once.
    if verdict == Verdict::Failed && before.is_none_or(|b| b.verdict != Verdict::Failed) {
        hold_account(ctx, task).await?;
    }
    // Last: with it the task counts as checked.
    let check = Check { run: run.id, task: task.id, verdict, reasons, at: now };
    ctx.ledger.put_check(&check).await
}

/// Whether so many of these verdicts, the newest first, failed that the account's work should stop:
/// more than the share, and not just the first few.
fn too_many_failed(verdicts: &[Verdict], max_percent: u32) -> bool {
    let failed = verdicts.iter().filter(|v| **v == Verdict::Failed).count();
    failed >= FAILED_AT_LEAST && failed * 100 > verdicts.len() * max_percent as usize
}

/// The subject of the alert that an account's tasks are held. No sync is named so.
pub(crate) fn account(name: &DestinationName) -> String {
    format!("destination {name}")
}

/// What is said of every run that is held with its account. Also how runs are known that an earlier version
/// held so, without recording the cause.
pub(crate) fn failed_checks(name: &DestinationName) -> String {
    format!("checks of {name} failed")
}

/// Holds what an account has yet to do when too many of its checks failed, this task's with them:
/// thousands of uploads that go wrong in the same way cost more than a question to a person. What a
/// person has approved since counts no more.
async fn hold_account(ctx: &NodeContext, task: &Task) -> Result<(), LedgerError> {
    let spec = ctx.spec.load_full();
    let destination = spec.destinations.iter().find(|d| d.name == task.destination);
    let Some(destination) = destination else { return Ok(()) };
    let name = &destination.name;
    let approved = ctx.ledger.alert_ended(AlertKind::RunHeld, &account(name)).await?;
    let after = approved.unwrap_or(Timestamp(i64::MIN));
    let mut verdicts = vec![Verdict::Failed];
    verdicts.extend(ctx.ledger.verdicts(name, after, VERDICTS_LOOKED_AT - 1).await?);
    if !too_many_failed(&verdicts, destination.max_failed_checks_percent) {
        return Ok(());
    }
    let failed = verdicts.iter().filter(|v| **v == Verdict::Failed).count();
    let reason = format!("{failed} of the last {} {}", verdicts.len(), failed_checks(name));
    let now = ctx.clock.now();
    let message = format!(
        "its tasks are held: {reason}. Look at the alerts of its syncs, fix the cause, then \
         `throng sync approve --destination {name}`"
    );
    // First: as long as it is open, what is planned is held too.
    let alert = NewAlert { kind: AlertKind::RunHeld, subject: account(name), message };
    ctx.ledger.raise_alert(&alert, now).await?;
    let held = ctx.ledger.hold_destination(name, &reason).await?;
    if held == 0 {
        return Ok(());
    }
    tracing::warn!(destination = %name, held, reason, "an account's tasks are held");
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Destination,
        subject: name.to_string(),
        what: "held".to_owned(),
        why: format!("{held} tasks: {reason}"),
        at: now,
        actor: None,
    };
    ctx.ledger.record(&[entry]).await
}

#[cfg(test)]
mod tests {
    use Verdict::{Failed, Passed, Suspect};

    use super::*;

    #[test]
    fn a_share_of_failures_counts_once_there_are_some() {
        assert!(!too_many_failed(&[Failed; 2], 20), "two may be chance");
        assert!(too_many_failed(&[Failed; 3], 20));
        assert!(!too_many_failed(&[Failed; 3], 100), "switched off");
        let mut verdicts = vec![Passed; 12];
        verdicts.extend([Failed; 3]);
        assert!(!too_many_failed(&verdicts, 20), "three of fifteen are a fifth");
        verdicts.pop();
        verdicts.extend([Failed, Failed, Suspect]);
        assert!(too_many_failed(&verdicts, 20), "four of seventeen are more");
    }
}
