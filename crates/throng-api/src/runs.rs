//! Sync runs, their tasks, batches, receipts and checks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp};
use utoipa::ToSchema;

/// How an audience is synchronized to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationMode {
    /// Adds and removes users, so that the audience on the platform equals the snapshot.
    Mirror,
    /// Only adds users.
    Add,
    /// Replaces all users in one upload session.
    Replace,
}

/// What a batch does on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationOperation {
    /// Adds users.
    Add,
    /// Removes users.
    Remove,
    /// Adds users in a session that replaces all users.
    Replace,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationRunState {
    /// Its task is queued or running.
    Active,
    /// All users are sent, skipped or rejected.
    Completed,
    /// It failed.
    Failed,
    /// It waits for approval.
    Held,
}

/// The newest runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "runs": [
        {
            "id": 41, "sync": "buyers-on-meta", "audience": "buyers", "destination": "meta",
            "mode": "mirror", "from_version": 2, "to_version": 3, "state": "completed",
            "adds": 1000, "removes": 20, "read": 1020, "sent": 1010,
            "skipped": { "no identifier": 7 }, "rejected": { "invalid": 3 }, "pending": 0,
            "created_at": 1795536000000000_i64, "finished_at": 1795536060000000_i64, "reason": null,
            "normalised": { "EMAIL.lower_case": 12 }
        }
    ]
}))]
pub struct RunList {
    /// The runs, newest first unless the request sets another order; at most 500 unless it sets a limit.
    pub runs: Vec<ActivationRun>,
    /// The cursor of the next page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The cursor of the previous page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
}

/// A run: `read = sent + skipped + rejected + pending`, in users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": 41, "sync": "buyers-on-meta", "audience": "buyers", "destination": "meta", "mode": "mirror",
    "from_version": 2, "to_version": 3, "state": "completed", "adds": 1000, "removes": 20, "read": 1020,
    "sent": 1010, "skipped": { "no identifier": 7 }, "rejected": { "invalid": 3 }, "pending": 0,
    "created_at": 1795536000000000_i64, "finished_at": 1795536060000000_i64, "reason": null,
    "normalised": { "EMAIL.lower_case": 12 }
}))]
pub struct ActivationRun {
    /// The id of the run.
    #[schema(value_type = i64)]
    pub id: SyncRunId,
    /// The sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The destination.
    #[schema(value_type = String)]
    pub destination: DestinationName,
    /// The mode.
    pub mode: ActivationMode,
    /// The version that was delivered by the previous run.
    pub from_version: Option<u64>,
    /// The version to deliver.
    pub to_version: u64,
    /// The state.
    pub state: ActivationRunState,
    /// Users to add.
    pub adds: u64,
    /// Users to remove.
    pub removes: u64,
    /// `adds + removes`.
    pub read: u64,
    /// Users that the platform accepted.
    pub sent: u64,
    /// Users that were not sent, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Users that the platform rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Users that are not sent, skipped or rejected yet.
    pub pending: u64,
    /// When it was planned.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<i64>)]
    pub finished_at: Option<Timestamp>,
    /// Why it failed or is held, or that no row of a completed run was accepted.
    pub reason: Option<String>,
    /// Identifiers that were changed, refused or missing, by `KEY.reason`; `KEY.usable`: those beside refused ones.
    pub normalised: BTreeMap<String, u64>,
}

impl ActivationRun {
    /// Values that were refused in normalisation, by `KEY.reason`.
    pub fn refused_values(&self) -> impl Iterator<Item = (&str, u64)> {
        let is_refusal =
            |name: &str| name.split_once('.').is_some_and(|(_, why)| why.starts_with("refused_"));
        let all = self.normalised.iter().map(|(name, count)| (name.as_str(), *count));
        all.filter(move |(name, _)| is_refusal(name))
    }

    /// Why the run failed or is held, and which values were refused.
    pub fn remarks(&self) -> String {
        let refused: Vec<String> =
            self.refused_values().map(|(name, count)| format!("{name} {count}")).collect();
        let refused = (!refused.is_empty()).then(|| refused.join(", "));
        let remarks: Vec<String> = self.reason.clone().into_iter().chain(refused).collect();
        remarks.join("; ")
    }
}

