//! Pages of long lists: which rows, in which order, and the row after which a page begins.

use async_trait::async_trait;
use throng_model::{DestinationName, SyncRunId, WorkspaceName};

use crate::{
    Alert, AlertTotals, Check, Delivery, HistoryEntry, Result, RunState, SyncRun, Task, TaskState,
};

/// The order of runs and of tasks. Rows with the same value are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkSort {
    /// By id: the order in which they were planned.
    Id,
    /// By the name of the sync.
    Sync,
    /// By the name of the audience.
    Audience,
}

/// The order of alerts. Rows with the same value are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertSort {
    /// By id: the order in which they were raised for the first time.
    Id,
    /// By the time at which they were raised last.
    LastAt,
}

/// Which runs a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunFilter {
    /// Those in this state.
    State(RunState),
    /// Completed ones of which the platform has rejected rows and accepted none.
    Rejected,
}

/// Whether an alert is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertState {
    /// Not resolved.
    Open,
    /// Resolved.
    Resolved,
}

/// A row's value of the column that a list is ordered by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// An id or a time.
    Number(i64),
    /// A name.
    Text(String),
}

/// The place of a row in a list. The row does not need to exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace {
    /// Its value of the column that the list is ordered by; not used in the order of ids.
    pub key: RowKey,
    /// Its id.
    pub id: i64,
}

/// A page of a list. Because a page begins after a row, and not after a number of rows, rows that are
/// inserted meanwhile neither repeat a row on the next page nor hide one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<O, S> {
    /// Only rows of objects of this workspace.
    pub workspace: Option<WorkspaceName>,
    /// Only rows whose names contain this text, in upper or lower case.
    pub search: Option<String>,
    /// Only rows in this state.
    pub state: Option<S>,
    /// The order.
    pub order: O,
    /// Whether the order is reversed.
    pub descending: bool,
    /// The row after which the page begins, in this order; `None`: it begins with the first row.
    pub after: Option<RowPlace>,
    /// The maximum number of rows.
    pub limit: u32,
}

/// How many tasks of a destination are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCount {
    /// The destination.
    pub destination: DestinationName,
    /// The state.
    pub state: TaskState,
    /// The number of tasks.
    pub tasks: u64,
    /// Their batches that are not done.
    pub batches_left: u64,
}

/// Lists of which there may be many thousand rows.
#[async_trait]
pub trait ListLedger: Send + Sync {
    /// A page of the runs. The search is in the names of sync, audience and destination.
    async fn list_runs(&self, page: &ListPage<WorkSort, RunFilter>) -> Result<Vec<SyncRun>>;

    /// A page of the tasks. The search is in the names of sync, audience and destination.
    async fn list_tasks(&self, page: &ListPage<WorkSort, TaskState>) -> Result<Vec<Task>>;

    /// As [`ListLedger::list_tasks`], only failed tasks that can be queued again: their syncs have no newer run.
    async fn list_requeueable_tasks(
        &self,
        page: &ListPage<WorkSort, TaskState>,
    ) -> Result<Vec<Task>>;

    /// How many tasks a list has, by destination and state in any order; destinations and states without tasks are left
    /// out. The order, the place and the limit of the page are not used. Reads all of these tasks.
    async fn count_tasks(&self, of: &ListPage<WorkSort, TaskState>) -> Result<Vec<TaskCount>>;

    /// The tasks of these runs, at most 1,000, in any order.
    async fn tasks_of_runs(&self, runs: &[SyncRunId]) -> Result<Vec<Task>>;

    /// A page of the alerts. The search is in kind, subject and message.
    async fn list_alerts(&self, page: &ListPage<AlertSort, AlertState>) -> Result<Vec<Alert>>;

    /// How many tasks of a workspace are in each state; every state is included, also with 0.
    async fn workspace_task_counts(&self, of: &WorkspaceName) -> Result<Vec<(TaskState, u64)>>;

    /// How many alerts are about objects of a workspace.
    async fn workspace_alert_totals(&self, of: &WorkspaceName) -> Result<AlertTotals>;

    /// Ended deliveries of alerts about objects of a workspace, the newest first.
    async fn workspace_deliveries(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<Delivery>>;

    /// The newest checks of a workspace first.
    async fn workspace_checks(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<Check>>;

    /// The history of the audiences, syncs and destinations of a workspace, newest first.
    async fn workspace_history(&self, of: &WorkspaceName, limit: u32) -> Result<Vec<HistoryEntry>>;
}
