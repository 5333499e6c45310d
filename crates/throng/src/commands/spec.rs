//! `throng check`, `throng plan`, `throng apply`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_api::{SentFile, SentSpec, SpecTemplate};
use throng_backends::{BucketCopies, Finding, check_spec_backends, sources_for_check};
use throng_ingest::IngestError;
use throng_lake::{Lake, LakeLimits, WorkerCommand};
use throng_model::{SystemClock, with_causes};
use throng_refresh::Warehouses;
use throng_server::{CheckError, CheckedModel, CheckedSql, Environment, check_sql};
use throng_spec::{Problem, Spec, SpecFiles, collapsed_warnings, read_files};
use throng_templates::{ExpandError, Expanded, Queries};
use throng_warehouse::OpenWarehouses;
use throng_worker::Landlock;

use crate::answers::{AppliedSpec, PlannedSpec};
use crate::args::ApplyArgs;
use crate::client::{Answer, Client, RequestError};
use crate::failure::{Failure, Success, report_problems};
use crate::out::{self, Output};

/// Why a spec was not checked, planned or applied.
enum SpecError {
    /// It has problems.
    Problems(Vec<Problem>),
    /// The command failed; the spec may be right.
    Failed(anyhow::Error),
}

impl From<Vec<Problem>> for SpecError {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems(problems)
    }
}

