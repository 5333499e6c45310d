//! Pages of audiences, syncs, runs, tasks and alerts, searched, filtered and sorted.

mod cursor;
mod listing;

use std::collections::BTreeMap;

use throng_api::{
    ALERT_SORTS, ALERT_STATES, AUDIENCE_SORTS, AUDIENCE_STATES, ActivationTask, AlertList,
    AudienceList, AudienceSummary, ListQuery, MAX_LIST_ROWS, REJECTED_RUNS, RUN_STATES, RunList,
    SYNC_SORTS, SYNC_STATES, SyncList, TASK_STATES, TaskCounts, TaskList, TaskSummary,
    TasksOfDestination, WORK_SORTS,
};
use throng_model::{DestinationName, SyncRunId, WorkspaceName};
use throng_store::{
    AlertSort, AlertState, ListPage, RowKey, RowPlace, RunFilter, RunState, StoredEnum, Task,
    TaskCount, TaskState, WorkSort,
};

use crate::error::{OperationError, Result};
use crate::mapping::{activation, alerts as alert_mapping};
use crate::{Operations, alerts, audiences, runs, syncs};
use cursor::{Key, Place};
use listing::{Fields, Listing, invalid_cursor};

/// Runs, tasks and alerts of one answer if the request sets no limit.
const DEFAULT_RUNS: u32 = 500;
const DEFAULT_TASKS: u32 = 500;
const DEFAULT_ALERTS: u32 = 200;

fn text(name: impl ToString) -> Key {
    Key::Text(name.to_string())
}

/// A number that may be absent: without it a row comes before those with one.
fn number(number: Option<u64>) -> Key {
    Key::Number(number.map_or(-1, |number| i64::try_from(number).unwrap_or(i64::MAX)))
}

/// Whether a request leaves a list whole, as clients of earlier versions expect.
fn is_whole(query: &ListQuery) -> bool {
    let without_filters = ListQuery { search: None, state: None, ..query.clone() };
    query.limit.is_none() && without_filters.is_unfiltered()
}

/// The workspace whose rows a request wants: that of the caller, if it is limited to one. `None`: all rows.
///
/// # Errors
/// [`OperationError`] for a text that is not a name, and for a workspace that the caller may not know of.
fn workspace_of(operations: &Operations, query: &ListQuery) -> Result<Option<WorkspaceName>> {
    let text = query.workspace.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(operations.workspace.clone()) };
    let workspace = WorkspaceName::new(text).map_err(|_| {
        OperationError::invalid("`workspace` is not the name of a workspace".to_owned())
    })?;
    match operations.can_access(Some(workspace.as_str())) {
        true => Ok(Some(workspace)),
        false => Err(OperationError::not_found(format!("no workspace `{workspace}`"))),
    }
}

/// Whether an object of a list is in the wanted workspace.
fn is_in(wanted: Option<&WorkspaceName>, workspace: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| workspace == Some(wanted.as_str()))
}

/// The audiences of the applied spec. Without order, limit and cursor: all that match, in the order of the spec.
///
/// # Errors
/// [`OperationError`].
pub async fn audiences(operations: &Operations, query: &ListQuery) -> Result<AudienceList> {
    let fields = Fields {
        list: "audiences",
        sorts: AUDIENCE_SORTS,
        states: AUDIENCE_STATES,
        default_sort: "name",
        default_limit: MAX_LIST_ROWS,
    };
    let listing = Listing::of(query, &fields)?;
    let wanted = workspace_of(operations, query)?;
    let mut list = audiences::list(operations).await?;
    list.audiences.retain(|audience| {
        is_in(wanted.as_ref(), audience.name.workspace())
            && listing.finds(&[audience.name.as_str()])
            && listing.state.is_none_or(|state| is_in_state(audience, state))
    });
    if is_whole(query) {
        return Ok(list);
    }
    let place = |audience: &AudienceSummary| {
        let current = audience.current.as_ref();
        let key = match listing.field {
            "members" => number(current.map(|current| current.members)),
            "built_at" => Key::Number(current.map_or(-1, |current| current.created_at.0)),
            _ => text(&audience.name),
        };
        (key, audience.name.to_string())
    };
    let page = listing.page_of(list.audiences, place);
    Ok(AudienceList {
        audiences: page.rows,
        next_cursor: page.next_cursor,
        previous_cursor: page.previous_cursor,
    })
}

