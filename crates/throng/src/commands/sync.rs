//! `throng sync`: runs, tasks, receipts, alerts.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use throng_model::{Clock as _, SystemClock, Timestamp};

use super::alerts::next_try;
use crate::args::{NodeArgs, SyncCommand, TasksCommand};
use crate::client::{Client, segment};
use crate::out;

pub(crate) async fn run(command: SyncCommand, json: bool) -> Result<ExitCode> {
    match command {
        SyncCommand::List { node } => syncs(&node, json).await,
        SyncCommand::Sizes { name, node } => sizes(&name, &node, json).await,
        SyncCommand::Runs { node } => runs(&node, json).await,
        SyncCommand::Tasks { node } => tasks(&node, json).await,
        SyncCommand::Task { id, node } => task(id, &node, json).await,
        SyncCommand::Run { name, full, forget_delivered, node } => {
            let body = json!({ "full": full, "forget_delivered": forget_delivered });
            let answer = Client::new(&node)?
                .post(&format!("/v1/syncs/{}/run", segment(&name)), &body)
                .await?;
            if json {
                out::json(&answer);
            } else {
                out::line(format!("a run of {name} is being planned; see `throng sync runs`"));
            }
            Ok(ExitCode::SUCCESS)
        }
        SyncCommand::Recreate { name, node } => {
            let path = format!("/v1/syncs/{}/recreate", segment(&name));
            act(&path, format!("the next run of {name} creates a new audience"), &node, json).await
        }
        SyncCommand::Pause { name, node } => {
            let path = format!("/v1/syncs/{}/pause", segment(&name));
            let done = format!("{name} is paused until `throng sync resume {name}`");
            act(&path, done, &node, json).await
        }
        SyncCommand::Resume { name, node } => {
            let path = format!("/v1/syncs/{}/resume", segment(&name));
            act(&path, format!("{name} is resumed"), &node, json).await
        }
        SyncCommand::Requeue { id, node } => {
            let path = format!("/v1/tasks/{id}/requeue");
            act(&path, format!("task {id} is queued again"), &node, json).await
        }
        SyncCommand::Approve { run, destination, removal, node } => {
            let (path, done) = match (run, removal, destination) {
                (Some(run), ..) => {
                    (format!("/v1/runs/{run}/approve"), format!("run {run} is approved"))
                }
                (None, Some(name), _) => {
                    let path = format!("/v1/removals/{}/approve", segment(&name));
                    (path, format!("the removal of {name} is approved; see `throng sync removals`"))
                }
                (None, None, destination) => {
                    let name = destination.unwrap_or_default();
                    let path = format!("/v1/destinations/{}/approve", segment(&name));
                    (path, format!("the held runs of {name} are approved"))
                }
            };
            act(&path, done, &node, json).await
        }
        SyncCommand::Removals { node } => removals(&node, json).await,
        SyncCommand::Keep { name, node } => {
            let path = format!("/v1/removals/{}/keep", segment(&name));
            act(&path, format!("the audience of {name} is kept on the platform"), &node, json).await
        }
        SyncCommand::Alerts { node } => super::alerts::list(&node, 200, 0, json).await,
    }
}

pub(crate) async fn tasks_command(command: TasksCommand, json: bool) -> Result<ExitCode> {
    let TasksCommand::Requeue { id, node, .. } = command;
    if let Some(id) = id {
        let path = format!("/v1/tasks/{id}/requeue");
        return act(&path, format!("task {id} is queued again"), &node, json).await;
    }
    let answer = Client::new(&node)?.post("/v1/tasks/announce", &json!({})).await?;
    if json {
        out::json(&answer);
    } else {
        out::line(format!("{} tasks are queued", number(&answer["announced"])));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, out::count)
}

