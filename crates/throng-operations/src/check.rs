//! The SQL of a spec compared with the tables of its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;
use throng_api::SpecTemplate;
use throng_lake::{Inputs, Lake, LakeError, Model, ModelInfo, Rule, Shape, SourceListing};
use throng_model::{AudienceName, Retry};
use throng_refresh::{WarehouseError, Warehouses};
use throng_spec::{Audience, Location, MadeFrom, Pattern, Problem, Spec};

/// Why the SQL of a warehouse is not checked if none is asked.
const NOT_ASKED: &str = "`throng check --connect` and `throng plan` ask the warehouse";

/// An audience's SQL that can be run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedModel {
    /// The audience.
    pub audience: AudienceName,
    /// Its key column, and how its SQL will be run.
    pub model: ModelInfo,
    /// What a run reads, if a warehouse runs the SQL and knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryEstimate>,
}

/// What a run of a warehouse's SQL reads.
#[derive(Debug, Clone, Serialize)]
pub struct QueryEstimate {
    /// Bytes.
    pub bytes_processed: u64,
    /// Its cost, if the source has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
}

/// The SQL of a spec, none of which is known to be wrong.
#[derive(Debug)]
pub struct CheckedSql {
    /// What was checked.
    pub models: Vec<CheckedModel>,
    /// What was not, one line each: a warehouse did not answer, or is not asked.
    pub unchecked: Vec<String>,
    /// How many audiences have SQL that was not checked because their warehouse did not answer.
    pub unanswered: usize,
    /// Doubts about the files of syncs' identifiers, one line each.
    pub identifier_doubts: Vec<String>,
    /// Doubts about the files of sources, whether SQL reads them or not, one line each.
    pub source_doubts: Vec<String>,
    /// How the audiences of each template are built.
    pub templates: Vec<SpecTemplate>,
}

impl CheckedSql {
    /// That SQL is not checked because warehouses did not answer; `None` if all did.
    pub fn not_answered(&self) -> Option<String> {
        let audiences = throng_model::counted(self.unanswered as u64, "audience");
        let text =
            || format!("the SQL of {audiences} is not checked: the warehouse did not answer");
        (self.unanswered > 0).then(text)
    }

