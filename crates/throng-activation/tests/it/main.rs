//! The worker against a platform that lives in memory and can fail in every way, with the real
//! ledger and the real dictionaries. After every step the counts add up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod platform;
mod rig;
mod worker;