/// The sum of counts by reason.
fn total(reasons: &Value) -> String {
    let sum = reasons.as_object().map_or(0, |r| r.values().filter_map(Value::as_u64).sum());
    out::count(sum)
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The range in which a platform says that the size of an audience is.
fn size(size: &Value) -> String {
    match (size["lower"].as_u64(), size["upper"].as_u64()) {
        _ if size.is_null() => String::new(),
        (Some(lower), Some(upper)) if lower == upper => out::count(lower),
        (Some(lower), Some(upper)) => format!("{} to {}", out::count(lower), out::count(upper)),
        (Some(lower), None) => format!("at least {}", out::count(lower)),
        (None, Some(upper)) => format!("at most {}", out::count(upper)),
        (None, None) => "none shown".to_owned(),
    }
}

async fn syncs(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/syncs").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let rows = list(&answer, "syncs").iter().map(|s| {
        let due = match s["removals_due"].as_u64() {
            None | Some(0) => String::new(),
            Some(due) => format!("{}; {}", out::count(due), next_try(&s["removals_retry_at"], now)),
        };
        let state = if s["paused_at"].is_null() { "active" } else { "paused" };
        vec![
            text(&s["name"]),
            text(&s["audience"]),
            text(&s["destination"]),
            text(&s["mode"]),
            state.to_owned(),
            text(&s["delivered_version"]),
            number(&s["delivered_users"]),
            size(&s["size"]),
            due,
        ]
    });
    let header = [
        "SYNC",
        "AUDIENCE",
        "DESTINATION",
        "MODE",
        "STATE",
        "VERSION",
        "DELIVERED",
        "ON PLATFORM",
        "REMOVALS DUE",
    ];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn sizes(name: &str, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/syncs/{}/sizes", segment(name));
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = list(&answer, "sizes").iter().map(|s| {
        let at = s["at"].as_i64().map_or_else(String::new, |at| Timestamp(at).to_string());
        let state = if s["settling"] == true { "processing an upload" } else { "" };
        vec![at, text(&s["platform_id"]), number(&s["delivered"]), size(s), state.to_owned()]
    });
    out::table(&["AT", "AUDIENCE", "DELIVERED", "ON PLATFORM", "PLATFORM"], rows.collect());
    if let Some(reason) = answer["reason"].as_str() {
        out::line(format!("{}: {reason}", text(&answer["verdict"])));
    }
    Ok(ExitCode::SUCCESS)
}

async fn runs(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/runs").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = list(&answer, "runs")
        .iter()
        .map(|r| {
            vec![
                text(&r["id"]),
                text(&r["sync"]),
                text(&r["state"]),
                number(&r["read"]),
                number(&r["sent"]),
                total(&r["skipped"]),
                total(&r["rejected"]),
                number(&r["pending"]),
                text(&r["reason"]),
            ]
        })
        .collect();
    let header =
        ["RUN", "SYNC", "STATE", "READ", "SENT", "SKIPPED", "REJECTED", "PENDING", "REASON"];
    out::table(&header, rows);
    Ok(ExitCode::SUCCESS)
}

async fn removals(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/removals").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let rows = list(&answer, "removals").iter().map(|r| {
        let state = match (r["approved_by"].as_str(), r["retry_at"].is_null()) {
            (None, _) => "waiting for approval".to_owned(),
            (Some(by), true) => format!("approved by {by}"),
            (Some(by), false) => format!("approved by {by}; {}", next_try(&r["retry_at"], now)),
        };
        let (sync, rule, destination) =
            (text(&r["sync"]), text(&r["rule"]), text(&r["destination"]));
        let (id, users) = (text(&r["platform_id"]), number(&r["users"]));
        vec![sync, rule, destination, id, users, state, text(&r["last_error"])]
    });
    let header = ["SYNC", "RULE", "DESTINATION", "AUDIENCE", "USERS", "STATE", "LAST ERROR"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// Why the last try of a task failed, with the time of the next one.
fn last_error(task: &Value, now: Timestamp) -> String {
    let why = text(&task["last_error"]);
    match task["state"] == "queued" && !why.is_empty() {
        true => format!("{why}; {}", next_try(&task["not_before"], now)),
        false => why,
    }
}

async fn tasks(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/tasks").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let rows = list(&answer, "tasks")
        .iter()
        .map(|t| {
            vec![
                text(&t["id"]),
                text(&t["sync"]),
                text(&t["state"]),
                format!("{}/{}", text(&t["batches_done"]), text(&t["batches"])),
                text(&t["failures"]),
                last_error(t, now),
            ]
        })
        .collect();
    out::table(&["TASK", "SYNC", "STATE", "BATCHES", "FAILURES", "LAST ERROR"], rows);
    let shown = list(&answer, "tasks").len() as u64;
    let counts = list(&answer, "counts");
    let all = counts.iter().filter_map(|count| count[1].as_u64()).sum::<u64>();
    if shown < all {
        out::line(format!("{} of {} tasks", out::count(shown), out::count(all)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn task(id: i64, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/tasks/{id}")).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let task = &answer["task"];
    out::line(format!("task {id}: {} is {}", text(&task["sync"]), text(&task["state"])));
    for reason in list(&answer["check"], "reasons") {
        out::line(format!("check {}: {}", text(&answer["check"]["verdict"]), text(reason)));
    }
    let rows = list(&answer, "receipts")
        .iter()
        .map(|r| {
            vec![
                text(&r["batch"]),
                text(&r["operation"]),
                number(&r["rows"]),
                number(&r["received"]),
                number(&r["invalid"]),
                text(&r["http_status"]),
                text(&r["error_code"]),
            ]
        })
        .collect();
    out::table(&["BATCH", "OPERATION", "ROWS", "RECEIVED", "INVALID", "HTTP", "CODE"], rows);
    Ok(ExitCode::SUCCESS)
}

async fn act(path: &str, done: String, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.post(path, &json!({})).await?;
    if json {
        out::json(&answer);
    } else {
        out::line(done);
    }
    Ok(ExitCode::SUCCESS)
}
