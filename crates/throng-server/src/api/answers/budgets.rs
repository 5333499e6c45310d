//! Events, budgets, the feed, decisions. Amounts are micros, times microseconds since 1970.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// What became of the events of a request.
#[derive(ToSchema)]
pub(in crate::api) struct EventsAccepted {
    accepted: u64,
    /// Events that were counted before.
    duplicates: u64,
    /// Impressions and clicks whose insertion had had one under another id.
    repeated: u64,
    /// Events that were refused: the first 1,000.
    rejected: Vec<EventRejected>,
    /// How many were refused.
    rejected_count: u64,
    /// Events with an `inserted_at` from which nothing is learned.
    inserted_at_ignored: u64,
    /// By partition, the first offset of the event log behind these events.
    positions: BTreeMap<String, u64>,
    /// Only if none of the events counts.
    error: Option<Value>,
}

/// Why an event was refused.
#[derive(ToSchema)]
pub(in crate::api) struct EventRejected {
    /// The line, or the place in a protobuf message, from 1.
    line: u64,
    field: String,
    message: String,
    help: String,
}

/// Records of the event log that are passed over.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineByPartition {
    partitions: Vec<QuarantineOfPartition>,
}

/// Records of one partition that are passed over.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineOfPartition {
    partition: u32,
    total: u64,
    /// The first 1,000.
    records: Vec<QuarantineRecord>,
}

/// A record that is passed over.
#[derive(ToSchema)]
pub(in crate::api) struct QuarantineRecord {
    offset: u64,
    reason: String,
    /// How many times it was tried.
    count: u64,
    at: i64,
}

/// All ad groups.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetList {
    budgets: Vec<BudgetState>,
}

/// An ad group now.
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

/// An ad group over the day.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetDetail {
    state: BudgetState,
    points: Vec<BudgetPoint>,
    intervals: Vec<BudgetInterval>,
    days: Vec<BudgetOfDay>,
    /// Spend by quarters of an hour that have any: pairs of a start and an amount.
    slices: Vec<Vec<i64>>,
}

/// Spend at a moment.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetPoint {
    at: i64,
    actual: i64,
    in_flight: i64,
}

/// What the ads inserted within three minutes were expected to earn, and have earned.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetInterval {
    start: i64,
    predicted: i64,
    actual: i64,
}

/// The figures of a budget day.
#[derive(ToSchema)]
pub(in crate::api) struct BudgetOfDay {
    ad_group: String,
    /// Days since 1970-01-01 of the advertiser's calendar.
    day: i32,
    budget: i64,
    actual: i64,
}

/// The ad groups that gates decide about.
#[derive(ToSchema)]
pub(in crate::api) struct AdGroupCatalog {
    /// Goes up with each change.
    version: u64,
    ad_groups: Vec<AdGroupEntry>,
}

/// What to do with an ad group whose feed is silent.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum AdGroupWhenStale {
    Serve,
    Stop,
}

/// An ad group of the catalog.
#[derive(ToSchema)]
pub(in crate::api) struct AdGroupEntry {
    /// Its number in the feed.
    index: u32,
    name: String,
    /// The currency of the amounts.
    currency: Option<String>,
    daily_budget: i64,
    prediction: bool,
    /// Users must be in one of these audiences; empty: everybody.
    include: Vec<String>,
    /// Users must be in none of these.
    exclude: Vec<String>,
    when_stale: AdGroupWhenStale,
    /// What one insertion is expected to earn.
    expected: i64,
}

/// The gates that have reported within the last hour.
#[derive(ToSchema)]
pub(in crate::api) struct GateList {
    gates: Vec<GateApplied>,
    partitions: Vec<GatePartition>,
}

/// What a gate has applied.
#[derive(ToSchema)]
pub(in crate::api) struct GateApplied {
    id: String,
    /// Pairs of a partition and the version of its last frame.
    versions: Vec<Vec<u64>>,
    at: i64,
    age_seconds: f64,
}

/// How far the feed of a partition has come.
#[derive(ToSchema)]
pub(in crate::api) struct GatePartition {
    partition: u32,
    epoch: u64,
    version: u64,
    age_seconds: f64,
}

/// A report was noted.
#[derive(ToSchema)]
pub(in crate::api) struct GateNoted {
    noted: bool,
}

/// Which ad groups may be shown.
#[derive(ToSchema)]
pub(in crate::api) struct DecisionMade {
    allowed: Vec<String>,
    refused: Vec<DecisionRefusal>,
    /// Of the insertion that was recorded; left out if none was.
    insertion_id: Option<String>,
}

/// Why an ad group may not be shown.
#[derive(ToSchema)]
pub(in crate::api) struct DecisionRefusal {
    ad_group: String,
    /// A stable word, such as `not_in_audience`.
    code: String,
    why: String,
}

/// This description.
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
