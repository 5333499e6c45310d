//! Audiences, their refreshes and their snapshots.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, RefreshId, Timestamp};
use utoipa::ToSchema;

use crate::alerts::next_try;

/// The audiences of the applied spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "audiences": [
        {
            "name": "buyers",
            "current": {
                "audience": "buyers", "version": 3, "state": "published",
                "path": "snapshots/buyers/3.tsnap", "members": 1200345, "rows_read": 5400120,
                "null_keys": 12, "bytes": 2400128, "checksum": "b42d9a0c7cf0d1ad3c2a0f4f7bbd51e2",
                "tables": null, "model_fingerprint": "5f1c8e0a", "refresh": 17,
                "created_at": 1795536000000000_i64
            },
            "refresh": {
                "id": 17, "audience": "buyers", "state": "completed", "trigger": "schedule",
                "scheduled_at": 1795536000000000_i64, "started_at": 1795536001000000_i64,
                "finished_at": 1795536061000000_i64, "not_before": 1795536000000000_i64,
                "failures": 0, "crashes": 0, "holder": null, "lease_until": null,
                "rows_read": 5400120, "null_keys": 12, "rows_expected": 5400000, "reason": null,
                "snapshot_version": 3, "forced": false, "unchanged": false, "eta_seconds": null
            },
            "refreshed_at": 1795536061000000_i64, "last_fired": 1795536000000000_i64, "paused_at": null,
            "pinned_at": null
        }
    ]
}))]
pub struct AudienceList {
    /// The audiences, in the order of the spec unless the request sets another one.
    pub audiences: Vec<AudienceSummary>,
    /// The cursor of the next page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The cursor of the previous page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
}

/// An audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "buyers",
    "current": {
        "audience": "buyers", "version": 3, "state": "published",
        "path": "snapshots/buyers/3.tsnap", "members": 1200345, "rows_read": 5400120,
        "null_keys": 12, "bytes": 2400128, "checksum": "b42d9a0c7cf0d1ad3c2a0f4f7bbd51e2",
        "tables": null, "model_fingerprint": "5f1c8e0a", "refresh": 17,
        "created_at": 1795536000000000_i64
    },
    "refresh": {
        "id": 17, "audience": "buyers", "state": "completed", "trigger": "schedule",
        "scheduled_at": 1795536000000000_i64, "started_at": 1795536001000000_i64,
        "finished_at": 1795536061000000_i64, "not_before": 1795536000000000_i64, "failures": 0,
        "crashes": 0, "holder": null, "lease_until": null, "rows_read": 5400120, "null_keys": 12,
        "rows_expected": 5400000, "reason": null, "snapshot_version": 3, "forced": false,
        "unchanged": false, "eta_seconds": null
    },
    "refreshed_at": 1795536061000000_i64, "last_fired": 1795536000000000_i64, "paused_at": null,
    "pinned_at": null
}))]
pub struct AudienceSummary {
    /// The name of the audience.
    #[schema(value_type = String)]
    pub name: AudienceName,
    /// The snapshot that is served; null until one is published.
    pub current: Option<AudienceSnapshot>,
    /// The newest refresh; null if there was none.
    pub refresh: Option<AudienceRefreshProgress>,
    /// The id of the refresh that is queued when that one has ended; absent if none was requested while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub waiting_refresh: Option<RefreshId>,
    /// When the newest refresh that succeeded was completed; null if none was.
    #[schema(value_type = Option<i64>)]
    pub refreshed_at: Option<Timestamp>,
    /// When the schedule fired last.
    #[schema(value_type = Option<i64>)]
    pub last_fired: Option<Timestamp>,
    /// When the audience was paused; null if it is not paused.
    #[schema(value_type = Option<i64>)]
    pub paused_at: Option<Timestamp>,
    /// When its version was pinned; null if it is not pinned.
    #[schema(value_type = Option<i64>)]
    pub pinned_at: Option<Timestamp>,
}

impl AudienceSummary {
    /// How long ago its last successful refresh was, such as `3 h ago`; `never` if there was none.
    pub fn last_refresh(&self, now: Timestamp) -> String {
        let Some(at) = self.refreshed_at else { return "never".to_owned() };
        let (count, unit) = match now.since(at).as_secs() {
            secs @ 0..120 => (secs, "s"),
            secs @ 120..7_200 => (secs / 60, "min"),
            secs @ 7_200..172_800 => (secs / 3_600, "h"),
            secs => (secs / 86_400, "days"),
        };
        format!("{count} {unit} ago")
    }

    /// The state of the newest refresh, whether the audience is paused or pinned, and the refresh that waits, for people.
    pub fn state_text(&self) -> String {
        let newest = self.refresh.as_ref().map(|newest| &newest.refresh);
        let mut state = match newest {
            None => "–".to_owned(),
            Some(newest) => match newest.ended_by_person() {
                Some(word) => word.to_owned(),
                None if newest.unchanged => "unchanged".to_owned(),
                None => newest.state.to_string(),
            },
        };
        for (since, word) in [(self.paused_at, ", paused"), (self.pinned_at, ", pinned")] {
            if since.is_some() {
                state.push_str(word);
            }
        }
        if let Some(id) = self.waiting_refresh {
            state.push_str(&format!(", refresh {id} waits"));
        }
        state
    }
}

