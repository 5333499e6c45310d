//! Sync runs, their tasks, batches, receipts and checks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp, count};
use utoipa::ToSchema;

use crate::alerts::next_try;

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

impl ActivationTask {
    /// Why the last try failed, with the time of the next one, for people; empty if none has failed.
    pub fn last_error_text(&self, now: Timestamp) -> String {
        let why = self.last_error.clone().unwrap_or_default();
        match self.state == ActivationTaskState::Queued && !why.is_empty() {
            true => format!("{why}; {}", next_try(Some(self.not_before), now)),
            false => why,
        }
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

/// The numbers of tasks by destination and state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "destinations": [
        {
            "destination": "meta", "batches_left": 8,
            "tasks": { "queued": 2, "running": 1, "held": 0, "failed": 3, "done": 120 }
        }
    ],
    "tasks": { "queued": 2, "running": 1, "held": 0, "failed": 3, "done": 120 },
    "batches_left": 8
}))]
pub struct TaskSummary {
    /// The destinations that have tasks, by name.
    pub destinations: Vec<TasksOfDestination>,
    /// The tasks of all of them.
    pub tasks: TaskCounts,
    /// The batches of all queued, running and held tasks that are not done.
    pub batches_left: u64,
}

impl TaskSummary {
    /// A table for people: a row for each destination, and the sums if there are several. The columns are the destination,
    /// the queued, running, held, failed and done tasks, and the batches that are left.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, tasks: TaskCounts, batches_left: u64| {
            let TaskCounts { queued, running, held, failed, done } = tasks;
            let numbers = [queued, running, held, failed, done, batches_left].map(count);
            std::iter::once(name.to_owned()).chain(numbers).collect::<Vec<_>>()
        };
        let of = |of: &TasksOfDestination| row(of.destination.as_str(), of.tasks, of.batches_left);
        let mut rows: Vec<Vec<String>> = self.destinations.iter().map(of).collect();
        if rows.len() > 1 {
            rows.push(row("all", self.tasks, self.batches_left));
        }
        rows
    }
}

/// The numbers of tasks of a destination by state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TasksOfDestination {
    /// The destination, which is an account on a platform.
    #[schema(value_type = String)]
    pub destination: DestinationName,
    /// The tasks.
    pub tasks: TaskCounts,
    /// The batches of its queued, running and held tasks that are not done.
    pub batches_left: u64,
}

/// Numbers of tasks by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// Those that wait for a worker.
    pub queued: u64,
    /// Those whose batches a worker sends.
    pub running: u64,
    /// Those whose runs wait for approval.
    pub held: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those of which all batches are done.
    pub done: u64,
}

impl TaskCounts {
    /// Adds tasks that are in a state.
    pub fn add(&mut self, state: ActivationTaskState, tasks: u64) {
        let count = match state {
            ActivationTaskState::Queued => &mut self.queued,
            ActivationTaskState::Running => &mut self.running,
            ActivationTaskState::Held => &mut self.held,
            ActivationTaskState::Failed => &mut self.failed,
            ActivationTaskState::Done => &mut self.done,
        };
        *count = count.saturating_add(tasks);
    }
}

/// Tasks that were enqueued again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "enqueued": 12 }))]
pub struct TasksEnqueued {
    /// The number of tasks.
    pub enqueued: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_tried_again_shows_when() {
        use ActivationTaskState::{Failed, Queued};
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let task = |state, error: Option<&str>| ActivationTask {
            id: TaskId(1),
            run: SyncRunId(1),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            state,
            priority: 0,
            failures: 1,
            not_before: now.plus(Duration::from_secs(5)),
            holder: None,
            lease_until: None,
            batches: 2,
            batches_done: 1,
            last_error: error.map(str::to_owned),
            created_at: Timestamp(0),
            finished_at: None,
        };
        let queued = task(Queued, Some("cut off")).last_error_text(now);
        assert_eq!(queued, "cut off; next try 2026-11-25T18:40:05Z");
        assert_eq!(task(Failed, Some("cut off")).last_error_text(now), "cut off");
        assert_eq!(task(Queued, None).last_error_text(now), "");
    }

    #[test]
    fn a_summary_of_several_destinations_has_the_sums() {
        let tasks = TaskCounts { queued: 1, failed: 2_000, ..TaskCounts::default() };
        let of = |name: &str| TasksOfDestination {
            destination: name.parse().unwrap(),
            tasks,
            batches_left: 3,
        };
        let one = TaskSummary { destinations: vec![of("meta")], tasks, batches_left: 3 };
        assert_eq!(one.rows(), [["meta", "1", "0", "0", "2,000", "0", "3"]]);
        let destinations = vec![of("meta"), of("tiktok")];
        let two = TaskSummary { destinations, ..one };
        assert_eq!(two.rows()[2], ["all", "1", "0", "0", "2,000", "0", "3"]);
    }
}