    /// What was not checked, and doubts about the files that the SQL reads.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let doubts = |model: &CheckedModel| {
            let audience = model.audience.clone();
            let warnings = model.model.warnings.clone().into_iter();
            warnings.map(move |warning| format!("audience {audience}: {warning}"))
        };
        let of_models = self.models.iter().flat_map(doubts);
        let of_identifiers = self.identifier_doubts.iter().cloned();
        let of_sources = self.source_doubts.iter().cloned();
        let unchecked = self.unchecked.iter().cloned();
        unchecked.chain(of_sources).chain(of_models).chain(of_identifiers)
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
/// Reads the CSV and JSON files of each table once. SQL that a warehouse runs is checked by a dry run,
/// unless `warehouses` is `None`. What a warehouse refuses is only a warning if the `applied` spec has the same SQL over
/// the same source: its table may be late, and no change of the spec has to wait for it.
///
/// `progress` gets the number of texts that are done, and of all.
///
/// # Errors
/// [`CheckError`].
pub async fn check_sql(
    lake: &Lake,
    warehouses: Option<&dyn Warehouses>,
    spec: &Spec,
    applied: Option<&Spec>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<CheckedSql, CheckError> {
    let (mut models, mut problems, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
    let audiences = checked(spec.audiences.iter().map(|one| one.made_from.as_ref()));
    let syncs = checked(spec.syncs.iter().map(|one| one.made_from.as_ref()));
    let (mut unanswered, mut done, total) = (0, 0, (audiences.len() + syncs.len()) as u64);
    for at in &audiences {
        let Some(audience) = spec.audiences.get(*at) else { continue };
        progress(done, total);
        done += 1;
        if audience.source.is_some() {
            match dry_run(warehouses, spec, audience).await {
                Ok(Some(model)) => models.push(model),
                Ok(None) => unchecked.push(not_checked(audience, NOT_ASKED)),
                // The spec may be right: a warehouse that does not answer prevents no change of it.
                Err(error) if error.retry() != Retry::Never => {
                    unanswered += with_sql_of(spec, audience);
                    unchecked.push(not_checked(audience, error));
                }
                Err(error) if is_applied(applied, spec, audience) => unchecked.push(format!(
                    "audience {}: a refresh would fail: {error}. This does not prevent other changes: the applied \
                     spec has the same SQL",
                    audience.name
                )),
                Err(error) => {
                    let path = path("audiences", &audience.name, &audience.made_from, "sql");
                    problems.push(refused(&audience.sql_at, path, &error));
                }
            }
            continue;
        }
        let lake = lake.in_workspace(audience.name.workspace());
        match lake.check(Model::of(audience)).await {
            Ok(model) => {
                models.push(CheckedModel { audience: audience.name.clone(), model, query: None });
            }
            Err(error) => {
                let path = path("audiences", &audience.name, &audience.made_from, "sql");
                refuse(&mut problems, &audience.sql_at, path, error)?;
            }
        }
    }
    let mut identifier_doubts = Vec::new();
    for at in &syncs {
        let Some(sync) = spec.syncs.get(*at) else { continue };
        progress(done, total);
        done += 1;
        let identifiers = &sync.identifiers;
        let columns: Vec<String> =
            identifiers.columns.iter().map(|(column, _)| column.clone()).collect();
        let lake = lake.in_workspace(sync.name.workspace());
        let planned = lake.check_identifiers(&identifiers.sql, &identifiers.key, &columns).await;
        match planned {
            Ok(doubts) => identifier_doubts
                .extend(doubts.into_iter().map(|doubt| format!("sync {}: {doubt}", sync.name))),
            Err(error) => {
                let path = path("syncs", &sync.name, &sync.made_from, "identifiers.sql");
                refuse(&mut problems, &identifiers.sql_at, path, error)?;
            }
        }
    }
    if !problems.is_empty() {
        return Err(CheckError::Problems(problems));
    }
    let source_doubts = match source_doubts(lake, spec).await {
        Ok(doubts) => doubts,
        // The spec may be right.
        Err(error) => {
            unchecked.push(format!("the files of the sources are not checked: {error}"));
            Vec::new()
        }
    };
    let templates = checked_templates(lake, spec, &mut unchecked).await;
    Ok(CheckedSql { models, unchecked, unanswered, identifier_doubts, source_doubts, templates })
}

/// Audiences of a template whose values are compared with the types of columns. A refresh builds as many in one scan.
const MAX_COMPARED: usize = 5_000;

/// Plans the audiences of each template as one scan, as a refresh does.
async fn checked_templates(
    lake: &Lake,
    spec: &Spec,
    unchecked: &mut Vec<String>,
) -> Vec<SpecTemplate> {
    let mut made: BTreeMap<&Pattern, Vec<&Audience>> = BTreeMap::new();
    for audience in &spec.audiences {
        if let Some(made_from) = &audience.made_from {
            made.entry(&made_from.template).or_default().push(audience);
        }
    }
    let mut templates = Vec::new();
    for (name, audiences) in made {
        let is_held = |one: &&&Audience| one.made_from.as_ref().is_some_and(|of| of.held);
        // One that is held may have earlier SQL, which is not built with that of the others.
        let first = audiences.iter().find(|one| !is_held(one)).or(audiences.first());
        let Some(first) = first.filter(|first| first.source.is_none()) else { continue };
        let model = Model::of(first);
        let alike = audiences.iter().filter(|one| one.sql == first.sql && one.key == first.key);
        let sets = alike.take(MAX_COMPARED).map(|one| Model::of(one).parameters).collect();
        match lake.in_workspace(name.workspace()).why_alone(&model, sets).await {
            Ok(why) => templates.push(SpecTemplate {
                name: name.to_string(),
                audiences: audiences.len() as u64,
                one_scan: why.is_none(),
                why,
            }),
            // The spec may be right.
            Err(error) => unchecked.push(format!(
                "template {name}: it is not known whether its audiences are built in one scan: {error}"
            )),
        }
    }
    templates
}

/// Why the SQL of an audience is not checked.
fn not_checked(audience: &Audience, why: impl Display) -> String {
    format!("audience {}: its SQL is not checked: {why}", audience.name)
}

/// How many audiences have the SQL of this one: those of its template.
fn with_sql_of(spec: &Spec, audience: &Audience) -> usize {
    let Some(MadeFrom { template, .. }) = &audience.made_from else { return 1 };
    let others = spec.audiences.iter().filter_map(|one| one.made_from.as_ref());
    others.filter(|made_from| made_from.template == *template).count()
}

/// Adds the problem of an SQL text. A bucket that cannot be read is one problem, whatever reads it.
fn refuse(
    problems: &mut Vec<Problem>,
    at: &Location,
    path: String,
    error: LakeError,
) -> Result<(), CheckError> {
    if error.is_worker_unavailable() {
        return Err(CheckError::Worker(error));
    }
    let found = problem(at, path, &error);
    let is_known = matches!(error, LakeError::Copy(_))
        && problems.iter().any(|known| known.message == found.message);
    if !is_known {
        problems.push(found);
    }
    Ok(())
}

/// Doubts about the files of the sources of a spec. Reads no file.
async fn source_doubts(lake: &Lake, spec: &Spec) -> Result<Vec<String>, LakeError> {
    if spec.sources.is_empty() {
        return Ok(Vec::new());
    }
    let listed = lake.list_files().await?;
    let doubts = listed.into_iter().flat_map(|SourceListing { name, warnings, .. }| {
        warnings.into_iter().map(move |warning| format!("source {name}: {warning}"))
    });
    Ok(doubts.collect())
}

/// The field of an object, which is named, or its template: its number among the objects of all files, workspaces and rows
/// of templates is none that a file shows.
fn path(section: &str, name: &impl Display, made_from: &Option<MadeFrom>, field: &str) -> String {
    match made_from {
        Some(MadeFrom { template, .. }) => format!("{section}[{template}].{field}"),
        None => format!("{section}[{name}].{field}"),
    }
}

/// Which objects of templates are checked, by their numbers. The rows of a template differ in values only: its SQL is
/// checked with those of the first. One that is held may have the SQL of an earlier version of the template, and is
/// checked only if all are held.
fn checked_of_templates<'s>(
    objects: impl Iterator<Item = Option<&'s MadeFrom>>,
) -> BTreeSet<usize> {
    let mut first: BTreeMap<&Pattern, (bool, usize)> = BTreeMap::new();
    for (at, made_from) in objects.enumerate() {
        let Some(made_from) = made_from else { continue };
        let found = (made_from.held, at);
        first.entry(&made_from.template).and_modify(|old| *old = found.min(*old)).or_insert(found);
    }
    first.into_values().map(|(_, at)| at).collect()
}

/// The numbers of the objects that are checked: all that are written, and of each template one.
fn checked<'s>(objects: impl Iterator<Item = Option<&'s MadeFrom>> + Clone) -> Vec<usize> {
    let of_rows = checked_of_templates(objects.clone());
    let is_checked = |(at, made_from): (usize, Option<&MadeFrom>)| {
        (made_from.is_none() || of_rows.contains(&at)).then_some(at)
    };
    objects.enumerate().filter_map(is_checked).collect()
}

