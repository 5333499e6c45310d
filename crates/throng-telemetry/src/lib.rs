//! What operators observe of a node, in one place: the [`metrics`] with their units and help. Roles, the
//! runtimes that have crates of their own and the HTTP API record through it; it does not install a
//! recorder, which is for programs to do.

pub mod metrics;
