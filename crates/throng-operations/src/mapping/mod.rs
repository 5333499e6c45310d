//! Maps rows of the store and values of other crates to the types of the API. A field of a row that the API
//! must not show is left out here, and a field that is renamed in the store keeps its name on the wire.

pub mod activation;
pub mod alerts;
pub mod audiences;
pub mod budgets;
pub mod sources;
pub mod spec;
