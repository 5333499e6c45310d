//! Queries without an engine: models ([`model`]) and their SQL as text ([`canonical`], [`position`]), errors without
//! values of the data ([`mask`]), the keys of scans ([`keys`]), the groups of their rows ([`tuples`]), the rules by
//! which the rows of a user decide whether the user is a member ([`rule`], [`sum`], [`members`]), what models read ([`inputs`]),
//! columns whose types have changed ([`retyped`]), what queries may use ([`limits`]), lists of sources
//! ([`listing`]), sources in buckets ([`copies`]), errors of files on their way from a worker ([`file_failure`]), what
//! the program that runs the engine supplies ([`hashers`]), and what warehouses promise that run SQL themselves
//! ([`warehouse`]). Pure.

pub mod canonical;
pub mod copies;
pub mod file_failure;
pub mod hashers;
pub mod inputs;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod mask;
pub mod members;
pub mod model;
pub mod position;
pub mod retyped;
pub mod rule;
pub mod sum;
pub mod tuples;
pub mod warehouse;
