//! Pages of long lists in SQL.

use async_trait::async_trait;
use throng_model::{SyncRunId, WorkspaceName};
use throng_sql::statement::{Statement, StatementBuilder};

use super::{alerts, history, runs, sync, tasks};
use crate::backend::{Backend, SqlLedger, read_one};
use crate::dialect::ROWS_PER_STATEMENT;
use crate::rows::{Cells, DbRow};
use crate::{
    Alert, AlertSort, AlertState, AlertTotals, Check, Delivery, HistoryEntry, ListLedger, ListPage,
    Result, RowKey, RunFilter, RunState, SyncRun, Task, TaskCount, TaskState, WorkSort,
};

/// The columns in which runs and tasks are searched.
const WORK_NAMES: &[&str] = &["sync", "audience", "destination"];
/// The columns in which alerts are searched.
const ALERT_TEXTS: &[&str] = &["coalesce(a.cause, a.kind)", "a.subject", "a.message"];

/// What is before the name of an object in the subjects of alerts about audiences, syncs and their runs.
const ALERT_SUBJECTS: &[&str] = &["", "destination ", "removal ", "serving store "];

/// The column of an order; `None`: the id.
fn work_column(order: WorkSort) -> Option<&'static str> {
    match order {
        WorkSort::Id => None,
        WorkSort::Sync => Some("sync"),
        WorkSort::Audience => Some("audience"),
    }
}

/// Appends the condition that a text begins with a name of a workspace, after `before`. Compared by parts of the text,
/// because an order of names depends on the collation of the database.
fn begins_in(
    select: StatementBuilder,
    text: &str,
    before: &str,
    workspace: &WorkspaceName,
) -> StatementBuilder {
    let prefix = format!("{before}{workspace}:");
    // Both are the lengths of ASCII texts.
    let (length, next) = (prefix.len(), prefix.len() + 1);
    let select = select.push(&format!("(substr({text}, 1, {length}) = ")).values(prefix);
    // A name follows: the subject `serving store acme: buyers` is about a store `acme`.
    select.push(&format!(" AND substr({text}, {next}, 1) <> ' ')"))
}

/// Appends the condition that a name is of a workspace, for the indexes of `0026_workspace_lists.sql`. SQLite uses an
/// index of an expression only for the same text.
fn is_in(select: StatementBuilder, name: &str, workspace: &WorkspaceName) -> StatementBuilder {
    let place = select.dialect().place_function();
    let select = select.push(&format!("substr({name}, 1, {place}({name}, ':')) = "));
    select.values(format!("{workspace}:"))
}

/// Appends the condition that a run or task is of the page's workspace, if it has one.
fn work_in<S>(select: StatementBuilder, page: &ListPage<WorkSort, S>) -> StatementBuilder {
    match (&page.workspace, page.order) {
        (None, _) => select,
        (Some(workspace), WorkSort::Id) => is_in(select.push(" AND "), "sync", workspace),
        // The index of the order is the better one: it ends with the page, and the other one's rows have to be sorted.
        (Some(workspace), _) => begins_in(select.push(" AND "), "sync", "", workspace),
    }
}

/// Appends the condition that an alert `a` is about an object of a workspace. Alerts about nodes, storage and budgets
/// are about none, whatever their subject.
fn alert_in(select: StatementBuilder, workspace: &WorkspaceName) -> StatementBuilder {
    let mut select = select.push("((a.cause IS NULL AND (");
    for (number, before) in ALERT_SUBJECTS.iter().enumerate() {
        select = select.push(if number == 0 { "" } else { " OR " });
        select = begins_in(select, "a.subject", before, workspace);
    }
    let select = select.push(")) OR (a.cause = 'null_keys' AND ");
    begins_in(select, "a.subject", "null_keys: ", workspace).push("))")
}

/// Appends the search to a SELECT that ends with a condition.
fn searched_in<O, S>(
    select: StatementBuilder,
    page: &ListPage<O, S>,
    searched: &[&str],
) -> StatementBuilder {
    match &page.search {
        Some(search) => select.and_contains(searched, search),
        None => select,
    }
}

