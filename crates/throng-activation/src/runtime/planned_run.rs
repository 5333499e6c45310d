//! Records planned runs, and failures of planning.

use throng_model::{SyncName, Timestamp};
use throng_spec::{Adopt, Sync};
use throng_store::{
    AlertKind, HistoryEntry, HistoryEvent, HoldCause, LedgerError, NewAlert, NewRun, PlanBase,
    PlanOutcome,
};

use super::context::Activation;
use super::errors::InputError;
use crate::{SendClass, SendError};

/// Whether a sync gets no run until its audience has a member, because it has no list on the platform yet: an account may
/// have only so many lists (Meta: 500). With `adopt: replace` the list may be there, with users of somebody else.
pub fn waits_for_members(sync: &Sync, has_list: bool, members: u64) -> bool {
    members == 0 && !has_list && sync.adopt != Adopt::Replace
}

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
    let figures = format!(
        "run {id}: version {} of audience {} to deliver, {} to add, {} to remove",
        run.to_version, run.audience, run.adds, run.removes
    );
    let (what, why) = match &run.held {
        Some(hold) => (HistoryEvent::Held, format!("{figures}; {}", hold.reason)),
        None => (HistoryEvent::Planned, figures),
    };
    // One alert for the account is enough.
    if let Some(hold) = run.held.as_ref().filter(|hold| hold.cause != HoldCause::Account) {
        let message = format!("{}. `throng sync approve {id}`", hold.reason);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_audience_without_a_list_waits_for_members() {
        let of = |adopt: &str| -> Sync {
            let text = format!(
                r#"{{"name": "s", "audience": "a", "destination": "d", "mode": "mirror",
                    "identifiers": {{"sql": "SELECT id, email FROM shop.users", "key": "id",
                        "columns": [["email", "EMAIL"]], "default_country": null,
                        "sql_at": {{"file": "throng.yaml", "line": 1}}}},
                    "max_removed_percent": 50, "batch_rows": 1, "priority": 0, "platform_name": null,
                    "adopt": "{adopt}"}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert!(waits_for_members(&of("fail"), false, 0));
        assert!(!waits_for_members(&of("fail"), false, 1));
        assert!(!waits_for_members(&of("fail"), true, 0), "its members are removed");
        assert!(!waits_for_members(&of("replace"), false, 0), "the list may be there");
    }
}
