//! The answers of the API as schemas of its description. Answers are made of the rows of other crates;
//! what is here is never constructed, and a test compares it with what a node answers.

#![allow(dead_code, reason = "the fields are read by the derived schemas only")]

mod activation;
mod audiences;
mod budgets;
mod node;

pub(super) use activation::*;
pub(super) use audiences::*;
pub(super) use budgets::*;
pub(super) use node::*;