/// Completes a SELECT that ends with a condition: the search, the place where the page begins, the order and the
/// limit. `column`: the one that the list is ordered by; `None`: the id.
fn complete<O, S>(
    select: StatementBuilder,
    page: &ListPage<O, S>,
    searched: &[&str],
    column: Option<&str>,
) -> Statement {
    let mut select = searched_in(select, page, searched);
    let (than, direction) = if page.descending { (" < ", " DESC") } else { (" > ", "") };
    if let Some(place) = &page.after {
        select = match (column, &place.key) {
            (None, _) => select.push(" AND id").push(than).values(place.id),
            (Some(column), RowKey::Number(key)) => {
                // SQLite does not compare an indexed expression in a row value by its index, but alone.
                let bound = if page.descending { " <= " } else { " >= " };
                let select = select.push(" AND ").push(column).push(bound).values(*key);
                let select = select.push(" AND (").push(column).push(", id)").push(than).push("(");
                select.values((*key, place.id)).push(")")
            }
            (Some(column), RowKey::Text(key)) => {
                let select = select.push(" AND (").push(column).push(", id)").push(than).push("(");
                select.values((key.as_str(), place.id)).push(")")
            }
        };
    }
    select = select.push(" ORDER BY ");
    if let Some(column) = column {
        select = select.push(column).push(direction).push(", ");
    }
    select.push("id").push(direction).push(" LIMIT ").values(page.limit).build(false)
}

fn task_count_of(row: &DbRow) -> Result<TaskCount> {
    let (state, tasks) = sync::count_of(row)?;
    let cells = Cells::new(row, "task");
    let (destination, batches_left) = (cells.name("destination")?, cells.number("batches_left")?);
    Ok(TaskCount { destination, state, tasks, batches_left })
}

