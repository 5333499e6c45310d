//! Activation: syncs, runs with their receipts and checks, alerts; one task with its receipts.

use askama::Template;
use axum::extract::{Path, State};
use throng_model::{TaskId, Timestamp};
use throng_store::{Check, ReasonCounts, SyncRun, Task, TaskState};

use super::alerts::{AlertLine, newest};
use super::show::{self, Card, card, count};
use super::syncs::{self, RemovalRow, SyncRows};
use super::{Context, Page, PageError, chart, render};

#[derive(Template)]
#[template(path = "activation.html")]
struct List {
    cards: Vec<Card>,
    alerts: Vec<AlertLine>,
    more_alerts: Option<String>,
    /// The paused syncs of the applied spec, separated by commas.
    paused: String,
    removals: Vec<RemovalRow>,
    syncs: SyncRows,
    runs: Vec<RunRow>,
    /// Whether there may be older runs that are not listed.
    is_truncated: bool,
}

/// Runs that are listed.
const SHOWN_RUNS: u32 = 200;

struct RunRow {
    sync: String,
    audience: String,
    version: u64,
    destination: String,
    when: String,
    state: &'static str,
    tone: &'static str,
    reason: Option<String>,
    read: String,
    sent: String,
    skipped: String,
    rejected: String,
    pending: String,
    remaining: Option<String>,
    meter: String,
    task: Option<TaskId>,
    check: &'static str,
    check_tone: &'static str,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/activation"
    }
}

fn sum(reasons: &ReasonCounts) -> u64 {
    reasons.values().sum()
}

fn run_meter(run: &SyncRun) -> String {
    let share = |part: u64| part as f64 / run.read.max(1) as f64;
    chart::meter(&[
        ("sent", share(run.sent)),
        ("skipped", share(sum(&run.skipped))),
        ("rejected", share(sum(&run.rejected))),
    ])
}

fn run_row(run: &SyncRun, task: Option<&Task>, check: Option<&Check>, now: Timestamp) -> RunRow {
    let (state, tone) = show::run(run.state);
    let (check, check_tone) = check.map_or(("–", ""), |c| show::verdict(c.verdict));
    RunRow {
        sync: run.sync.to_string(),
        audience: run.audience.to_string(),
        version: run.to_version,
        destination: run.destination.to_string(),
        when: show::when(run.created_at),
        state,
        tone,
        reason: run.reason.clone(),
        read: count(run.read),
        sent: count(run.sent),
        skipped: count(sum(&run.skipped)),
        rejected: count(sum(&run.rejected)),
        pending: count(run.pending),
        remaining: task.and_then(|task| remaining(task, now)),
        meter: run_meter(run),
        task: task.map(|t| t.id),
        check,
        check_tone,
    }
}

/// The remaining time of a task, or when it is retried.
fn remaining(task: &Task, now: Timestamp) -> Option<String> {
    let eta = crate::api::task_eta(task, now);
    eta.map(|left| format!("{} remaining", show::duration(left))).or_else(|| next_retry(task, now))
}

/// When a failed task is retried.
fn next_retry(task: &Task, now: Timestamp) -> Option<String> {
    let waits = task.state == TaskState::Queued && task.last_error.is_some();
    waits.then(|| show::next_retry(task.not_before, now))
}

