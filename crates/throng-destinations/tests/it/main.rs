//! The destinations against simulators of their platforms, over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod lists;
mod meta;
