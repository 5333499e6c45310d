//! What operators observe of a node, in one place: the [`metrics`] with their units and help, the [`spans`]
//! that log lines belong to, and the open problems ([`Health`]). Roles, the runtimes that have crates of their own and
//! the HTTP API record through it; it installs neither a recorder nor a subscriber, which is for
//! programs to do.

mod families;
mod health;
pub mod metrics;
pub mod spans;

pub use families::Families;
pub use health::{Health, HealthProblem, Impact, ProblemClass};
