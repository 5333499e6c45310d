//! Query workers: SQL is planned and run in a child process, so that no statement can harm the
//! serving process. See `docs/operate/queries.md` and
//! `docs/adr/0009-run-sql-in-child-processes.md`.
//!
//! `protocol` has the messages on the pipes, `child` is the worker's side, `confine` sets its
//! limits, `process` is the parent's side of one worker, `pool` keeps idle workers for the next
//! query.

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
pub(crate) use pool::{Pool, QueryClass};
pub(crate) use process::Output;
pub use process::WorkerExit;
pub(crate) use protocol::{Reply, Request};

/// The first argument of the `throng` binary that makes it a query worker.
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
    /// The running program, with the argument [`SUBCOMMAND`]. Its path is `/proc/self/exe`, which
    /// stays the running program after its file was replaced.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec![SUBCOMMAND.to_owned()] }
    }
}

impl WorkerCommand {
    /// A program that is only a query worker.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new() }
    }
}
