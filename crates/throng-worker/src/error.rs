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
