//! Activation: syncs, runs with their receipts and checks, alerts; one task with its receipts.

use std::collections::BTreeMap;

use askama::Template;
use throng_api::{
    ActivationCheck, ActivationOperation, ActivationReceipt, ActivationRun, ActivationTask,
    ActivationTaskState, AlertList, SyncSummary, TaskList,
};
use throng_model::{TaskId, Timestamp};

use crate::alerts::{self, AlertLine};
use crate::show::{self, Action, Card, card, count};
use crate::syncs::{self, OpenRemoval, RemovalRow, SyncRows};
use crate::{Rendered, chart, work};

/// The maximum number of listed runs.
pub const MAX_RUNS: u32 = 200;
/// The maximum number of listed receipts.
const MAX_RECEIPTS: usize = 500;

/// The syncs of the applied spec and what was sent for them.
#[derive(Debug)]
pub struct ActivationView {
    /// The newest tasks, and the number of all tasks by state.
    pub tasks: TaskList,
    /// The newest alerts.
    pub alerts: AlertList,
    /// Removals that are not finished.
    pub removals: Vec<OpenRemoval>,
    /// All syncs.
    pub syncs: Vec<SyncSummary>,
    /// The newest [`MAX_RUNS`] runs.
    pub runs: Vec<ActivationRun>,
    /// The newest checks.
    pub checks: Vec<ActivationCheck>,
}

/// One task.
#[derive(Debug)]
pub struct TaskView {
    /// The task.
    pub task: ActivationTask,
    /// Its run.
    pub run: ActivationRun,
    /// The responses of the platform, oldest first.
    pub receipts: Vec<ActivationReceipt>,
    /// `None` until the task is done and checked.
    pub check: Option<ActivationCheck>,
    /// Whether a newer run of its sync replaces it, so that it cannot be queued again.
    pub is_replaced: bool,
}

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

fn sum(reasons: &BTreeMap<String, u64>) -> u64 {
    reasons.values().sum()
}

/// The number of tasks in a state.
pub(crate) fn count_of(counts: &[(ActivationTaskState, u64)], state: ActivationTaskState) -> u64 {
    counts.iter().find(|(of, _)| *of == state).map_or(0, |(_, number)| *number)
}

fn run_meter(run: &ActivationRun) -> String {
    let share = |part: u64| part as f64 / run.read.max(1) as f64;
    chart::meter(&[
        ("sent", share(run.sent)),
        ("skipped", share(sum(&run.skipped))),
        ("rejected", share(sum(&run.rejected))),
    ])
}

