//! The SQL of a spec compared with the tables of its sources.

use std::collections::BTreeSet;

use serde::Serialize;
use throng_lake::{Lake, LakeError, Model, ModelInfo};
use throng_model::AudienceName;
use throng_spec::{Location, Problem, Spec};

/// An audience's SQL that can be run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedModel {
    /// The audience.
    pub audience: AudienceName,
    /// Its key column, and how its SQL will be run.
    pub model: ModelInfo,
}

impl CheckedModel {
    /// Doubts about the files that the SQL reads.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.model.warnings.iter().map(|warning| format!("audience {}: {warning}", self.audience))
    }
}

/// Why the SQL of a spec is invalid, or could not be checked.
#[derive(Debug)]
pub enum CheckError {
    /// Every SQL text that cannot be run, with its place in the spec file.
    Problems(Vec<Problem>),
    /// No query worker can be started; the spec may be right.
    Worker(LakeError),
}

/// Plans every SQL text of a spec over its sources, and runs it over the first rows of each file.
/// Reads the CSV and JSON files of each table once.
///
/// # Errors
/// [`CheckError`].
pub async fn check_sql(lake: &Lake, spec: &Spec) -> Result<Vec<CheckedModel>, CheckError> {
    let (mut models, mut problems) = (Vec::new(), Vec::new());
    // The rows of a template differ in values only: its SQL is checked with those of the first.
    let mut checked = BTreeSet::new();
    for (at, audience) in spec.audiences.iter().enumerate() {
        if audience.made_from.as_ref().is_some_and(|from| !checked.insert(&from.template)) {
            continue;
        }
        match lake.check(Model::of(audience)).await {
            Ok(model) => models.push(CheckedModel { audience: audience.name.clone(), model }),
            Err(error) if error.is_worker_unavailable() => return Err(CheckError::Worker(error)),
            Err(error) => {
                problems.push(problem(&audience.sql_at, format!("audiences[{at}].sql"), &error));
            }
        }
    }
    checked.clear();
    for (at, sync) in spec.syncs.iter().enumerate() {
        if sync.made_from.as_ref().is_some_and(|from| !checked.insert(&from.template)) {
            continue;
        }
        let identifiers = &sync.identifiers;
        let columns: Vec<String> =
            identifiers.columns.iter().map(|(column, _)| column.clone()).collect();
        let planned = lake.check_identifiers(&identifiers.sql, &identifiers.key, &columns).await;
        if let Err(error) = planned {
            if error.is_worker_unavailable() {
                return Err(CheckError::Worker(error));
            }
            let path = format!("syncs[{at}].identifiers.sql");
            problems.push(problem(&identifiers.sql_at, path, &error));
        }
    }
    if problems.is_empty() { Ok(models) } else { Err(CheckError::Problems(problems)) }
}

/// An SQL error with its place in the spec file: the text's first line plus the line within it.
fn problem(at: &Location, path: String, error: &LakeError) -> Problem {
    let (line, column) = error.position().unwrap_or((1, 1));
    Problem {
        file: at.file.clone(),
        line: at.line.saturating_add(line.saturating_sub(1)),
        column,
        path,
        message: throng_model::with_causes(error),
        help: error.help(),
    }
}
