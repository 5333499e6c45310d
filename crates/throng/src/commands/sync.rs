//! `throng sync`: runs, tasks, receipts, alerts.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use throng_model::{Clock as _, SystemClock, Timestamp};

use super::alerts::{next_try, time};
use crate::answers::{
    QueuedTasks, RemovalList, RunList, Size, SizeList, SyncList, Task, TaskDetail, TaskList,
};
use crate::args::{NodeArgs, SyncCommand, TasksCommand};
use crate::client::{Client, segment};
use crate::out;

/// The body of `POST /v1/syncs/{name}/run`.
#[derive(Serialize)]
struct RunRequest {
    full: bool,
    forget_delivered: bool,
}

pub(crate) async fn run(command: SyncCommand, json: bool) -> Result<ExitCode> {
    match command {
        SyncCommand::List { node } => syncs(&node, json).await,
        SyncCommand::Sizes { name, node } => sizes(&name, &node, json).await,
        SyncCommand::Runs { node } => runs(&node, json).await,
        SyncCommand::Tasks { node } => tasks(&node, json).await,
        SyncCommand::Task { id, node } => task(id, &node, json).await,
        SyncCommand::Run { name, full, forget_delivered, node } => {
            let body = RunRequest { full, forget_delivered };
            let path = format!("/v1/syncs/{}/run", segment(&name));
            let answer = Client::new(&node)?.post(&path, &body).await?;
            if json {
                answer.print();
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
    let answer = Client::new(&node)?.post_empty("/v1/tasks/enqueue").await?;
    if json {
        answer.print();
    } else {
        let QueuedTasks { count } = answer.read()?;
        out::line(format!("{} tasks are queued", out::count(count)));
    }
    Ok(ExitCode::SUCCESS)
}

/// A number that may be absent.
fn number(number: Option<u64>) -> String {
    number.map_or_else(String::new, out::count)
}

/// The range in which a platform says that the size of an audience is.
fn size(size: &Size) -> String {
    match (size.lower, size.upper) {
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
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let SyncList { syncs } = answer.read()?;
    let now = SystemClock.now();
    let rows = syncs.into_iter().map(|sync| {
        let due = match sync.removals_due {
            0 => String::new(),
            due => format!("{}; {}", out::count(due), next_try(sync.removals_retry_at, now)),
        };
        let state = if sync.paused_at.is_none() { "active" } else { "paused" };
        vec![
            sync.name,
            sync.audience,
            sync.destination,
            sync.mode,
            state.to_owned(),
            sync.delivered_version.map_or_else(String::new, |version| version.to_string()),
            number(sync.delivered_users),
            sync.size.as_ref().map_or_else(String::new, size),
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
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let SizeList { verdict, reason, sizes } = answer.read()?;
    let rows = sizes.into_iter().map(|one| {
        let state = if one.settling { "processing an upload" } else { "" };
        let (at, delivered, shown) = (time(one.at), number(one.delivered), size(&one));
        vec![at, one.platform_id, delivered, shown, state.to_owned()]
    });
    out::table(&["AT", "AUDIENCE", "DELIVERED", "ON PLATFORM", "PLATFORM"], rows.collect());
    if let Some(reason) = reason {
        out::line(format!("{verdict}: {reason}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn runs(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/runs").await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let RunList { runs } = answer.read()?;
    let rows = runs.into_iter().map(|run| {
        vec![
            run.id.to_string(),
            run.sync,
            run.state,
            out::count(run.read),
            out::count(run.sent),
            out::count(run.skipped.values().sum()),
            out::count(run.rejected.values().sum()),
            out::count(run.pending),
            run.reason.unwrap_or_default(),
        ]
    });
    let header =
        ["RUN", "SYNC", "STATE", "READ", "SENT", "SKIPPED", "REJECTED", "PENDING", "REASON"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn removals(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/removals").await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let RemovalList { removals } = answer.read()?;
    let now = SystemClock.now();
    let rows = removals.into_iter().map(|removal| {
        let state = match (&removal.approved_by, removal.retry_at) {
            (None, _) => "waiting for approval".to_owned(),
            (Some(by), None) => format!("approved by {by}"),
            (Some(by), at) => format!("approved by {by}; {}", next_try(at, now)),
        };
        vec![
            removal.sync,
            removal.rule,
            removal.destination.unwrap_or_default(),
            removal.platform_id.unwrap_or_default(),
            number(removal.users),
            state,
            removal.last_error.unwrap_or_default(),
        ]
    });
    let header = ["SYNC", "RULE", "DESTINATION", "AUDIENCE", "USERS", "STATE", "LAST ERROR"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// Why the last try of a task failed, with the time of the next one.
fn last_error(task: &Task, now: Timestamp) -> String {
    let why = task.last_error.clone().unwrap_or_default();
    match task.state == "queued" && !why.is_empty() {
        true => format!("{why}; {}", next_try(task.not_before, now)),
        false => why,
    }
}

async fn tasks(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/tasks").await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let TaskList { tasks, counts } = answer.read()?;
    let (shown, now) = (tasks.len() as u64, SystemClock.now());
    let rows = tasks.into_iter().map(|task| {
        let last_error = last_error(&task, now);
        vec![
            task.id.to_string(),
            task.sync,
            task.state,
            format!("{}/{}", task.batches_done, task.batches),
            task.failures.to_string(),
            last_error,
        ]
    });
    let header = ["TASK", "SYNC", "STATE", "BATCHES", "FAILURES", "LAST ERROR"];
    out::table(&header, rows.collect());
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    if shown < all {
        out::line(format!("{} of {} tasks", out::count(shown), out::count(all)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn task(id: i64, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/tasks/{id}")).await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let TaskDetail { task, receipts, check } = answer.read()?;
    out::line(format!("task {id}: {} is {}", task.sync, task.state));
    if let Some(check) = check {
        for reason in &check.reasons {
            out::line(format!("check {}: {reason}", check.verdict));
        }
    }
    let rows = receipts.into_iter().map(|receipt| {
        vec![
            receipt.batch.to_string(),
            receipt.operation,
            out::count(receipt.rows),
            out::count(receipt.received),
            out::count(receipt.invalid),
            receipt.http_status.to_string(),
            receipt.error_code.map_or_else(String::new, |code| code.to_string()),
        ]
    });
    let header = ["BATCH", "OPERATION", "ROWS", "RECEIVED", "INVALID", "HTTP", "CODE"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn act(path: &str, done: String, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.post_empty(path).await?;
    if json {
        answer.print();
    } else {
        out::line(done);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_range_or_a_bound() {
        let shown = |lower, upper| size(&Size { lower, upper, ..Size::default() });
        assert_eq!(shown(Some(1_000), Some(1_000)), "1,000");
        assert_eq!(shown(Some(1_000), Some(1_200)), "1,000 to 1,200");
        assert_eq!(shown(Some(1_000), None), "at least 1,000");
        assert_eq!(shown(None, Some(100)), "at most 100");
        assert_eq!(shown(None, None), "none shown");
    }

    #[test]
    fn a_task_that_is_tried_again_shows_when() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let task = |state: &str, error: Option<&str>| Task {
            id: 1,
            sync: "s".to_owned(),
            state: state.to_owned(),
            failures: 1,
            not_before: Some(now.plus(std::time::Duration::from_secs(5))),
            batches: 2,
            batches_done: 1,
            last_error: error.map(str::to_owned),
        };
        let queued = last_error(&task("queued", Some("cut off")), now);
        assert_eq!(queued, "cut off; next try 2026-11-25T18:40:05Z");
        assert_eq!(last_error(&task("failed", Some("cut off")), now), "cut off");
        assert_eq!(last_error(&task("queued", None), now), "");
    }
}
