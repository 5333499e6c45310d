//! Destinations of audiences: ad platforms and folders of files. Each has one folder with the same files, and
//! one line in `registry`.
//!
//! A folder contains `config` (the settings of an account), `normalise` (identifiers → cells; pure),
//! `request` (encoding of requests; pure), `response` (decoding of responses and classes of errors; pure) and
//! `destination` (the calls). `file` prepares rows as `meta` does and has no `normalise`. The contract is
//! `docs/specs/destination.md`; `docs/write-a-destination.md` explains `file` step by step.

mod calls;
pub mod file;
pub mod meta;
mod pacing;
mod platform;
mod registry;

pub use calls::{AccountCalls, CallPermit, Permission};
pub use file::FileAccount;
pub use meta::{MetaAccount, normalised_email, normalised_phone, phone_has_calling_code};
pub use pacing::{CallAdmission, CallKind, CallLimits, CallPacer, CallStart};
pub use platform::{Preparation, RegistryError};
pub use registry::{Account, call_limits, open, open_paced, platforms, preparation, size_limits};
