//! Workspaces, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;
use throng_schema::RawSchema;

use super::{RawAudience, RawDestination, RawServingStore, RawSource, RawSync};

/// The objects of one client. They refer to objects of the same workspace only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWorkspace {
    /// 1 to 64 of a-z, 0-9, `-`, `_`, `.`; not `default`, and without the ending `.lock`.
    pub name: String,
    /// Folders with data, and warehouses.
    #[serde(default)]
    pub sources: Vec<RawSource>,
    /// Records that are ingested: each becomes a table of the workspace's source `lake`.
    #[serde(default)]
    pub schemas: Vec<RawSchema>,
    /// Named sets of users, each defined by SQL over the sources of the workspace.
    #[serde(default)]
    pub audiences: Vec<RawAudience>,
    /// Accounts on ad platforms, and folders for files, that no other workspace has.
    #[serde(default)]
    pub destinations: Vec<RawDestination>,
    /// Which audience is kept on which destination.
    #[serde(default)]
    pub syncs: Vec<RawSync>,
    /// Key-value stores of your own that get the members of the workspace's audiences.
    #[serde(default)]
    pub serving_stores: Vec<RawServingStore>,
}
