//! Dictionaries, snapshots, sets and the index, compared with simple models, and with damaged
//! files.

#![allow(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod dictionary;
mod index;
mod set;
mod snapshot;
mod support;
