//! `throng check`, `throng plan`, `throng apply`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_backends::{Finding, check_backends};
use throng_lake::{Lake, LakeLimits, WorkerCommand};
use throng_server::{CheckError, CheckedModel, Environment, check_sql};
use throng_spec::{Problem, Spec, SpecFiles, read_files};
use throng_worker::Landlock;

use crate::answers::{AppliedSpec, PlannedSpec};
use crate::args::ApplyArgs;
use crate::client::{Answer, Client};
use crate::failure::{Success, report_problems};
use crate::out;

/// Loads a spec and checks its SQL against the sources on this machine.
async fn load(path: &Path) -> Result<std::result::Result<(Spec, Vec<CheckedModel>), Vec<Problem>>> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return Ok(Err(problems)),
    };
    let spill = std::env::temp_dir();
    let limits = LakeLimits::of(&spec.node, spill, WorkerCommand::default());
    let lake = Lake::new(&spec.sources, limits).context("cannot open the sources")?;
    match check_sql(&lake, &spec).await {
        Ok(models) => Ok(Ok((spec, models))),
        Err(CheckError::Problems(problems)) => Ok(Err(problems)),
        Err(CheckError::Worker(error)) => Err(error).context("cannot check the SQL"),
    }
}

/// What `throng check` prints with `--json`.
#[derive(Serialize)]
struct CheckReport {
    #[serde(flatten)]
    success: Success,
    models: Vec<CheckedModel>,
    backends: Vec<Finding>,
    warnings: Vec<String>,
    landlock: &'static str,
}

pub(crate) async fn check(path: &Path, connect: bool, json: bool) -> Result<ExitCode> {
    let (spec, models) = match load(path).await? {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report_problems(&problems, json)),
    };
    let findings = match connect {
        true => check_backends(&spec.node, &environment()).await,
        false => Vec::new(),
    };
    let mut warnings = throng_spec::warnings(&spec);
    warnings.extend(models.iter().flat_map(CheckedModel::warnings));
    let landlock = Landlock::of_kernel();
    let ok = findings.iter().all(|finding| finding.ok);
    let code = if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let help = "`backends` has what is wrong with each and what to do";
        let success = Success::new(ok, "a backend does not work", help);
        let landlock = landlock.name();
        out::json(&CheckReport { success, models, backends: findings, warnings, landlock });
        return Ok(code);
    }
    for warning in warnings {
        out::message(format!("warning: {warning}"));
    }
    if let Some(warning) = landlock.warning() {
        out::message(format!("warning: {warning}"));
    }
    out::line(format!(
        "ok: {} audiences, {} syncs, {} ad groups",
        spec.audiences.len(),
        spec.syncs.len(),
        spec.ad_groups.len()
    ));
    for finding in findings {
        let mark = if finding.ok { "works" } else { "does not work" };
        out::line(format!("{} {mark}: {}", finding.backend, finding.message));
        if let Some(help) = finding.help {
            out::line(format!("  help: {help}"));
        }
    }
    Ok(code)
}

/// What `throng migrate` prints with `--json`.
#[derive(Serialize)]
struct MigrationReport {
    ledger: String,
}

pub(crate) async fn migrate(path: &Path, dir: Option<&Path>, json: bool) -> Result<ExitCode> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, json)),
    };
    let found = throng_backends::migrate(&spec.node, dir, &environment()).await?;
    if json {
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
#[derive(Serialize)]
struct SentSpec<'a> {
    #[serde(flatten)]
    files: &'a SpecFiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_version: Option<u64>,
}

/// Sends the texts of a spec to a node. Problems that the node reports are printed, and the exit code is
/// returned in place of the answer.
async fn send(
    arguments: &ApplyArgs,
    path: &str,
    base_version: Option<u64>,
    json: bool,
) -> Result<std::result::Result<Answer, ExitCode>> {
    let files = match read_files(&arguments.spec) {
        Ok(files) => files,
        Err(problems) => return Ok(Err(report_problems(&problems, json))),
    };
    let client = Client::with_long_timeout(&arguments.node)?;
    let body = SentSpec { files: &files, base_version };
    match client.try_post(path, &body).await? {
        Ok(answer) => Ok(Ok(answer)),
        Err(refused) => match refused.problems() {
            problems if problems.is_empty() => Err(refused.into_error()),
            problems => Ok(Err(report_problems(&problems, json))),
        },
    }
}

pub(crate) async fn plan(arguments: &ApplyArgs, json: bool) -> Result<ExitCode> {
    let answer = match send(arguments, "/v1/spec/plan", None, json).await? {
        Ok(answer) => answer,
        Err(code) => return Ok(code),
    };
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let PlannedSpec { version, plan, models } = answer.read()?;
    out::line(plan);
    let rows = models.into_iter().map(|planned| {
        let (audience, model) = (planned.audience, planned.model);
        let rows = model.estimated_rows.map_or_else(|| "unknown".to_owned(), out::count);
        vec![audience, model.key_column, model.key_kind, rows]
    });
    out::table(&["AUDIENCE", "KEY", "KIND", "ABOUT ROWS"], rows.collect());
    out::line(format!(
        "to apply exactly this: throng apply --base-version {version} {}",
        arguments.spec.display()
    ));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn apply(
    arguments: &ApplyArgs,
    base_version: Option<u64>,
    json: bool,
) -> Result<ExitCode> {
    let answer = match send(arguments, "/v1/spec/apply", base_version, json).await? {
        Ok(answer) => answer,
        Err(code) => return Ok(code),
    };
    if json {
        answer.print();
    } else {
        let AppliedSpec { version, plan } = answer.read()?;
        out::line(plan);
        out::line(format!("applied as version {version}"));
    }
    Ok(ExitCode::SUCCESS)
}
