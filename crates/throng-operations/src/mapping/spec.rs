//! Plans, models and problems of specs.

use std::path::PathBuf;

use throng_api::{
    CurrentSpec, SentFile, SpecAction, SpecChange, SpecFieldChange, SpecModel, SpecObjectKind,
    SpecPlan, SpecProblem,
};
use throng_spec::{Action, Change, ObjectKind, Plan, Problem, SpecFile, SpecFiles};
use throng_store::AppliedSpec;

use crate::CheckedModel;

/// The applied spec, if there is one.
pub fn current(applied: Option<AppliedSpec>) -> CurrentSpec {
    match applied {
        Some(applied) => CurrentSpec {
            version: applied.version,
            spec: Some(applied.spec),
            applied_at: Some(applied.applied_at),
        },
        None => CurrentSpec { version: 0, spec: None, applied_at: None },
    }
}

/// The files of a request.
pub fn files(base: String, files: Vec<SentFile>) -> SpecFiles {
    let files = files.into_iter();
    let files = files.map(|file| SpecFile { path: PathBuf::from(file.path), text: file.text });
    SpecFiles { base: PathBuf::from(base), files: files.collect() }
}

/// The differences between two specs.
pub fn plan(plan: Plan) -> SpecPlan {
    SpecPlan { changes: plan.changes.into_iter().map(change).collect(), warnings: plan.warnings }
}

fn change(change: Change) -> SpecChange {
    SpecChange {
        kind: match change.kind {
            ObjectKind::Source => SpecObjectKind::Source,
            ObjectKind::Schema => SpecObjectKind::Schema,
            ObjectKind::Audience => SpecObjectKind::Audience,
            ObjectKind::Destination => SpecObjectKind::Destination,
            ObjectKind::Sync => SpecObjectKind::Sync,
            ObjectKind::ServingStore => SpecObjectKind::ServingStore,
            ObjectKind::Advertiser => SpecObjectKind::Advertiser,
            ObjectKind::Campaign => SpecObjectKind::Campaign,
            ObjectKind::AdGroup => SpecObjectKind::AdGroup,
            ObjectKind::Node => SpecObjectKind::Node,
        },
        name: change.name,
        currency: change.currency,
        currency_before: change.currency_before,
        template: change.template,
        action: match change.action {
            Action::Added => SpecAction::Added,
            Action::Removed => SpecAction::Removed,
            Action::Changed(fields) => {
                let fields = fields.into_iter();
                let fields = fields.map(|field| SpecFieldChange {
                    field: field.field,
                    old: field.old,
                    new: field.new,
                });
                SpecAction::Changed(fields.collect())
            }
        },
    }
}

/// The model of an audience.
///
/// # Errors
/// If the model cannot be written as JSON.
pub fn model(model: CheckedModel) -> Result<SpecModel, serde_json::Error> {
    let CheckedModel { audience, model, query } = model;
    let mut model = serde_json::to_value(model)?;
    if let Some(query) = query {
        model["bytes_processed"] = query.bytes_processed.into();
        model["cost"] = query.cost.into();
    }
    Ok(SpecModel { audience, model })
}

/// A problem of a spec.
pub fn problem(problem: Problem) -> SpecProblem {
    SpecProblem {
        file: problem.file.display().to_string(),
        line: problem.line,
        column: problem.column,
        path: problem.path,
        message: problem.message,
        help: problem.help,
    }
}
