//! Where audiences are kept: ad platforms and folders for files. One folder each, the same files in
//! each, one line in `registry`.
//!
//! A folder holds `config` (what an account needs), `normalise` (identifiers → cells; pure),
//! `request` (what is sent; pure), `response` (what came back, and what to do about it; pure) and
//! `destination` (the calls). `file` prepares rows as `meta` does and has no `normalise`. What every one
//! of them must do is written in `docs/specs/destination.md`; `docs/write-a-destination.md` goes through
//! `file` step by step.

pub mod file;
pub mod meta;
mod registry;

pub use file::{FileAccount, FileFormat};
pub use meta::MetaAccount;
pub use registry::{Account, Preparation, RegistryError, open, platforms, preparation};
