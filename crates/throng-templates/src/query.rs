//! Runs the queries of templates.

use std::collections::BTreeSet;

use throng_lake::{Lake, LakeError};
use throng_spec::{AudienceTemplate, ForEach, Pattern, Problem, Spec, SyncTemplate};

use crate::expand::{Expanded, Rows, expand as expand_rows, kept};

/// Which queries are run.
#[derive(Debug, Clone, Copy)]
pub enum Queries<'a> {
    /// All. A template that the spec before has in the same form, over the same sources, keeps its objects if its
    /// query fails or its rows make none: what has changed is its data, and not the spec.
    All,
    /// Those of templates that the spec before does not have in the same form, over the same sources. The others
    /// keep their objects; so does a template in the same form over other sources if its query fails.
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
    let mut found = Found::default();
    let (mut audiences, mut syncs) = (Vec::new(), Vec::new());
    for template in &spec.audience_templates {
        let is_had = had_audiences(before, template);
        let query = query_of(queries, &template.name, is_had, before, &spec);
        let lake = lake.in_workspace(template.name.workspace());
        audiences.push(found.rows(&lake, &template.name, &template.for_each, query).await?);
    }
    for template in &spec.sync_templates {
        let is_had = had_syncs(before, template);
        let query = query_of(queries, &template.name, is_had, before, &spec);
        let lake = lake.in_workspace(template.name.workspace());
        syncs.push(found.rows(&lake, &template.name, &template.for_each, query).await?);
    }
    let Found { problems, mut warnings } = found;
    if !problems.is_empty() {
        return Err(ExpandError::Problems(problems));
    }
    let expanded = expand_rows(spec, before, &audiences, &syncs);
    let Expanded { spec, warnings: of_rows } = expanded.map_err(ExpandError::Problems)?;
    warnings.extend(of_rows);
    Ok(Expanded { spec, warnings })
}

/// What is done with the query of a template.
#[derive(Debug, Clone, Copy)]
enum Query {
    /// It is not run: the template keeps its objects.
    Skip,
    /// It is run, and an error is one of the spec.
    Run,
    /// It is run, and if it fails, the template keeps its objects.
    RunOrKeep,
}

fn query_of(
    queries: Queries<'_>,
    name: &Pattern,
    is_had: bool,
    before: Option<&Spec>,
    spec: &Spec,
) -> Query {
    let is_same =
        is_had && before.is_some_and(|before| has_same_tables(before, spec, name.workspace()));
    match queries {
        Queries::All if is_same => Query::RunOrKeep,
        Queries::Changed if is_same => Query::Skip,
        Queries::Changed if is_had => Query::RunOrKeep,
        Queries::All | Queries::Changed => Query::Run,
        Queries::Of(names) if names.contains(name) => Query::Run,
        Queries::Of(_) => Query::Skip,
    }
}

/// Whether two specs have the same sources and schemas in a workspace: only these can a template there query. The
/// tables of schemas are those of the source `lake`.
fn has_same_tables(before: &Spec, spec: &Spec, workspace: Option<&str>) -> bool {
    let here = |of: Option<&str>| of == workspace;
    let sources = |spec: &Spec| {
        spec.sources
            .iter()
            .filter(|source| here(source.name.workspace()))
            .cloned()
            .collect::<Vec<_>>()
    };
    let schemas = |spec: &Spec| {
        spec.schemas
            .iter()
            .filter(|schema| here(schema.name.workspace()))
            .cloned()
            .collect::<Vec<_>>()
    };
    sources(before) == sources(spec) && schemas(before) == schemas(spec)
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

/// What the queries have found, apart from rows.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Found {
    async fn rows(
        &mut self,
        lake: &Lake,
        name: &Pattern,
        for_each: &ForEach,
        query: Query,
    ) -> Result<Rows, ExpandError> {
        if matches!(query, Query::Skip) {
            return Ok(Rows::Kept);
        }
        match (lake.template_rows(&for_each.sql, for_each.max_rows).await, query) {
            (Ok(rows), Query::RunOrKeep) => return Ok(Rows::QueriedOrKept(rows)),
            (Ok(rows), _) => return Ok(Rows::Queried(rows)),
            (Err(error), _) if error.is_worker_unavailable() => {
                return Err(ExpandError::Worker(error));
            }
            (Err(error), Query::RunOrKeep) => {
                self.warnings.push(kept(name, &problem(for_each, &error)));
            }
            (Err(error), _) => self.problems.push(problem(for_each, &error)),
        }
        Ok(Rows::Kept)
    }
}

/// An SQL error with its place in the spec file.
fn problem(for_each: &ForEach, error: &LakeError) -> Problem {
    let at = error.position().unwrap_or((1, 1));
    let message = throng_model::with_causes(error);
    Problem::in_sql(&for_each.sql_at, at, "for_each", message, error.help())
}
