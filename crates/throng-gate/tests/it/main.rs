//! The gate, from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod gate;
mod returns;
