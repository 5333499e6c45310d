//! Answers of a node's HTTP API that are not read as the types of `throng-api`: errors, because a proxy may
//! have sent something else, and plans of specs, because `throng-spec` prints them.

mod error;
mod spec;

pub(crate) use error::{ErrorDetail, error_of, problems_of};
pub(crate) use spec::{AppliedSpec, PlannedSpec};
