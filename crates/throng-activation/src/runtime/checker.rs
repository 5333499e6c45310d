//! Checks every finished task: its counts, and the audience's size on the platform. The check of the newest task is
//! repeated when the size of its audience is read again.

use std::time::Duration;

use throng_log::Message;
use throng_model::{DestinationName, SyncMode, SyncName};
use throng_store::{
    AlertKind, Check, HistoryEntry, HistoryEvent, LedgerError, NewAlert, RunState, SyncRun, Task,
    Verdict,
};
use tokio_util::sync::CancellationToken;

use super::account_hold::hold_account;
use super::context::Activation;
use super::errors::EnqueueError;
use super::removal;
use super::size_reading::{self, SizeReading};
use super::task_message::TaskMessage;
use crate::{CheckFacts, Quotas, RemovalCounts, SendClass, SendError, evaluate_check};

/// The last completed run is searched among this many of the newest ones.
const RECHECKED_RUNS: u32 = 50;
/// How long a check is repeated while the platform is filling the audience or does not respond.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The delay after an error of the ledger or the queue.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Checks the tasks of the check queue, one at a time, until `shutdown`. A check without a verdict is enqueued
/// again.
pub(super) async fn run_checks(ctx: &Activation, quotas: &Quotas, shutdown: &CancellationToken) {
    loop {
        let message = tokio::select! {
            () = shutdown.cancelled() => return,
            taken = ctx.queues.checks.take() => taken,
        };
        let handled = match &message {
            Ok(message) => tokio::select! {
                () = shutdown.cancelled() => return,
                checked = handle_message(ctx, quotas, message) => {
                    checked.map_err(EnqueueError::from)
                }
            },
            Err(_) => Ok(()),
        };
        let done = match message {
            Ok(message) if handled.is_ok() => {
                ctx.queues.checks.done(&message).await.map_err(EnqueueError::from)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = handled.and(done) {
            tracing::error!(error = &error as &dyn std::error::Error, "failed to check task");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

async fn handle_message(
    ctx: &Activation,
    quotas: &Quotas,
    message: &Message,
) -> Result<(), LedgerError> {
    let task_message = match TaskMessage::read(message) {
        Ok(task_message) => task_message,
        Err(reason) => {
            tracing::error!(reason, "failed to decode message of check queue");
            return Ok(());
        }
    };
    let Some(task) = ctx.ledger.unchecked_task(task_message.task).await? else { return Ok(()) };
    if check(ctx, quotas, &task).await? {
        ctx.node.publish_change();
        ctx.node.wake().notify_waiters();
    }
    Ok(())
}

async fn check(ctx: &Activation, quotas: &Quotas, task: &Task) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    if !quotas.wait(&task.destination, now).is_zero() {
        return Ok(false);
    }
    let reading = match size_reading::read(ctx, &task.sync).await {
        Ok(reading) => Ok(reading),
        Err(error) => Err(error.into_send_error()?),
    };
    if let Err(SendError { class: SendClass::Throttled(pause), .. }) = &reading {
        quotas.pause(&task.destination, *pause, now);
        return Ok(false);
    }
    if let Err(SendError { class: SendClass::Paced(_), .. }) = &reading {
        return Ok(false);
    }
    let waited = now.since(task.finished_at.unwrap_or(now)) >= SETTLE_TIMEOUT;
    let is_unclear = match &reading {
        Ok(reading) => reading.size.settling,
        Err(error) => error.class == SendClass::Retry,
    };
    if is_unclear && !waited {
        return Ok(false);
    }
    let run = ctx.ledger.run(task.run).await?;
    evaluate_and_record(ctx, task, &run, reading, None).await?;
    Ok(true)
}

/// Reads the size of a sync's audience again, and repeats the check of its last completed run. Returns whether anything was
/// recorded.
pub(super) async fn recheck(
    ctx: &Activation,
    quotas: &Quotas,
    sync: &SyncName,
    destination: &DestinationName,
) -> Result<bool, LedgerError> {
    let reading = match size_reading::read(ctx, sync).await {
        Ok(reading) => Ok(reading),
        Err(error) => Err(error.into_send_error()?),
    };
    if let Err(error) = &reading {
        if let SendClass::Throttled(pause) = error.class {
            quotas.pause(destination, pause, ctx.clock.now());
        }
        // A problem of the account, or a transient one, is not a finding about the audience.
        if error.class != SendClass::Stop {
            tracing::warn!(%sync, error = %error.message, "failed to read size of audience");
            return Ok(false);
        }
    }
    let runs = ctx.ledger.runs(Some(sync), RECHECKED_RUNS).await?;
    // Not only the newest run: one that is held or has failed may stay so for days, and the audience on the
    // platform is that of the last completed one.
    if let Some(run) = runs.iter().find(|run| run.state == RunState::Completed) {
        let task = ctx.ledger.task_of_run(run.id).await?;
        // A run without a check is going to be checked.
        if let Some(before) = ctx.ledger.check_of(task.id).await? {
            evaluate_and_record(ctx, &task, run, reading, Some(&before)).await?;
            return Ok(true);
        }
    }
    let (Ok(reading), Some(run)) = (&reading, runs.first()) else { return Ok(false) };
    let task = ctx.ledger.task_of_run(run.id).await?;
    size_reading::record(ctx, run, &ctx.ledger.batches(task.id).await?, reading).await?;
    Ok(true)
}

/// Evaluates the check of a finished task, and records the verdict. `before`: the task's earlier check.
async fn evaluate_and_record(
    ctx: &Activation,
    task: &Task,
    run: &SyncRun,
    reading: Result<SizeReading, SendError>,
    before: Option<&Check>,
) -> Result<(), LedgerError> {
    let removal = removal::approved(ctx, &task.sync).await?;
    let is_emptying = removal.is_some_and(|removal| removal::is_run_of(&removal, run));
    let shows_rows = reading.as_ref().is_ok_and(|reading| reading.size_limits.is_none());
    // Without the snapshot the size is compared with the number of added users, which is a lower bound.
    let members = match ctx.ledger.snapshot(&run.audience, run.to_version).await {
        _ if is_emptying => 0,
        // A platform that does not show people shows rows, of which a user may have several: those of the whole list.
        Ok(row) if run.mode == SyncMode::Replace && shows_rows => row.members.max(run.adds),
        Ok(row) => row.members,
        Err(LedgerError::NotFound { .. }) => run.adds,
        Err(error) => return Err(error),
    };
    let batches = ctx.ledger.batches(task.id).await?;
    let points = match &reading {
        Ok(reading) => size_reading::record(ctx, run, &batches, reading).await?,
        Err(_) => Vec::new(),
    };
    let facts = CheckFacts {
        run,
        removals: RemovalCounts::of(&batches),
        members,
        size: match &reading {
            Ok(reading) => Ok(&reading.size),
            Err(error) => Err(error.message_for(&task.sync)),
        },
        sizes: &points,
        size_limits: reading.as_ref().ok().and_then(|reading| reading.size_limits),
    };
    let (verdict, reasons) = evaluate_check(&facts);
    record(ctx, task, run, verdict, reasons, before).await
}

/// What the history and alerts say about the check of a version.
fn history_text(version: u64, reasons: &[String]) -> String {
    match reasons {
        [] => format!("the check of version {version} found nothing wrong"),
        reasons => format!("version {version}: {}", reasons.join("; ")),
    }
}

async fn record(
    ctx: &Activation,
    task: &Task,
    run: &SyncRun,
    verdict: Verdict,
    reasons: Vec<String>,
    before: Option<&Check>,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let subject = task.sync.to_string();
    let what = match verdict {
        Verdict::Passed => HistoryEvent::CheckPassed,
        Verdict::Suspect => HistoryEvent::CheckSuspect,
        Verdict::Failed => HistoryEvent::CheckFailed,
    };
    let why = history_text(run.to_version, &reasons);
    let is_new = before.is_none_or(|b| b.verdict != verdict || b.reasons != reasons);
    if verdict == Verdict::Passed {
        ctx.ledger.resolve_alert(AlertKind::CheckFailed, &subject, now).await?;
    } else {
        if is_new {
            tracing::warn!(sync = %task.sync, task = %task.id, verdict = what.name(), why, "check not passed");
        }
        let message = why.clone();
        let alert = NewAlert { kind: AlertKind::CheckFailed, subject: subject.clone(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    }
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject,
        what,
        why,
        at: now,
        actor: None,
    };
    if is_new {
        ctx.ledger.record_history(&[entry]).await?;
    }
    // A task counts once.
    if verdict == Verdict::Failed && before.is_none_or(|b| b.verdict != Verdict::Failed) {
        hold_account(ctx, task).await?;
    }
    // A repeated check keeps its time while its verdict stays, so that the account does not count it as a new failure
    // or a new success.
    let at = before.filter(|before| before.verdict == verdict).map_or(now, |before| before.at);
    // Last, because it marks the task as checked: after a crash in between the check is repeated.
    let check = Check { run: run.id, task: task.id, verdict, reasons, at };
    ctx.ledger.put_check(&check).await
}

#[cfg(test)]
mod tests {
    use super::history_text;

    #[test]
    fn the_history_of_a_check_is_a_full_sentence_also_without_a_reason() {
        assert_eq!(history_text(1, &[]), "the check of version 1 found nothing wrong");
        let reasons = ["40 of 100 rows were rejected".to_owned(), "it is empty".to_owned()];
        let expected = "version 2: 40 of 100 rows were rejected; it is empty";
        assert_eq!(history_text(2, &reasons), expected);
    }
}