/// Whether an audience is in one of [`AUDIENCE_STATES`].
fn is_in_state(audience: &AudienceSummary, state: &str) -> bool {
    match state {
        "paused" => audience.paused_at.is_some(),
        "pinned" => audience.pinned_at.is_some(),
        _ => match audience.refresh.as_ref().map(|newest| &newest.refresh) {
            None => state == "waiting",
            Some(newest) if newest.unchanged => state == "unchanged",
            Some(newest) => state == newest.state.as_str(),
        },
    }
}

/// The syncs of the applied spec. Without order, limit and cursor: all that match, in the order of the spec.
///
/// # Errors
/// [`OperationError`].
pub async fn syncs(operations: &Operations, query: &ListQuery) -> Result<SyncList> {
    let fields = Fields {
        list: "syncs",
        sorts: SYNC_SORTS,
        states: SYNC_STATES,
        default_sort: "name",
        default_limit: MAX_LIST_ROWS,
    };
    let listing = Listing::of(query, &fields)?;
    let wanted = workspace_of(operations, query)?;
    let mut list = syncs::list(operations).await?;
    list.destinations.retain(|name| is_in(wanted.as_ref(), name.workspace()));
    list.syncs.retain(|sync| {
        let names = [sync.name.as_str(), sync.audience.as_str(), sync.destination.as_str()];
        let is_paused = sync.paused_at.is_some();
        is_in(wanted.as_ref(), sync.name.workspace())
            && listing.finds(&names)
            && listing.state.is_none_or(|state| (state == "paused") == is_paused)
    });
    if is_whole(query) {
        return Ok(list);
    }
    let page = listing.page_of(list.syncs, |sync| {
        let key = match listing.field {
            "audience" => text(&sync.audience),
            "destination" => text(&sync.destination),
            "delivered_users" => number(sync.delivered_users),
            _ => text(&sync.name),
        };
        (key, sync.name.to_string())
    });
    Ok(SyncList {
        syncs: page.rows,
        destinations: list.destinations,
        next_cursor: page.next_cursor,
        previous_cursor: page.previous_cursor,
    })
}

/// The page to read from the ledger. `by_name`: whether the order is one of names, not of numbers.
fn ledger_page<O, S>(
    listing: &Listing,
    workspace: Option<WorkspaceName>,
    order: O,
    by_name: bool,
    state: Option<S>,
) -> Result<ListPage<O, S>> {
    let after = match &listing.from {
        None => None,
        Some(from) => {
            let (key, id) = &from.place;
            let key = match key {
                Key::Number(number) if !by_name => RowKey::Number(*number),
                // No name has control characters, and PostgreSQL refuses some of them.
                Key::Text(text) if by_name && !text.contains(char::is_control) => {
                    RowKey::Text(text.clone())
                }
                _ => return Err(invalid_cursor()),
            };
            Some(RowPlace { key, id: id.parse().map_err(|_| invalid_cursor())? })
        }
    };
    Ok(ListPage {
        workspace,
        search: listing.search.clone(),
        state,
        order,
        descending: listing.reads_descending(),
        after,
        // One more shows whether another page follows.
        limit: listing.limit + 1,
    })
}

/// The order of runs and tasks, and whether it is one of names.
fn work_order(field: &str) -> (WorkSort, bool) {
    match field {
        "sync" => (WorkSort::Sync, true),
        "audience" => (WorkSort::Audience, true),
        _ => (WorkSort::Id, false),
    }
}

/// The place of a run or task.
fn work_place(field: &str, id: i64, sync: impl ToString, audience: impl ToString) -> Place {
    let key = match field {
        "sync" => text(sync),
        "audience" => text(audience),
        _ => Key::Number(id),
    };
    (key, id.to_string())
}

