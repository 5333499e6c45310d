//! Copies of the objects of an S3 server, and of a server whose answers the tests choose.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod bucket;
mod chosen;
mod chosen_server;
mod object_cache;
mod updates;
