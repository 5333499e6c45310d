//! Operations on runs and tasks.

use std::collections::{HashMap, HashSet};

use throng_activation::RunScope;
use throng_api::{
    ActivationRun, ActivationTask, ActivationTaskState, RunRequested, TaskDetail, TaskList,
};
use throng_model::{SyncName, SyncRunId, TaskId, WorkspaceName};
use throng_store::{
    AlertKind, Check, DeliveredRecord, HistoryEvent, LedgerError, ListPage, RunState, SubjectKind,
    SyncRun, Task, TaskState, WorkSort,
};

use crate::error::{OperationError, Result};
use crate::mapping::activation as mapping;
use crate::record::Record;
use crate::{Operations, syncs};

/// The newest runs, newest first.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(operations: &Operations, limit: u32) -> Result<Vec<ActivationRun>, LedgerError> {
    let runs = match &operations.workspace {
        Some(workspace) => operations.ledger.list_runs(&newest_of(workspace, None, limit)).await?,
        None => operations.ledger.runs(None, limit).await?,
    };
    Ok(runs.into_iter().map(mapping::run).collect())
}

/// The newest runs or tasks of a workspace.
fn newest_of<S>(workspace: &WorkspaceName, state: Option<S>, limit: u32) -> ListPage<WorkSort, S> {
    ListPage {
        workspace: Some(workspace.clone()),
        search: None,
        state,
        order: WorkSort::Id,
        descending: true,
        after: None,
        limit,
    }
}

/// The newest checks.
///
/// # Errors
/// [`LedgerError`].
pub async fn checks(operations: &Operations, limit: u32) -> Result<Vec<Check>, LedgerError> {
    match &operations.workspace {
        Some(workspace) => operations.ledger.workspace_checks(workspace, limit).await,
        None => operations.ledger.checks(limit).await,
    }
}

/// Tasks: running ones first, then queued ones, then finished ones; and the number of all tasks by state.
///
/// # Errors
/// [`LedgerError`].
pub async fn tasks(operations: &Operations, limit: u32) -> Result<TaskList, LedgerError> {
    tasks_of(operations, operations.workspace.as_ref(), limit).await
}

/// The tasks of a workspace, or of all, as [`tasks`] lists them.
pub(crate) async fn tasks_of(
    operations: &Operations,
    workspace: Option<&WorkspaceName>,
    limit: u32,
) -> Result<TaskList, LedgerError> {
    let now = operations.clock.now();
    let tasks = match workspace {
        Some(workspace) => tasks_by_state(operations, workspace, limit).await?,
        None => operations.ledger.tasks(limit).await?,
    };
    let tasks = tasks.into_iter().map(|task| mapping::task_progress(task, now)).collect();
    let counts = task_counts_of(operations, workspace).await?;
    Ok(TaskList { tasks, counts, next_cursor: None, previous_cursor: None })
}

/// The tasks of a workspace: running ones, then queued and held ones, then ended ones; each newest first.
async fn tasks_by_state(
    operations: &Operations,
    workspace: &WorkspaceName,
    limit: u32,
) -> Result<Vec<Task>, LedgerError> {
    let mut tasks: Vec<Task> = Vec::new();
    for states in [
        [TaskState::Running].as_slice(),
        &[TaskState::Queued, TaskState::Held],
        &[TaskState::Done, TaskState::Failed],
    ] {
        let mut group: Vec<Task> = Vec::new();
        for state in states {
            let page = newest_of(workspace, Some(*state), limit);
            group.extend(operations.ledger.list_tasks(&page).await?);
        }
        group.sort_by_key(|task| std::cmp::Reverse((task.finished_at, task.id.0)));
        tasks.extend(group);
    }
    tasks.truncate(limit as usize);
    Ok(tasks)
}

/// The number of tasks by state; states without a task are left out.
///
/// # Errors
/// [`LedgerError`].
pub async fn task_counts(
    operations: &Operations,
) -> Result<Vec<(ActivationTaskState, u64)>, LedgerError> {
    task_counts_of(operations, operations.workspace.as_ref()).await
}

/// The number of tasks by state of a workspace, or of all.
pub(crate) async fn task_counts_of(
    operations: &Operations,
    workspace: Option<&WorkspaceName>,
) -> Result<Vec<(ActivationTaskState, u64)>, LedgerError> {
    let counts = match workspace {
        Some(workspace) => operations.ledger.workspace_task_counts(workspace).await?,
        None => operations.ledger.task_counts().await?,
    };
    let counts = counts.into_iter();
    Ok(counts.map(|(state, count)| (mapping::task_state(state), count)).collect())
}

/// A task of the caller's workspace. One of another workspace is answered as one that does not exist.
///
/// # Errors
/// [`LedgerError`].
pub async fn visible_task(operations: &Operations, id: TaskId) -> Result<Task, LedgerError> {
    let task = operations.ledger.task(id).await?;
    match operations.can_access(task.sync.workspace()) {
        true => Ok(task),
        false => Err(LedgerError::not_found("task", id)),
    }
}