/// The runs, newest first by default.
///
/// # Errors
/// [`OperationError`].
pub async fn runs(operations: &Operations, query: &ListQuery) -> Result<RunList> {
    let fields = Fields {
        list: "runs",
        sorts: WORK_SORTS,
        states: RUN_STATES,
        default_sort: "-id",
        default_limit: DEFAULT_RUNS,
    };
    let listing = Listing::of(query, &fields)?;
    let (order, by_name) = work_order(listing.field);
    let state = listing.state.and_then(|state| match state {
        REJECTED_RUNS => Some(RunFilter::Rejected),
        state => RunState::of_stored_name(state).map(RunFilter::State),
    });
    let workspace = workspace_of(operations, query)?;
    let page = ledger_page(&listing, workspace, order, by_name, state)?;
    let rows = operations.ledger.list_runs(&page).await?;
    let page =
        listing.page(rows, |run| work_place(listing.field, run.id.0, &run.sync, &run.audience));
    Ok(RunList {
        runs: page.rows.into_iter().map(activation::run).collect(),
        next_cursor: page.next_cursor,
        previous_cursor: page.previous_cursor,
    })
}

/// What a list of tasks can be sorted and filtered by.
const TASK_FIELDS: Fields = Fields {
    list: "tasks",
    sorts: WORK_SORTS,
    states: TASK_STATES,
    default_sort: "-id",
    default_limit: DEFAULT_TASKS,
};

/// The tasks. Without any parameter but a limit: running ones first, then queued ones, then ended ones; otherwise
/// newest first by default.
///
/// # Errors
/// [`OperationError`].
pub async fn tasks(operations: &Operations, query: &ListQuery) -> Result<TaskList> {
    let listing = Listing::of(query, &TASK_FIELDS)?;
    let workspace = workspace_of(operations, query)?;
    if query.is_unfiltered() {
        return Ok(runs::tasks_of(operations, workspace.as_ref(), listing.limit).await?);
    }
    let (order, by_name) = work_order(listing.field);
    let state = listing.state.and_then(TaskState::of_stored_name);
    let page = ledger_page(&listing, workspace.clone(), order, by_name, state)?;
    let rows = operations.ledger.list_tasks(&page).await?;
    let page =
        listing.page(rows, |task| work_place(listing.field, task.id.0, &task.sync, &task.audience));
    let now = operations.clock.now();
    let tasks = page.rows.into_iter().map(|task| activation::task_progress(task, now));
    Ok(TaskList {
        tasks: tasks.collect(),
        counts: runs::task_counts_of(operations, workspace.as_ref()).await?,
        next_cursor: page.next_cursor,
        previous_cursor: page.previous_cursor,
    })
}

/// The failed tasks that can be queued again, in the order of ids, and the cursor of further ones. A state is not used.
///
/// # Errors
/// [`OperationError`].
pub(crate) async fn requeueable_tasks(
    operations: &Operations,
    query: &ListQuery,
) -> Result<(Vec<Task>, Option<String>)> {
    let listing = Listing::of(query, &TASK_FIELDS)?;
    let workspace = workspace_of(operations, query)?;
    let page = ledger_page(&listing, workspace, WorkSort::Id, false, None)?;
    let rows = operations.ledger.list_requeueable_tasks(&page).await?;
    let page = listing.page(rows, |task| work_place("id", task.id.0, &task.sync, &task.audience));
    Ok((page.rows, page.next_cursor))
}

/// The numbers of the tasks that match search, state and workspace, by destination and state.
///
/// # Errors
/// [`OperationError`].
pub async fn task_summary(operations: &Operations, query: &ListQuery) -> Result<TaskSummary> {
    let listing = Listing::of(query, &TASK_FIELDS)?;
    let workspace = workspace_of(operations, query)?;
    let state = listing.state.and_then(TaskState::of_stored_name);
    let page = ledger_page(&listing, workspace, WorkSort::Id, false, state)?;
    Ok(summary_of(operations.ledger.count_tasks(&page).await?))
}

/// Counts by destination and state as a summary, in the order of the names.
fn summary_of(counts: Vec<TaskCount>) -> TaskSummary {
    let mut by_destination: BTreeMap<DestinationName, (TaskCounts, u64)> = BTreeMap::new();
    let mut summary = TaskSummary::default();
    for TaskCount { destination, state, tasks, batches_left } in counts {
        // Those of failed tasks are sent only if a person queues them again.
        let is_open = matches!(state, TaskState::Queued | TaskState::Running | TaskState::Held);
        let left = if is_open { batches_left } else { 0 };
        let state = activation::task_state(state);
        let (of_destination, left_of_destination) = by_destination.entry(destination).or_default();
        of_destination.add(state, tasks);
        *left_of_destination = left_of_destination.saturating_add(left);
        summary.tasks.add(state, tasks);
        summary.batches_left = summary.batches_left.saturating_add(left);
    }
    let destinations = by_destination.into_iter().map(|(destination, (tasks, batches_left))| {
        TasksOfDestination { destination, tasks, batches_left }
    });
    summary.destinations = destinations.collect();
    summary
}

