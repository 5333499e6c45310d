//! Holds the runs of an account if too many of its checks fail.

use throng_model::{DestinationName, Timestamp};
use throng_store::{AlertKind, HistoryEntry, HistoryEvent, LedgerError, NewAlert, Task, Verdict};

use super::context::Activation;

/// The newest verdicts of an account that are evaluated.
const MAX_VERDICTS: u32 = 50;
/// Fewer failed checks than this may be coincidence.
const MIN_FAILED: usize = 3;

/// Whether too many of these verdicts, newest first, are failures, so that the account has to be held: more than
/// the share, and more than a few.
fn too_many_failed(verdicts: &[Verdict], max_percent: u32) -> bool {
    let failed = verdicts.iter().filter(|v| **v == Verdict::Failed).count();
    failed >= MIN_FAILED && failed * 100 > verdicts.len() * max_percent as usize
}

/// The subject of the alert that an account is held. No sync can have this name.
pub fn account_alert_subject(name: &DestinationName) -> String {
    format!("destination {name}")
}

/// The reason of every run that is held with its account. Also identifies runs that an earlier version held without
/// recording the cause.
pub fn failed_checks_reason(name: &DestinationName) -> String {
    format!("checks of {name} failed")
}

/// Holds the remaining runs of an account if too many of its checks have failed, including this task's: thousands
/// of uploads that fail in the same way cost more than a delay. Checks before the last approval do not count.
pub(super) async fn hold_account(ctx: &Activation, task: &Task) -> Result<(), LedgerError> {
    let spec = ctx.node.spec();
    let destination = spec.destinations.iter().find(|d| d.name == task.destination);
    let Some(destination) = destination else { return Ok(()) };
    let name = &destination.name;
    let approved =
        ctx.ledger.alert_resolved_at(AlertKind::RunHeld, &account_alert_subject(name)).await?;
    let after = approved.unwrap_or(Timestamp(i64::MIN));
    let mut verdicts = vec![Verdict::Failed];
    verdicts.extend(ctx.ledger.verdicts(name, after, MAX_VERDICTS - 1).await?);
    if !too_many_failed(&verdicts, destination.max_failed_checks_percent) {
        return Ok(());
    }
    let failed = verdicts.iter().filter(|v| **v == Verdict::Failed).count();
    let reason = format!("{failed} of the last {} {}", verdicts.len(), failed_checks_reason(name));
    let now = ctx.clock.now();
    let message = format!(
        "its tasks are held: {reason}. Read the alerts of its syncs, fix the cause, then run \
         `throng sync approve --destination {name}`"
    );
    // First: while this alert is open, newly planned runs are held as well.
    let alert =
        NewAlert { kind: AlertKind::RunHeld, subject: account_alert_subject(name), message };
    ctx.ledger.raise_alert(&alert, now).await?;
    let held = ctx.ledger.hold_destination(name, &reason).await?;
    if held == 0 {
        return Ok(());
    }
    tracing::warn!(destination = %name, held, reason, "account held");
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Destination,
        subject: name.to_string(),
        what: HistoryEvent::Held,
        why: format!("{held} tasks: {reason}"),
        at: now,
        actor: None,
    };
    ctx.ledger.record_history(&[entry]).await
}

#[cfg(test)]
mod tests {
    use Verdict::{Failed, Passed, Suspect};

    use super::*;

    #[test]
    fn a_share_of_failures_counts_from_a_minimum_number_on() {
        assert!(!too_many_failed(&[Failed; 2], 20), "two may be coincidence");
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
