//! Health, the nodes of the cluster, and the description of the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throng_model::Timestamp;
use utoipa::ToSchema;

/// The readiness of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "ready": true, "degraded": false, "problems": [] }))]
pub struct Readiness {
    /// Whether the node can serve requests.
    pub ready: bool,
    /// Whether it works with older data or without a component.
    pub degraded: bool,
    /// The classes of its problems.
    pub problems: Vec<String>,
}

/// The health of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "ready": true, "degraded": true,
    "problems": [{
        "class": "objects", "key": "", "impact": "degraded", "detail": "the bucket does not respond",
        "since": 1795536000000000_i64
    }],
    "snapshots": { "buyers": 3 }, "landlock": "yes"
}))]
pub struct NodeHealth {
    /// Whether the node can serve requests.
    pub ready: bool,
    /// Whether it works with older data or without a component.
    pub degraded: bool,
    /// Its open problems.
    pub problems: Vec<NodeProblem>,
    /// The version that is served of each audience.
    pub snapshots: BTreeMap<String, u64>,
    /// Whether the kernel confines query workers to their folders: `yes`, `partial` or `no`.
    pub landlock: String,
}

/// The effect of a problem on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeImpact {
    /// The node works with older data or without a component.
    Degraded,
    /// The node should not get requests.
    NotReady,
}

/// An open problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeProblem {
    /// `ledger`, `disk`, `log`, …
    pub class: String,
    /// The object of the problem; may be empty.
    pub key: String,
    /// The effect on the node.
    pub impact: NodeImpact,
    /// What happened, and how to fix it.
    pub detail: String,
    /// When it was reported first.
    #[schema(value_type = i64)]
    pub since: Timestamp,
}

/// The nodes of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "nodes": [
        {
            "name": "host-1", "roles": "api, schedule", "url": "http://10.0.0.1:7077",
            "started_at": 1795536000000000_i64, "seen_at": 1795536060000000_i64,
            "partitions": [0, 1], "stands_by": [2], "gates": 12
        }
    ]
}))]
pub struct NodeList {
    /// The nodes.
    pub nodes: Vec<NodeSummary>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSummary {
    /// The name of the process, unique over time.
    pub name: String,
    /// The roles, separated by commas.
    pub roles: String,
    /// The URL of the node.
    pub url: String,
    /// When it started.
    #[schema(value_type = i64)]
    pub started_at: Timestamp,
    /// When it was last seen.
    #[schema(value_type = i64)]
    pub seen_at: Timestamp,
    /// The partitions that it aggregates.
    pub partitions: Vec<u32>,
    /// The partitions that it is a standby replica of.
    pub stands_by: Vec<u32>,
    /// The number of gates that report to it.
    pub gates: u64,
}

/// The OpenAPI description of the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "openapi": "3.1.0", "info": { "title": "Throng", "version": "0.1.0" }, "paths": {},
    "components": {}, "security": []
}))]
pub struct Description {
    /// The version of OpenAPI.
    pub openapi: String,
    /// Title and version.
    pub info: Value,
    /// Servers; omitted.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub servers: Value,
    /// The operations by path.
    pub paths: Value,
    /// The schemas.
    pub components: Value,
    /// The security requirements.
    pub security: Value,
    /// Tags; omitted.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub tags: Value,
}
