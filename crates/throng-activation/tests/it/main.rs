//! The worker against a platform in memory that can fail in every way, with a real ledger and real
//! dictionaries. The counts add up after every step.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod mirror;
mod platform;
mod rig;
mod worker;
