//! SQL past one machine, on Apache DataFusion Ballista: a scheduler and any number of executors, all of them this
//! program, run the queries of a lake whose rows must be seen together.
//!
//! A query worker plans a query as it does for itself, and sends the plan to the scheduler ([`cluster`]). The scheduler
//! ([`run_scheduler`]) divides it into stages of tasks, and executors ([`run_executor`]) run the tasks over the same files at
//! the same paths. The worker reads the result through the scheduler and hashes it.
//!
//! Whoever reaches a scheduler or an executor can read and write what it can. So each of them is confined to some
//! folders, and takes connections from other machines only with certificates of one authority, which are for
//! [`CERTIFICATE_NAME`].

mod checked_stage;
mod client;
mod codec;
mod command;
mod executor;
mod guarded;
mod objects;
mod peers;
mod running_tasks;
mod scheduler;
mod tls;

pub use client::cluster;
pub use command::{SUBCOMMAND, process};
pub use executor::{ExecutorOptions, run_executor};
pub use scheduler::{SchedulerOptions, run_scheduler};
pub use tls::CERTIFICATE_NAME;

/// The largest message between processes of a cluster, in bytes: a plan with its files, or a batch of a result.
const MAX_MESSAGE_BYTES: u32 = 256 << 20;

/// Why a process of a cluster cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A port, a folder or a file cannot be used.
    #[error("cannot {doing}")]
    System {
        /// What cannot be done.
        doing: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file of a certificate or a key cannot be read.
    #[error(transparent)]
    File(#[from] throng_files::FileError),
    /// The options do not fit each other.
    #[error("{0}")]
    Options(String),
    /// The engine failed.
    #[error("the process of the cluster has failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClusterError {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    pub(crate) fn engine(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Engine(error.into())
    }
}
