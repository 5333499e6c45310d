//! Ad platforms: one folder each, the same files in each, one line in `registry`.
//!
//! A folder holds `config` (what an account needs), `normalise` (identifiers → cells; pure),
//! `request` (what goes on the wire; pure), `response` (what came back, and what to do about it;
//! pure) and `destination` (the calls). What every one of them must do is written in
//! `docs/specs/destination.md`.

pub mod meta;
mod registry;

pub use registry::{Account, Preparation, RegistryError, open, platforms, preparation};