/// An audience with its snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "buyers",
    "current": {
        "audience": "buyers", "version": 3, "state": "published",
        "path": "snapshots/buyers/3.tsnap", "members": 1200345, "rows_read": 5400120,
        "null_keys": 12, "bytes": 2400128, "checksum": "b42d9a0c7cf0d1ad3c2a0f4f7bbd51e2",
        "tables": null, "model_fingerprint": "5f1c8e0a", "refresh": 17,
        "created_at": 1795536000000000_i64
    },
    "refresh": {
        "id": 17, "audience": "buyers", "state": "completed", "trigger": "schedule",
        "scheduled_at": 1795536000000000_i64, "started_at": 1795536001000000_i64,
        "finished_at": 1795536061000000_i64, "not_before": 1795536000000000_i64, "failures": 0,
        "crashes": 0, "holder": null, "lease_until": null, "rows_read": 5400120, "null_keys": 12,
        "rows_expected": 5400000, "reason": null, "snapshot_version": 3, "forced": false,
        "unchanged": false, "eta_seconds": null
    },
    "refreshed_at": 1795536061000000_i64, "last_fired": 1795536000000000_i64, "paused_at": null,
    "pinned_at": null,
    "snapshots": [
        {
            "audience": "buyers", "version": 3, "state": "published",
            "path": "snapshots/buyers/3.tsnap", "members": 1200345, "rows_read": 5400120,
            "null_keys": 12, "bytes": 2400128, "checksum": "b42d9a0c7cf0d1ad3c2a0f4f7bbd51e2",
            "tables": null, "model_fingerprint": "5f1c8e0a", "refresh": 17,
            "created_at": 1795536000000000_i64
        }
    ],
    "sizes": [[1795536000000000_i64, 1200345]]
}))]
pub struct AudienceDetail {
    /// The audience.
    #[serde(flatten)]
    pub audience: AudienceSummary,
    /// The snapshots that are retained, newest first.
    pub snapshots: Vec<AudienceSnapshot>,
    /// Pairs of a time and the number of members that were published then, oldest first.
    #[schema(value_type = Vec<Vec<i64>>)]
    pub sizes: Vec<(Timestamp, u64)>,
}

/// The state of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudienceRefreshState {
    /// Waits for a builder.
    Scheduled,
    /// A builder works on it.
    Processing,
    /// Its builder was stopped; another one continues it.
    Halted,
    /// Its snapshot is published.
    Completed,
    /// It failed or was cancelled.
    Failed,
    /// Its snapshot waits for approval.
    Held,
}

/// What started a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudienceRefreshTrigger {
    /// The schedule of the audience.
    Schedule,
    /// A request.
    Manual,
    /// A spec with another model, or with a new audience, was applied.
    Apply,
    /// Files of the tables that the model reads have changed.
    SourceChanged,
}

/// A refresh of an audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": 17, "audience": "buyers", "state": "completed", "trigger": "schedule",
    "scheduled_at": 1795536000000000_i64, "started_at": 1795536001000000_i64,
    "finished_at": 1795536061000000_i64, "not_before": 1795536000000000_i64, "failures": 0,
    "crashes": 0, "holder": null, "lease_until": null, "rows_read": 5400120, "null_keys": 12,
    "rows_expected": 5400000, "reason": null, "snapshot_version": 3, "forced": false,
    "unchanged": false
}))]
pub struct AudienceRefresh {
    /// The id of the refresh.
    #[schema(value_type = i64)]
    pub id: RefreshId,
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The state.
    pub state: AudienceRefreshState,
    /// What started it.
    pub trigger: AudienceRefreshTrigger,
    /// When it was queued.
    #[schema(value_type = i64)]
    pub scheduled_at: Timestamp,
    /// When a builder started it.
    #[schema(value_type = Option<i64>)]
    pub started_at: Option<Timestamp>,
    /// When it was completed, failed or held.
    #[schema(value_type = Option<i64>)]
    pub finished_at: Option<Timestamp>,
    /// It is not started before this time.
    #[schema(value_type = i64)]
    pub not_before: Timestamp,
    /// The number of failures.
    pub failures: u32,
    /// The number of consecutive attempts whose process died.
    pub crashes: u32,
    /// The process that holds the lease, while `processing`.
    pub holder: Option<String>,
    /// When the lease expires.
    #[schema(value_type = Option<i64>)]
    pub lease_until: Option<Timestamp>,
    /// Rows that the query has returned so far.
    pub rows_read: u64,
    /// Rows without a key.
    pub null_keys: u64,
    /// The number of rows that is expected, if it is known.
    pub rows_expected: Option<u64>,
    /// Why it failed or is held.
    pub reason: Option<String>,
    /// The version of its snapshot; if it is `unchanged`, the version that it confirmed.
    pub snapshot_version: Option<u64>,
    /// It scans even if neither the model nor its files have changed.
    #[serde(default)]
    pub forced: bool,
    /// It is completed without a scan and without a snapshot of its own: model and files are those of
    /// the version that is served.
    #[serde(default)]
    pub unchanged: bool,
}

