//! What activation gets from platforms and from the lake, for which it has traits only.
//!
//! [`OpenDestinations`] opens the accounts of a spec by the registry of platforms, with their secrets.
//! [`LakeQueries`] runs the identifier queries of syncs; their rows are hashed for the platform in the query worker
//! that reads them, so that plain identifiers never leave it. A program that runs queries is its own query worker:
//! [`query_worker`].

mod accounts;
mod hashing;
mod identifiers;

pub use accounts::OpenDestinations;
pub use hashing::{query_worker, query_worker_with_cluster};
pub use identifiers::LakeQueries;
