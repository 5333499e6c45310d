//! `throng check`, `throng plan`, `throng apply`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use throng_lake::{Lake, LakeError, LakeLimits, ModelInfo};
use throng_server::{Environment, check_backends};
use throng_spec::{Location, Problem, Spec};

use crate::args::ApplyArgs;
use crate::client::Client;
use crate::out;

/// Prints problems; the exit code says that the spec is wrong.
pub(super) fn report(problems: &[Problem], json: bool) -> Result<ExitCode> {
    if json {
        out::json(&json!({ "ok": false, "problems": problems }));
    } else {
        for problem in problems {
            out::say(problem);
        }
        let s = if problems.len() == 1 { "" } else { "s" };
        out::say(format!("{} problem{s} in the spec", problems.len()));
    }
    Ok(ExitCode::from(2))
}

/// What checking the SQL of a spec brought to light.
struct SqlCheck {
    problems: Vec<Problem>,
    models: Vec<(String, ModelInfo)>,
}

/// Loads a spec and checks its SQL against the sources.
async fn load(path: &Path) -> Result<std::result::Result<(Spec, SqlCheck), Vec<Problem>>> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return Ok(Err(problems)),
    };
    let check = check_sql(&spec).await?;
    if check.problems.is_empty() { Ok(Ok((spec, check))) } else { Ok(Err(check.problems)) }
}

async fn check_sql(spec: &Spec) -> Result<SqlCheck> {
    let spill = std::env::temp_dir();
    let limits =
        LakeLimits { memory_bytes: spec.node.memory_limit_bytes, spill_dir: spill, threads: 2 };
    let lake = Lake::new(&spec.sources, limits).context("cannot open the sources")?;
    let mut check = SqlCheck { problems: Vec::new(), models: Vec::new() };
    for (at, audience) in spec.audiences.iter().enumerate() {
        match lake.check_model(&audience.sql, audience.key.as_deref()).await {
            Ok(info) => check.models.push((audience.name.to_string(), info)),
            Err(error) => check.problems.push(problem(
                &audience.sql_at,
                format!("audiences[{at}].sql"),
                &error,
            )),
        }
    }
    for (at, sync) in spec.syncs.iter().enumerate() {
        let columns: Vec<String> =
            sync.identifiers.columns.iter().map(|(column, _)| column.clone()).collect();
        let identifiers = &sync.identifiers;
        let checked = lake.check_identifiers(&identifiers.sql, &identifiers.key, &columns).await;
        if let Err(error) = checked {
            check.problems.push(problem(
                &identifiers.sql_at,
                format!("syncs[{at}].identifiers.sql"),
                &error,
            ));
        }
    }
    Ok(check)
}

/// An SQL error at its place in the file: the text's first line plus the line within it.
fn problem(at: &Location, path: String, error: &LakeError) -> Problem {
    let (line, column) = error.position().unwrap_or((1, 1));
    Problem {
        file: at.file.clone(),
        line: at.line + line.saturating_sub(1),
        column,
        path,
        message: throng_model::with_causes(error),
        help: error.help(),
    }
}

pub(crate) async fn check(path: &Path, connect: bool, json: bool) -> Result<ExitCode> {
    let (spec, check) = match load(path).await? {
        Ok(loaded) => loaded,
        Err(problems) => return report(&problems, json),
    };
    let findings = match connect {
        true => check_backends(&spec.node, &environment()).await,
        false => Vec::new(),
    };
    let ok = findings.iter().all(|finding| finding.ok);
    let code = if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let models = models_json(&check);
        out::json(&json!({ "ok": ok, "models": models, "backends": findings }));
        return Ok(code);
    }
    out::line(format!(
        "all well: {} audiences, {} syncs, {} ad groups",
        spec.audiences.len(),
        spec.syncs.len(),
        spec.ad_groups.len()
    ));
    for finding in findings {
        let mark = if finding.ok { "works" } else { "does not work" };
        out::line(format!("{} {mark}: {}", finding.backend, finding.says));
        if let Some(help) = finding.help {
            out::line(format!("  help: {help}"));
        }
    }
    Ok(code)
}

pub(crate) async fn migrate(path: &Path, dir: Option<&Path>, json: bool) -> Result<ExitCode> {
    let spec = match throng_spec::load(path) {
        Ok(spec) => spec,
        Err(problems) => return report(&problems, json),
    };
    let says = throng_server::migrate(&spec.node, dir, &environment()).await?;
    if json {
        out::json(&json!({ "ledger": says }));
    } else {
        out::line(format!("the ledger is up to date: {says}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Secrets from this process's variables.
fn environment() -> Environment {
    Arc::new(|name: &str| std::env::var(name).ok())
}

fn models_json(check: &SqlCheck) -> Value {
    check
        .models
        .iter()
        .map(|(name, info)| json!({ "audience": name, "model": info }))
        .collect::<Vec<_>>()
        .into()
}

async fn running(client: &Client) -> Result<Option<Spec>> {
    let applied = client.get("/v1/spec").await?;
    if applied["spec"].is_null() {
        return Ok(None);
    }
    serde_json::from_value(applied["spec"].clone())
        .map(Some)
        .context("the node runs a spec of another version")
}

pub(crate) async fn plan(arguments: &ApplyArgs, json: bool) -> Result<ExitCode> {
    let (spec, check) = match load(&arguments.spec).await? {
        Ok(loaded) => loaded,
        Err(problems) => return report(&problems, json),
    };
    let client = Client::new(&arguments.node)?;
    let plan = throng_spec::plan(running(&client).await?.as_ref(), &spec);
    if json {
        out::json(&json!({ "plan": plan, "models": models_json(&check) }));
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&plan);
    let rows = check
        .models
        .iter()
        .map(|(name, info)| {
            vec![
                name.clone(),
                info.key_column.clone(),
                info.key_kind.to_string(),
                info.estimated_rows.map_or_else(|| "unknown".to_owned(), out::count),
            ]
        })
        .collect();
    out::table(&["AUDIENCE", "KEY", "KIND", "ABOUT ROWS"], rows);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn apply(arguments: &ApplyArgs, json: bool) -> Result<ExitCode> {
    let (spec, _) = match load(&arguments.spec).await? {
        Ok(loaded) => loaded,
        Err(problems) => return report(&problems, json),
    };
    let client = Client::new(&arguments.node)?;
    let plan = throng_spec::plan(running(&client).await?.as_ref(), &spec);
    let body =
        json!({ "spec": serde_json::to_value(&spec).context("cannot write the spec as JSON")? });
    let answer = client.post("/v1/spec/apply", &body).await?;
    if json {
        out::json(&json!({ "plan": plan, "version": answer["version"] }));
    } else {
        out::line(&plan);
        out::line(format!("applied as version {}", answer["version"]));
    }
    Ok(ExitCode::SUCCESS)
}