/// Those of the failed tasks that a newer run of their sync replaces, so that they cannot be queued again. Reads the
/// newest run of each of their syncs.
///
/// # Errors
/// [`LedgerError`].
pub async fn replaced_tasks(
    operations: &Operations,
    tasks: &[&ActivationTask],
) -> Result<HashSet<TaskId>, LedgerError> {
    let mut newest: HashMap<&SyncName, Option<SyncRunId>> = HashMap::new();
    let mut replaced = HashSet::new();
    for task in tasks {
        if task.state != ActivationTaskState::Failed {
            continue;
        }
        let known = newest.get(&task.sync).copied();
        let newest_run = match known {
            Some(run) => run,
            None => {
                let runs = operations.ledger.runs(Some(&task.sync), 1).await?;
                let run = runs.first().map(|run| run.id);
                newest.insert(&task.sync, run);
                run
            }
        };
        if newest_run.is_some_and(|newest| newest > task.run) {
            replaced.insert(task.id);
        }
    }
    Ok(replaced)
}

/// A run of the caller's workspace, as [`visible_task`].
async fn visible_run(operations: &Operations, id: SyncRunId) -> Result<SyncRun, LedgerError> {
    let run = operations.ledger.run(id).await?;
    match operations.can_access(run.sync.workspace()) {
        true => Ok(run),
        false => Err(LedgerError::not_found("run", id)),
    }
}

/// One task with its run, batches, receipts and check.
///
/// # Errors
/// [`LedgerError`]; `NotFound` if there is no such task.
pub async fn task(operations: &Operations, id: TaskId) -> Result<TaskDetail, LedgerError> {
    let ledger = &operations.ledger;
    let task = visible_task(operations, id).await?;
    let check = ledger.check_of(task.id).await?;
    let run = ledger.run(task.run).await?;
    let batches = ledger.batches(task.id).await?;
    let receipts = ledger.receipts(task.id).await?;
    Ok(TaskDetail {
        run: mapping::run(run),
        batches: batches.into_iter().map(mapping::batch).collect(),
        receipts: receipts.into_iter().map(mapping::receipt).collect(),
        check: check.map(mapping::check),
        task: mapping::task_progress(task, operations.clock.now()),
    })
}

/// Approves a held run.
///
/// # Errors
/// [`OperationError`].
pub async fn approve(operations: &Operations, id: SyncRunId, actor: &str) -> Result<ActivationRun> {
    let now = operations.clock.now();
    let found = visible_run(operations, id).await?;
    let account = throng_activation::account_alert_subject(&found.destination);
    let account_held = operations.ledger.open_alert(AlertKind::RunHeld, &account).await?.is_some();
    let approved = operations.ledger.approve_run(id, account_held, now).await;
    approved.map_err(|error| match error {
        LedgerError::WrongState { .. } if account_held && found.state == RunState::Held => {
            let name = &found.destination;
            let help = format!("`throng sync approve --destination {name}` first, then the run");
            OperationError::wrong_state(error.to_string()).help(help)
        }
        error => error.into(),
    })?;
    let run = operations.ledger.run(id).await?;
    operations.ledger.resolve_alert(AlertKind::RunHeld, run.sync.as_str(), now).await?;
    let why = format!("run {id} with {} removals was approved", run.removes);
    syncs::finish(operations, &run.sync, actor, HistoryEvent::Approved, why).await?;
    Ok(mapping::run(run))
}

/// Approves the runs of a destination that are held because of failed checks of the account; returns how many. Those that
/// have sent nothing are planned again, because the cause may be in their identifiers. Runs that are held for another
/// cause, such as their removals, are approved one by one. What the platform has refused or not confirmed, and is retried
/// later, is retried now: the cause is said to be gone.
///
/// # Errors
/// [`OperationError`].
pub async fn approve_destination(operations: &Operations, name: &str, actor: &str) -> Result<u64> {
    let spec = &operations.spec;
    let wanted = operations.qualified(name);
    let found = spec.destinations.iter().find(|destination| destination.name.as_str() == wanted);
    let Some(destination) = found else {
        let message = format!("no destination `{name}` in the applied spec");
        let help = "`throng sync list` shows the destinations of the syncs";
        return Err(OperationError::not_found(message).help(help));
    };
    let name = &destination.name;
    let now = operations.clock.now();
    let subject = throng_activation::account_alert_subject(name);
    let reason = throng_activation::failed_checks_reason(name);
    // First, because the planner holds new runs while this alert is open.
    operations.ledger.resolve_alert(AlertKind::RunHeld, &subject, now).await?;
    let held = held_syncs(operations).await?;
    let of_destination =
        |sync: &SyncName| spec.syncs.iter().any(|s| s.name == *sync && s.destination == *name);
    let approved = operations.ledger.approve_destination(name, Some(&reason), now).await?;
    let still_held = held_syncs(operations).await?;
    for sync in &held {
        if of_destination(sync) && !still_held.contains(sync) {
            operations.ledger.resolve_alert(AlertKind::RunHeld, sync.as_str(), now).await?;
        }
    }
    retry_now(operations, of_destination).await?;
    let record = Record {
        subject_kind: SubjectKind::Destination,
        subject: name.as_str(),
        what: HistoryEvent::Approved,
        why: format!("{approved} runs that were held with the account were approved"),
        actor,
    };
    record.write(operations).await?;
    operations.observer.wake_activation();
    operations.observer.activation_changed();
    Ok(approved)
}

