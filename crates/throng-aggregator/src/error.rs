//! Errors of the aggregator.

use std::sync::Arc;

use throng_log::LogError;
use throng_objects::ObjectsError;

/// Why partitions could not be opened, or events not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BudgetsError {
    /// The event log.
    #[error("the event log failed")]
    Log(#[from] LogError),
    /// A checkpoint.
    #[error("a checkpoint failed")]
    Checkpoint(#[from] CheckpointError),
    /// The state in a checkpoint.
    #[error("the state in the checkpoint of partition {partition} cannot be restored")]
    State {
        /// The partition.
        partition: u32,
        /// The error of the engine.
        #[source]
        source: throng_budget::InvalidCheckpoint,
    },
    /// The checkpoint is ahead of the log.
    #[error(
        "the event log of partition {partition} ends at offset {end}, and its checkpoint is at \
         {checkpoint}: {} acknowledged records are missing. Restore the event log from a backup that is not \
         older than the checkpoint; or continue without these records: \
         throng up --accept-log-loss {partition}",
        checkpoint.saturating_sub(*end)
    )]
    LogBehind {
        /// The partition.
        partition: u32,
        /// The next offset to apply, by the checkpoint.
        checkpoint: u64,
        /// The offset of the log's next record.
        end: u64,
    },
    /// The log is not the one from which the checkpoint was made.
    #[error(
        "record {offset} of partition {partition} of the event log is not the one from which the checkpoint \
         was made: log and checkpoint are from different copies. Restore both from one backup; or continue \
         at the end of this log (in Kafka: with its records of the last node.dedupe_hours): throng up --accept-log-loss {partition}"
    )]
    OtherLog {
        /// The partition.
        partition: u32,
        /// The offset of the record.
        offset: u64,
    },
    /// Records were deleted before they were counted.
    #[error(
        "the event log of partition {partition} starts at offset {start}, and its checkpoint is at \
         {checkpoint}: {} records were deleted before they were counted. Restore the event log from a \
         backup; or continue without these records: throng up --accept-log-loss {partition}",
        start.saturating_sub(*checkpoint)
    )]
    LogGap {
        /// The partition.
        partition: u32,
        /// The next offset to apply, by the checkpoint.
        checkpoint: u64,
        /// The offset of the log's first record.
        start: u64,
    },
    /// Records could not be applied: a bug, or damage that no checksum detects.
    #[error("applying records of partition {partition} panicked, from offset {offset} on")]
    Panicked {
        /// The partition.
        partition: u32,
        /// The offset of the first of them.
        offset: u64,
    },
    /// The list of quarantined records.
    #[error("the quarantine of partition {partition} cannot be read or written")]
    Quarantine {
        /// The partition.
        partition: u32,
        /// The error of the object storage.
        #[source]
        source: ObjectsError,
    },
    /// Runs of ids, by which duplicates are found, could not be read or written.
    #[error("the ids of partition {partition} cannot be read or written")]
    Ids {
        /// The partition.
        partition: u32,
        /// The error of the object storage or the disk.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of spend of past days could not be read or written.
    #[error(
        "the file {object}, which has spend of past days, cannot be read or written. If it is missing or \
         damaged, restore it from a backup: see docs/operate/durability.md"
    )]
    Slices {
        /// The object.
        object: String,
        /// The error of the object storage or the disk.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The partition is being restarted.
    #[error("partition {partition} does not work now: it is being reopened from its checkpoint")]
    Unavailable {
        /// The partition.
        partition: u32,
    },
    /// Events of an ad group that the leader of its partition does not have yet.
    #[error(
        "the process that leads partition {partition} does not have the newest version of the spec yet, and \
         would not count events of its new ad groups"
    )]
    CatalogBehind {
        /// The partition.
        partition: u32,
    },
    /// Events of an ad group that only a newer version of the spec has than the one that this process runs.
    #[error(
        "this process does not have the newest version of the spec yet, which has an ad group of these events"
    )]
    SpecBehind,
    /// Events could not be appended; all callers of one append share the error.
    #[error("{}", append_failure(.0))]
    Append(#[source] Arc<LogError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
}

/// What a failed append means for its events.
fn append_failure(error: &LogError) -> &'static str {
    match error {
        LogError::Unreachable { .. } => {
            "the event log cannot be reached, so the events are refused"
        }
        error if error.may_be_appended() => {
            "the event log did not confirm the events in time: they may be stored or not"
        }
        _ => "the events could not be written to the event log",
    }
}

impl BudgetsError {
    /// Whether events whose [`accept`](crate::Budgets::accept) failed with it may be in the log all the same, and count
    /// when they are applied.
    pub fn may_be_appended(&self) -> bool {
        matches!(self, Self::Append(error) if error.may_be_appended())
    }

    /// Whether the local disk is the cause.
    pub(super) fn is_disk_error(&self) -> bool {
        match self {
            Self::Log(error) => error.is_disk_error(),
            Self::Append(error) => error.is_disk_error(),
            Self::Checkpoint(CheckpointError::Store { source, .. })
            | Self::Quarantine { source, .. } => matches!(source, ObjectsError::Io { .. }),
            Self::Ids { source, .. } | Self::Slices { source, .. } => {
                source.is::<std::io::Error>()
                    || matches!(source.downcast_ref(), Some(ObjectsError::Io { .. }))
            }
            _ => false,
        }
    }
}

/// Why a checkpoint was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The object storage failed.
    #[error("the checkpoint of partition {partition} cannot be read or written")]
    Store {
        /// The partition.
        partition: u32,
        /// The error of the object storage.
        #[source]
        source: ObjectsError,
    },
    /// It is damaged, or of another partition or version.
    #[error(
        "the object {name} is not a checkpoint that this version can read: {why}. If a newer version wrote \
         it, run that one; if it is damaged, see docs/operate/durability.md#a-damaged-checkpoint"
    )]
    Unreadable {
        /// The object.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another process leads the partition now.
    #[error("another process has taken over partition {partition}")]
    Fenced {
        /// The partition.
        partition: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn only_an_append_that_was_not_confirmed_may_count_later() {
        let append = |error| BudgetsError::Append(Arc::new(error));
        let path = || PathBuf::from("log/0");
        assert!(append(LogError::UnconfirmedWrite { path: path() }).may_be_appended());
        let low = LogError::DiskLow { path: path(), available: 1, min_free: 2 };
        assert!(!append(low).may_be_appended());
        let unreachable = || LogError::Unreachable { topic: "throng.events".to_owned() };
        assert!(!append(unreachable()).may_be_appended());
        assert!(append(unreachable()).to_string().contains("refused"));
        let late = append(LogError::AppendTimeout { limit: std::time::Duration::from_secs(20) });
        assert!(late.may_be_appended() && late.to_string().contains("may be stored or not"));
        // Neither was tried.
        assert!(!BudgetsError::Closed.may_be_appended());
        assert!(!BudgetsError::CatalogBehind { partition: 0 }.may_be_appended());
    }
}
