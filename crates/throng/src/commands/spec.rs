//! `throng check`, `throng plan`, `throng apply`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use throng_lake::{Lake, LakeLimits, Landlock, WorkerCommand};
use throng_server::{CheckError, CheckedModel, Environment, check_backends, check_sql};
use throng_spec::{Plan, Problem, Spec, read_files};

use crate::args::ApplyArgs;
use crate::client::Client;
use crate::failure::report_problems;
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

pub(crate) async fn check(path: &Path, connect: bool, json: bool) -> Result<ExitCode> {
    let (spec, models) = match load(path).await? {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report_problems(&problems, json)),
    };
    let findings = match connect {
        true => check_backends(&spec.node, &environment()).await,
        false => Vec::new(),
    };
    let landlock = Landlock::of_kernel();
    let ok = findings.iter().all(|finding| finding.ok);
    let code = if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let warnings = throng_spec::warnings(&spec);
        let mut answer = json!({
            "ok": ok,
            "models": models,
            "backends": findings,
            "warnings": warnings,
            "landlock": landlock.name(),
        });
        if !ok {
            answer["error"] = json!("a backend does not work");
            answer["help"] = json!("`backends` has what is wrong with each and what to do");
        }
        out::json(&answer);
        return Ok(code);
    }
    for warning in throng_spec::warnings(&spec) {
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

pub(crate) async fn migrate(path: &Path, dir: Option<&Path>, json: bool) -> Result<ExitCode> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, json)),
    };
    let found = throng_server::migrate(&spec.node, dir, &environment()).await?;
    if json {
        out::json(&json!({ "ledger": found }));
    } else {
        out::line(format!("the ledger is up to date: {found}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Secrets from the environment of this process.
fn environment() -> Environment {
    Arc::new(|name: &str| std::env::var(name).ok())
}

/// Sends the texts of a spec to a node. Problems that the node reports are printed, and the exit code is
/// returned in place of the answer.
async fn send(
    arguments: &ApplyArgs,
    path: &str,
    base_version: Option<u64>,
    json: bool,
) -> Result<std::result::Result<Value, ExitCode>> {
    let files = match read_files(&arguments.spec) {
        Ok(files) => files,
        Err(problems) => return Ok(Err(report_problems(&problems, json))),
    };
    let mut body = serde_json::to_value(&files).context("cannot write the spec as JSON")?;
    if let Some(version) = base_version {
        body["base_version"] = version.into();
    }
    let client = Client::with_long_timeout(&arguments.node)?;
    match client.try_post(path, &body).await? {
        Ok(answer) => Ok(Ok(answer)),
        Err(refused) => {
            let problems = refused.body["error"]["problems"].clone();
            match serde_json::from_value::<Vec<Problem>>(problems) {
                Ok(problems) if !problems.is_empty() => Ok(Err(report_problems(&problems, json))),
                _ => Err(refused.into_error()),
            }
        }
    }
}

/// The plan in a node's answer.
fn plan_of(answer: &Value) -> Result<Plan> {
    serde_json::from_value(answer["plan"].clone())
        .context("cannot read the plan: the node has another version")
}

pub(crate) async fn plan(arguments: &ApplyArgs, json: bool) -> Result<ExitCode> {
    let answer = match send(arguments, "/v1/spec/plan", None, json).await? {
        Ok(answer) => answer,
        Err(code) => return Ok(code),
    };
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    out::line(plan_of(&answer)?);
    let rows = answer["models"].as_array().into_iter().flatten().map(|checked| {
        let (name, model) = (&checked["audience"], &checked["model"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = model["estimated_rows"].as_u64();
        vec![
            text(name),
            text(&model["key_column"]),
            text(&model["key_kind"]),
            rows.map_or_else(|| "unknown".to_owned(), out::count),
        ]
    });
    out::table(&["AUDIENCE", "KEY", "KIND", "ABOUT ROWS"], rows.collect());
    let version = &answer["version"];
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
        out::json(&answer);
    } else {
        out::line(plan_of(&answer)?);
        out::line(format!("applied as version {}", answer["version"]));
    }
    Ok(ExitCode::SUCCESS)
}
