//! The applied spec: how it is stored, and what has to change together in a process when another one is applied.
//!
//! A spec is applied in three steps, so that each can be shown before the next: [`SpecApplier::check`] it,
//! [`SpecApplier::plan`] it against the applied one, and [`SpecApplier::apply`] it. It is applied when the ledger has
//! it; then every part of the process switches: budgets, gate, lake and the [`RunningSpec`]. Other processes of the
//! cluster see the new version and switch too ([`SpecApplier::switch_to_applied`]). A spec of a newer version of
//! Throng is never replaced, because this one would drop what it does not know.

mod applier;
pub mod changes;
mod error;
mod gate;
mod lake;
mod running;
mod start;
mod stored;
mod templates;

pub use applier::{CheckedSpec, Planned, SpecApplier, SpecObserver};
pub use error::{ApplyError, Refusal};
pub use gate::{GateSink, open_gate};
pub use lake::{LakeOpener, spill_dir};
pub use running::RunningSpec;
pub use stored::{LoadedSpec, WrittenSpec, is_declared_later, load_applied, load_previous, store};
pub use templates::expand_at_start;
