//! Tests of the ledger against real files and a real server.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a test fails")]

mod disk;
mod integrity;
mod migrations;
mod postgres;
mod sqlite;