/// Held runs that were approved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "approved": 3 }))]
pub struct RunsApproved {
    /// The number of runs.
    pub approved: u64,
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationTaskState {
    /// Waits for a worker.
    Queued,
    /// A worker sends its batches.
    Running,
    /// All batches are done.
    Done,
    /// It failed.
    Failed,
    /// Its run waits for approval.
    Held,
}

/// Tasks: running ones first, then queued ones, then finished ones; at most 500.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "tasks": [
        {
            "id": 52, "run": 41, "sync": "buyers-on-meta", "audience": "buyers",
            "destination": "meta", "state": "running", "priority": 0, "failures": 0,
            "not_before": 1795536000000000_i64, "holder": "host-1/activate-0",
            "lease_until": 1795536030000000_i64, "batches": 5, "batches_done": 2,
            "last_error": null, "created_at": 1795536000000000_i64, "finished_at": null,
            "progress": 0.4, "eta_seconds": 90
        }
    ],
    "counts": [["running", 1], ["done", 12]]
}))]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<ActivationTaskProgress>,
    /// Pairs of a state and its number of tasks.
    #[schema(value_type = Vec<Vec<serde_json::Value>>)]
    pub counts: Vec<(ActivationTaskState, u64)>,
    /// The cursor of the next page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The cursor of the previous page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
}

/// The work of one audience on one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": 52, "run": 41, "sync": "buyers-on-meta", "audience": "buyers", "destination": "meta",
    "state": "running", "priority": 0, "failures": 0, "not_before": 1795536000000000_i64,
    "holder": "host-1/activate-0", "lease_until": 1795536030000000_i64, "batches": 5,
    "batches_done": 2, "last_error": null, "created_at": 1795536000000000_i64, "finished_at": null
}))]
pub struct ActivationTask {
    /// The id of the task.
    #[schema(value_type = i64)]
    pub id: TaskId,
    /// The run.
    #[schema(value_type = i64)]
    pub run: SyncRunId,
    /// The sync.
    #[schema(value_type = String)]
    pub sync: SyncName,
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// The destination.
    #[schema(value_type = String)]
    pub destination: DestinationName,
    /// The state.
    pub state: ActivationTaskState,
    /// Tasks with a higher priority are sent first.
    pub priority: i32,
    /// Consecutive failures.
    pub failures: u32,
    /// It is not started before this time.
    #[schema(value_type = i64)]
    pub not_before: Timestamp,
    /// The process that holds the lease.
    pub holder: Option<String>,
    /// When the lease expires.
    #[schema(value_type = Option<i64>)]
    pub lease_until: Option<Timestamp>,
    /// The number of batches.
    pub batches: u32,
    /// The number of batches that are done.
    pub batches_done: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// When it was queued.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it was done or failed.
    #[schema(value_type = Option<i64>)]
    pub finished_at: Option<Timestamp>,
}

impl ActivationTask {
    /// The estimated remaining time, at its speed so far; `None` while there is no estimate.
    pub fn remaining_time(&self, now: Timestamp) -> Option<Duration> {
        let (done, all) = (f64::from(self.batches_done), f64::from(self.batches));
        if self.state != ActivationTaskState::Running || self.batches_done == 0 || done >= all {
            return None;
        }
        let left = (all - done) / done;
        Duration::try_from_secs_f64(now.since(self.created_at).as_secs_f64() * left).ok()
    }
}

/// A task with its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivationTaskProgress {
    /// The task.
    #[serde(flatten)]
    pub task: ActivationTask,
    /// The share of batches that are done, 0 to 1.
    pub progress: f64,
    /// The estimated remaining time in seconds; null while there is no estimate.
    pub eta_seconds: Option<u64>,
}

