//! What is known of a model without a query engine: its SQL as text ([`canonical`], [`position`]), errors without
//! values of the data ([`mask`]), and the rules by which the rows of a user decide whether the user is a member
//! ([`rule`], [`sum`]). Pure.

pub mod canonical;
pub mod mask;
pub mod position;
pub mod rule;
pub mod sum;
