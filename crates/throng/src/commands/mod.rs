//! One file per command.

pub(crate) mod access;
pub(crate) mod alerts;
pub(crate) mod audience;
pub(crate) mod backup;
pub(crate) mod budget;
pub(crate) mod build;
mod bulk;
pub(crate) mod demo;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod ingest;
pub(crate) mod inspect;
mod lists;
pub(crate) mod sim;
pub(crate) mod sources;
pub(crate) mod spec;
pub(crate) mod store;
pub(crate) mod sync;
pub(crate) mod up;
