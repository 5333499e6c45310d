//! The applied spec, and requests to plan and apply another one.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throng_model::{AudienceName, Currency, Timestamp};
use utoipa::ToSchema;

/// The files of a spec, as `throng plan` and `throng apply` send them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "base": "/etc/throng",
    "files": [{ "path": "throng.yaml", "text": "version: 1\n" }],
    "base_version": 4
}))]
pub struct SentSpec {
    /// The absolute folder on the node that relative paths in the spec are relative to.
    pub base: String,
    /// The files, in the order of their names.
    pub files: Vec<SentFile>,
    /// Apply only if this is the applied version, as `GET /v1/spec` returns it; 0 if no spec is applied.
    /// `plan` ignores it.
    pub base_version: Option<u64>,
}

/// A file of a spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SentFile {
    /// The name of the file in problems. The node does not open it.
    pub path: String,
    /// The content.
    pub text: String,
}

/// The applied spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": 4, "spec": { "version": 1, "audiences": [] }, "applied_at": 1795536000000000_i64
}))]
pub struct CurrentSpec {
    /// The version; 0 if no spec is applied.
    pub version: u64,
    /// The checked spec; secrets are references in it. Null if no spec is applied.
    #[schema(value_type = Option<std::collections::BTreeMap<String, Value>>)]
    pub spec: Option<Value>,
    /// When it was applied; omitted if no spec is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub applied_at: Option<Timestamp>,
}

/// What applying a spec would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": 4,
    "plan": {
        "changes": [
            {
                "kind": "ad_group", "name": "shoes", "currency": "USD",
                "action": {
                    "changed": [{ "field": "daily_budget", "old": 1000000, "new": 2000000 }]
                }
            }
        ]
    },
    "models": [
        {
            "audience": "buyers",
            "model": { "key_column": "customer", "key_kind": "text", "estimated_rows": 1200000 }
        }
    ]
}))]
pub struct SpecPlanned {
    /// The applied version: `base_version` of `apply`.
    pub version: u64,
    /// What would change.
    pub plan: SpecPlan,
    /// The models of the audiences.
    pub models: Vec<SpecModel>,
    /// How the audiences of each template are built; omitted if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<SpecTemplate>,
}

/// What applying a spec has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": 5,
    "plan": {
        "changes": [
            {
                "kind": "ad_group", "name": "shoes", "currency": "USD",
                "action": {
                    "changed": [{ "field": "daily_budget", "old": 1000000, "new": 2000000 }]
                }
            }
        ]
    }
}))]
pub struct SpecChanged {
    /// The new version.
    pub version: u64,
    /// What changed.
    pub plan: SpecPlan,
}

/// The objects that differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecPlan {
    /// One entry per object that differs.
    pub changes: Vec<SpecChange>,
    /// Consequences to know before applying; omitted if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "kind": "ad_group", "name": "shoes", "currency": "USD",
    "action": { "changed": [{ "field": "daily_budget", "old": 1000000, "new": 2000000 }] }
}))]
pub struct SpecChange {
    /// The kind of the object.
    pub kind: SpecObjectKind,
    /// The name; `node` for the settings of the node.
    pub name: String,
    /// The currency of its amounts; omitted if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
    /// The previous currency, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub currency_before: Option<Currency>,
    /// The name pattern of the template whose row makes it, or has made it if it is removed; omitted if the spec has it
    /// without a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// How it differs.
    pub action: SpecAction,
}

/// The kind of an object of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecObjectKind {
    /// A source.
    Source,
    /// A schema of ingested records.
    Schema,
    /// An audience.
    Audience,
    /// A destination.
    Destination,
    /// A sync.
    Sync,
    /// A serving store.
    ServingStore,
    /// An advertiser.
    Advertiser,
    /// A campaign.
    Campaign,
    /// An ad group.
    AdGroup,
    /// The settings of the node.
    Node,
}

/// How an object differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecAction {
    /// It is new.
    Added,
    /// These fields differ; at least one.
    Changed(Vec<SpecFieldChange>),
    /// It is removed.
    Removed,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecFieldChange {
    /// The field, such as `daily_budget` or `guard.max_shrink_percent`.
    pub field: String,
    /// The old value; null if it was not set. Amounts are micros.
    pub old: Value,
    /// The new value; null if it is not set. Amounts are micros.
    pub new: Value,
}

/// How the audiences of a template are built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecTemplate {
    /// The name pattern of the template.
    pub name: String,
    /// Its audiences.
    pub audiences: u64,
    /// Whether those that are due together are built in one scan, and not by a query each.
    pub one_scan: bool,
    /// Why they are not, without values of the data; omitted if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl std::fmt::Display for SpecTemplate {
    /// One line, without a line break.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let audiences = throng_model::counted(self.audiences, "audience");
        let how = if self.one_scan { "in one scan" } else { "by a query each" };
        write!(f, "template {}: {audiences}, built {how}", self.name)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// The model of an audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecModel {
    /// The audience.
    #[schema(value_type = String)]
    pub audience: AudienceName,
    /// `key_column`, `key_kind`, `columns`, `estimated_rows`, and how the SQL is run; if a warehouse
    /// runs it, `bytes_processed` and `cost` of a run.
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    pub model: Value,
}
