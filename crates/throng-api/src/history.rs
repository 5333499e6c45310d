//! The history of objects.

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use utoipa::ToSchema;

use crate::rates::BudgetRates;

/// The history of an object, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "history": [
        {
            "subject_kind": "audience", "subject": "buyers", "what": "approved",
            "why": "version 3 with 1200345 members: the held snapshot was approved",
            "at": 1795536000000000_i64, "actor": "ann"
        }
    ]
}))]
pub struct History {
    /// The entries.
    pub history: Vec<HistoryItem>,
    /// Of an ad group: its declared and learned rates; null for others.
    #[serde(default)]
    pub rates: Option<BudgetRates>,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "subject_kind": "audience", "subject": "buyers", "what": "approved",
    "why": "version 3 with 1200345 members: the held snapshot was approved",
    "at": 1795536000000000_i64, "actor": "ann"
}))]
pub struct HistoryItem {
    /// `audience`, `sync`, `ad_group`, `spec`, …
    pub subject_kind: String,
    /// The name of the object.
    pub subject: String,
    /// What happened.
    pub what: String,
    /// Why it happened.
    pub why: String,
    /// When it happened.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The name of the token of the caller; null if the node acted by itself.
    pub actor: Option<String>,
}
