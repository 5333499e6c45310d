//! Members of audiences in key-value stores of the deployment's own, for ad servers that look users up there.
//!
//! After each publish of an audience the difference to the version that a store has is written in batches of
//! [`BATCH_USERS`], as one *write*: a row of the ledger that says how many users are written, so that another
//! process continues there, and that stays as its receipt. A batch that is written twice leaves the same store.
//!
//! What a store has is known from these rows. Where it is not known (its address or form has changed, the
//! snapshot that it has is lost, or a person says so) the write is a *rewrite*: every known user is either added or
//! removed, so that the result does not depend on what was there. A check compares samples, and raises an alert
//! where the store differs.
//!
//! In reading order: `step` decides what is due, `changes` gives the users of a write, `writer` writes them,
//! `check` compares samples, `leader` runs all of it in one process of a cluster, in passes that end when the spec
//! changes a store (`pass`). [`StoreConnector`] has the engines, `redis_store` and `bigtable`, and the `rate` of each
//! store. [`try_store`] tries one without a write.

mod alerts;
mod bigtable;
mod changes;
mod check;
mod check_backoff;
mod connector;
mod deps;
mod error;
mod leader;
mod pass;
mod probe;
mod rate;
mod redis_store;
mod step;
mod writer;

pub use alerts::alert_subject;
pub use check_backoff::CheckBackoff;
pub use connector::StoreConnector;
pub use deps::{Change, Connector, MemberStore, StoresDeps};
pub use error::StoreError;
pub use leader::{run_leader, run_pass};
pub use probe::try_store;
pub use writer::BATCH_USERS;
