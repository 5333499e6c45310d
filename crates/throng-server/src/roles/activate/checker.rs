//! Checks every finished task: its counts, and what the platform says about the audience.

use std::time::Duration;

use throng_activation::{CheckFacts, PlatformSize, Quotas, Removals, SendClass, SendError, judge};
use throng_ledger::{
    AlertKind, Check, HistoryEntry, LedgerError, NewAlert, SyncRun, Task, Verdict,
};
use throng_log::Message;
use throng_model::{DestinationName, Timestamp};
use tokio_util::sync::CancellationToken;

use super::announce::AnnounceError;
use super::jobs::{Destinations, declared};
use super::notice::Notice;
use super::removals;
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
    let size = read_size(ctx, destinations, task).await?;
    if let Err(SendError { class: SendClass::Wait(pause), .. }) = &size {
        quotas.pause(&task.destination, *pause, now);
        return Ok(false);
    }
    let waited = now.since(task.finished_at.unwrap_or(now)) >= PATIENCE;
    let unclear = match &size {
        Ok(size) => size.settling,
        Err(error) => error.class == SendClass::Retry,
    };
    if unclear && !waited {
        return Ok(false);
    }
    let run = ctx.ledger.run(task.run).await?;
    let removal = removals::approved(ctx, &task.sync).await?;
    let empties = removal.is_some_and(|removal| removals::is_of(&removal, &run));
    // Without the snapshot the size has nothing to be compared with; what was added is the least.
    let members = match ctx.ledger.snapshot(&run.audience, run.to_version).await {
        _ if empties => 0,
        Ok(row) => row.members,
        Err(LedgerError::NotFound { .. }) => run.adds,
        Err(error) => return Err(error),
    };
    let facts = CheckFacts {
        run: &run,
        removals: Removals::of(&ctx.ledger.batches(task.id).await?),
        members,
        size: size.as_ref().map_err(|error| error.message.clone()),
    };
    let (verdict, reasons) = judge(&facts);
    record(ctx, task, &run, verdict, reasons).await?;
    Ok(true)
}

async fn read_size(
    ctx: &NodeContext,
    destinations: &Destinations,
    task: &Task,
) -> Result<Result<PlatformSize, SendError>, LedgerError> {
    let destination = declared(ctx, &task.sync)
        .await?
        .and_then(|(_, destination)| destinations.open(&destination, &*ctx.env));
    let destination = match destination {
        Ok(destination) => destination,
        Err(error) => return Ok(Err(error)),
    };
    let Some(audience) = ctx.ledger.platform_audience(&task.sync).await? else {
        let message = "the platform's audience was never recorded";
        return Ok(Err(SendError::local(SendClass::Stop, message)));
    };
    Ok(destination.size(&audience.platform_id).await)
}

async fn record(
    ctx: &NodeContext,
    task: &Task,
    run: &SyncRun,
    verdict: Verdict,
    reasons: Vec<String>,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let subject = task.sync.to_string();
    let what = match verdict {
        Verdict::Passed => "check_passed",
        Verdict::Suspect => "check_suspect",
        Verdict::Failed => "check_failed",
    };
    let why = format!("version {}: {}", run.to_version, reasons.join("; "));
    if verdict == Verdict::Passed {
        ctx.ledger.resolve_alert(AlertKind::CheckFailed, &subject, now).await?;
    } else {
        tracing::warn!(sync = %task.sync, task = %task.id, why, "{what}");
        let message = why.clone();
        let alert = NewAlert { kind: AlertKind::CheckFailed, subject: subject.clone(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    }
    let entry = HistoryEntry {
        subject_kind: "sync".to_owned(),
        subject,
        what: what.to_owned(),
        why,
        at: now,
        actor: None,
    };
    ctx.ledger.record(&[entry]).await?;
    if verdict == Verdict::Failed {
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
        "its tasks are held: {reason}. Look at the alerts of its syncs, mend the cause, then \
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
        subject_kind: "destination".to_owned(),
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
