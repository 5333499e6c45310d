//! Whether a checkpoint and the log belong together. They are kept apart, so one of them can be lost,
//! restored from a backup, or exchanged without the other.

use throng_log::EventLog;
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::BudgetsError;
use super::partition::State;

/// The checksum of a record by which a checkpoint knows the log that it was made of.
pub(super) fn checksum(at: Timestamp, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, at.0.cast_unsigned())
}

/// Makes sure that the log holds all that comes after the state, and is the one that the state was made of.
///
/// # Errors
/// [`BudgetsError::LogBehind`], [`BudgetsError::OtherLog`], [`BudgetsError::LogGap`]: each says what can be
/// done.
pub(super) async fn verify(
    partition: u32,
    state: &State,
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
        // Marks of Kafka's transactions, or records that were set aside.
        _ => Ok(()),
    }
}

/// Makes the state go on with a log that it does not belong to, because the operator wants it: nothing is
/// counted twice, and what is missing stays missing.
pub(super) async fn accept_loss(
    partition: u32,
    state: &mut State,
    log: &dyn EventLog,
) -> Result<(), BudgetsError> {
    let problem = match verify(partition, state, log).await {
        Ok(()) => return Ok(()),
        Err(problem) => problem,
    };
    let before = state.offset;
    state.offset = match problem {
        // New records get offsets after the checkpoint's, or the checkpoint is moved back.
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
        "records of the event log are lost, and the operator has accepted that"
    );
    Ok(())
}
