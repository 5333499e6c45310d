//! What a node serves of dictionaries and snapshots, for gates in other processes.

use serde::{Deserialize, Serialize};
use throng_model::AudienceName;
use utoipa::ToSchema;

/// The dictionaries and snapshots that a node serves. Their files are at
/// `/v1/membership/dictionary/{shard}/{segment}` and `/v1/membership/snapshots/{name}/{version}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": "6d0f0d3b2f4f1f0e8a7b6c5d4e3f2a1b",
    "hash_seed": "00000000499602d2",
    "user_shards": 256,
    "dictionary": [{
        "shard": 7,
        "manifest": "{\"format\":1,\"shard\":7,\"segments\":[{\"file\":\"dictionary/07/00000000-00000005-1f2e3d4c5b6a7988.dict\",\"base\":0,\"count\":5,\"xxh3\":\"1f2e3d4c5b6a7988\"}]}"
    }],
    "snapshots": [{
        "audience": "buyers", "version": 3, "model_fingerprint": "9f86d081884c7d65", "members": 5,
        "bytes": 9216, "checksum": "99aa06d3014798d86001c324468d497f"
    }],
    "missing": []
}))]
pub struct PublishedMembership {
    /// Changes with everything else in this response. It is also the `ETag`.
    pub version: String,
    /// The seed of the hashes of users, in 16 hexadecimal digits. It never changes for a deployment.
    pub hash_seed: String,
    /// The number of user shards.
    pub user_shards: u32,
    /// The dictionaries of the user shards that have users.
    pub dictionary: Vec<PublishedDictionary>,
    /// The snapshot that is served of each audience, by name.
    pub snapshots: Vec<PublishedSnapshot>,
    /// Audiences with a published snapshot that cannot be read now.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<AudienceName>,
}

/// The dictionary of one user shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedDictionary {
    /// The user shard.
    pub shard: u8,
    /// Its segments, oldest first, each with its checksum: the manifest of `docs/specs/snapshot-format.md`.
    pub manifest: String,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedSnapshot {
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The version.
    pub version: u64,
    /// Identifies the model that it was built with.
    pub model_fingerprint: String,
    /// The number of members.
    pub members: u64,
    /// The size of the file.
    pub bytes: u64,
    /// XXH3 (128 bits) of the file in hexadecimal, if it was recorded.
    pub checksum: Option<String>,
}
