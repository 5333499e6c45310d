//! Maps rows of the store and values of other crates to the types of the API. A field of a row that the API
//! must not show is left out here, and a field that is renamed in the store keeps its name on the wire.

pub(super) mod activation;
pub(super) mod alerts;
pub(super) mod audiences;
pub(super) mod budgets;
pub(super) mod node;
pub(super) mod sources;
pub(super) mod spec;
