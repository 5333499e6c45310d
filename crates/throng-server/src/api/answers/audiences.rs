//! Audiences, sources, the spec, and the history of objects.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// All audiences of the applied spec.
#[derive(ToSchema)]
pub(in crate::api) struct AudienceList {
    audiences: Vec<AudienceSummary>,
}

/// An audience.
#[derive(ToSchema)]
pub(in crate::api) struct AudienceSummary {
    name: String,
    /// The version that is served; null until one is published.
    current: Option<AudienceSnapshot>,
    /// The newest refresh.
    refresh: Option<AudienceRefresh>,
    /// When the schedule fired last, in microseconds since 1970.
    last_fired: Option<i64>,
    /// When it was paused, in microseconds since 1970; null if it is not paused.
    paused_at: Option<i64>,
    /// When its version was pinned, in microseconds since 1970; null if it is not pinned.
    pinned_at: Option<i64>,
}

/// An audience with its snapshots.
#[derive(ToSchema)]
pub(in crate::api) struct AudienceDetail {
    name: String,
    /// The version that is served; null until one is published.
    current: Option<AudienceSnapshot>,
    /// The newest refresh.
    refresh: Option<AudienceRefresh>,
    /// When the schedule fired last, in microseconds since 1970.
    last_fired: Option<i64>,
    /// When it was paused, in microseconds since 1970; null if it is not paused.
    paused_at: Option<i64>,
    /// When its version was pinned, in microseconds since 1970; null if it is not pinned.
    pinned_at: Option<i64>,
    /// The snapshots that are retained, newest first.
    snapshots: Vec<AudienceSnapshot>,
    /// Pairs of a time in microseconds since 1970 and the number of members that were published then.
    sizes: Vec<Vec<i64>>,
}

/// The state of a refresh.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AudienceRefreshState {
    Scheduled,
    Processing,
    Halted,
    Completed,
    Failed,
    Held,
}

/// What started a refresh.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AudienceRefreshTrigger {
    Schedule,
    Manual,
    Apply,
}

/// A refresh of an audience. Times are microseconds since 1970.
#[derive(ToSchema)]
pub(in crate::api) struct AudienceRefresh {
    id: i64,
    audience: String,
    state: AudienceRefreshState,
    trigger: AudienceRefreshTrigger,
    scheduled_at: i64,
    started_at: Option<i64>,
    /// When it was completed, failed or held.
    finished_at: Option<i64>,
    /// It is not started before this time.
    not_before: i64,
    /// The number of failures.
    failures: u32,
    /// The number of consecutive attempts whose process died.
    crashes: u32,
    /// The process that holds the lease, while `processing`.
    holder: Option<String>,
    /// When the lease expires.
    lease_until: Option<i64>,
    /// Rows that the query has returned so far.
    rows_read: u64,
    /// Rows without a key.
    null_keys: u64,
    rows_expected: Option<u64>,
    /// Why it failed or is held.
    reason: Option<String>,
    /// The version of its snapshot.
    snapshot_version: Option<u64>,
    /// The estimated remaining time in seconds; null while there is no estimate; omitted in the response of
    /// `cancel`.
    eta_seconds: Option<u64>,
}

/// Whether a snapshot may be served.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AudienceSnapshotState {
    Held,
    Published,
    Rejected,
}

/// One version of an audience.
#[derive(ToSchema)]
pub(in crate::api) struct AudienceSnapshot {
    audience: String,
    version: u64,
    state: AudienceSnapshotState,
    /// The name of its object.
    path: String,
    members: u64,
    rows_read: u64,
    null_keys: u64,
    bytes: u64,
    /// XXH3 (128 bits) of the file in hexadecimal digits.
    checksum: Option<String>,
    /// The tables that it was built from, with the types of the columns, as JSON text.
    tables: Option<String>,
    model_fingerprint: String,
    /// The refresh that built it.
    refresh: i64,
    /// In microseconds since 1970.
    created_at: i64,
}

/// The refresh that was queued, or the one that was already open.
#[derive(ToSchema)]
pub(in crate::api) struct RefreshQueued {
    /// The id of the refresh.
    refresh: i64,
}

/// The refresh that was cancelled.
#[derive(ToSchema)]
pub(in crate::api) struct RefreshCancelled {
    refresh: AudienceRefresh,
}

/// Every source.
#[derive(ToSchema)]
pub(in crate::api) struct SourceList {
    sources: Vec<SourceTables>,
}

