//! The schemas of the responses for the OpenAPI description. Handlers build responses from the rows of other
//! crates; the types here are never constructed, and a test compares their schemas with the responses of a node.

#![allow(dead_code, reason = "the fields are read by the derived schemas only")]

mod activation;
mod audiences;
mod budgets;
mod node;

pub(super) use activation::*;
pub(super) use audiences::*;
pub(super) use budgets::*;
pub(super) use node::*;
