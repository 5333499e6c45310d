//! Budgets, decisions, and records of the event log that are skipped.

use serde::Deserialize;
use throng_model::Micros;

/// `GET /v1/budgets`.
#[derive(Debug, Deserialize)]
pub(crate) struct BudgetList {
    pub(crate) budgets: Vec<BudgetState>,
}

/// `GET /v1/budgets/{ad_group}`.
#[derive(Debug, Deserialize)]
pub(crate) struct BudgetDetail {
    pub(crate) state: BudgetState,
}

/// The budget of an ad group.
#[derive(Debug, Deserialize)]
pub(crate) struct BudgetState {
    pub(crate) name: String,
    pub(crate) open: bool,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) currency: String,
    pub(crate) budget_micros: Micros,
    pub(crate) actual_micros: Micros,
    pub(crate) in_flight_micros: Micros,
    pub(crate) projected_micros: Micros,
}

/// `POST /v1/decide`.
#[derive(Debug, Deserialize)]
pub(crate) struct Decision {
    pub(crate) allowed: Vec<String>,
    pub(crate) refused: Vec<RefusedAdGroup>,
}

/// An ad group that may not be shown.
#[derive(Debug, Deserialize)]
pub(crate) struct RefusedAdGroup {
    pub(crate) ad_group: String,
    pub(crate) why: String,
}

/// `GET /v1/events/quarantine`.
#[derive(Debug, Deserialize)]
pub(crate) struct Quarantine {
    pub(crate) partitions: Vec<QuarantinedPartition>,
}

/// The records of a partition that are skipped.
#[derive(Debug, Deserialize)]
pub(crate) struct QuarantinedPartition {
    pub(crate) partition: u32,
    pub(crate) total: u64,
    /// The first of them.
    #[serde(default)]
    pub(crate) records: Vec<QuarantinedRecord>,
}

/// A record that is skipped.
#[derive(Debug, Deserialize)]
pub(crate) struct QuarantinedRecord {
    pub(crate) offset: u64,
    /// The number of tries.
    pub(crate) count: u64,
    pub(crate) reason: String,
}
