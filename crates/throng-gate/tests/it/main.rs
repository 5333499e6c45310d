//! The feed format and the gate, from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod feed;
mod gate;
