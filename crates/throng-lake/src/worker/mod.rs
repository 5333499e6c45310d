//! Query workers: SQL is planned and run in a child process, so that no statement can hurt the
//! process that serves. See `docs/operate/queries.md` and `docs/adr/0009-run-sql-in-child-processes.md`.
//!
//! `protocol` is what goes over the pipes, `child` is the worker, `confine` its own limits, `process`
//! is one worker as the parent sees it, `pool` keeps workers for the next query.

mod child;
mod confine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod pool;
mod process;
mod protocol;
mod spawner;
mod spill;

use std::path::PathBuf;

pub use child::main;
pub use confine::Landlock;
pub(crate) use pool::{Class, Pool};
pub(crate) use process::Output;
pub use process::WorkerDeath;
pub(crate) use protocol::{Reply, Request};

/// The first argument of the `throng` binary when it runs as a query worker.
pub const SUBCOMMAND: &str = "query-worker";

/// How a query worker is started: a program whose `main` calls [`main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Default for WorkerCommand {
    /// The program that runs now, with the argument [`SUBCOMMAND`]. It is named by
    /// `/proc/self/exe`, which is the running program even after its file was replaced.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec![SUBCOMMAND.to_owned()] }
    }
}

impl WorkerCommand {
    /// A program that is a query worker and nothing else.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new() }
    }
}
