//! Syncs, runs, tasks and removals.

use std::collections::BTreeMap;

use serde::Deserialize;
use throng_model::Timestamp;

/// `GET /v1/syncs`.
#[derive(Debug, Deserialize)]
pub(crate) struct SyncList {
    pub(crate) syncs: Vec<Sync>,
}

/// A sync and its audience on the platform.
#[derive(Debug, Deserialize)]
pub(crate) struct Sync {
    pub(crate) name: String,
    pub(crate) audience: String,
    pub(crate) destination: String,
    pub(crate) mode: String,
    pub(crate) paused_at: Option<Timestamp>,
    pub(crate) delivered_version: Option<u64>,
    pub(crate) delivered_users: Option<u64>,
    /// Removals that the platform refused.
    #[serde(default)]
    pub(crate) removals_due: u64,
    pub(crate) removals_retry_at: Option<Timestamp>,
    /// The newest size of the audience on the platform.
    pub(crate) size: Option<Size>,
}

/// `GET /v1/syncs/{name}/sizes`.
#[derive(Debug, Deserialize)]
pub(crate) struct SizeList {
    #[serde(default)]
    pub(crate) verdict: String,
    /// Why the verdict is not `passed`.
    pub(crate) reason: Option<String>,
    /// The oldest first.
    pub(crate) sizes: Vec<Size>,
}

/// The size of an audience that a platform showed at one time.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Size {
    pub(crate) at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) platform_id: String,
    pub(crate) lower: Option<u64>,
    pub(crate) upper: Option<u64>,
    /// Users that were delivered at that time.
    pub(crate) delivered: Option<u64>,
    /// Whether the platform was still processing an upload.
    #[serde(default)]
    pub(crate) settling: bool,
}

/// `GET /v1/runs`.
#[derive(Debug, Deserialize)]
pub(crate) struct RunList {
    pub(crate) runs: Vec<Run>,
}

/// A run: `read = sent + skipped + rejected + pending`.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: i64,
    pub(crate) sync: String,
    pub(crate) state: String,
    pub(crate) read: u64,
    pub(crate) sent: u64,
    /// Users by reason.
    #[serde(default)]
    pub(crate) skipped: BTreeMap<String, u64>,
    /// Users by reason.
    #[serde(default)]
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) pending: u64,
    /// Why it failed or is held.
    pub(crate) reason: Option<String>,
}

/// `GET /v1/removals`.
#[derive(Debug, Deserialize)]
pub(crate) struct RemovalList {
    pub(crate) removals: Vec<Removal>,
}

/// A removed sync whose audience on the platform is to be emptied or deleted.
#[derive(Debug, Deserialize)]
pub(crate) struct Removal {
    pub(crate) sync: String,
    /// `empty` or `delete`.
    pub(crate) rule: String,
    pub(crate) destination: Option<String>,
    pub(crate) platform_id: Option<String>,
    pub(crate) users: Option<u64>,
    /// Absent until the removal is approved.
    pub(crate) approved_by: Option<String>,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) last_error: Option<String>,
}

/// `GET /v1/tasks`.
#[derive(Debug, Deserialize)]
pub(crate) struct TaskList {
    pub(crate) tasks: Vec<Task>,
    /// Each state with the number of tasks in it.
    #[serde(default)]
    pub(crate) counts: Vec<(String, u64)>,
}

/// One audience's work on one destination.
#[derive(Debug, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: i64,
    pub(crate) sync: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) failures: u32,
    pub(crate) not_before: Option<Timestamp>,
    #[serde(default)]
    pub(crate) batches: u32,
    #[serde(default)]
    pub(crate) batches_done: u32,
    pub(crate) last_error: Option<String>,
}

/// `GET /v1/tasks/{id}`.
#[derive(Debug, Deserialize)]
pub(crate) struct TaskDetail {
    pub(crate) task: Task,
    #[serde(default)]
    pub(crate) receipts: Vec<Receipt>,
    /// Absent until the task is checked.
    pub(crate) check: Option<Check>,
}

/// The platform's answer to one request.
#[derive(Debug, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) batch: u32,
    pub(crate) operation: String,
    pub(crate) rows: u64,
    pub(crate) received: u64,
    pub(crate) invalid: u64,
    /// 0 if the connection was cut.
    pub(crate) http_status: u16,
    pub(crate) error_code: Option<i64>,
}

/// The check of a finished task.
#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    pub(crate) verdict: String,
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
}

/// `POST /v1/tasks/enqueue`.
#[derive(Debug, Deserialize)]
pub(crate) struct QueuedTasks {
    #[serde(rename = "enqueued")]
    pub(crate) count: u64,
}
