//! Dictionaries, snapshots, sets and the index, against simple judges and damaged files.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod dictionary;
mod index;
mod set;
mod snapshot;
mod support;
