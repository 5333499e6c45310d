//! What can go wrong with budget states.

use std::sync::Arc;

use throng_budget::RecordError;
use throng_log::LogError;

use super::CheckpointError;

/// Why budget states could not be opened, or events not be accepted.
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
        /// What the engine says.
        #[source]
        source: throng_budget::CheckpointError,
    },
    /// A record of the log is not an event of this version.
    #[error("record {offset} of partition {partition} of the event log is not an event")]
    Record {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// Events could not be appended; several callers share the reason.
    #[error("the events could not be written to the event log")]
    Append(#[source] Arc<LogError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
}
