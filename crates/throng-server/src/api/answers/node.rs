//! Health, nodes, tokens, sessions. Times are microseconds since 1970.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// The readiness of the node.
#[derive(ToSchema)]
pub(in crate::api) struct Readiness {
    ready: bool,
    /// Whether it works with older data or without a component.
    degraded: bool,
    /// The classes of its problems.
    problems: Vec<String>,
}

/// The health of the node.
#[derive(ToSchema)]
pub(in crate::api) struct NodeHealth {
    ready: bool,
    degraded: bool,
    problems: Vec<NodeProblem>,
    /// The version that is served of each audience.
    snapshots: BTreeMap<String, u64>,
    /// Whether the kernel confines query workers to their folders: `yes`, `partial` or `no`.
    landlock: String,
}

/// The effect of a problem on the node.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum NodeImpact {
    Degraded,
    NotReady,
}

/// An open problem.
#[derive(ToSchema)]
pub(in crate::api) struct NodeProblem {
    /// `ledger`, `disk`, `log`, …
    class: String,
    /// The object of the problem; may be empty.
    key: String,
    impact: NodeImpact,
    detail: String,
    since: i64,
}

/// The nodes of the cluster.
#[derive(ToSchema)]
pub(in crate::api) struct NodeList {
    nodes: Vec<NodeSummary>,
}

/// A node of the cluster.
#[derive(ToSchema)]
pub(in crate::api) struct NodeSummary {
    name: String,
    /// Separated by commas.
    roles: String,
    url: String,
    started_at: i64,
    seen_at: i64,
    /// The partitions that it aggregates.
    partitions: Vec<u32>,
    /// The partitions that it is a standby replica of.
    stands_by: Vec<u32>,
    /// The number of gates that report to it.
    gates: u64,
}

/// All tokens.
#[derive(ToSchema)]
pub(in crate::api) struct TokenList {
    tokens: Vec<TokenSummary>,
}

/// A token without its secret.
#[derive(ToSchema)]
pub(in crate::api) struct TokenSummary {
    name: String,
    scopes: Vec<String>,
    workspace: Option<String>,
    created_at: i64,
    created_by: String,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
    valid: bool,
}

/// A token that was created.
#[derive(ToSchema)]
pub(in crate::api) struct TokenCreated {
    name: String,
    scopes: Vec<String>,
    expires_at: Option<i64>,
    workspace: Option<String>,
    /// The token itself, which only this response contains.
    token: String,
}

/// A token that was revoked.
#[derive(ToSchema)]
pub(in crate::api) struct TokenRevoked {
    /// The name of the token.
    revoked: String,
}

/// The sessions of browsers.
#[derive(ToSchema)]
pub(in crate::api) struct SessionList {
    sessions: Vec<SessionSummary>,
}

/// A session.
#[derive(ToSchema)]
pub(in crate::api) struct SessionSummary {
    id: i64,
    /// The name of its token.
    token: String,
    created_at: i64,
    last_seen_at: i64,
    expires_at: i64,
}

/// A session that was ended.
#[derive(ToSchema)]
pub(in crate::api) struct SessionEnded {
    /// The id of the session.
    ended: i64,
}

/// A link that signs a browser in, once.
#[derive(ToSchema)]
pub(in crate::api) struct SignInLink {
    path: String,
    url: String,
    expires_at: i64,
}
