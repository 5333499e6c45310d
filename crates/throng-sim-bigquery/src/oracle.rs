//! What happened, for tests.

use serde::Serialize;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobRecord {
    /// Its id.
    pub id: String,
    /// Its SQL.
    pub sql: String,
    /// Its labels, by name.
    pub labels: Vec<(String, String)>,
    /// The first row of each page that was served, in order.
    pub pages: Vec<usize>,
}

/// What happened. Calls whose connection was cut before they were done are not counted, except in
/// `hanging`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Oracle {
    /// The jobs that were created, the oldest first.
    pub jobs: Vec<JobRecord>,
    /// Creations that were refused because the id exists.
    pub duplicates: u64,
    /// Dry runs.
    pub dry_runs: u64,
    /// Access tokens that were issued.
    pub tokens: u64,
    /// Calls that are not answered.
    pub hanging: u64,
    /// Faults that were injected.
    pub faults: u64,
}
