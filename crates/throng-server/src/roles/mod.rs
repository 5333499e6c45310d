//! The roles of a node. Each one is a reconciler: it runs on a signal and on a timer, reads the ledger, and
//! does the same in both cases.

pub(crate) mod activate;
pub(crate) mod aggregate;
pub(crate) mod cluster;
pub(crate) mod notify;
pub(crate) mod refresh;
pub(crate) mod schedule;
pub(crate) mod templates;
