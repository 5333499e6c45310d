//! The decision records behind `throng why`, and the processes of a deployment.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::Timestamp;

use crate::Result;

/// One change of state and why it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The kind of object: `audience`, `sync`, `ad_group`, `spec`.
    pub subject_kind: String,
    /// Its name.
    pub subject: String,
    /// What happened: `published`, `held`, `closed`, …
    pub what: String,
    /// Why, in plain words with the figures.
    pub why: String,
    /// When.
    pub at: Timestamp,
    /// The name of the caller's token; `None` where the node acted by itself.
    #[serde(default)]
    pub actor: Option<String>,
}

/// What a process of the deployment says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Unique among processes, also over time.
    pub name: String,
    /// Its roles, with commas between them.
    pub roles: String,
    /// Where it answers.
    pub url: String,
    /// Since when.
    pub started_at: Timestamp,
    /// When it said this.
    pub seen_at: Timestamp,
    /// What it is doing, as JSON that nodes understand.
    pub status: serde_json::Value,
}

/// History and processes.
#[async_trait]
pub trait HistoryLedger: Send + Sync {
    /// A node is there. Replaces what it said before, and forgets those that were not seen for a day.
    async fn put_node(&self, node: &NodeRow) -> Result<()>;

    /// The nodes that were seen at `since` or later, by name.
    async fn nodes(&self, since: Timestamp) -> Result<Vec<NodeRow>>;

    /// Adds to the history.
    async fn record(&self, entries: &[HistoryEntry]) -> Result<()>;

    /// The history of one object, newest first; `None` for all objects.
    async fn history(&self, subject: Option<(&str, &str)>, limit: u32)
    -> Result<Vec<HistoryEntry>>;
}
