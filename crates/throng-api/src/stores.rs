//! Serving stores and what was written to them.

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, ServingStoreName, Timestamp};
use utoipa::ToSchema;

/// The serving stores of the spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "stores": [
        {
            "name": "cache", "place": "redis://cache:6379 throng: by_user",
            "audiences": [
                {
                    "audience": "buyers", "served_version": 8, "store_version": 7, "declared": true,
                    "write": {
                        "id": 31, "store": "cache", "audience": "buyers", "from_version": 7,
                        "to_version": 8, "rewrite": false, "state": "open", "users": 41250,
                        "batches": 3, "added": 24000, "removed": 6000, "tries": 0, "retry_at": null,
                        "error": null, "started_at": 1795536000000000_i64,
                        "updated_at": 1795536004000000_i64, "check": null
                    }
                }
            ]
        }
    ]
}))]
pub struct StoreList {
    /// The stores.
    pub stores: Vec<StoreSummary>,
}

/// A serving store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreSummary {
    /// Its name.
    #[schema(value_type = String)]
    pub name: ServingStoreName,
    /// Its URL, with the prefix of its keys and its layout, or with its table and column family.
    pub place: String,
    /// What it has of each audience.
    pub audiences: Vec<StoreAudience>,
}

/// An audience in a serving store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreAudience {
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The version that the audience serves.
    pub served_version: Option<u64>,
    /// The version that the store has; null if it has none, or if that is not known while everything is
    /// written.
    pub store_version: Option<u64>,
    /// Whether the spec has the audience in this store. If not, what the store has is not updated.
    pub declared: bool,
    /// The newest write.
    pub write: Option<StoreWriteReceipt>,
}

/// The writes of a serving store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "writes": [
        {
            "id": 30, "store": "cache", "audience": "buyers", "from_version": 6, "to_version": 7,
            "rewrite": false, "state": "done", "users": 18000, "batches": 2, "added": 12000,
            "removed": 6000, "tries": 0, "retry_at": null, "error": null,
            "started_at": 1795536000000000_i64, "updated_at": 1795536002000000_i64,
            "check": {
                "at": 1795536010000000_i64, "sampled": 460, "missing": 0, "unexpected": 0
            }
        }
    ]
}))]
pub struct StoreWriteList {
    /// The newest first.
    pub writes: Vec<StoreWriteReceipt>,
}

/// A write of an audience to a serving store, which is also its receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreWriteReceipt {
    /// Its number.
    pub id: i64,
    /// The store.
    #[schema(value_type = String)]
    pub store: ServingStoreName,
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The version that the store had; null if it had none.
    pub from_version: Option<u64>,
    /// The version that the store gets; null if the audience is removed.
    pub to_version: Option<u64>,
    /// Whether every known user is written.
    pub rewrite: bool,
    /// Its state.
    pub state: StoreWriteState,
    /// Users that are added or removed in total; null until they are counted.
    pub users: Option<u64>,
    /// Batches that are written.
    pub batches: u64,
    /// Users that were added.
    pub added: u64,
    /// Users that were removed.
    pub removed: u64,
    /// Failed tries since the last batch.
    pub tries: u32,
    /// When it is tried again.
    #[schema(value_type = Option<i64>)]
    pub retry_at: Option<Timestamp>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// When it was begun.
    #[schema(value_type = i64)]
    pub started_at: Timestamp,
    /// When its last batch was written, or its last try failed.
    #[schema(value_type = i64)]
    pub updated_at: Timestamp,
    /// The newest check since it is done.
    pub check: Option<StoreCheckFound>,
}

/// The state of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreWriteState {
    /// Batches are missing.
    Open,
    /// The store has the version.
    Done,
    /// Another write was begun in its place.
    Replaced,
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreCheckFound {
    /// When.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// Sampled users, members and others.
    pub sampled: u64,
    /// Sampled members that the store does not have.
    pub missing: u64,
    /// Sampled users that the store has although they are not members.
    pub unexpected: u64,
}

/// Which audiences of a serving store to write again, or to remove from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "audience": "buyers" }))]
pub struct RewriteStore {
    /// The audience. Without it, all that the spec has in the store.
    #[serde(default)]
    pub audience: Option<String>,
}

/// Writes that were begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "store": "cache", "writes": 3 }))]
pub struct StoreRewrite {
    /// The store.
    #[schema(value_type = String)]
    pub store: ServingStoreName,
    /// How many audiences are written.
    pub writes: u64,
}

/// The seed of the deployment's user hashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "hash_seed": "000000000000002a" }))]
pub struct StoreHashSeed {
    /// 16 hexadecimal digits.
    pub hash_seed: String,
}
