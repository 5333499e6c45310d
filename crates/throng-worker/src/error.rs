//! Errors of query workers.

use std::error::Error;
use std::io;

use crate::exit::WorkerExit;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The query worker exited before it had answered, or was killed because of a limit.
    #[error("the query worker has exited")]
    Exited(#[source] WorkerExit),
    /// A query worker cannot restrict itself to what it may use, or would lack rights that it
    /// needs: it is not started.
    #[error("a query worker cannot {what}")]
    Confine {
        /// What it cannot do, with the folder's path.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No query worker can be started, or it does not answer as one.
    #[error("cannot start a query worker with {program}")]
    Start {
        /// The program that was started.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What receives the output of the request returned an error.
    #[error("the output of the query worker could not be stored")]
    Output(#[source] Box<dyn Error + Send + Sync>),
}

impl WorkerError {
    /// The hint for queries that need more memory than they may use.
    pub const MORE_MEMORY: &str =
        "raise node.memory_limit_bytes, or let the model aggregate before it joins";

    /// What to do if a query worker did not answer.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Exited(WorkerExit::Memory { .. }) => Some(Self::MORE_MEMORY),
            Self::Exited(WorkerExit::Timeout { .. }) => {
                Some("raise node.query_timeout_secs, or let the model read less")
            }
            Self::Exited(WorkerExit::Stack) => {
                Some("write long chains of OR as IN (…), and nest less")
            }
            Self::Confine { what, .. } if what.contains("spill folder") => Some(
                "check node.spill_dir: it must be a folder that the node can write; it may be empty",
            ),
            _ => None,
        }
    }
}
