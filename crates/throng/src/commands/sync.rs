//! `throng sync`: runs, tasks, receipts, alerts.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{
    ActivationTaskProgress, BulkOperation, BulkReport, ListQuery, RemovalList, RunList, RunRefused,
    RunRequested, RunSync, RunsRequested, SyncList, SyncSize, SyncSizes, SyncSummary, TaskDetail,
    TaskList, TaskSummary, TasksEnqueued, next_try,
};
use throng_model::{Clock as _, SystemClock, people_text};

use super::bulk::{self, confirmed};
use super::lists;
use crate::args::{FilterArgs, ListArgs, NodeArgs, SyncCommand, TasksCommand};
use crate::client::{Client, RequestError, segment};
use crate::failure::{Failure, report_partial};
use crate::out::{self, Output};

/// Requests a run of each sync that is not paused, of a destination or of all. A sync that is refused, as one that is
/// running, does not stop the others.
async fn run_many(destination: Option<&str>, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let list: SyncList = client.get("/v1/syncs").await?.read()?;
    let syncs = match destination {
        Some(name) => list.for_destination(name).map_err(Failure::wrong_input)?,
        None => list.syncs,
    };
    if let Some(name) = destination.filter(|_| syncs.is_empty()) {
        return Err(Failure::new(format!("no sync delivers to `{name}`"))
            .help("`throng sync list` shows the destinations")
            .into());
    }
    // All of them are of one destination, whose name may have been given without its workspace.
    let named = syncs.first().filter(|_| destination.is_some());
    let named = named.map(|sync| format!(" to {}", sync.destination)).unwrap_or_default();
    let (mut requested, mut refused) = (Vec::new(), Vec::new());
    for sync in syncs.into_iter().filter(|sync| sync.paused_at.is_none()).map(|sync| sync.name) {
        let path = format!("/v1/syncs/{}/run", segment(sync.as_str()));
        match client.try_post(&path, &RunSync::default()).await {
            Ok(answer) => requested.push(answer.read()?),
            Err(RequestError::Failed(error)) => return Err(error),
            Err(RequestError::Refused(why)) => {
                refused.push(RunRefused { sync, error: why.into_error().to_string() });
            }
        }
    }
    let done = RunsRequested { requested, refused };
    if output == Output::Text {
        out::line(done.result(&named));
    }
    if let Some(text) = done.incomplete() {
        let error = anyhow::Error::new(Failure::new(text).help(BulkReport::HELP));
        return Ok(report_partial(&error, &done, output));
    }
    if output.is_json() {
        out::json(&done);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks before another audience takes the place of that of a sync.
async fn confirm_recreate(name: &str, node: &NodeArgs) -> Result<()> {
    let SyncList { syncs, .. } = Client::new(node)?.get("/v1/syncs").await?.read()?;
    // The node refuses a name that is not there. A client of a workspace may leave the workspace out.
    let found = syncs.iter().find(|sync| sync.name.as_str() == name);
    let found = found.or_else(|| syncs.iter().find(|sync| sync.name.local() == name));
    match found.and_then(SyncSummary::recreate_text) {
        Some(text) => confirmed(&text, out::ask(&text)?.as_deref()),
        None => Ok(()),
    }
}

pub(crate) async fn run(command: SyncCommand, output: Output) -> Result<ExitCode> {
    match command {
        SyncCommand::List { list, node } => syncs(list, &node, output).await,
        SyncCommand::Sizes { name, node } => sizes(&name, &node, output).await,
        SyncCommand::Runs { list, node } => runs(list, &node, output).await,
        SyncCommand::Tasks { summary: true, list, node } => {
            task_summary(list.filter, &node, output).await
        }
        SyncCommand::Tasks { list, node, .. } => tasks(list, &node, output).await,
        SyncCommand::Task { id, node } => task(id, &node, output).await,
        SyncCommand::Run { name: Some(name), full, forget_delivered, node, .. } => {
            let body = RunSync { full, forget_delivered };
            let path = format!("/v1/syncs/{}/run", segment(&name));
            let answer = Client::new(&node)?.post(&path, &body).await?;
            if let Some(requested) = answer.for_people::<RunRequested>(output)? {
                out::line(requested.text(&name));
            }
            Ok(ExitCode::SUCCESS)
        }
        SyncCommand::Run { destination, node, .. } => {
            run_many(destination.as_deref(), &node, output).await
        }
        SyncCommand::Recreate { name, yes, node } => {
            if !yes {
                confirm_recreate(&name, &node).await?;
            }
            let path = format!("/v1/syncs/{}/recreate", segment(&name));
            act(&path, format!("the next run of {name} creates a new audience"), &node, output)
                .await
        }
        SyncCommand::Pause { name, node } => {
            let path = format!("/v1/syncs/{}/pause", segment(&name));
            let done = format!("{name} is paused until `throng sync resume {name}`");
            act(&path, done, &node, output).await
        }
        SyncCommand::Resume { name, node } => {
            let path = format!("/v1/syncs/{}/resume", segment(&name));
            act(&path, format!("{name} is resumed"), &node, output).await
        }
        SyncCommand::Requeue { id: None, many, node } => {
            bulk::run(BulkOperation::RequeueTasks, many, &node, output).await
        }
        SyncCommand::Requeue { id: Some(id), node, .. } => {
            let path = format!("/v1/tasks/{id}/requeue");
            act(&path, format!("task {id} is queued again"), &node, output).await
        }
        SyncCommand::Approve { many, node, .. } if many.all => {
            bulk::run(BulkOperation::ApproveRuns, many, &node, output).await
        }
        SyncCommand::Approve { run, destination, removal, node, .. } => {
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
                    (path, format!("the runs that were held with {name} are approved"))
                }
            };
            act(&path, done, &node, output).await
        }
        SyncCommand::Removals { node } => removals(&node, output).await,
        SyncCommand::Keep { name, node } => {
            let path = format!("/v1/removals/{}/keep", segment(&name));
            act(&path, format!("the audience of {name} is kept on the platform"), &node, output)
                .await
        }
        SyncCommand::Alerts { node } => super::alerts::list(None, 200, 0, &node, output).await,
    }
}

