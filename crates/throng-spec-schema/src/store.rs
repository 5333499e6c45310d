//! Serving stores, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

/// A key-value store that gets the members of audiences after each publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawServingStore {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// `redis`, also for Valkey, or `bigtable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `redis://HOST:PORT/DATABASE`, or `rediss://…` for TLS; without user and password. Needed with `type: redis`.
    #[schemars(regex(pattern = "^rediss?://"))]
    pub url: Option<String>,
    /// The user (Redis' default user).
    pub username: Option<String>,
    /// `env:NAME` or `file:PATH` of the password, never the password itself.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub password: Option<String>,
    /// Allows the password, or access tokens, to be sent to another machine without TLS (false).
    pub insecure: Option<bool>,
    /// What all keys begin with (`throng:`).
    pub prefix: Option<String>,
    /// A set of audiences for each user, or a set of users for each audience (by_user).
    pub layout: Option<RawStoreLayout>,
    /// The project of the instance; needed with `type: bigtable`.
    pub project: Option<String>,
    /// The instance of Bigtable; needed with `type: bigtable`.
    pub instance: Option<String>,
    /// The table, which has to exist; needed with `type: bigtable`.
    pub table: Option<String>,
    /// The column family, which has to exist (`audiences`).
    pub family: Option<String>,
    /// The application profile (the instance's default one).
    pub app_profile: Option<String>,
    /// The key file of a service account: `file:PATH` or `env:NAME`.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub credentials: Option<String>,
    /// Another server for the service account's access tokens than Google's.
    pub token_url: Option<String>,
    /// The metadata server with access tokens of the machine or pod, instead of `credentials`.
    pub metadata_url: Option<String>,
    /// Another server than Google's, such as the emulator: `https://HOST` or `http://HOST:PORT`.
    pub endpoint: Option<String>,
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