/// The runs with their tasks.
///
/// # Errors
/// [`OperationError`].
pub async fn runs_with_tasks(
    operations: &Operations,
    query: &ListQuery,
) -> Result<(RunList, Vec<ActivationTask>)> {
    let list = runs(operations, query).await?;
    let ids: Vec<SyncRunId> = list.runs.iter().map(|run| run.id).collect();
    let tasks = operations.ledger.tasks_of_runs(&ids).await?;
    Ok((list, tasks.into_iter().map(activation::task).collect()))
}

/// The alerts. Without any parameter but a limit: open ones first, without the first `offset`; otherwise newest first
/// by default.
///
/// # Errors
/// [`OperationError`].
pub async fn alerts(operations: &Operations, query: &ListQuery, offset: u32) -> Result<AlertList> {
    let workspace = workspace_of(operations, query)?;
    if query.is_unfiltered() {
        let limit = query.limit.unwrap_or(DEFAULT_ALERTS).min(MAX_LIST_ROWS);
        return Ok(alerts::list(operations, workspace.as_ref(), limit, offset).await?);
    }
    if offset > 0 {
        let message = "`offset` cannot be combined with search, state, sort and cursor".to_owned();
        return Err(OperationError::invalid(message).help("send `next_cursor` as `cursor`"));
    }
    let fields = Fields {
        list: "alerts",
        sorts: ALERT_SORTS,
        states: ALERT_STATES,
        default_sort: "-id",
        default_limit: DEFAULT_ALERTS,
    };
    let listing = Listing::of(query, &fields)?;
    let order = match listing.field {
        "last_at" => AlertSort::LastAt,
        _ => AlertSort::Id,
    };
    let state = listing.state.map(|state| match state {
        "open" => AlertState::Open,
        _ => AlertState::Resolved,
    });
    let page = ledger_page(&listing, workspace.clone(), order, false, state)?;
    let rows = operations.ledger.list_alerts(&page).await?;
    let page = listing.page(rows, |alert| {
        let key = match order {
            AlertSort::LastAt => alert.last_at.0,
            AlertSort::Id => alert.id,
        };
        (Key::Number(key), alert.id.to_string())
    });
    let ids: Vec<i64> = page.rows.iter().map(|alert| alert.id).collect();
    let deliveries = operations.ledger.deliveries_of(&ids).await?;
    let items = page.rows.into_iter().map(|alert| alert_mapping::item(alert, &deliveries));
    Ok(AlertList {
        alerts: items.collect(),
        next_cursor: page.next_cursor,
        previous_cursor: page.previous_cursor,
        // Totals and receivers.
        ..alerts::list(operations, workspace.as_ref(), 0, 0).await?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_sorted_and_has_no_batches_of_ended_tasks() {
        let count = |destination: &str, state, tasks, batches_left| TaskCount {
            destination: destination.parse().unwrap(),
            state,
            tasks,
            batches_left,
        };
        let summary = summary_of(vec![
            count("tiktok", TaskState::Failed, 3, 7),
            count("meta", TaskState::Queued, 2, 8),
            count("meta", TaskState::Done, 5, 0),
            count("meta", TaskState::Held, 1, 4),
        ]);
        let names: Vec<&str> =
            summary.destinations.iter().map(|of| of.destination.as_str()).collect();
        assert_eq!(names, ["meta", "tiktok"]);
        let meta = TaskCounts { queued: 2, held: 1, done: 5, ..TaskCounts::default() };
        assert_eq!(
            (summary.destinations[0].tasks, summary.destinations[0].batches_left),
            (meta, 12)
        );
        assert_eq!(summary.destinations[1].batches_left, 0, "nobody sends them");
        assert_eq!((summary.tasks, summary.batches_left), (TaskCounts { failed: 3, ..meta }, 12));
    }
}