/// Checks the SQL of an audience by its warehouse; `None` if no warehouse is asked.
async fn dry_run(
    warehouses: Option<&dyn Warehouses>,
    spec: &Spec,
    audience: &Audience,
) -> Result<Option<CheckedModel>, WarehouseError> {
    let source = audience.source.as_ref().and_then(|name| spec.warehouse(name.as_str()));
    let (Some(warehouses), Some(source)) = (warehouses, source) else { return Ok(None) };
    let key = audience.key.as_deref();
    let plan = warehouses.open(source)?.check(&audience.sql, key).await?;
    let info = ModelInfo {
        columns: plan.columns,
        key_column: plan.key_column,
        key_kind: plan.key_kind,
        estimated_rows: plan.estimated_rows,
        files: 0,
        fingerprint: Model::of(audience).fingerprint(),
        shape: Shape::General,
        rule: Rule::ANY,
        tables: Vec::new(),
        // A warehouse does not say when its tables have changed.
        inputs: Inputs { fingerprint: String::new(), time_dependent: true },
        warnings: Vec::new(),
    };
    let query = plan.bytes_processed.map(|bytes_processed| QueryEstimate {
        bytes_processed,
        cost: plan.cost.map(|cost| cost.to_string()),
    });
    Ok(Some(CheckedModel { audience: audience.name.clone(), model: info, query }))
}