/// Makes retries due that these syncs have at a later time.
async fn retry_now(operations: &Operations, is_wanted: impl Fn(&SyncName) -> bool) -> Result<()> {
    let now = operations.clock.now();
    for record in operations.ledger.delivered_records().await? {
        if is_wanted(&record.sync) && record.retry_at.is_some_and(|at| at > now) {
            let due = DeliveredRecord { retry_at: Some(now), ..record.clone() };
            // Otherwise a result was recorded or a run was requested since, which sets the time of the next retry.
            operations.ledger.replace_delivered_record(Some(&record), &due, &[]).await?;
        }
    }
    Ok(())
}

/// The syncs whose newest run is held.
async fn held_syncs(operations: &Operations) -> Result<Vec<SyncName>> {
    let mut syncs = operations.ledger.incomplete_syncs().await?;
    syncs.retain(|(_, state)| *state == RunState::Held);
    Ok(syncs.into_iter().map(|(sync, _)| sync).collect())
}

/// Puts a failed task back into the queue, and ends the backoff of its account. While the sync waits for members it is
/// refused: the task would create the list on the platform, with users who have left the audience since.
///
/// # Errors
/// [`OperationError`].
pub async fn requeue(operations: &Operations, id: TaskId, actor: &str) -> Result<ActivationTask> {
    let sync = visible_task(operations, id).await?.sync;
    syncs::refuse_paused(operations, &sync).await?;
    syncs::refuse_without_members(operations, &sync).await?;
    queue_again(operations, id, actor).await
}

/// Puts a failed task that is not refused back into the queue.
async fn queue_again(operations: &Operations, id: TaskId, actor: &str) -> Result<ActivationTask> {
    let now = operations.clock.now();
    operations.ledger.requeue_task(id, now).await?;
    let task = operations.ledger.task(id).await?;
    operations.ledger.end_backoff(&task.destination, now).await?;
    let why = format!("task {id} is queued again, and the backoff of its account is ended");
    syncs::finish(operations, &task.sync, actor, HistoryEvent::Requeued, why).await?;
    Ok(mapping::task(task))
}

/// Requests a run of a sync, as [`syncs::run`] does. If its first run has failed, there is no delivered state to plan from:
/// that run continues.
///
/// # Errors
/// [`OperationError`].
pub async fn request(
    operations: &Operations,
    sync: &SyncName,
    scope: RunScope,
    actor: &str,
) -> Result<RunRequested> {
    syncs::refuse_paused(operations, sync).await?;
    syncs::refuse_removal(operations, sync).await?;
    syncs::refuse_without_members(operations, sync).await?;
    match failed_first_task(operations, sync).await? {
        Some(task) => {
            queue_again(operations, task, actor).await?;
            Ok(RunRequested { sync: sync.clone(), blocked: None })
        }
        None => syncs::run(operations, sync, scope, actor).await,
    }
}

/// The failed task of a sync that has no recorded delivery. A run without a plan is older than `throng sync recreate`:
/// another one is planned for it.
async fn failed_first_task(operations: &Operations, sync: &SyncName) -> Result<Option<TaskId>> {
    let ledger = &operations.ledger;
    if ledger.delivered_record(sync).await?.is_some() {
        return Ok(None);
    }
    match ledger.runs(Some(sync), 1).await?.first() {
        Some(run)
            if run.state == RunState::Failed
                && run.plan.is_some()
                && has_declared_ends(operations, run) =>
        {
            Ok(Some(ledger.task_of_run(run.id).await?.id))
        }
        _ => Ok(None),
    }
}

/// Whether a run is one of the audience and the destination that its sync has now: to continue another one would send
/// users of another audience.
fn has_declared_ends(operations: &Operations, run: &SyncRun) -> bool {
    let declared = operations.spec.syncs.iter().find(|sync| sync.name == run.sync);
    declared.is_some_and(|sync| {
        (&sync.audience, &sync.destination) == (&run.audience, &run.destination)
    })
}

/// Enqueues the due tasks again, in case their messages were lost; returns how many. The history has no entry, and
/// no actor: the leader does the same by itself.
///
/// # Errors
/// [`OperationError`].
pub async fn enqueue_due(operations: &Operations) -> Result<u64> {
    let Operations { ledger, clock, tasks, .. } = operations;
    let enqueued =
        throng_activation::enqueue_due_tasks(&**ledger, &**clock, &**tasks, clock.now()).await;
    enqueued.map_err(|error| OperationError::Component(error.into()))
}
