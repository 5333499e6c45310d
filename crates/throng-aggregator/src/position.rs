//! Whether a checkpoint and the log belong together. They are stored separately, so one of them can be lost,
//! restored from a backup, or replaced without the other. Applying a log to a state that was not made from
//! it would count events twice or leave some out, without any error.

use throng_log::EventLog;

use super::BudgetsError;
use super::state::{PartitionState, checksum};

/// Checks that a state can continue with a log. `accept_loss`: the operator has accepted that records are
/// lost.
///
/// # Errors
/// As [`verify`], unless the loss is accepted.
pub(super) async fn check(
    partition: u32,
    state: &mut PartitionState,
    log: &dyn EventLog,
    accept_loss: bool,
) -> Result<(), BudgetsError> {
    match accept_loss {
        true => continue_after_loss(partition, state, log).await,
        false => verify(partition, state, log).await,
    }
}

/// Verifies that the log has all records after the state, and is the one from which the state was made.
///
/// # Errors
/// [`BudgetsError::LogBehind`], [`BudgetsError::OtherLog`], [`BudgetsError::LogGap`]: each says what to do.
async fn verify(
    partition: u32,
    state: &PartitionState,
    log: &dyn EventLog,
) -> Result<(), BudgetsError> {
    let (start, end) = (log.start(partition).await?, log.end(partition).await?);
    let checkpoint = state.offset;
    if end < checkpoint {
        return Err(BudgetsError::LogBehind { partition, checkpoint, end });
    }
    if start > checkpoint {
        return Err(BudgetsError::LogGap { partition, checkpoint, start });
    }
    // Nothing to compare with: no record was applied yet, a marker of a transaction was the last,
    // or a loss was accepted.
    let Some(wanted) = state.last_record else { return Ok(()) };
    // Retention may have deleted it: only the records from the checkpoint on are needed.
    let Some(before) = checkpoint.checked_sub(1).filter(|before| *before >= start) else {
        return Ok(());
    };
    // A limit of 0 bytes still returns the first record, and no more.
    let records = log.read(partition, before, 0).await?;
    match records.first() {
        Some(record) if record.offset == before => {
            let found = checksum(record.at, &record.value);
            match found == wanted {
                true => Ok(()),
                false => Err(BudgetsError::OtherLog { partition, offset: before }),
            }
        }
        // An offset without a record: a marker of a Kafka transaction, or a record that was set aside.
        _ => Ok(()),
    }
}

/// Makes the state continue with a log from which it was not made, as the operator has asked for: nothing is
/// counted twice, and what is missing stays missing.
async fn continue_after_loss(
    partition: u32,
    state: &mut PartitionState,
    log: &dyn EventLog,
) -> Result<(), BudgetsError> {
    let problem = match verify(partition, state, log).await {
        Ok(()) => return Ok(()),
        Err(problem) => problem,
    };
    let before = state.offset;
    state.offset = match problem {
        // If new records got offsets that the checkpoint has already, the next start would leave them out:
        // either the log skips these offsets, or the state goes back to the log's end.
        BudgetsError::LogBehind { checkpoint, end, .. } => {
            if log.skip_to(partition, checkpoint).await? { checkpoint } else { end }
        }
        // Its records may be of events that the state has counted already, and no offset shows
        // which: all of them are left out.
        BudgetsError::OtherLog { .. } => log.end(partition).await?,
        BudgetsError::LogGap { start, .. } => start,
        // The log could not be read: that is not the loss that was accepted, and it may be
        // complete.
        other => return Err(other),
    };
    // The record before the new offset was not applied: compared with the old checksum, the log
    // would be refused at each start.
    state.last_record = None;
    tracing::warn!(
        partition,
        checkpoint = before,
        offset = state.offset,
        problem = %problem,
        "continuing without lost records of the event log, as the operator has accepted"
    );
    Ok(())
}
