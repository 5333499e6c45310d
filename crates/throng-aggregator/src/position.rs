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
    let Some(wanted) = state.last_record else { return Ok(()) };
    let Some(before) = checkpoint.checked_sub(1).filter(|before| *before >= start) else {
        return Ok(());
    };
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
        BudgetsError::OtherLog { .. } => log.end(partition).await?,
        BudgetsError::LogGap { start, .. } => start,
        other => return Err(other),
    };
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
