//! Queries without an engine: models ([`model`]) and their SQL as text ([`canonical`], [`position`]), errors without
//! values of the data ([`mask`]), the keys of scans ([`keys`]), the groups of their rows ([`tuples`]), and the rules by
//! which the rows of a user decide whether the user is a member ([`rule`], [`sum`]). Pure.

pub mod canonical;
pub mod keys;
pub mod mask;
pub mod model;
pub mod position;
pub mod rule;
pub mod sum;
pub mod tuples;