/// The query of a request for a refresh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshQuery {
    /// Whether it scans even if neither the model nor its files have changed.
    #[serde(default)]
    pub force: bool,
}

/// The query of a request to cancel a refresh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelQuery {
    /// The refresh that a person has seen: another one is not cancelled. The open one, whichever it is, by default.
    pub refresh: Option<RefreshId>,
}

impl AudienceRefresh {
    /// `rejected` or `cancelled` if it is `failed` because a person has rejected its snapshot or cancelled it.
    pub fn ended_by_person(&self) -> Option<&'static str> {
        if self.state != AudienceRefreshState::Failed {
            return None;
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.snapshot_version {
            Some(_) => Some("rejected"),
            None => reason.starts_with("cancelled by ").then_some("cancelled"),
        }
    }

    /// The reason of its state, with the time of the next try if there is one, for people; empty if there is none.
    pub fn reason_text(&self, now: Timestamp) -> String {
        let why = self.reason.clone().unwrap_or_default();
        match self.state == AudienceRefreshState::Scheduled && self.failures > 0 {
            true => format!("{}; {why}", next_try(Some(self.not_before), now)),
            false => why,
        }
    }

    /// The estimated remaining time, at its speed so far; `None` while there is no estimate.
    pub fn remaining_time(&self, now: Timestamp) -> Option<Duration> {
        let (expected, started) = self.rows_expected.zip(self.started_at)?;
        if self.finished_at.is_some() || self.rows_read == 0 || expected <= self.rows_read {
            return None;
        }
        let left = (expected - self.rows_read) as f64 / self.rows_read as f64;
        Duration::try_from_secs_f64(now.since(started).as_secs_f64() * left).ok()
    }
}

/// A refresh with its estimated remaining time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AudienceRefreshProgress {
    /// The refresh.
    #[serde(flatten)]
    pub refresh: AudienceRefresh,
    /// The estimated remaining time in seconds; null while there is no estimate.
    pub eta_seconds: Option<u64>,
}

/// The state of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AudienceSnapshotState {
    /// Waits for approval.
    Held,
    /// Is or was served.
    Published,
    /// Was rejected.
    Rejected,
}

/// One version of an audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "audience": "buyers", "version": 3, "state": "published", "path": "snapshots/buyers/3.tsnap",
    "members": 1200345, "rows_read": 5400120, "null_keys": 12, "bytes": 2400128,
    "checksum": "b42d9a0c7cf0d1ad3c2a0f4f7bbd51e2", "tables": null,
    "model_fingerprint": "5f1c8e0a", "refresh": 17, "created_at": 1795536000000000_i64
}))]
pub struct AudienceSnapshot {
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The version: 1, 2, 3, …
    pub version: u64,
    /// The state.
    pub state: AudienceSnapshotState,
    /// The name of its object.
    pub path: String,
    /// The number of users.
    pub members: u64,
    /// Rows that were read.
    pub rows_read: u64,
    /// Rows without a key.
    pub null_keys: u64,
    /// The size of the file.
    pub bytes: u64,
    /// XXH3 (128 bits) of the file in hexadecimal digits.
    pub checksum: Option<String>,
    /// The tables that it was built from, with the types of the columns, as JSON text.
    pub tables: Option<String>,
    /// The fingerprint of the SQL and the key column of its model.
    pub model_fingerprint: String,
    /// The refresh that built it.
    #[schema(value_type = i64)]
    pub refresh: RefreshId,
    /// When it was created.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
}

/// A version of an audience, to approve, to reject, or to roll back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "version": 3 }))]
pub struct SnapshotVersion {
    /// The version.
    pub version: u64,
}

/// The refresh that was queued, or the one that was already scheduled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "refresh": 17 }))]
pub struct RefreshQueued {
    /// The id of the refresh.
    #[schema(value_type = i64)]
    pub refresh: RefreshId,
}

/// The refresh that was cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "refresh": {
        "id": 17, "audience": "buyers", "state": "failed", "trigger": "manual",
        "scheduled_at": 1795536000000000_i64, "started_at": 1795536001000000_i64,
        "finished_at": 1795536061000000_i64, "not_before": 1795536000000000_i64, "failures": 0,
        "crashes": 0, "holder": null, "lease_until": null, "rows_read": 120000, "null_keys": 0,
        "rows_expected": 5400000, "reason": "cancelled by ann", "snapshot_version": null,
        "forced": false, "unchanged": false
    }
}))]
pub struct RefreshCancelled {
    /// The refresh, whose state is `failed`.
    pub refresh: AudienceRefresh,
}
