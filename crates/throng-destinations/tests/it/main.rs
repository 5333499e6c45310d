//! The destinations against simulators of their platforms, over HTTP, and against folders.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod consumer;
mod contract;
mod file;
mod lists;
mod meta;
mod pacing;