/// A source and its tables.
#[derive(ToSchema)]
pub(in crate::api) struct SourceTables {
    /// The schema of its tables in SQL.
    name: String,
    /// Its folder.
    path: String,
    /// Why it cannot be read; omitted if it can.
    refused: Option<SourceRefusal>,
    tables: Vec<SourceTable>,
    /// Files and folders that are not tables; at most 100.
    passed_over: Vec<SourcePassedOver>,
    /// The number of such files and folders.
    passed_over_count: u64,
}

/// Why a source or a table cannot be read.
#[derive(ToSchema)]
pub(in crate::api) struct SourceRefusal {
    message: String,
    help: Option<String>,
}

/// A table.
#[derive(ToSchema)]
pub(in crate::api) struct SourceTable {
    name: String,
    /// Why it cannot be read; omitted if it can.
    refused: Option<SourceRefusal>,
    /// Its files; at most 1,000.
    files: Vec<SourceFile>,
    file_count: u64,
    bytes: u64,
    /// Null if counting them requires reading more than 256 MiB of CSV and JSON.
    rows: Option<u64>,
    columns: Vec<SourceColumn>,
    /// Names of columns that a file has twice. They cannot be used.
    twice: Vec<String>,
    /// Text columns with white space around values.
    padded: Vec<String>,
    /// Files in its folder that are not read; at most 100.
    passed_over: Vec<SourcePassedOver>,
    passed_over_count: u64,
}

/// A file of a table.
#[derive(ToSchema)]
pub(in crate::api) struct SourceFile {
    path: String,
    /// `parquet`, `csv` or `json`.
    format: String,
    gzipped: bool,
    bytes: u64,
    rows: Option<u64>,
}

/// A column of a table.
#[derive(ToSchema)]
pub(in crate::api) struct SourceColumn {
    name: String,
    #[schema(rename = "type")]
    of: String,
}

/// A file or folder that is not read, and why.
#[derive(ToSchema)]
pub(in crate::api) struct SourcePassedOver {
    path: String,
    reason: String,
}

/// The applied spec.
#[derive(ToSchema)]
pub(in crate::api) struct SpecApplied {
    /// 0 if none is applied.
    version: u64,
    /// The checked spec; secrets are references in it. Null if none is applied.
    spec: Option<BTreeMap<String, Value>>,
    /// In microseconds since 1970; omitted if none is applied.
    applied_at: Option<i64>,
}

/// What applying a spec would change.
#[derive(ToSchema)]
pub(in crate::api) struct SpecPlanned {
    /// The applied version: `base_version` of `apply`.
    version: u64,
    plan: SpecPlan,
    models: Vec<SpecModel>,
}

/// What applying a spec has changed.
#[derive(ToSchema)]
pub(in crate::api) struct SpecChanged {
    /// The version that is applied now.
    version: u64,
    plan: SpecPlan,
}

/// The objects that differ.
#[derive(ToSchema)]
pub(in crate::api) struct SpecPlan {
    changes: Vec<SpecChange>,
    /// Consequences to know before applying; omitted if there are none.
    warnings: Option<Vec<String>>,
}

/// One object that differs.
#[derive(ToSchema)]
pub(in crate::api) struct SpecChange {
    /// `source`, `audience`, `destination`, `sync`, `advertiser`, `campaign`, `ad_group` or `node`.
    kind: String,
    name: String,
    /// `added`, `removed`, or an object whose `changed` is a list of `field`, `old` and `new`.
    action: Value,
    /// The currency of its amounts; omitted if it has none.
    currency: Option<String>,
    /// The previous currency, if it differs.
    currency_before: Option<String>,
}

/// The SQL of an audience.
#[derive(ToSchema)]
pub(in crate::api) struct SpecModel {
    audience: String,
    /// `key_column`, `key_kind`, `columns`, `estimated_rows`, and how the SQL is run.
    model: BTreeMap<String, Value>,
}

/// The history of an object, newest first.
#[derive(ToSchema)]
pub(in crate::api) struct History {
    history: Vec<HistoryItem>,
}

/// One change of state.
#[derive(ToSchema)]
pub(in crate::api) struct HistoryItem {
    /// `audience`, `sync`, `ad_group`, `spec`, …
    subject_kind: String,
    subject: String,
    /// What happened.
    what: String,
    why: String,
    /// In microseconds since 1970.
    at: i64,
    /// The name of the token of the caller; null if the node acted by itself.
    actor: Option<String>,
}
