//! Syncs, runs, tasks, alerts. Times are microseconds since 1970.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// How an audience is kept on a destination.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationMode {
    Mirror,
    Add,
    Replace,
}

/// What a batch does on the platform.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationOperation {
    Add,
    Remove,
    Replace,
}

/// The syncs of the applied spec.
#[derive(ToSchema)]
pub(in crate::api) struct SyncList {
    syncs: Vec<SyncSummary>,
}

/// A sync, and what its audience on the platform holds.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSummary {
    name: String,
    audience: String,
    destination: String,
    mode: ActivationMode,
    /// Since when it is paused.
    paused_at: Option<i64>,
    /// The platform's id of the audience, once there is one.
    platform_id: Option<String>,
    /// The version that it holds, once a run completed.
    delivered_version: Option<u64>,
    delivered_at: Option<i64>,
    delivered_users: Option<u64>,
    /// Removals that the platform refused.
    removals_due: u64,
    /// When they are tried again; null if there are none.
    removals_retry_at: Option<i64>,
    /// The newest size of the audience on the platform; null if it was never read.
    size: Option<SyncSize>,
}

/// The sizes of a sync's audience on the platform over time.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSizes {
    sync: String,
    /// The platform's id of the audience that the sync has now.
    platform_id: Option<String>,
    /// What the sizes of this audience say.
    verdict: ActivationVerdict,
    /// Null if nothing is wrong.
    reason: Option<String>,
    /// The oldest first.
    sizes: Vec<SyncSize>,
}

/// The size that a platform showed at one time.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSize {
    sync: String,
    account: String,
    platform_id: String,
    at: i64,
    /// At least so many people; null if the platform does not show it.
    lower: Option<u64>,
    /// At most so many people; null if the platform does not show it.
    upper: Option<u64>,
    /// Users that the platform was given at that time.
    delivered: u64,
    /// The platform was still at work on an upload.
    settling: bool,
}

/// The sync that something was done to.
#[derive(ToSchema)]
pub(in crate::api) struct SyncNamed {
    sync: String,
}

/// What is to be done with the audience of a removed sync.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum SyncRemovalRule {
    Empty,
    Delete,
}

/// Removals that have not been carried out.
#[derive(ToSchema)]
pub(in crate::api) struct RemovalList {
    removals: Vec<SyncRemoval>,
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
#[derive(ToSchema)]
pub(in crate::api) struct SyncRemoval {
    sync: String,
    rule: SyncRemovalRule,
    /// The audience's name on the platform.
    audience: Option<String>,
    destination: Option<String>,
    /// The platform's id of the audience.
    platform_id: Option<String>,
    /// Null if it is not known who was delivered.
    users: Option<u64>,
    requested_at: i64,
    /// Null while it waits for a person.
    approved_at: Option<i64>,
    approved_by: Option<String>,
    /// Failed tries to delete the audience.
    tries: u32,
    retry_at: Option<i64>,
    last_error: Option<String>,
}

/// The state of a run.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationRunState {
    Active,
    Completed,
    Failed,
    Held,
}

/// The newest runs.
#[derive(ToSchema)]
pub(in crate::api) struct RunList {
    runs: Vec<ActivationRun>,
}

/// A run: `read = sent + skipped + rejected + pending`, in users.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationRun {
    id: i64,
    sync: String,
    audience: String,
    destination: String,
    mode: ActivationMode,
    /// The version that was delivered before.
    from_version: Option<u64>,
    to_version: u64,
    state: ActivationRunState,
    adds: u64,
    removes: u64,
    read: u64,
    sent: u64,
    /// Users by reason.
    skipped: BTreeMap<String, u64>,
    /// Users by reason.
    rejected: BTreeMap<String, u64>,
    pending: u64,
    created_at: i64,
    finished_at: Option<i64>,
    /// Why it failed or is held.
    reason: Option<String>,
    /// What was changed or refused in the identifiers, by `KEY.reason`.
    normalised: BTreeMap<String, u64>,
}

/// Held runs that were let go on.
#[derive(ToSchema)]
pub(in crate::api) struct RunsApproved {
    /// How many.
    approved: u64,
}

/// The state of a task.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationTaskState {
    Queued,
    Running,
    Done,
    Failed,
    Held,
}

/// Tasks: running, then queued, then ended; 500 at most.
#[derive(ToSchema)]
pub(in crate::api) struct TaskList {
    tasks: Vec<ActivationTask>,
    /// Pairs of a state and how many tasks are in it.
    counts: Vec<Vec<Value>>,
}

