//! Syncs, runs, tasks, alerts. Times are microseconds since 1970.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// How an audience is synchronized to a destination.
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

/// A sync, and the state of its audience on the platform.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSummary {
    name: String,
    audience: String,
    destination: String,
    mode: ActivationMode,
    /// When it was paused; null if it is not paused.
    paused_at: Option<i64>,
    /// The id of the audience on the platform; null until it is created.
    platform_id: Option<String>,
    /// The delivered version; null until a run has completed.
    delivered_version: Option<u64>,
    delivered_at: Option<i64>,
    delivered_users: Option<u64>,
    /// Removals that the platform refused.
    removals_due: u64,
    /// When they are retried; null if there are none.
    removals_retry_at: Option<i64>,
    /// The newest size of the audience on the platform; null if it has not been read.
    size: Option<SyncSize>,
}

/// The sizes of a sync's audience on the platform over time.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSizes {
    sync: String,
    /// The id of the current audience on the platform.
    platform_id: Option<String>,
    /// The verdict about the sizes of this audience.
    verdict: ActivationVerdict,
    /// Null if the verdict is `passed`.
    reason: Option<String>,
    /// Oldest first.
    sizes: Vec<SyncSize>,
}

/// The size that the platform reported at one time.
#[derive(ToSchema)]
pub(in crate::api) struct SyncSize {
    sync: String,
    account: String,
    platform_id: String,
    at: i64,
    /// The lower bound in people; null if the platform does not report it.
    lower: Option<u64>,
    /// The upper bound in people; null if the platform does not report it.
    upper: Option<u64>,
    /// The users that had been delivered at that time.
    delivered: u64,
    /// Whether the platform was still processing an upload.
    settling: bool,
}

/// The sync that was changed.
#[derive(ToSchema)]
pub(in crate::api) struct SyncNamed {
    sync: String,
}

/// What to do with the audience of a removed sync.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum SyncRemovalRule {
    Empty,
    Delete,
}

/// Removals that are not finished.
#[derive(ToSchema)]
pub(in crate::api) struct RemovalList {
    removals: Vec<SyncRemoval>,
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
#[derive(ToSchema)]
pub(in crate::api) struct SyncRemoval {
    sync: String,
    rule: SyncRemovalRule,
    /// The name of the audience on the platform.
    audience: Option<String>,
    destination: Option<String>,
    /// The id of the audience on the platform.
    platform_id: Option<String>,
    /// Null if the number of delivered users is unknown.
    users: Option<u64>,
    requested_at: i64,
    /// Null while it waits for approval.
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
    /// The version that was delivered by the previous run.
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
    /// Identifiers that were changed or rejected, by `KEY.reason`.
    normalised: BTreeMap<String, u64>,
}

/// Held runs that were approved.
#[derive(ToSchema)]
pub(in crate::api) struct RunsApproved {
    /// The number of runs.
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

/// Tasks: running ones first, then queued ones, then finished ones; at most 500.
#[derive(ToSchema)]
pub(in crate::api) struct TaskList {
    tasks: Vec<ActivationTask>,
    /// Pairs of a state and its number of tasks.
    counts: Vec<Vec<Value>>,
}

/// The work of one audience on one destination.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationTask {
    id: i64,
    run: i64,
    sync: String,
    audience: String,
    destination: String,
    state: ActivationTaskState,
    priority: i32,
    /// Consecutive failures.
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
    /// The share of batches that are done, 0 to 1; omitted in the response of `requeue`.
    progress: Option<f64>,
    /// Null while there is no estimate; omitted in the response of `requeue`.
    eta_seconds: Option<u64>,
}

/// One task with its run, batches, receipts and check.
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

/// A fixed range of the rows of a run.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationBatch {
    number: u32,
    operation: ActivationOperation,
    first_rank: u64,
    rows: u64,
    state: ActivationBatchState,
    outcome: Option<ActivationOutcome>,
}

/// The outcome of the users of a batch.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationOutcome {
    sent: u64,
    skipped: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
    /// Ranges of positions in the batch that were refused; the end is exclusive.
    refused: Vec<Vec<u32>>,
}

/// The response of the platform to one request.
#[derive(ToSchema)]
pub(in crate::api) struct ActivationReceipt {
    task: i64,
    batch: u32,
    operation: ActivationOperation,
    rows: u64,
    received: u64,
    invalid: u64,
    invalid_reasons: BTreeMap<String, u64>,
    /// 0 if the connection failed before a response.
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

/// Tasks that were enqueued again.
#[derive(ToSchema)]
pub(in crate::api) struct TasksEnqueued {
    /// The number of tasks.
    enqueued: u64,
}

/// Alerts, open ones first.
#[derive(ToSchema)]
pub(in crate::api) struct AlertList {
    alerts: Vec<AlertItem>,
    /// The number of open alerts.
    open: u64,
    /// The number of stored alerts.
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

/// An alert. A cause has at most one open alert.
#[derive(ToSchema)]
pub(in crate::api) struct AlertItem {
    id: i64,
    /// `refresh_failed`, `run_held`, …
    kind: String,
    severity: AlertSeverity,
    subject: String,
    message: String,
    /// How often it was raised.
    count: u64,
    raised_at: i64,
    last_at: i64,
    /// Null while it is open.
    resolved_at: Option<i64>,
    /// Ended deliveries.
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

/// The event of an alert that is sent to receivers.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AlertEventName {
    Raised,
    Resolved,
}

/// An ended delivery.
#[derive(ToSchema)]
pub(in crate::api) struct AlertDelivery {
    receiver: String,
    event_id: String,
    /// The id of the alert.
    alert: i64,
    event: AlertEventName,
    state: AlertDeliveryState,
    tries: u64,
    /// The status of the last response.
    http_status: Option<u16>,
    why: Option<String>,
    at: i64,
}

/// Ended deliveries, newest first.
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
    /// Failed attempts of the next event.
    failures: u32,
    next_try_at: Option<i64>,
    last_error: Option<String>,
    last_ok_at: Option<i64>,
    /// Events that wait for delivery.
    pending: u64,
}

/// The responses of the receivers to a test.
#[derive(ToSchema)]
pub(in crate::api) struct AlertTestAnswers {
    answers: Vec<AlertTestAnswer>,
}

/// The response of a receiver to a test.
#[derive(ToSchema)]
pub(in crate::api) struct AlertTestAnswer {
    receiver: String,
    accepted: bool,
    /// Null if there was no response.
    status: Option<u16>,
    /// The beginning of the response.
    answer: String,
    error: Option<String>,
}