fn run_row(
    run: &ActivationRun,
    task: Option<&ActivationTask>,
    check: Option<&ActivationCheck>,
    now: Timestamp,
) -> RunRow {
    let (state, tone) = show::run(run);
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
fn remaining(task: &ActivationTask, now: Timestamp) -> Option<String> {
    let left = task.remaining_time(now);
    left.map(|left| format!("{} remaining", show::duration(left))).or_else(|| next_retry(task, now))
}

/// When a failed task is retried.
fn next_retry(task: &ActivationTask, now: Timestamp) -> Option<String> {
    let waits = task.state == ActivationTaskState::Queued && task.last_error.is_some();
    waits.then(|| show::next_retry(task.not_before, now))
}

/// The names of the paused syncs, separated by commas.
fn paused(syncs: &[SyncSummary]) -> String {
    let paused = syncs.iter().filter(|sync| sync.paused_at.is_some());
    let mut names: Vec<&str> = paused.map(|sync| sync.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// The page of all syncs and runs.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn list(view: &ActivationView, now: Timestamp) -> Rendered {
    let tasks = |state| count(count_of(&view.tasks.counts, state));
    let row = |run: &ActivationRun| {
        let task = view.tasks.tasks.iter().map(|of| &of.task).find(|task| task.run == run.id);
        run_row(run, task, view.checks.iter().find(|check| check.run == run.id), now)
    };
    let page = List {
        cards: vec![
            card("tasks-running", tasks(ActivationTaskState::Running), "tasks running"),
            card("tasks-queued", tasks(ActivationTaskState::Queued), "queued"),
            card("tasks-held", tasks(ActivationTaskState::Held), "held"),
            card("tasks-done", tasks(ActivationTaskState::Done), "done"),
            card("tasks-failed", tasks(ActivationTaskState::Failed), "failed"),
            card("alerts-open", count(view.alerts.open), "open alerts"),
        ],
        alerts: alerts::lines(&view.alerts),
        more_alerts: alerts::truncation_note(&view.alerts),
        is_truncated: view.runs.len() >= MAX_RUNS as usize,
        paused: paused(&view.syncs),
        removals: view.removals.iter().map(|open| syncs::removal_row(open, now)).collect(),
        syncs: syncs::rows(&view.syncs, now),
        runs: view.runs.iter().map(row).collect(),
    };
    page.render()
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
    /// Approves the run, or queues the task again.
    action: Option<Action>,
    cards: Vec<Card>,
    meter: String,
    reasons: Vec<(&'static str, String, String)>,
    check: Option<(&'static str, &'static str, Vec<String>)>,
    receipts: Vec<ReceiptRow>,
}

struct ReceiptRow {
    when: String,
    batch: u32,
    operation: &'static str,
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

/// The page of one task.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn task(view: &TaskView, now: Timestamp) -> Rendered {
    let TaskView { task, run, receipts, check, is_replaced } = view;
    let (state, tone) = show::task(task.state);
    let skipped = run.skipped.iter().map(|(why, rows)| ("skipped", why.clone(), count(*rows)));
    let rejected = run.rejected.iter().map(|(why, rows)| ("rejected", why.clone(), count(*rows)));
    let refused = run.refused_values().map(|(why, rows)| ("refused", why.to_owned(), count(rows)));
    let batches_done = match remaining(task, now) {
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
        error: task.last_error.clone().filter(|_| task.state != ActivationTaskState::Done),
        action: work::approve(run).or_else(|| work::requeue(task, *is_replaced)),
        cards: vec![
            card("batches", format!("{} of {}", task.batches_done, task.batches), batches_done),
            card("read", count(run.read), "read"),
            card("sent", count(run.sent), "sent"),
            card("skipped", count(sum(&run.skipped)), "skipped"),
            card("rejected", count(sum(&run.rejected)), "rejected"),
            card("pending", count(run.pending), "pending"),
        ],
        meter: run_meter(run),
        reasons: skipped.chain(rejected).chain(refused).collect(),
        check: check.as_ref().map(|check| {
            let (verdict, tone) = show::verdict(check.verdict);
            (verdict, tone, check.reasons.clone())
        }),
        receipts: receipts.iter().rev().take(MAX_RECEIPTS).map(receipt_row).collect(),
    };
    page.render()
}

fn receipt_row(receipt: &ActivationReceipt) -> ReceiptRow {
    ReceiptRow {
        when: show::when(receipt.at),
        batch: receipt.batch,
        operation: match receipt.operation {
            ActivationOperation::Add => "add",
            ActivationOperation::Remove => "remove",
            ActivationOperation::Replace => "replace",
        },
        rows: count(receipt.rows),
        received: count(receipt.received),
        invalid: count(receipt.invalid),
        response: match (receipt.http_status, receipt.error_code) {
            (0, _) => "no response: the connection failed".to_owned(),
            (status, Some(code)) => format!("HTTP {status}, error {code}"),
            (status, None) => format!("HTTP {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use throng_model::SyncRunId;

    use super::*;

    fn task(state: ActivationTaskState, batches_done: u32) -> ActivationTask {
        ActivationTask {
            id: TaskId(1),
            run: SyncRunId(1),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            state,
            priority: 0,
            failures: 0,
            not_before: Timestamp(60_000_000),
            holder: None,
            lease_until: None,
            batches: 4,
            batches_done,
            last_error: None,
            created_at: Timestamp(0),
            finished_at: None,
        }
    }

    #[test]
    fn a_task_shows_its_remaining_time_or_its_next_retry() {
        let now = Timestamp(10_000_000);
        let running = task(ActivationTaskState::Running, 1);
        assert_eq!(remaining(&running, now).as_deref(), Some("30 s remaining"));
        assert_eq!(remaining(&task(ActivationTaskState::Running, 0), now), None);
        let mut queued = task(ActivationTaskState::Queued, 1);
        assert_eq!(remaining(&queued, now), None);
        queued.last_error = Some("throttled".to_owned());
        let retry = remaining(&queued, now);
        assert_eq!(retry.as_deref(), Some("next retry at 1970-01-01 00:01:00 UTC"));
    }
}