/// One audience's work on one destination.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationTask {
    id: i64,
    run: i64,
    sync: String,
    audience: String,
    destination: String,
    state: ActivationTaskState,
    priority: i32,
    /// Failures in a row.
    failures: u32,
    /// It is not tried before this time.
    not_before: i64,
    holder: Option<String>,
    lease_until: Option<i64>,
    batches: u32,
    batches_done: u32,
    last_error: Option<String>,
    created_at: i64,
    finished_at: Option<i64>,
    /// The share of batches with an end, 0 to 1; left out of the answer to `requeue`.
    progress: Option<f64>,
    /// Null while nothing can be said; left out of the answer to `requeue`.
    eta_seconds: Option<u64>,
}

/// One task in full.
#[derive(ToSchema)]
pub(in crate::api) struct TaskDetail {
    run: ActivationRun,
    batches: Vec<ActivationBatch>,
    receipts: Vec<ActivationReceipt>,
    /// Null until the task is done and checked.
    check: Option<ActivationCheck>,
    task: ActivationTask,
}

/// The state of a batch.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationBatchState {
    Pending,
    Done,
}

/// A fixed part of a run's rows.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationBatch {
    number: u32,
    operation: ActivationOperation,
    first_rank: u64,
    rows: u64,
    state: ActivationBatchState,
    outcome: Option<ActivationOutcome>,
}

/// What became of the users of a batch.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationOutcome {
    sent: u64,
    skipped: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
    /// Ranges of places in the batch that were refused, the end exclusive.
    refused: Vec<Vec<u32>>,
}

/// What the platform said about one request.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationReceipt {
    task: i64,
    batch: u32,
    operation: ActivationOperation,
    rows: u64,
    received: u64,
    invalid: u64,
    invalid_reasons: BTreeMap<String, u64>,
    /// 0 if the connection was cut.
    http_status: u16,
    error_code: Option<i64>,
    platform_ref: Option<String>,
    at: i64,
}

/// The verdict of a check.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum ActivationVerdict {
    Passed,
    Suspect,
    Failed,
}

/// The check of a task that is done.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationCheck {
    run: i64,
    task: i64,
    verdict: ActivationVerdict,
    reasons: Vec<String>,
    at: i64,
}

/// Tasks that were put on the queue once more.
#[derive(ToSchema)]
pub(in crate::api) struct TasksAnnounced {
    /// How many.
    announced: u64,
}

/// Alerts, open ones first.
#[derive(ToSchema)]
pub(in crate::api) struct AlertList {
    alerts: Vec<AlertItem>,
    /// How many are open.
    open: u64,
    /// How many are kept.
    total: u64,
    receivers: Vec<AlertReceiver>,
}

/// How urgent an alert is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AlertSeverity {
    Warning,
    Critical,
}

/// An alert. While it is open, its cause has no other one.
#[derive(ToSchema)]
pub(in crate::api) struct AlertItem {
    id: i64,
    /// `refresh_failed`, `run_held`, …
    kind: String,
    severity: AlertSeverity,
    subject: String,
    message: String,
    /// How many times it was raised.
    count: u64,
    raised_at: i64,
    last_at: i64,
    /// Null while it is open.
    resolved_at: Option<i64>,
    /// Deliveries that have ended.
    deliveries: Vec<AlertDelivery>,
}

/// How a delivery ended.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AlertDeliveryState {
    Delivered,
    Expired,
    Refused,
}

/// What receivers are told of an alert.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AlertEventName {
    Raised,
    Resolved,
}

/// A delivery that has ended.
#[derive(ToSchema)]
pub(in crate::api) struct AlertDelivery {
    receiver: String,
    event_id: String,
    /// The alert's number.
    alert: i64,
    event: AlertEventName,
    state: AlertDeliveryState,
    tries: u64,
    /// The status of the last answer.
    http_status: Option<u16>,
    why: Option<String>,
    at: i64,
}

/// Deliveries that have ended, newest first.
#[derive(ToSchema)]
pub(in crate::api) struct AlertDeliveryList {
    deliveries: Vec<AlertDelivery>,
}

/// A receiver of alerts.
#[derive(ToSchema)]
pub(in crate::api) struct AlertReceiver {
    name: String,
    since: i64,
    last_event: i64,
    /// Failed tries of the next event.
    failures: u32,
    next_try_at: Option<i64>,
    last_error: Option<String>,
    last_ok_at: Option<i64>,
    /// Events that wait for it.
    pending: u64,
}

/// What the receivers answered to a test.
#[derive(ToSchema)]
pub(in crate::api) struct AlertTestAnswers {
    answers: Vec<AlertTestAnswer>,
}

/// What a receiver answered to a test.
#[derive(ToSchema)]
pub(in crate::api) struct AlertTestAnswer {
    receiver: String,
    accepted: bool,
    /// Null if there was no answer.
    status: Option<u16>,
    /// The beginning of its answer.
    answer: String,
    error: Option<String>,
}