#[async_trait]
impl<B: Backend> ListLedger for SqlLedger<B> {
    async fn list_runs(&self, page: &ListPage<WorkSort, RunFilter>) -> Result<Vec<SyncRun>> {
        read_one!(self, "reading a page of the runs", |tx| {
            let select = tx.build("SELECT ").push(runs::COLUMNS).push(" FROM sync_runs WHERE TRUE");
            let select = match page.state {
                Some(RunFilter::State(state)) => select.push(" AND state = ").values(state),
                Some(RunFilter::Rejected) => select
                    .push(" AND state = ")
                    .values(RunState::Completed)
                    .push(" AND sent = 0 AND rejected > 0"),
                None => select,
            };
            let select = work_in(select, page);
            let statement = complete(select, page, WORK_NAMES, work_column(page.order));
            let rows = tx.rows(statement).await?;
            rows.iter().map(runs::run_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn list_tasks(&self, page: &ListPage<WorkSort, TaskState>) -> Result<Vec<Task>> {
        read_one!(self, "reading a page of the tasks", |tx| {
            let select = tx.build("SELECT ").push(tasks::COLUMNS).push(" FROM tasks WHERE TRUE");
            let select = match page.state {
                Some(state) => select.push(" AND state = ").values(state),
                None => select,
            };
            let select = work_in(select, page);
            let statement = complete(select, page, WORK_NAMES, work_column(page.order));
            let rows = tx.rows(statement).await?;
            rows.iter().map(tasks::task_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn list_requeueable_tasks(
        &self,
        page: &ListPage<WorkSort, TaskState>,
    ) -> Result<Vec<Task>> {
        read_one!(self, "reading a page of the failed tasks", |tx| {
            let select = tx.build("SELECT ").push(tasks::COLUMNS).push(
                " FROM tasks WHERE state = 'failed' AND NOT EXISTS (SELECT 1 FROM sync_runs newer
                    WHERE newer.sync = tasks.sync AND newer.id > tasks.run)",
            );
            let select = work_in(select, page);
            let statement = complete(select, page, WORK_NAMES, work_column(page.order));
            let rows = tx.rows(statement).await?;
            rows.iter().map(tasks::task_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn count_tasks(&self, of: &ListPage<WorkSort, TaskState>) -> Result<Vec<TaskCount>> {
        read_one!(self, "counting the tasks of destinations", |tx| {
            let select = tx.build(
                "SELECT destination, state, count(*) AS tasks,
                    CAST(coalesce(sum(batches - batches_done), 0) AS BIGINT) AS batches_left
                 FROM tasks WHERE TRUE",
            );
            let select = match of.state {
                Some(state) => select.push(" AND state = ").values(state),
                None => select,
            };
            let select = searched_in(work_in(select, of), of, WORK_NAMES);
            let rows = tx.rows(select.push(" GROUP BY destination, state").build(false)).await?;
            rows.iter().map(task_count_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn tasks_of_runs(&self, runs: &[SyncRunId]) -> Result<Vec<Task>> {
        let runs = &runs[..runs.len().min(ROWS_PER_STATEMENT)];
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        read_one!(self, "reading the tasks of runs", |tx| {
            let select = tx.build("SELECT ").push(tasks::COLUMNS);
            let select = select.push(" FROM tasks WHERE run IN (").values(runs).push(")");
            let rows = tx.rows(select.build(false)).await?;
            rows.iter().map(tasks::task_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn list_alerts(&self, page: &ListPage<AlertSort, AlertState>) -> Result<Vec<Alert>> {
        read_one!(self, "reading a page of the alerts", |tx| {
            let select =
                tx.build("SELECT ").push(alerts::COLUMNS).push(" FROM alerts a WHERE TRUE");
            let select = match page.state {
                Some(AlertState::Open) => select.push(" AND a.resolved_at IS NULL"),
                Some(AlertState::Resolved) => select.push(" AND a.resolved_at IS NOT NULL"),
                None => select,
            };
            let select = match &page.workspace {
                Some(workspace) => alert_in(select.push(" AND "), workspace),
                None => select,
            };
            let column = match page.order {
                AlertSort::Id => None,
                AlertSort::LastAt => Some("coalesce(a.last_at, a.raised_at)"),
            };
            let rows = tx.rows(complete(select, page, ALERT_TEXTS, column)).await?;
            rows.iter().map(alerts::alert_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn workspace_task_counts(&self, of: &WorkspaceName) -> Result<Vec<(TaskState, u64)>> {
        read_one!(self, "counting the tasks of a workspace", |tx| {
            let select = tx.build("SELECT state, count(*) AS tasks FROM tasks WHERE ");
            let select = is_in(select, "sync", of).push(" GROUP BY state");
            let rows = tx.rows(select.build(true)).await?;
            let found = rows.iter().map(sync::count_of).collect::<Result<Vec<_>>>()?;
            sync::every_state(&found)
        })
    }

    async fn workspace_alert_totals(&self, of: &WorkspaceName) -> Result<AlertTotals> {
        read_one!(self, "counting the alerts of a workspace", |tx| {
            let select = tx.build(
                "SELECT count(*) AS total,
                    count(CASE WHEN a.resolved_at IS NULL THEN 1 END) AS still_open
                 FROM alerts a WHERE ",
            );
            let rows = tx.rows(alert_in(select, of).build(true)).await?;
            rows.first().map(alerts::totals_of).transpose()?.unwrap_or_default()
        })
    }

    async fn workspace_deliveries(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<Delivery>> {
        read_one!(self, "reading the deliveries of a workspace's alerts", |tx| {
            let select = alert_in(tx.build(alerts::DELIVERIES_OF_ALERTS), of);
            let select = select.push(" ORDER BY d.at DESC, d.event DESC, d.receiver LIMIT ");
            let rows = tx.rows(select.values(limit).build(true)).await?;
            rows.iter().map(alerts::delivery_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn workspace_checks(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<Check>> {
        read_one!(self, "reading the checks of a workspace", |tx| {
            let select = tx.build(
                "SELECT c.task, c.run, c.verdict, c.reasons, c.at
                 FROM checks c JOIN tasks t ON t.id = c.task WHERE ",
            );
            let select = begins_in(select, "t.sync", "", of);
            let select = select.push(" ORDER BY c.at DESC, c.task DESC LIMIT ").values(limit);
            let rows = tx.rows(select.build(true)).await?;
            rows.iter().map(sync::check_of).collect::<Result<Vec<_>>>()?
        })
    }

    async fn workspace_history(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<HistoryEntry>> {
        read_one!(self, "reading the history of a workspace", |tx| {
            let select = tx.build("SELECT ").push(history::COLUMNS).push(
                " FROM history WHERE subject_kind IN ('audience', 'sync', 'destination') AND ",
            );
            let select = is_in(select, "subject", of);
            let select = select.push(" ORDER BY at DESC, id DESC LIMIT ").values(limit);
            let rows = tx.rows(select.build(true)).await?;
            rows.iter().map(history::entry_of).collect::<Result<Vec<_>>>()?
        })
    }
}
