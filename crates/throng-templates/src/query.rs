//! Runs the queries of templates.

use std::collections::BTreeSet;

use throng_lake::{Lake, LakeError};
use throng_spec::{AudienceTemplate, ForEach, Pattern, Problem, Spec, SyncTemplate};

use crate::expand::{Expanded, Rows, expand as expand_rows};

/// Which queries are run.
#[derive(Debug, Clone, Copy)]
pub enum Queries<'a> {
    /// All.
    All,
    /// Those of templates that the spec before does not have in the same form, over the same sources. The others
    /// keep their objects.
    Changed,
    /// Those of these templates. The others keep their objects.
    Of(&'a BTreeSet<Pattern>),
}

/// Why a spec cannot be expanded.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// Queries that cannot be run, and rows that make no objects.
    #[error("the templates of the spec cannot be expanded")]
    Problems(Vec<Problem>),
    /// No query worker can be started; the spec may be right.
    #[error("cannot run the queries of templates")]
    Worker(#[source] LakeError),
}

/// Whether a spec has a template.
pub fn has_templates(spec: &Spec) -> bool {
    !spec.audience_templates.is_empty() || !spec.sync_templates.is_empty()
}

/// The spec with the objects of its templates, in place of those that it has from an earlier expansion. `before`
/// is the expanded spec that is applied: its objects are held where their rows have vanished. A spec without
/// templates is returned as it is.
///
/// # Errors
/// [`ExpandError`].
pub async fn expand(
    lake: &Lake,
    spec: Spec,
    before: Option<&Spec>,
    queries: Queries<'_>,
) -> Result<Expanded, ExpandError> {
    if !has_templates(&spec) {
        return Ok(Expanded { spec, warnings: Vec::new() });
    }
    let mut problems = Vec::new();
    let (mut audiences, mut syncs) = (Vec::new(), Vec::new());
    // The tables of schemas are those of the source `lake`.
    let same_sources = before
        .is_some_and(|before| before.sources == spec.sources && before.schemas == spec.schemas);
    for template in &spec.audience_templates {
        let is_same = same_sources && had_audiences(before, template);
        let keeps = keeps(queries, &template.name, is_same);
        let lake = lake.in_workspace(template.name.workspace());
        audiences.push(rows(&lake, &template.for_each, keeps, &mut problems).await?);
    }
    for template in &spec.sync_templates {
        let is_same = same_sources && had_syncs(before, template);
        let keeps = keeps(queries, &template.name, is_same);
        let lake = lake.in_workspace(template.name.workspace());
        syncs.push(rows(&lake, &template.for_each, keeps, &mut problems).await?);
    }
    if !problems.is_empty() {
        return Err(ExpandError::Problems(problems));
    }
    expand_rows(spec, before, &audiences, &syncs).map_err(ExpandError::Problems)
}

fn keeps(queries: Queries<'_>, name: &Pattern, is_same: bool) -> bool {
    match queries {
        Queries::All => false,
        Queries::Changed => is_same,
        Queries::Of(names) => !names.contains(name),
    }
}

/// Whether the spec before has this template. The position of an SQL text does not count.
fn had_audiences(before: Option<&Spec>, template: &AudienceTemplate) -> bool {
    let mut earlier = before.iter().flat_map(|before| &before.audience_templates);
    earlier.any(|earlier| {
        let mut moved = earlier.clone();
        moved.for_each.sql_at.clone_from(&template.for_each.sql_at);
        moved.audience.sql_at.clone_from(&template.audience.sql_at);
        moved == *template
    })
}

/// Whether the spec before has this template. The position of an SQL text does not count.
fn had_syncs(before: Option<&Spec>, template: &SyncTemplate) -> bool {
    let mut earlier = before.iter().flat_map(|before| &before.sync_templates);
    earlier.any(|earlier| {
        let mut moved = earlier.clone();
        moved.for_each.sql_at.clone_from(&template.for_each.sql_at);
        moved.sync.identifiers.sql_at.clone_from(&template.sync.identifiers.sql_at);
        moved == *template
    })
}

async fn rows(
    lake: &Lake,
    for_each: &ForEach,
    keeps: bool,
    problems: &mut Vec<Problem>,
) -> Result<Rows, ExpandError> {
    if keeps {
        return Ok(Rows::Kept);
    }
    match lake.template_rows(&for_each.sql, for_each.max_rows).await {
        Ok(rows) => Ok(Rows::Queried(rows)),
        Err(error) if error.is_worker_unavailable() => Err(ExpandError::Worker(error)),
        Err(error) => {
            problems.push(problem(for_each, &error));
            Ok(Rows::Kept)
        }
    }
}

/// An SQL error with its place in the spec file.
fn problem(for_each: &ForEach, error: &LakeError) -> Problem {
    let at = error.position().unwrap_or((1, 1));
    let message = throng_model::with_causes(error);
    Problem::in_sql(&for_each.sql_at, at, "for_each", message, error.help())
}
