//! Whether a checkpoint and the log belong together. They are stored separately, so one of them can be lost,
//! restored from a backup, or replaced without the other. Applying a log to a state that was not made from
//! it would count events twice or leave some out, without any error.

use throng_log::EventLog;
use throng_model::Timestamp;

use super::BudgetsError;
use super::quarantine::Quarantine;
use super::state::{PartitionState, checksum};

/// Checks that a state can continue with a log. `accept_loss`: the operator has accepted that records are
/// lost.
///
/// # Errors
/// As [`verify`], unless the loss is accepted; [`BudgetsError::Quarantine`].
pub(super) async fn check(
    state: &mut PartitionState,
    log: &dyn EventLog,
    quarantine: &Quarantine,
    accept_loss: bool,
    now: Timestamp,
) -> Result<(), BudgetsError> {
    let (partition, before) = (state.engine.partition(), state.offset);
    if !accept_loss {
        return verify(partition, state, log).await;
    }
    continue_after_loss(partition, state, log, now).await?;
    if state.offset < before {
        // Before a checkpoint has the new offset: the next start would skip records of this log.
        let forgotten = quarantine.forget_from(state.offset).await;
        forgotten.map_err(|source| BudgetsError::Quarantine { partition, source })?;
    }
    Ok(())
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
    now: Timestamp,
) -> Result<(), BudgetsError> {
    let problem = match verify(partition, state, log).await {
        Ok(()) => return Ok(()),
        Err(problem) => problem,
    };
    let before = state.offset;
    state.offset = match problem {
        // If new records got offsets that the checkpoint has already, the next start would leave them out:
        // either the log skips these offsets, or the state goes back in the log.
        BudgetsError::LogBehind { checkpoint, .. } => {
            match log.skip_to(partition, checkpoint).await? {
                true => checkpoint,
                false => first_since(partition, log, state.engine.remembers_from(now)).await?,
            }
        }
        // Its records may be of events that the state has counted already, and no offset shows which. In a log that
        // nothing else writes, all of them are left out: none was appended since the state was refused.
        BudgetsError::OtherLog { .. } if log.is_exclusive() => log.end(partition).await?,
        BudgetsError::OtherLog { .. } => {
            first_since(partition, log, state.engine.remembers_from(now)).await?
        }
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

/// The offset of the first record that is not older than `time`; the end, if there is none. With the time from which on
/// the state remembers ids, all records from there on can be applied: those of events that it has counted are
/// duplicates, and those that were accepted while the partition waited count, as in a topic that was created again.
/// By bisection: a topic may have days of records before it, and each read is one of the brokers. Times differ from the
/// order of offsets by the clocks of nodes alone.
async fn first_since(
    partition: u32,
    log: &dyn EventLog,
    time: Timestamp,
) -> Result<u64, BudgetsError> {
    let (start, end) = (log.start(partition).await?, log.end(partition).await?);
    // Before `offset` all are older, and from `newer` on none is.
    let (mut offset, mut newer) = (start, end);
    while offset < newer {
        let middle = offset + (newer - offset) / 2;
        // A limit of 0 bytes still returns the first record, and no more.
        match log.read(partition, middle, 0).await?.first() {
            Some(record) if record.at < time => offset = record.offset + 1,
            // Or there is no record from there on.
            _ => newer = middle,
        }
    }
    if offset > start {
        let records = offset - start;
        tracing::warn!(
            partition,
            start,
            records,
            "skipping records that are too old to be distinguished from counted ones"
        );
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_log::{FileLog, FileLogOptions};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn records_are_left_out_up_to_the_first_one_that_is_new_enough() {
        let dir = tempfile::tempdir().unwrap();
        let log = FileLog::open_with(dir.path(), FileLogOptions::new(1)).unwrap();
        let since = async |time| first_since(0, &log, Timestamp(time)).await.unwrap();
        assert_eq!(since(0).await, 0, "an empty log");
        // One was late.
        for at in [10, 20, 15, 30] {
            log.append(0, Timestamp(at), vec![Bytes::from_static(b"record")]).await.unwrap();
        }
        let found = [since(i64::MIN).await, since(10).await, since(11).await, since(21).await];
        assert_eq!(found, [0, 0, 1, 3]);
        assert_eq!(since(31).await, 4, "the end");
    }
}
