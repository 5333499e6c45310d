//! The decision records behind `throng why`, and the nodes of a cluster.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{HistoryEvent, Role, SubjectKind, Timestamp};

use crate::Result;

/// One change of state, and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The kind of the object.
    pub subject_kind: SubjectKind,
    /// Its name.
    pub subject: String,
    /// What happened.
    pub what: HistoryEvent,
    /// The reason, in plain words with the figures.
    pub why: String,
    /// When it happened.
    pub at: Timestamp,
    /// The name of the caller's token; `None` where the node acted without a caller.
    #[serde(default)]
    pub actor: Option<String>,
}

/// The status of a node, as it reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// Unique among all nodes, also those of the past.
    pub name: String,
    /// Its roles. Those that only a newer version knows are left out when the row is read.
    pub roles: Vec<Role>,
    /// The URL where it serves requests.
    pub url: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last reported its status.
    pub seen_at: Timestamp,
    /// Its state, as JSON. The format belongs to the nodes, not to the ledger.
    pub status: serde_json::Value,
}

/// History and nodes.
#[async_trait]
pub trait HistoryLedger: Send + Sync {
    /// Stores the status of a node in place of its earlier one, and deletes nodes that have not
    /// reported for a day.
    async fn put_node(&self, node: &NodeRow) -> Result<()>;

    /// The nodes that reported at `since` or later, by name.
    async fn nodes(&self, since: Timestamp) -> Result<Vec<NodeRow>>;

    /// Appends entries to the history.
    async fn record_history(&self, entries: &[HistoryEntry]) -> Result<()>;

    /// The history of one object (kind and name), newest first; `None` for all objects.
    async fn history(
        &self,
        subject: Option<(&SubjectKind, &str)>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>>;
}