/// Whether the applied spec has this audience with the same SQL over the same source.
fn is_applied(applied: Option<&Spec>, spec: &Spec, audience: &Audience) -> bool {
    let Some(applied) = applied else { return false };
    let source =
        |of: &Spec| audience.source.as_ref().and_then(|name| of.warehouse(name.as_str()).cloned());
    let is_same =
        |one: &Audience| one.name == audience.name && Model::of(one) == Model::of(audience);
    source(applied) == source(spec) && applied.audiences.iter().any(is_same)
}

/// What a warehouse refuses, with the place of the SQL in the spec file.
fn refused(at: &Location, path: String, error: &WarehouseError) -> Problem {
    Problem::in_sql(at, (1, 1), path, error.to_string(), error.help().map(str::to_owned))
}

/// An SQL error with its place in the spec file.
fn problem(at: &Location, path: String, error: &LakeError) -> Problem {
    let place = error.position().unwrap_or((1, 1));
    Problem::in_sql(at, place, path, throng_model::with_causes(error), error.help())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throng_lake::{CopyFailure, LakeLimits, WorkerCommand};
    use throng_model::Fault;
    use throng_refresh::Warehouse;
    use throng_spec::WarehouseSource;

    use super::*;

    /// Warehouses that cannot be reached.
    struct Unreachable;

    impl Warehouses for Unreachable {
        fn open(&self, _source: &WarehouseSource) -> Result<Arc<dyn Warehouse>, WarehouseError> {
            let message = "the connection failed".to_owned();
            Err(WarehouseError::Unavailable { message, after: None })
        }
    }

    #[tokio::test]
    async fn audiences_whose_warehouse_does_not_answer_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("throng.yaml");
        let text = "version: 1\nsources: [{ name: bq, type: bigquery, project: p, location: US, \
                    metadata_url: \"http://127.0.0.1:1\" }]\naudiences:\n  - { name: a, source: bq, sql: SELECT id \
                    FROM t }\n  - { name: b, source: bq, sql: SELECT id FROM u }\n";
        std::fs::write(&file, text).unwrap();
        let mut spec = throng_spec::load(&file).unwrap();
        let spill = dir.path().to_owned();
        let limits = LakeLimits::of(&spec.node, spill, WorkerCommand::of("/none"));
        let lake = Lake::new(&spec.sources, limits, None).unwrap();
        let reported = std::sync::Mutex::new(Vec::new());
        let progress = |done: u64, total: u64| reported.lock().unwrap().push((done, total));
        let checked = check_sql(&lake, Some(&Unreachable), &spec, None, &progress).await.unwrap();
        assert_eq!(*reported.lock().unwrap(), [(0, 2), (1, 2)]);
        assert_eq!((checked.unanswered, checked.models.len()), (2, 0));
        let text = "the SQL of 2 audiences is not checked: the warehouse did not answer";
        assert_eq!(checked.not_answered().as_deref(), Some(text));
        let expected = "audience a: its SQL is not checked: the connection failed";
        assert_eq!(checked.unchecked[0], expected);
        // Without `--connect` nothing is asked.
        let checked = check_sql(&lake, None, &spec, None, &|_, _| {}).await.unwrap();
        assert_eq!((checked.unanswered, checked.unchecked.len()), (0, 2));
        assert_eq!(checked.not_answered(), None);
        // The SQL of a template is asked for once, for all of its audiences.
        let template = Pattern::try_from("{a}".to_owned()).unwrap();
        for audience in &mut spec.audiences {
            let template = template.clone();
            audience.made_from = Some(MadeFrom { template, values: Vec::new(), held: false });
        }
        let checked = check_sql(&lake, Some(&Unreachable), &spec, None, &|_, _| {}).await.unwrap();
        assert_eq!((checked.unanswered, checked.unchecked.len()), (2, 1));
        assert!(checked.templates.is_empty(), "a warehouse runs their SQL");
    }

    #[test]
    fn the_sql_of_a_template_is_checked_with_a_row_that_is_not_held() {
        let of = |template: &str, held: bool| MadeFrom {
            template: Pattern::try_from(template.to_owned()).unwrap(),
            values: Vec::new(),
            held,
        };
        let objects = [
            Some(of("{a}", true)),
            None,
            Some(of("{a}", false)),
            Some(of("{a}", false)),
            Some(of("{b}", true)),
            Some(of("{b}", true)),
        ];
        let of_rows = checked_of_templates(objects.iter().map(Option::as_ref));
        assert_eq!(of_rows, BTreeSet::from([2, 4]));
        assert_eq!(checked(objects.iter().map(Option::as_ref)), [1, 2, 4]);
    }

    #[test]
    fn a_field_names_what_the_file_has() {
        assert_eq!(path("audiences", &"vip", &None, "sql"), "audiences[vip].sql");
        assert_eq!(path("audiences", &"acme:vip", &None, "sql"), "audiences[acme:vip].sql");
        let template = Pattern::try_from("{region}-buyers".to_owned()).unwrap();
        let made_from = Some(MadeFrom { template, values: Vec::new(), held: false });
        let of_template = path("syncs", &"emea-buyers", &made_from, "identifiers.sql");
        assert_eq!(of_template, "syncs[{region}-buyers].identifiers.sql");
    }

    #[test]
    fn only_an_audience_whose_sql_and_source_are_the_same_is_applied() {
        let of = |name: &str, sql: &str, project: &str, budget: u32| -> Spec {
            let text = format!(
                "version: 1\nsources: [{{ name: bq, type: bigquery, project: {project}, location: US, \
                 metadata_url: \"http://127.0.0.1:1\" }}]\naudiences: [{{ name: {name}, source: bq, sql: {sql}, \
                 keep_snapshots: {budget} }}]\n"
            );
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("throng.yaml");
            std::fs::write(&file, text).unwrap();
            throng_spec::load(&file).unwrap()
        };
        let applied = of("vip", "SELECT id FROM t", "p", 5);
        let checked = |spec: &Spec| is_applied(Some(&applied), spec, &spec.audiences[0]);
        assert!(checked(&of("vip", "SELECT id FROM t", "p", 6)));
        assert!(!checked(&of("vip", "SELECT id FROM u", "p", 5)));
        assert!(!checked(&of("vip", "SELECT id FROM t", "q", 5)));
        assert!(!checked(&of("new", "SELECT id FROM t", "p", 5)));
        assert!(!is_applied(None, &applied, &applied.audiences[0]));
    }

    #[test]
    fn a_bucket_that_cannot_be_read_is_one_problem() {
        let at = Location { file: "throng.yaml".into(), line: 3 };
        let failure = || CopyFailure {
            message: "cannot copy the objects below s3://lake".to_owned(),
            help: "check the credentials".to_owned(),
            fault: Fault::User,
            retry: Retry::Backoff,
            is_running: false,
        };
        let mut problems = Vec::new();
        for path in ["audiences[0].sql", "audiences[1].sql"] {
            refuse(&mut problems, &at, path.to_owned(), failure().into()).unwrap();
        }
        let wrong = || LakeError::Key { message: "no key".to_owned(), help: "name it".to_owned() };
        for path in ["audiences[2].sql", "audiences[3].sql"] {
            refuse(&mut problems, &at, path.to_owned(), wrong()).unwrap();
        }
        let found: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(found, ["audiences[0].sql", "audiences[2].sql", "audiences[3].sql"]);
        assert_eq!(problems[0].help.as_deref(), Some("check the credentials"));
    }
}
