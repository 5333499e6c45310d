//! Events, budgets, the feed, decisions. Amounts are micros, times microseconds since 1970.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// The outcome of the events of a request.
#[derive(ToSchema)]
pub(in crate::api) struct EventsAccepted {
    accepted: u64,
    /// Events that had been counted before.
    duplicates: u64,
    /// Impressions and clicks whose insertion already has one with another id.
    repeated: u64,
    /// The first 1,000 rejected events.
    rejected: Vec<EventRejected>,
    /// The number of rejected events.
    rejected_count: u64,
    /// Events whose `inserted_at` is ignored.
    inserted_at_ignored: u64,
    /// By partition, the first offset of the event log after these events.
    positions: BTreeMap<String, u64>,
    /// Only if none of the events counts.
    error: Option<Value>,
}

/// Why an event was rejected.
#[derive(ToSchema)]
pub(in crate::api) struct EventRejected {
    /// The line, or the position in a protobuf message, from 1.
    line: u64,
    field: String,
    message: String,
    help: String,
}

/// Records of the event log that are skipped.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineByPartition {
    partitions: Vec<QuarantineOfPartition>,
}

/// The skipped records of one partition.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineOfPartition {
    partition: u32,
    total: u64,
    /// The first 1,000.
    records: Vec<QuarantineRecord>,
}

/// A skipped record.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineRecord {
    offset: u64,
    reason: String,
    /// How often it was tried.
    count: u64,
    at: i64,
}

/// All ad groups.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetList {
    budgets: Vec<BudgetState>,
}

/// The current state of an ad group.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetState {
    name: String,
    /// Whether it may be shown.
    open: bool,
    reason: String,
    /// The currency of the amounts.
    currency: String,
    budget_micros: i64,
    actual_micros: i64,
    in_flight_micros: i64,
    projected_micros: i64,
}

/// An ad group with its spend over the day.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetDetail {
    state: BudgetState,
    points: Vec<BudgetPoint>,
    intervals: Vec<BudgetInterval>,
    days: Vec<BudgetOfDay>,
    /// Spend by quarter of an hour, without those that have none: pairs of a start and an amount.
    slices: Vec<Vec<i64>>,
}

/// The spend at one time.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetPoint {
    at: i64,
    actual: i64,
    in_flight: i64,
}

/// The predicted and the actual spend of the ads that were inserted within three minutes.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetInterval {
    start: i64,
    predicted: i64,
    actual: i64,
}

/// The spend of a budget day.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetOfDay {
    ad_group: String,
    /// Days since 1970-01-01, in the time zone of the advertiser.
    day: i32,
    budget: i64,
    actual: i64,
}

/// The ad groups that gates decide about.
#[derive(ToSchema)]
pub(in crate::api) struct AdGroupCatalog {
    /// Increases with each change.
    version: u64,
    ad_groups: Vec<AdGroupEntry>,
}

/// What to do with an ad group whose feed is stale.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AdGroupWhenStale {
    Serve,
    Stop,
}

/// An ad group of the catalog.
#[derive(ToSchema)]
pub(in crate::api) struct AdGroupEntry {
    /// Its index in the feed.
    index: u32,
    name: String,
    /// The currency of the amounts.
    currency: Option<String>,
    daily_budget: i64,
    prediction: bool,
    /// Users must be in at least one of these audiences; empty: all users.
    include: Vec<String>,
    /// Users must not be in any of these audiences.
    exclude: Vec<String>,
    when_stale: AdGroupWhenStale,
    /// The expected spend of one insertion.
    expected: i64,
}

/// The gates that have reported within the last hour.
#[derive(ToSchema)]
pub(in crate::api) struct GateList {
    gates: Vec<GateApplied>,
    partitions: Vec<GatePartition>,
}

/// The versions that a gate has applied.
#[derive(ToSchema)]
pub(in crate::api) struct GateApplied {
    id: String,
    /// Pairs of a partition and the version of its last frame.
    versions: Vec<Vec<u64>>,
    at: i64,
    age_seconds: f64,
}

/// The published version of the feed of a partition.
#[derive(ToSchema)]
pub(in crate::api) struct GatePartition {
    partition: u32,
    epoch: u64,
    version: u64,
    age_seconds: f64,
}

/// A report was recorded.
#[derive(ToSchema)]
pub(in crate::api) struct GateNoted {
    noted: bool,
}

/// Which ad groups may be shown.
#[derive(ToSchema)]
pub(in crate::api) struct DecisionMade {
    allowed: Vec<String>,
    refused: Vec<DecisionRefusal>,
    /// The id of the recorded insertion; omitted if none was recorded.
    insertion_id: Option<String>,
}

/// Why an ad group may not be shown.
#[derive(ToSchema)]
pub(in crate::api) struct DecisionRefusal {
    ad_group: String,
    /// A stable code, such as `not_in_audience`.
    code: String,
    why: String,
}

/// The OpenAPI description of the API.
#[derive(ToSchema)]
pub(in crate::api) struct Description {
    openapi: String,
    info: Value,
    #[schema(required = false)]
    servers: Value,
    paths: Value,
    components: Value,
    security: Value,
    #[schema(required = false)]
    tags: Value,
}
