//! The jobs that a node can do. Each role is a reconciler: it runs on a signal and on a timer,
//! reads the ledger, and does the same thing either way.

pub mod activate;
pub mod aggregate;
pub mod follow;
pub(crate) mod notify;
pub mod probe;
pub(crate) mod refresh;
pub mod schedule;
