//! Serving stores, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

/// A key-value store that gets the members of audiences after each publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawServingStore {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// `redis`, also for Valkey.
    #[serde(rename = "type")]
    pub kind: String,
    /// `redis://HOST:PORT/DATABASE`, or `rediss://…` for TLS; without user and password.
    #[schemars(regex(pattern = "^rediss?://"))]
    pub url: String,
    /// The user (Redis' default user).
    pub username: Option<String>,
    /// `env:NAME` or `file:PATH` of the password, never the password itself.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub password: Option<String>,
    /// Allows the password to be sent to another machine without TLS (false).
    pub insecure: Option<bool>,
    /// What all keys begin with (`throng:`).
    pub prefix: Option<String>,
    /// A set of audiences for each user, or a set of users for each audience (by_user).
    pub layout: Option<RawStoreLayout>,
    /// The audiences, or `all` (all).
    pub audiences: Option<RawStoreAudiences>,
    /// Members that are added or removed in a second, at most (50,000).
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_writes_per_second: Option<u32>,
}

/// What a key of a serving store stands for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawStoreLayout {
    /// A user: a set of audiences.
    ByUser,
    /// An audience: a set of users.
    ByAudience,
}

/// Names of audiences, or the word `all`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawStoreAudiences {
    /// The word.
    All(String),
    /// The names.
    Names(Vec<String>),
}
