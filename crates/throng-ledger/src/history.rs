//! Alerts, and the decision records behind `throng why`.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::Timestamp;

use crate::Result;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A refresh failed three times.
    RefreshFailed,
    /// A snapshot is held by its guard.
    SnapshotHeld,
    /// A task failed three times, or in a way that only a person can mend.
    TaskFailed,
    /// A run is held by its guard, or all of an account by its checks.
    RunHeld,
    /// A check did not pass.
    CheckFailed,
}

/// An alert to be raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAlert {
    /// What it is about.
    pub kind: AlertKind,
    /// The object: an audience's or a sync's name, or `destination` and a name.
    pub subject: String,
    /// What happened and what to do, in plain words.
    pub message: String,
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub kind: AlertKind,
    /// The object.
    pub subject: String,
    /// What happened.
    pub message: String,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
}

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

/// Alerts and history.
#[async_trait]
pub trait HistoryLedger: Send + Sync {
    /// Raises an alert. If one of the same kind and subject is open, only its message changes.
    async fn raise_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<i64>;

    /// Ends the open alert of this kind and subject, if there is one.
    async fn resolve_alert(&self, kind: AlertKind, subject: &str, now: Timestamp) -> Result<()>;

    /// The message of the open alert of this kind and subject, if there is one.
    async fn open_alert(&self, kind: AlertKind, subject: &str) -> Result<Option<String>>;

    /// When an alert of this kind and subject was ended last; `None` if none ever was.
    async fn alert_ended(&self, kind: AlertKind, subject: &str) -> Result<Option<Timestamp>>;

    /// Alerts, open ones first, then newest first.
    async fn alerts(&self, limit: u32) -> Result<Vec<Alert>>;

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
