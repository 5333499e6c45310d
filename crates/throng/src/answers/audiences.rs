//! Audiences, refreshes, lookups, and the history of objects.

use serde::Deserialize;
use throng_model::Timestamp;

/// `GET /v1/audiences`.
#[derive(Debug, Deserialize)]
pub(crate) struct AudienceList {
    pub(crate) audiences: Vec<Audience>,
}

/// An audience; also `GET /v1/audiences/{name}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Audience {
    pub(crate) name: String,
    /// The served snapshot.
    pub(crate) current: Option<Snapshot>,
    /// The newest refresh.
    pub(crate) refresh: Option<Refresh>,
    pub(crate) paused_at: Option<Timestamp>,
    pub(crate) pinned_at: Option<Timestamp>,
    /// The snapshots that are kept; only in the answer about one audience.
    #[serde(default)]
    pub(crate) snapshots: Vec<Snapshot>,
}

/// A refresh of an audience.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Refresh {
    pub(crate) id: i64,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) failures: u32,
    /// The time of the next try.
    pub(crate) not_before: Option<Timestamp>,
    #[serde(default)]
    pub(crate) rows_read: u64,
    pub(crate) rows_expected: Option<u64>,
    /// Why it failed or is held.
    pub(crate) reason: Option<String>,
}

/// One version of an audience.
#[derive(Debug, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    pub(crate) state: String,
    pub(crate) members: u64,
    #[serde(default)]
    pub(crate) rows_read: u64,
    #[serde(default)]
    pub(crate) null_keys: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
}

/// `POST /v1/audiences/{name}/refresh`.
#[derive(Debug, Deserialize)]
pub(crate) struct QueuedRefresh {
    /// The number of the refresh.
    pub(crate) refresh: i64,
}

/// `POST /v1/audiences/{name}/cancel`.
#[derive(Debug, Deserialize)]
pub(crate) struct CancelledRefresh {
    pub(crate) refresh: Refresh,
}

/// `POST /v1/lookups`.
#[derive(Debug, Deserialize)]
pub(crate) struct LookupAnswer {
    /// In the order of the keys.
    pub(crate) users: Vec<UserAudiences>,
}

/// The audiences of a user.
#[derive(Debug, Deserialize)]
pub(crate) struct UserAudiences {
    #[serde(default)]
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) audiences: Vec<String>,
    /// Audiences of which the node cannot tell whether the user is in them.
    #[serde(default)]
    pub(crate) unknown: Vec<String>,
}

/// `GET /v1/why/{kind}/{name}`.
#[derive(Debug, Deserialize)]
pub(crate) struct History {
    pub(crate) history: Vec<HistoryEntry>,
}

/// A change of state.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryEntry {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
    #[serde(default)]
    pub(crate) why: String,
    /// The name of the caller's token; absent if the node acted by itself.
    pub(crate) actor: Option<String>,
}
