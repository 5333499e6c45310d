//! Query workers: child processes that answer the requests of a node, so that no request can harm the node.
//! See `docs/operate/queries.md` and `docs/adr/0009-run-sql-in-child-processes.md`.
//!
//! A worker is any program whose `main` calls [`main`] with a [`Handler`]. It limits itself before it reads its
//! first request: memory, niceness, and by Landlock the folders that it may read and write. The node starts
//! workers through a [`Pool`], which keeps idle ones for the next request, and kills a worker that uses too much
//! memory or time.
//!
//! What is requested and answered is the program's own: messages are any types with serde, and the payloads of
//! data frames are bytes, which an [`Output`] receives. [`frame`] has their form on the pipes.
//!
//! The modules: `frame` and `setup` have what is sent over the pipes, `child` is the worker's side, `confine`
//! sets its limits, `process` is the node's side of one worker, `pool` has all workers of a node.

mod child;
mod command;
mod confine;
mod error;
mod exit;
pub mod frame;
mod limits;
mod output;
mod pool;
mod process;
mod setup;
mod spawner;
mod spill;

pub use child::{Handler, main};
pub use command::{SUBCOMMAND, WorkerCommand};
pub use confine::{Landlock, restrict_files};
pub use error::WorkerError;
pub use exit::WorkerExit;
pub use output::{ExchangeError, NoOutput, Output};
pub use pool::{ClassLimits, Pool, PoolSettings, WorkerClass};
pub use setup::{Confinement, Setup, SystemError, UnopenedFolder};
