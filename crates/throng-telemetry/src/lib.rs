//! What operators observe of a node, in one place: the [`metrics`] with their units and help, and
//! the [`spans`] that log lines belong to. Roles, the runtimes that have crates of their own and
//! the HTTP API record through it; it installs neither a recorder nor a subscriber, which is for
//! programs to do.

mod families;
pub mod metrics;
pub mod spans;

pub use families::Families;
