//! The feed's wire format, from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod frame;
mod golden;