pub(crate) async fn tasks_command(command: TasksCommand, output: Output) -> Result<ExitCode> {
    let TasksCommand::Requeue { id, node, .. } = command;
    if let Some(id) = id {
        let path = format!("/v1/tasks/{id}/requeue");
        return act(&path, format!("task {id} is queued again"), &node, output).await;
    }
    let answer = Client::new(&node)?.post_empty("/v1/tasks/enqueue").await?;
    if let Some(TasksEnqueued { enqueued }) = answer.for_people(output)? {
        out::line(format!("queued: {}", out::counted(enqueued, "task")));
    }
    Ok(ExitCode::SUCCESS)
}

/// A number that may be absent.
fn number(number: Option<u64>) -> String {
    number.map_or_else(String::new, out::count)
}

/// The range in which a platform says that the size of an audience is.
fn size(size: &SyncSize) -> String {
    people_text(size.lower, size.upper, out::count)
}

async fn syncs(args: ListArgs, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = lists::read(&lists::SYNCS, args.filter, args.limit, node).await?;
    let Some(SyncList { syncs, next_cursor, .. }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let now = SystemClock.now();
    let rows = syncs.into_iter().map(|sync| {
        let remarks = sync.remarks(now);
        let state = if sync.paused_at.is_none() { "active" } else { "paused" };
        vec![
            sync.name.to_string(),
            sync.audience.to_string(),
            sync.destination.to_string(),
            sync.mode.to_string(),
            state.to_owned(),
            sync.delivered_version.map_or_else(String::new, |version| version.to_string()),
            number(sync.delivered_users),
            sync.size.as_ref().map_or_else(String::new, size),
            remarks,
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
        "REMARKS",
    ];
    out::table(&header, rows.collect());
    lists::print_next(next_cursor.as_deref());
    Ok(ExitCode::SUCCESS)
}

async fn sizes(name: &str, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let path = format!("/v1/syncs/{}/sizes", segment(name));
    let answer = Client::new(node)?.get(&path).await?;
    let Some(sizes): Option<SyncSizes> = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let verdict = sizes.verdict_text();
    let rows = sizes.sizes.into_iter().map(|one| {
        let state = if one.settling { "processing an upload" } else { "" };
        let (delivered, shown) = (out::count(one.delivered), size(&one));
        vec![one.at.to_string(), one.platform_id, delivered, shown, state.to_owned()]
    });
    out::table(&["AT", "AUDIENCE", "DELIVERED", "ON PLATFORM", "PLATFORM"], rows.collect());
    out::line(verdict);
    Ok(ExitCode::SUCCESS)
}

async fn runs(args: ListArgs, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = lists::read(&lists::RUNS, args.filter, args.limit, node).await?;
    let Some(RunList { runs, next_cursor, .. }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let rows = runs.into_iter().map(|run| {
        vec![
            run.id.to_string(),
            run.sync.to_string(),
            run.state.to_string(),
            out::count(run.read),
            out::count(run.sent),
            out::count(run.skipped.values().sum()),
            out::count(run.rejected.values().sum()),
            out::count(run.pending),
            run.remarks(),
        ]
    });
    let header =
        ["RUN", "SYNC", "STATE", "READ", "SENT", "SKIPPED", "REJECTED", "PENDING", "REASON"];
    out::table(&header, rows.collect());
    lists::print_next(next_cursor.as_deref());
    Ok(ExitCode::SUCCESS)
}

async fn removals(node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/removals").await?;
    let Some(RemovalList { removals }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let now = SystemClock.now();
    let rows = removals.into_iter().map(|removal| {
        let state = match (&removal.approved_by, removal.retry_at) {
            (None, _) => "waiting for approval".to_owned(),
            (Some(by), None) => format!("approved by {by}"),
            (Some(by), at) => format!("approved by {by}; {}", next_try(at, now)),
        };
        vec![
            removal.sync.to_string(),
            removal.rule.to_string(),
            removal.destination.map_or_else(String::new, |name| name.to_string()),
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

/// Prints the number of tasks by destination and state.
async fn task_summary(filter: FilterArgs, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let FilterArgs { search, state, workspace, .. } = filter;
    let query = ListQuery { search, state, workspace, ..ListQuery::default() };
    let path = format!("/v1/tasks/summary{}", query.to_url());
    let answer = Client::new(node)?.get(&path).await?;
    if let Some(summary) = answer.for_people::<TaskSummary>(output)? {
        let header = ["DESTINATION", "QUEUED", "RUNNING", "HELD", "FAILED", "DONE", "BATCHES LEFT"];
        out::table(&header, summary.rows());
    }
    Ok(ExitCode::SUCCESS)
}

async fn tasks(args: ListArgs, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = lists::read(&lists::TASKS, args.filter, args.limit, node).await?;
    let Some(TaskList { tasks, counts, next_cursor, .. }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let (shown, now) = (tasks.len() as u64, SystemClock.now());
    let rows = tasks.into_iter().map(|ActivationTaskProgress { task, .. }| {
        let last_error = task.last_error_text(now);
        vec![
            task.id.to_string(),
            task.sync.to_string(),
            task.state.to_string(),
            format!("{}/{}", task.batches_done, task.batches),
            task.failures.to_string(),
            last_error,
        ]
    });
    let header = ["TASK", "SYNC", "STATE", "BATCHES", "FAILURES", "LAST ERROR"];
    out::table(&header, rows.collect());
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    if shown < all {
        out::line(format!("{} of {}", out::count(shown), out::counted(all, "task")));
    }
    lists::print_next(next_cursor.as_deref());
    Ok(ExitCode::SUCCESS)
}

async fn task(id: i64, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/tasks/{id}")).await?;
    let Some(TaskDetail { task: ActivationTaskProgress { task, .. }, receipts, check, .. }) =
        answer.for_people(output)?
    else {
        return Ok(ExitCode::SUCCESS);
    };
    out::line(format!("task {id}: {} is {}", task.sync, task.state));
    if let Some(check) = check {
        for reason in &check.reasons {
            out::line(format!("check {}: {reason}", check.verdict));
        }
    }
    let rows = receipts.into_iter().map(|receipt| {
        vec![
            receipt.batch.to_string(),
            receipt.operation.to_string(),
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

async fn act(path: &str, done: String, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.post_empty(path).await?;
    answer.print_or(done, output);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use throng_model::Timestamp;

    use super::*;

    #[test]
    fn sizes_have_separators() {
        let shown = |lower, upper| {
            size(&SyncSize {
                sync: "s".parse().unwrap(),
                account: "meta/1".to_owned(),
                platform_id: "1".to_owned(),
                at: Timestamp(0),
                lower,
                upper,
                delivered: 1,
                settling: false,
            })
        };
        assert_eq!(shown(Some(1_000), Some(1_200)), "1,000 to 1,200 people");
        assert_eq!(shown(None, None), "no size");
    }
}
