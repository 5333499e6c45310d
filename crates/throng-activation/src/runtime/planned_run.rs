//! Records planned runs, and failures of planning.

use throng_model::{SyncName, SyncRunId, Timestamp, count};
use throng_store::{
    AlertKind, HistoryEntry, HistoryEvent, HoldCause, LedgerError, NewAlert, NewRun, PlanBase,
    PlanOutcome,
};

use super::context::Activation;
use super::errors::InputError;
use crate::{SendClass, SendError};

/// Records a run in ledger and history, with an alert if it is held. `base`: what it was planned from. `false` if the
/// ledger does not accept it: the next round plans the sync again.
pub(super) async fn record_run(
    ctx: &Activation,
    run: &NewRun,
    base: &PlanBase,
) -> Result<bool, LedgerError> {
    let now = ctx.clock.now();
    let id = match ctx.ledger.plan_run_from(run, base, now).await? {
        PlanOutcome::Planned(id) => id,
        PlanOutcome::Blocked => return Ok(false),
        PlanOutcome::Superseded => {
            tracing::info!(sync = %run.sync, "sync has changed while its run was planned");
            return Ok(false);
        }
    };
    let subject = run.sync.to_string();
    let (adds, removes) = (count(run.adds), count(run.removes));
    let figures = format!(
        "run {id}: version {} of audience {} to deliver, {adds} to add, {removes} to remove",
        run.to_version, run.audience
    );
    let (what, why) = match &run.held {
        Some(hold) => (HistoryEvent::Held, format!("{figures}; {}", hold.reason)),
        None => (HistoryEvent::Planned, figures),
    };
    // One alert for the account is enough.
    if let Some(hold) = run.held.as_ref().filter(|hold| hold.cause != HoldCause::Account) {
        let message = held_message(id, run, &hold.reason);
        let alert = NewAlert { kind: AlertKind::RunHeld, subject: subject.clone(), message };
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
    ctx.ledger.record_history(&[entry]).await?;
    Ok(true)
}

/// What to do with a run that a guard holds. Nothing rejects it: another version of its audience discards it.
fn held_message(id: SyncRunId, run: &NewRun, reason: &str) -> String {
    format!(
        "{reason}. `throng sync approve {id}` sends it. If it should not be sent: it is discarded when the audience serves another version, after a refresh or `throng audience rollback {}`",
        run.audience
    )
}

/// Raises an alert that a sync could not be planned. It is retried.
pub(super) async fn report_plan_failure(
    ctx: &Activation,
    sync: &SyncName,
    error: &InputError,
    now: Timestamp,
) -> Result<bool, LedgerError> {
    let text = throng_model::with_causes(error);
    tracing::error!(%sync, error = text, "failed to plan run");
    let message = format!("no run can be planned: {text}. It is retried.");
    let alert = NewAlert { kind: AlertKind::TaskFailed, subject: sync.to_string(), message };
    ctx.ledger.raise_alert(&alert, now).await?;
    Ok(true)
}

/// Resolves the alert of a sync that waits for members: what has failed is not tried again. It writes only if there is one.
pub(super) async fn end_failure(ctx: &Activation, sync: &SyncName) -> Result<(), LedgerError> {
    let (kind, subject) = (AlertKind::TaskFailed, sync.as_str());
    if ctx.ledger.open_alert(kind, subject).await?.is_some() {
        ctx.ledger.resolve_alert(kind, subject, ctx.clock.now()).await?;
    }
    Ok(())
}

/// The error of a list that has to be replaced as a whole, and for which there is no row. `has_several`: it has rows of
/// several column sets; otherwise it is not known.
pub(super) fn no_rows_error(sync: &SyncName, is_empty: bool, has_several: bool) -> SendError {
    let (cause, hint) = match is_empty {
        true => ("the audience is empty", ""),
        false => (
            "no user of the audience has a usable identifier",
            "; check the sync's identifiers.sql first",
        ),
    };
    let list = match has_several {
        true => "the platform's list has rows of earlier identifier columns",
        false => "the platform's list is not known",
    };
    let message = format!(
        "{cause}, and {list}: it cannot be emptied row by row. `throng sync recreate \
         {sync}` creates a new audience there{hint}"
    );
    SendError::local(SendClass::Stop, message)
}
