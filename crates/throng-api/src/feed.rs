//! The catalog of ad groups, and the versions of the feed that gates have applied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Currency, Micros, Timestamp};
use utoipa::ToSchema;

/// The query of a subscription to the feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedQuery {
    /// The id of the gate, for the list of gates.
    pub gate: Option<String>,
    /// The format of the frames: 1 (default), 2 with log positions, or 3 with pass-through rates too.
    pub format: Option<u32>,
}

/// The header that says, in responses with the feed and the catalog, of which deployment they are: 16 hexadecimal
/// digits, the `seed_check` of its snapshots. Frames do not say it.
pub const DEPLOYMENT_HEADER: &str = "throng-deployment";

/// The maximum length of the id of a gate, in bytes.
const MAX_GATE_ID_BYTES: usize = 128;

/// The rule of [`is_gate_id`], for messages.
pub const GATE_ID_RULE: &str = "the id of a gate has 1 to 128 letters, digits, `-`, `_`, `.` and `:`, \
     and at least one letter or digit";

/// Whether a text can be the id of a gate. It is a part of a path, in which `.` and `..` have another
/// meaning.
pub fn is_gate_id(text: &str) -> bool {
    text.len() <= MAX_GATE_ID_BYTES
        && text.bytes().any(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// The ad groups that gates decide about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": 4,
    "ad_groups": [
        {
            "index": 0, "name": "shoes", "daily_budget": 1000000, "currency": "USD",
            "prediction": true, "include": ["buyers"], "exclude": [], "when_stale": "serve",
            "expected": 50000
        }
    ]
}))]
pub struct AdGroupCatalog {
    /// Increases with each change.
    pub version: u64,
    /// The ad groups, in any order.
    pub ad_groups: Vec<AdGroupEntry>,
}

/// What to do with an ad group whose feed is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdGroupWhenStale {
    /// Continue with the last known amounts.
    Serve,
    /// Show nothing.
    Stop,
}

/// An ad group of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdGroupEntry {
    /// Its index in the feed.
    #[schema(value_type = u32)]
    pub index: AdGroupIndex,
    /// The name.
    #[schema(value_type = String)]
    pub name: AdGroupName,
    /// The budget of a day.
    #[schema(value_type = i64)]
    pub daily_budget: Micros,
    /// The currency of the amounts.
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
    /// Whether in-flight spend counts against the budget.
    pub prediction: bool,
    /// Users must be in at least one of these audiences; empty: all users.
    #[schema(value_type = Vec<String>)]
    pub include: Vec<AudienceName>,
    /// Users must not be in any of these audiences.
    #[schema(value_type = Vec<String>)]
    pub exclude: Vec<AudienceName>,
    /// What to do when the feed is stale.
    pub when_stale: AdGroupWhenStale,
    /// The expected spend of one insertion.
    #[schema(value_type = i64)]
    pub expected: Micros,
}

/// The versions that a gate has applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "versions": { "0": 118, "1": 97 } }))]
pub struct AppliedVersions {
    /// The version of the last applied frame, by partition.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub versions: BTreeMap<u32, u64>,
}

/// The gates that have reported within the last hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "gates": [
        {
            "id": "ad-server-1", "versions": [[0, 118], [1, 97]], "at": 1795536000000000_i64,
            "age_seconds": 0.8
        }
    ],
    "partitions": [{ "partition": 0, "epoch": 3, "version": 118, "age_seconds": 0.4 }]
}))]
pub struct GateList {
    /// The gates.
    pub gates: Vec<GateApplied>,
    /// The published versions.
    pub partitions: Vec<GatePartition>,
}

/// The versions that a gate has applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GateApplied {
    /// The id of the gate.
    pub id: String,
    /// Pairs of a partition and the version of its last frame.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub versions: Vec<(u32, u64)>,
    /// When it reported.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The time since then.
    pub age_seconds: f64,
}

/// The published version of the feed of a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatePartition {
    /// The partition.
    pub partition: u32,
    /// The epoch of its leader.
    pub epoch: u64,
    /// The version of the newest frame.
    pub version: u64,
    /// The age of that frame.
    pub age_seconds: f64,
}

/// A report was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "noted": true }))]
pub struct GateNoted {
    /// Always true.
    pub noted: bool,
}
