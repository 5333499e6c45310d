//! Tests of the ledger against real files.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a test fails")]

mod sqlite;