impl From<anyhow::Error> for SpecError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl SpecError {
    /// Prints the problems and returns the exit code.
    fn report(self, output: Output) -> Result<ExitCode> {
        match self {
            Self::Problems(problems) => Ok(report_problems(&problems, output)),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Loads a spec and checks its SQL, or that of one workspace, against the sources on this machine; that of warehouses
/// only with `connect`. Also returns warnings: of templates that make nothing, and of what was not checked.
async fn load(
    path: &Path,
    connect: bool,
    workspace: Option<&str>,
) -> Result<(Spec, CheckedSql, Vec<String>), SpecError> {
    let copies = BucketCopies::of_user(environment());
    let spec = throng_spec::load(path)?;
    let limits = LakeLimits::of(&spec.node, std::env::temp_dir(), WorkerCommand::default());
    let checked = sources_for_check(&spec, &environment()).await.map_err(anyhow::Error::new)?;
    let checked = checked.map_err(|e| anyhow::Error::new(lake_failure(&e)))?;
    let lake =
        Lake::new(&checked.sources, limits, Some(&copies)).context("cannot open the sources")?;
    let spec = match workspace {
        Some(workspace) => only_workspace(spec, workspace)?,
        None => spec,
    };
    let (spec, warnings) = match throng_templates::expand(&lake, spec, None, Queries::All).await {
        Ok(Expanded { spec, warnings }) => (spec, warnings),
        Err(ExpandError::Problems(problems)) => return Err(problems.into()),
        Err(ExpandError::Worker(error)) => {
            return Err(anyhow::Error::new(error).context("cannot check the SQL").into());
        }
    };
    let warehouses = OpenWarehouses::new(environment(), Arc::new(SystemClock));
    let asked = connect.then_some(&warehouses as &dyn Warehouses);
    let bar = out::bar(0, "checking the SQL");
    let progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let checked_sql = check_sql(&lake, asked, &spec, None, &progress).await;
    bar.finish_and_clear();
    match checked_sql {
        Ok(sql) => Ok((spec, sql, warnings.into_iter().chain(checked.warning).collect())),
        Err(CheckError::Problems(problems)) => Err(problems.into()),
        Err(CheckError::Worker(error)) => {
            Err(anyhow::Error::new(error).context("cannot check the SQL").into())
        }
    }
}

/// The spec without the SQL of other workspaces, and what refers to it.
///
/// # Errors
/// If the spec has no such workspace.
fn only_workspace(mut spec: Spec, workspace: &str) -> Result<Spec> {
    if !spec.workspaces().contains(workspace) {
        let known: Vec<&str> = spec.workspaces().into_iter().collect();
        let help = format!("it has {}: {}", known.len(), known.join(", "));
        let message = format!("the spec has no workspace `{workspace}`");
        return Err(Failure::wrong_input(message).help(help).into());
    }
    spec.keep_sql_of(workspace);
    Ok(spec)
}

/// Why the tables of the lake cannot be used.
fn lake_failure(error: &IngestError) -> Failure {
    if let IngestError::Refused { message, help } = error {
        return Failure::wrong_input(message.clone()).help(help.clone());
    }
    let failure =
        Failure::new(format!("cannot read the tables of the lake: {}", with_causes(error)));
    match error.help() {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// What `throng check` prints with `--json`.
#[derive(Serialize)]
struct CheckReport {
    #[serde(flatten)]
    success: Success,
    models: Vec<CheckedModel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    templates: Vec<SpecTemplate>,
    backends: Vec<Finding>,
    warnings: Vec<String>,
    landlock: &'static str,
}

pub(crate) async fn check(
    path: &Path,
    connect: bool,
    workspace: Option<&str>,
    output: Output,
) -> Result<ExitCode> {
    let (spec, sql, of_load) = match load(path, connect, workspace).await {
        Ok(loaded) => loaded,
        Err(error) => return error.report(output),
    };
    let findings = match connect {
        true => check_spec_backends(&spec, &environment()).await,
        false => Vec::new(),
    };
    let mut warnings = throng_spec::warnings(&spec);
    warnings.extend(throng_spec::unreadable_secrets(&spec, &*environment()));
    warnings.extend(sql.warnings());
    warnings.extend(of_load);
    let not_checked = sql.not_answered();
    let CheckedSql { models, templates, .. } = sql;
    let landlock = Landlock::of_kernel();
    let works = findings.iter().all(|finding| finding.ok);
    let ok = works && not_checked.is_none();
    let code = if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if output.is_json() {
        let success = match &not_checked {
            Some(error) if works => Success::new(ok, error, "`warnings` has each audience and why"),
            _ => {
                let help = "`backends` has what is wrong with each and what to do";
                Success::new(ok, "a backend does not work", help)
            }
        };
        let landlock = landlock.name();
        let backends = findings;
        out::json(&CheckReport { success, models, templates, backends, warnings, landlock });
        return Ok(code);
    }
    for warning in collapsed_warnings(&warnings, "--json") {
        out::message(format!("warning: {warning}"));
    }
    if let Some(warning) = landlock.warning() {
        out::message(format!("warning: {warning}"));
    }
    for finding in findings {
        let mark = if finding.ok { "works" } else { "does not work" };
        out::line(format!("{} {mark}: {}", finding.backend, finding.message));
        if let Some(help) = finding.help {
            out::line(format!("  help: {help}"));
        }
    }
    templates.into_iter().for_each(out::line);
    if let Some(not_checked) = not_checked {
        out::line(not_checked);
    }
    if ok {
        out::line(format!(
            "ok: {}, {}, {}",
            out::counted(spec.audiences.len() as u64, "audience"),
            out::counted(spec.syncs.len() as u64, "sync"),
            out::counted(spec.ad_groups.len() as u64, "ad group")
        ));
    }
    Ok(code)
}

/// What `throng migrate` prints with `--json`.
#[derive(Serialize)]
struct MigrationReport {
    ledger: String,
}

pub(crate) async fn migrate(path: &Path, dir: Option<&Path>, output: Output) -> Result<ExitCode> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, output)),
    };
    let found = throng_backends::migrate(&spec.node, dir, &environment()).await?;
    if output.is_json() {
        out::json(&MigrationReport { ledger: found });
    } else {
        out::line(format!("the ledger is up to date: {found}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Secrets from the environment of this process.
fn environment() -> Environment {
    Arc::new(|name: &str| std::env::var(name).ok())
}

/// The body of `POST /v1/spec/plan` and `POST /v1/spec/apply`.
///
/// # Errors
/// If a path is not UTF-8.
fn sent_spec(spec: SpecFiles, base_version: Option<u64>) -> Result<SentSpec> {
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            Failure::wrong_input(format!("the path {} is not UTF-8", path.display()))
        })
    };
    let files = spec.files.into_iter().map(|file| -> Result<SentFile> {
        Ok(SentFile { path: text(file.path)?, text: file.text })
    });
    Ok(SentSpec { files: files.collect::<Result<_>>()?, base: text(spec.base)?, base_version })
}

/// Sends the texts of a spec to a node.
async fn send(
    arguments: &ApplyArgs,
    path: &str,
    base_version: Option<u64>,
) -> Result<Answer, SpecError> {
    let files = read_files(&arguments.spec)?;
    let client = Client::with_long_timeout(&arguments.node)?;
    let body = sent_spec(files, base_version)?;
    match client.try_post(path, &body).await {
        Ok(answer) => Ok(answer),
        Err(RequestError::Failed(error)) => Err(error.into()),
        Err(RequestError::Refused(refused)) => match refused.problems() {
            problems if problems.is_empty() => Err(refused.into_error().into()),
            problems => Err(problems.into()),
        },
    }
}

pub(crate) async fn plan(
    arguments: &ApplyArgs,
    workspace: Option<&str>,
    output: Output,
) -> Result<ExitCode> {
    let answer = match send(arguments, "/v1/spec/plan", None).await {
        Ok(answer) => answer,
        Err(error) => return error.report(output),
    };
    if output.is_json() {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let mut planned: PlannedSpec = answer.read()?;
    let hidden = workspace.map_or(0, |workspace| planned.keep_workspace(workspace));
    let PlannedSpec { version, plan, models, templates } = planned;
    match workspace {
        Some(workspace) if plan.is_empty() && plan.warnings.is_empty() => {
            out::line(format!("nothing changes in the workspace `{workspace}`"));
        }
        _ => out::line(plan),
    }
    if hidden > 0 {
        out::line(format!("changes outside of the workspace, which are not shown: {hidden}"));
    }
    let reads = models.iter().filter_map(|planned| {
        let bytes = planned.model.bytes_processed?;
        let cost = planned.model.cost.as_ref().map(|cost| format!(", which costs {cost}"));
        let (name, cost) = (&planned.audience, cost.unwrap_or_default());
        Some(format!("audience {name}: a refresh reads {}{cost}", out::counted(bytes, "byte")))
    });
    let reads: Vec<String> = reads.collect();
    let rows = models.into_iter().map(|planned| {
        let (audience, model) = (planned.audience, planned.model);
        let rows = model.estimated_rows.map_or_else(|| "unknown".to_owned(), out::count);
        vec![audience, model.key_column, model.key_kind, rows]
    });
    out::table(&["AUDIENCE", "KEY", "KIND", "ABOUT ROWS"], rows.collect());
    reads.into_iter().for_each(out::line);
    templates.into_iter().for_each(out::line);
    out::line(format!("to apply exactly this: {}", apply_command(arguments, version)));
    Ok(ExitCode::SUCCESS)
}

/// The command that applies to the same node what was planned against a version.
fn apply_command(arguments: &ApplyArgs, version: u64) -> String {
    let ApplyArgs { spec, node } = arguments;
    let dir = node.dir.as_ref().map(|dir| format!(" --dir {}", dir.display()));
    let url = node.url.as_ref().map(|url| format!(" --url {url}"));
    let (dir, url) = (dir.unwrap_or_default(), url.unwrap_or_default());
    format!("throng apply --base-version {version} {}{dir}{url}", spec.display())
}

pub(crate) async fn apply(
    arguments: &ApplyArgs,
    base_version: Option<u64>,
    output: Output,
) -> Result<ExitCode> {
    let answer = match send(arguments, "/v1/spec/apply", base_version).await {
        Ok(answer) => answer,
        Err(error) => return error.report(output),
    };
    if let Some(AppliedSpec { version, plan }) = answer.for_people(output)? {
        out::line(plan);
        out::line(format!("applied as version {version}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_a_workspace_leaves_out_the_sql_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("throng.yaml");
        let text = "version: 1\naudiences: [{ name: a, sql: SELECT 1 }]\nworkspaces:\n  - name: acme\n    \
                    audiences: [{ name: a, sql: SELECT 1 }]\n  - name: globex\n    \
                    audiences: [{ name: b, sql: SELECT 1 }]\n";
        std::fs::write(&file, text).unwrap();
        let spec = throng_spec::load(&file).unwrap();
        let acme = only_workspace(spec.clone(), "acme").unwrap();
        let names: Vec<&str> = acme.audiences.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["acme:a"]);
        let error = only_workspace(spec, "acne").unwrap_err();
        assert_eq!(error.to_string(), "the spec has no workspace `acne`");
    }

    #[test]
    fn the_command_that_applies_a_plan_names_the_same_node() {
        let command = |dir: Option<&str>, url: Option<&str>| {
            let (dir, url) = (dir.map(PathBuf::from), url.map(str::to_owned));
            let (ca_file, token_file, insecure) = (None, None, false);
            let node = crate::args::NodeArgs { url, ca_file, token_file, insecure, dir };
            apply_command(&ApplyArgs { spec: PathBuf::from("throng.yaml"), node }, 3)
        };
        let plain = "throng apply --base-version 3 throng.yaml";
        assert_eq!(command(None, None), plain);
        assert_eq!(command(Some("data"), None), format!("{plain} --dir data"));
        let url = "http://127.0.0.1:7177";
        assert_eq!(command(None, Some(url)), format!("{plain} --url {url}"));
    }
}
