//! How a query worker is started.

use std::path::PathBuf;

/// The first argument of the `throng` binary that makes it a query worker.
pub const SUBCOMMAND: &str = "query-worker";

/// How a query worker is started: a program whose `main` calls [`main`](crate::main).
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
