//! Deletes the audiences of removed syncs on their platforms, after a person has approved the removal.

use std::time::Duration;

use throng_model::{Backoff, POLL_INTERVAL};
use throng_store::{
    AlertKind, LedgerError, NewAlert, Removal, RemovalRule, RunState, removal_subject,
};
use tokio_util::sync::CancellationToken;

use super::context::Activation;
use super::errors::InputError;
use super::removal::{delivered_record, finish, sync_and_destination};
use super::schedule::wait;
use crate::{Quotas, SendClass, SendError};

/// The backoff between tries, unless the platform returns a delay.
const BACKOFF: Backoff = Backoff { longest: Duration::from_secs(3_600), ..Backoff::WORK };
/// Longer than the calls of one try can take: another process may try after it.
const LEASE: Duration = Duration::from_secs(600);
/// Consecutive transient failures after which an alert is raised.
const ALERT_AFTER: u32 = 3;

/// Executes due deletions until `shutdown`.
pub(super) async fn run(ctx: &Activation, quotas: &Quotas, shutdown: &CancellationToken) {
    while wait(ctx, shutdown, POLL_INTERVAL).await {
        let result = tokio::select! {
            // Deleting twice is harmless: the next start retries.
            () = shutdown.cancelled() => return,
            result = round(ctx, quotas) => result,
        };
        match result {
            Ok(true) => {
                ctx.node.publish_change();
                ctx.node.wake().notify_waiters();
            }
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "failed to process removals");
            }
        }
    }
}

/// Tries each due removal once. Returns whether anything was done.
async fn round(ctx: &Activation, quotas: &Quotas) -> Result<bool, LedgerError> {
    let mut changed = false;
    for removal in ctx.ledger.removals().await? {
        let now = ctx.clock.now();
        let due = removal.rule == RemovalRule::Delete
            && removal.approved_at.is_some()
            && removal.retry_at.is_none_or(|at| at <= now);
        if !due || is_sending(ctx, &removal).await? {
            continue;
        }
        let name = sync_and_destination(ctx, &removal).map(|(_, destination)| destination.name);
        let busy = name.as_ref().is_ok_and(|name| !quotas.wait(name, now).is_zero());
        if busy || !ctx.ledger.claim_removal(&removal.sync, now, now.plus(LEASE)).await? {
            continue;
        }
        match delete(ctx, &removal).await {
            Ok(how) => changed |= finish(ctx, &removal, &how).await?,
            Err(InputError::Ledger(error)) => return Err(error),
            Err(InputError::Unavailable(error)) => {
                if let (Ok(name), SendClass::Throttled(pause)) = (&name, error.class) {
                    quotas.pause(name, pause, ctx.clock.now());
                }
                failed(ctx, &removal, &error).await?;
                changed = true;
            }
            Err(error) => {
                let text = throng_model::with_causes(&error);
                failed(ctx, &removal, &SendError::local(SendClass::Retry, text)).await?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

/// Whether a worker may still be sending a task of the sync: deleting the audience now would let the worker
/// create another one.
async fn is_sending(ctx: &Activation, removal: &Removal) -> Result<bool, LedgerError> {
    let newest = ctx.ledger.runs(Some(&removal.sync), 1).await?;
    Ok(newest.first().is_some_and(|run| run.state == RunState::Active))
}

/// Deletes the audience of a removal. Returns what was done, as text.
async fn delete(ctx: &Activation, removal: &Removal) -> Result<String, InputError> {
    let (_, destination) = sync_and_destination(ctx, removal)?;
    let Some(platform) = ctx.ledger.platform_audience(&removal.sync).await? else {
        return Ok("it has no audience on the platform".to_owned());
    };
    delivered_record(ctx, &removal.sync, &destination.account()).await?;
    let account = ctx.destinations.open(&destination)?;
    let id = platform.platform_id;
    account.delete_audience(&id).await?;
    Ok(format!("the audience {id} on the platform is deleted"))
}

/// How to continue after a try that did not delete the audience.
#[derive(Debug, PartialEq, Eq)]
struct NextTry {
    pause: Duration,
    /// Count it as a failed try.
    counts: bool,
    alert: bool,
}

/// Decides how to continue after a try. `tries`: failed ones before it. A call that waits for quota was not made.
fn next_try(class: SendClass, tries: u32) -> NextTry {
    let tries = tries.saturating_add(1);
    let pause = match class {
        SendClass::Throttled(pause) | SendClass::RetryLater(pause) | SendClass::Paced(pause) => {
            pause
        }
        _ => BACKOFF.delay(tries, tries.into()),
    };
    let counts = !matches!(class, SendClass::Paced(_));
    let is_transient = matches!(class, SendClass::Retry | SendClass::Throttled(_));
    NextTry { pause, counts, alert: counts && (!is_transient || tries >= ALERT_AFTER) }
}

async fn failed(ctx: &Activation, removal: &Removal, error: &SendError) -> Result<(), LedgerError> {
    let (sync, now) = (&removal.sync, ctx.clock.now());
    let NextTry { pause, counts, alert } = next_try(error.class, removal.tries);
    let retry_at = now.plus(pause);
    match counts {
        true => tracing::warn!(%sync, error = %error.message, "failed to delete audience"),
        false => tracing::info!(%sync, %retry_at, "deletion of audience waits for quota"),
    }
    ctx.ledger.fail_removal(sync, &error.message, retry_at, counts).await?;
    if !alert {
        return Ok(());
    }
    let message = format!(
        "the audience of the removed sync {sync} is still on the platform: {}. It is retried at \
         {retry_at}; `throng sync keep {sync}` keeps it",
        error.message
    );
    let subject = removal_subject(sync);
    let alert = NewAlert { kind: AlertKind::TaskFailed, subject, message };
    ctx.ledger.raise_alert(&alert, now).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_that_waits_for_quota_has_not_failed() {
        let pause = Duration::from_secs(1_800);
        for tries in [0, 5] {
            let next = next_try(SendClass::Paced(pause), tries);
            assert_eq!(next, NextTry { pause, counts: false, alert: false });
        }
    }

    #[test]
    fn the_third_transient_failure_and_the_first_other_one_raise_an_alert() {
        let pause = Duration::from_secs(60);
        for (class, tries, alert) in [
            (SendClass::Retry, 1, false),
            (SendClass::Retry, 2, true),
            (SendClass::Throttled(pause), 1, false),
            (SendClass::Throttled(pause), 2, true),
            (SendClass::RetryLater(pause), 0, true),
            (SendClass::Stop, 0, true),
        ] {
            let next = next_try(class, tries);
            assert_eq!((next.counts, next.alert), (true, alert), "{class:?} after {tries}");
        }
    }
}
