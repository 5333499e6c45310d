//! Accepted events, and records of the event log that could not be applied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use utoipa::ToSchema;

use crate::error::ErrorDetail;

/// The outcome of the events of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "accepted": 2, "duplicates": 0, "repeated": 0,
    "rejected": [{ "line": 3, "field": "ad_group", "message": "no ad group `shoe`", "help": "see /v1/catalog" }],
    "rejected_count": 1, "inserted_at_ignored": 0, "positions": { "0": 1042 }
}))]
pub struct EventsAccepted {
    /// Events that count, and events in the log that this node has not applied.
    pub accepted: u64,
    /// Events that had been counted before.
    pub duplicates: u64,
    /// Impressions and clicks whose insertion already has one with another id.
    pub repeated: u64,
    /// The first 1,000 rejected events.
    pub rejected: Vec<EventRejected>,
    /// The number of rejected events.
    pub rejected_count: u64,
    /// Events whose `inserted_at` is ignored.
    pub inserted_at_ignored: u64,
    /// By partition, the first offset of the event log after these events.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub positions: BTreeMap<u32, u64>,
    /// Only if none of the events counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

/// Why an event was rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRejected {
    /// The line, or the position in a protobuf message, from 1.
    pub line: u64,
    /// The field, or `event`.
    pub field: String,
    /// The cause.
    pub message: String,
    /// A hint how to fix it.
    pub help: String,
}

/// Records of the event log that are skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "partitions": [
        {
            "partition": 2, "total": 1,
            "records": [
                {
                    "offset": 1042, "reason": "it is not a record of events", "count": 3,
                    "at": 1795536000000000_i64
                }
            ]
        }
    ]
}))]
pub struct QuarantineByPartition {
    /// The partitions that have such records.
    pub partitions: Vec<QuarantineOfPartition>,
}

/// The skipped records of one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineOfPartition {
    /// The partition.
    pub partition: u32,
    /// The number of skipped records.
    pub total: u64,
    /// The first 1,000 records, by offset.
    pub records: Vec<QuarantineRecord>,
}

/// A skipped record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineRecord {
    /// The offset in the partition.
    pub offset: u64,
    /// Why it could not be applied.
    pub reason: String,
    /// How often it was tried.
    pub count: u64,
    /// When it failed first.
    #[schema(value_type = i64)]
    pub at: Timestamp,
}
