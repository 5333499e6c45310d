//! Plans of specs. `throng_api::SpecPlan` has the same fields; [`Plan`] is the type that can be printed.

use serde::Deserialize;
use throng_api::SpecTemplate;
use throng_spec::Plan;

/// `POST /v1/spec/plan`.
#[derive(Debug, Deserialize)]
pub(crate) struct PlannedSpec {
    /// The applied version.
    pub(crate) version: u64,
    pub(crate) plan: Plan,
    #[serde(default)]
    pub(crate) models: Vec<PlannedModel>,
    #[serde(default)]
    pub(crate) templates: Vec<SpecTemplate>,
}

impl PlannedSpec {
    /// Keeps what is about objects of a workspace. Returns the number of changes that are left out.
    pub(crate) fn keep_workspace(&mut self, workspace: &str) -> usize {
        let is_own = |name: &str| name.split_once(':').is_some_and(|(of, _)| of == workspace);
        let before = self.plan.changes.len();
        self.plan.changes.retain(|change| is_own(&change.name));
        self.models.retain(|planned| is_own(&planned.audience));
        self.templates.retain(|template| is_own(&template.name));
        before - self.plan.changes.len()
    }
}

/// The SQL of an audience.
#[derive(Debug, Deserialize)]
pub(crate) struct PlannedModel {
    pub(crate) audience: String,
    pub(crate) model: ModelKey,
}

/// The key of a model, of which `throng_api::SpecModel` has the JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelKey {
    pub(crate) key_column: String,
    #[serde(default)]
    pub(crate) key_kind: String,
    pub(crate) estimated_rows: Option<u64>,
    /// Bytes that a refresh reads, if a warehouse runs it.
    pub(crate) bytes_processed: Option<u64>,
    pub(crate) cost: Option<String>,
}

/// `POST /v1/spec/apply`.
#[derive(Debug, Deserialize)]
pub(crate) struct AppliedSpec {
    /// The version that is applied now.
    pub(crate) version: u64,
    pub(crate) plan: Plan,
}