/// One task with its run, batches, receipts and check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "run": {
        "id": 41, "sync": "buyers-on-meta", "audience": "buyers", "destination": "meta",
        "mode": "mirror", "from_version": 2, "to_version": 3, "state": "completed", "adds": 1000,
        "removes": 20, "read": 1020, "sent": 1010, "skipped": { "no identifier": 7 },
        "rejected": { "invalid": 3 }, "pending": 0, "created_at": 1795536000000000_i64,
        "finished_at": 1795536060000000_i64, "reason": null,
        "normalised": { "EMAIL.lower_case": 12 }
    },
    "batches": [
        {
            "number": 0, "operation": "add", "first_rank": 0, "rows": 1000, "state": "done",
            "outcome": {
                "sent": 990, "skipped": { "no identifier": 7 }, "rejected": { "invalid": 3 },
                "refused": [[12, 15]]
            }
        }
    ],
    "receipts": [
        {
            "task": 52, "batch": 0, "operation": "add", "rows": 993, "received": 993, "invalid": 3,
            "invalid_reasons": { "invalid": 3 }, "http_status": 200, "error_code": null,
            "platform_ref": "7", "at": 1795536000000000_i64
        }
    ],
    "check": null,
    "task": {
        "id": 52, "run": 41, "sync": "buyers-on-meta", "audience": "buyers", "destination": "meta",
        "state": "running", "priority": 0, "failures": 0, "not_before": 1795536000000000_i64,
        "holder": "host-1/activate-0", "lease_until": 1795536030000000_i64, "batches": 5,
        "batches_done": 2, "last_error": null, "created_at": 1795536000000000_i64,
        "finished_at": null, "progress": 0.4, "eta_seconds": 90
    }
}))]
pub struct TaskDetail {
    /// The run.
    pub run: ActivationRun,
    /// The batches, by number.
    pub batches: Vec<ActivationBatch>,
    /// The receipts, oldest first.
    pub receipts: Vec<ActivationReceipt>,
    /// Null until the task is done and checked.
    pub check: Option<ActivationCheck>,
    /// The task.
    pub task: ActivationTaskProgress,
}

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationBatchState {
    /// Not sent, or without a receipt.
    Pending,
    /// Sent, with a receipt for every user.
    Done,
}

/// A fixed range of the users of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivationBatch {
    /// The number within the task, from 0.
    pub number: u32,
    /// What it does on the platform.
    pub operation: ActivationOperation,
    /// The rank of the first user among the users of this operation.
    pub first_rank: u64,
    /// The number of users.
    pub rows: u64,
    /// The state.
    pub state: ActivationBatchState,
    /// The outcome; null while it is pending.
    pub outcome: Option<ActivationOutcome>,
}

/// The outcome of the users of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivationOutcome {
    /// Users that the platform accepted.
    pub sent: u64,
    /// Users that were not sent, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Users that the platform rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Ranges of positions in the batch that were refused; the end is exclusive.
    #[schema(value_type = Vec<Vec<u32>>)]
    pub refused: Vec<(u32, u32)>,
}

/// The response of the platform to one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivationReceipt {
    /// The task.
    #[schema(value_type = i64)]
    pub task: TaskId,
    /// The number of the batch.
    pub batch: u32,
    /// What the request did.
    pub operation: ActivationOperation,
    /// The rows of the request.
    pub rows: u64,
    /// The rows that the platform received.
    pub received: u64,
    /// The rows that the platform reported as invalid.
    pub invalid: u64,
    /// Invalid rows by reason, from the samples of the platform.
    pub invalid_reasons: BTreeMap<String, u64>,
    /// 0 if the connection failed before a response.
    pub http_status: u16,
    /// The error code of the platform.
    pub error_code: Option<i64>,
    /// The id of the request or session on the platform.
    pub platform_ref: Option<String>,
    /// When the response arrived.
    #[schema(value_type = i64)]
    pub at: Timestamp,
}

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationVerdict {
    /// No problem was found.
    Passed,
    /// Something is unusual; a person should look at it.
    Suspect,
    /// The audience on the platform is not what was delivered.
    Failed,
}

/// The check of a task that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivationCheck {
    /// The run.
    #[schema(value_type = i64)]
    pub run: SyncRunId,
    /// The task.
    #[schema(value_type = i64)]
    pub task: TaskId,
    /// The verdict.
    pub verdict: ActivationVerdict,
    /// The reasons for the verdict.
    pub reasons: Vec<String>,
    /// When it was checked.
    #[schema(value_type = i64)]
    pub at: Timestamp,
}

/// Tasks that were enqueued again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "enqueued": 12 }))]
pub struct TasksEnqueued {
    /// The number of tasks.
    pub enqueued: u64,
}