pub(super) async fn list(State(ctx): Context) -> Page {
    let now = ctx.clock.now();
    let runs = ctx.ledger.runs(None, SHOWN_RUNS).await?;
    let tasks = ctx.ledger.tasks(1_000).await?;
    let checks = ctx.ledger.checks(1_000).await?;
    let alerts = newest(&ctx, true).await?;
    let counts = ctx.ledger.task_counts().await?;
    let spec = ctx.spec.load_full();
    let paused = ctx.ledger.paused_syncs().await?;
    let paused: Vec<&str> = paused
        .iter()
        .map(|(sync, _)| sync)
        .filter(|name| spec.syncs.iter().any(|sync| sync.name == **name))
        .map(|sync| sync.as_str())
        .collect();
    let of = |state| counts.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    let page = List {
        cards: vec![
            card("tasks-running", count(of(TaskState::Running)), "tasks running"),
            card("tasks-queued", count(of(TaskState::Queued)), "queued"),
            card("tasks-done", count(of(TaskState::Done)), "done"),
            card("tasks-failed", count(of(TaskState::Failed)), "failed"),
            card("alerts-open", count(alerts.totals.open), "open alerts"),
        ],
        alerts: alerts.lines,
        more_alerts: alerts.more,
        is_truncated: runs.len() >= SHOWN_RUNS as usize,
        paused: paused.join(", "),
        removals: syncs::removals(&ctx).await?,
        syncs: syncs::rows(&ctx).await?,
        runs: runs
            .iter()
            .map(|run| {
                let task = tasks.iter().find(|t| t.run == run.id);
                run_row(run, task, checks.iter().find(|c| c.run == run.id), now)
            })
            .collect(),
    };
    render(&page)
}

#[derive(Template)]
#[template(path = "task.html")]
struct One {
    id: TaskId,
    sync: String,
    audience: String,
    destination: String,
    state: &'static str,
    tone: &'static str,
    error: Option<String>,
    cards: Vec<Card>,
    meter: String,
    reasons: Vec<(&'static str, String, String)>,
    check: Option<(&'static str, &'static str, Vec<String>)>,
    receipts: Vec<ReceiptRow>,
}

struct ReceiptRow {
    when: String,
    batch: u32,
    operation: String,
    rows: String,
    received: String,
    invalid: String,
    response: String,
}

impl One {
    fn menu_path(&self) -> &'static str {
        "/activation"
    }
}

pub(super) async fn task(State(ctx): Context, Path(id): Path<String>) -> Page {
    let number = id.parse().map_err(|_| {
        PageError::Missing(format!("There is no task {id}: the id of a task is a number."))
    })?;
    let task = ctx.ledger.task(TaskId(number)).await?;
    let run = ctx.ledger.run(task.run).await?;
    let receipts = ctx.ledger.receipts(task.id).await?;
    let check = ctx.ledger.check_of(task.id).await?;
    let (state, tone) = show::task(task.state);
    let skipped = run.skipped.iter().map(|(why, rows)| ("skipped", why.clone(), count(*rows)));
    let rejected = run.rejected.iter().map(|(why, rows)| ("rejected", why.clone(), count(*rows)));
    let batches_done = match remaining(&task, ctx.clock.now()) {
        Some(remaining) => format!("batches done, {remaining}"),
        None => "batches done".to_owned(),
    };
    let page = One {
        id: task.id,
        sync: task.sync.to_string(),
        audience: task.audience.to_string(),
        destination: task.destination.to_string(),
        state,
        tone,
        error: task.last_error.clone().filter(|_| task.state != TaskState::Done),
        cards: vec![
            card("batches", format!("{} of {}", task.batches_done, task.batches), batches_done),
            card("read", count(run.read), "read"),
            card("sent", count(run.sent), "sent"),
            card("skipped", count(sum(&run.skipped)), "skipped"),
            card("rejected", count(sum(&run.rejected)), "rejected"),
            card("pending", count(run.pending), "pending"),
        ],
        meter: run_meter(&run),
        reasons: skipped.chain(rejected).collect(),
        check: check.map(|c| {
            let (verdict, tone) = show::verdict(c.verdict);
            (verdict, tone, c.reasons)
        }),
        receipts: receipts
            .iter()
            .rev()
            .take(500)
            .map(|r| ReceiptRow {
                when: show::when(r.at),
                batch: r.batch,
                operation: format!("{:?}", r.operation).to_lowercase(),
                rows: count(r.rows),
                received: count(r.received),
                invalid: count(r.invalid),
                response: match (r.http_status, r.error_code) {
                    (0, _) => "no response: the connection failed".to_owned(),
                    (status, Some(code)) => format!("HTTP {status}, error {code}"),
                    (status, None) => format!("HTTP {status}"),
                },
            })
            .collect(),
    };
    render(&page)
}
