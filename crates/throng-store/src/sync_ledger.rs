//! The trait of runs, tasks, batches, receipts and checks.

use std::collections::HashMap;

use async_trait::async_trait;
use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use crate::{
    Batch, BatchOutcome, Check, DeliveredRecord, ForeignAudience, NewRun, PlanBase, PlanOutcome,
    PlatformAudience, Receipt, Result, RunState, SyncRun, Task, TaskState, Verdict,
};

/// Runs, tasks, batches, receipts, checks.
#[async_trait]
pub trait SyncLedger: Send + Sync {
    /// Records a run with its task and batches in one transaction. `None` (and nothing is changed)
    /// if the sync already has an active or held run, or is paused: two open runs of one sync would
    /// send differences to the same delivered state. `Refused` if the batches' users are not `adds
    /// + removes`.
    async fn plan_run(&self, run: &NewRun, now: Timestamp) -> Result<Option<SyncRunId>>;

    /// As [`SyncLedger::plan_run`], if nothing of the sync has changed since `base` was read; all in
    /// one transaction. Otherwise the run may be for an older version or request than one that was
    /// recorded since.
    async fn plan_run_from(
        &self,
        run: &NewRun,
        base: &PlanBase,
        now: Timestamp,
    ) -> Result<PlanOutcome>;

    /// One run.
    async fn run(&self, id: SyncRunId) -> Result<SyncRun>;

    /// The newest runs first, of one sync or of all.
    async fn runs(&self, sync: Option<&SyncName>, limit: u32) -> Result<Vec<SyncRun>>;

    /// The syncs whose newest run is not completed, with its state, by name.
    async fn incomplete_syncs(&self) -> Result<Vec<(SyncName, RunState)>>;

    /// `held → active`. While its account is held too, `account_held`, a run that is held for another cause is refused
    /// with `WrongState`: an approval is for one cause.
    async fn approve_run(&self, id: SyncRunId, account_held: bool, now: Timestamp) -> Result<()>;

    /// Deletes the held runs whose audience serves another version than theirs, so that they are planned again, and resolves
    /// their alerts; returns them, the oldest first. An entry in the history of each sync says so. Runs of paused syncs stay,
    /// and those that an account holds, which may have sent something. `served`: the versions that the caller plans; runs of
    /// audiences that serve another one by the ledger stay, because they would be planned to the same version again.
    async fn discard_outdated_runs(
        &self,
        served: &HashMap<AudienceName, u64>,
        now: Timestamp,
    ) -> Result<Vec<SyncRun>>;

    /// Claims this task if it is due and fewer than `at_most` tasks of its destination are running,
    /// counted over all workers. `None` if it is not due, if there are too many, or if its sync is
    /// paused.
    async fn claim_task(
        &self,
        id: TaskId,
        holder: &str,
        at_most: u32,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Task>>;

    /// Of the tasks that are due, each destination's `at_most` of the highest priority; of these
    /// the ones that were not enqueued since `before`, the highest priority first. The limit keeps
    /// the queue short: an urgent task has few tasks ahead of it, and one account's tasks do not
    /// delay another's. Tasks of paused syncs are left out. Reads every due task.
    async fn tasks_to_enqueue(
        &self,
        before: Timestamp,
        now: Timestamp,
        at_most: u32,
        limit: u32,
    ) -> Result<Vec<Task>>;

    /// Records that these tasks were enqueued.
    async fn mark_tasks_enqueued(&self, ids: &[TaskId], now: Timestamp) -> Result<()>;

    /// Tasks that wait for their check and whose check was not enqueued since `before`, the longest
    /// waiting first.
    async fn checks_to_enqueue(&self, before: Timestamp, limit: u32) -> Result<Vec<Task>>;

    /// The task if it is done and not checked yet.
    async fn unchecked_task(&self, id: TaskId) -> Result<Option<Task>>;

    /// Records that the checks of these tasks were enqueued.
    async fn mark_checks_enqueued(&self, ids: &[TaskId], now: Timestamp) -> Result<()>;

    /// Ends the leases of all tasks, refreshes, removals and writes of serving stores, so that their
    /// work is due immediately. Only for a node that has this ledger alone, at its start: all leases
    /// are then those of a dead process. Beside another node it would give the work of that node to two processes.
    /// Returns how many tasks and refreshes had a lease.
    async fn expire_leases(&self, now: Timestamp) -> Result<u64>;

    /// Renews the lease. `LeaseLost` if another worker has the task.
    async fn renew_task_lease(
        &self,
        id: TaskId,
        holder: &str,
        lease_until: Timestamp,
    ) -> Result<()>;

    /// One task.
    async fn task(&self, id: TaskId) -> Result<Task>;

    /// The task of a run.
    async fn task_of_run(&self, run: SyncRunId) -> Result<Task>;

    /// Tasks: first running ones, then queued and held ones in the order in which they are due,
    /// then ended ones, newest first.
    async fn tasks(&self, limit: u32) -> Result<Vec<Task>>;

    /// How many tasks are in each state; every state is included, also with 0.
    async fn task_counts(&self) -> Result<Vec<(TaskState, u64)>>;

    /// How many batches of open tasks are not done.
    async fn open_batches(&self) -> Result<u64>;

    /// The batches of a task by number.
    async fn batches(&self, task: TaskId) -> Result<Vec<Batch>>;

    /// Stores the platform's answer. Called for every answer, also for failures. `NotFound` if
    /// there is no such batch.
    async fn add_receipt(&self, receipt: &Receipt) -> Result<()>;

    /// The receipts of a task, oldest first.
    async fn receipts(&self, task: TaskId) -> Result<Vec<Receipt>>;

    /// A batch is done: marks it, moves its users from `pending` to the other counts of the run,
    /// and resets the task's failures, in one transaction. Does nothing if the batch is already
    /// done, so that a repeated call counts its users once. `LeaseLost` if another worker has the
    /// task, `Refused` if the outcome does not add up to the batch's users.
    async fn finish_batch(
        &self,
        task: TaskId,
        holder: &str,
        number: u32,
        outcome: &BatchOutcome,
    ) -> Result<()>;

    /// A try of a task failed. With `retry_at` the task becomes `queued` again; without it, it and
    /// its run become `failed`. `count`: whether it counts as a failure (a throttled request does
    /// not).
    async fn fail_task(
        &self,
        id: TaskId,
        holder: &str,
        error: &str,
        retry_at: Option<Timestamp>,
        count: bool,
        now: Timestamp,
    ) -> Result<Task>;

    /// Releases a task without a failure (SIGTERM): `running → queued`, due immediately.
    async fn release_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()>;

    /// Every batch is done: the task becomes `done`, the run `completed`, and the sync's delivered
    /// version the run's `to_version`, in one transaction. `WrongState` if a batch is pending, or
    /// if the sync has no platform audience (`put_platform_audience` must be called first).
    async fn complete_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()>;

    /// Queues a failed task and its run again, with 0 failures. `WrongState` if it has not failed,
    /// or if its sync has a newer run, which has replaced it.
    async fn requeue_task(&self, id: TaskId, now: Timestamp) -> Result<()>;

    /// The platform's audience of a sync.
    async fn platform_audience(&self, sync: &SyncName) -> Result<Option<PlatformAudience>>;

    /// Records the platform's id for a sync if there is none yet; returns the stored one. Deletes
    /// the sync's foreign audience, unless it was the sync's own one.
    async fn put_platform_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
    ) -> Result<PlatformAudience>;

    /// Records that a run has found an audience of its sync's name that has other users. Replaces
    /// an earlier one that a run has found.
    async fn put_foreign_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
        run: SyncRunId,
    ) -> Result<()>;

    /// The recorded foreign audiences, by sync; a sync may have several: at most one that a run has
    /// found, and each that it had before, also if it has another one now.
    async fn foreign_audiences(&self) -> Result<Vec<ForeignAudience>>;

    /// The platform's audience, with the delivered version, of each sync that has one, by sync.
    async fn delivered(&self) -> Result<Vec<(SyncName, PlatformAudience)>>;

    /// The delivered states, by sync. Syncs without one are left out: nothing was delivered for
    /// them, or only by a version of Throng that did not record it.
    async fn delivered_records(&self) -> Result<Vec<DeliveredRecord>>;

    /// The delivered state of a sync; `None` as in [`SyncLedger::delivered_records`].
    async fn delivered_record(&self, sync: &SyncName) -> Result<Option<DeliveredRecord>>;

    /// Records a delivered state, and that these runs are in it, in one transaction. Their plans
    /// are not needed from then on.
    async fn put_delivered_record(
        &self,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<()>;

    /// As [`SyncLedger::put_delivered_record`], if `before` is still the sync's record; otherwise `false`.
    async fn replace_delivered_record(
        &self,
        before: Option<&DeliveredRecord>,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<bool>;

    /// Ended runs whose plans are not yet in a delivered state, the oldest first.
    async fn unrecorded_runs(&self) -> Result<Vec<SyncRun>>;

    /// Records that a version is delivered without a run, because the platform already has all of
    /// it. `NotFound` if the sync has no audience on the platform.
    async fn record_delivered_version(
        &self,
        sync: &SyncName,
        version: u64,
        now: Timestamp,
    ) -> Result<()>;

    /// Deletes the platform's audience of a sync and its delivered state: the next run creates a
    /// new audience. Runs of the sync that have not ended fail with this reason. The old audience
    /// becomes a foreign one. Does nothing if the sync has neither.
    async fn forget_delivered(&self, sync: &SyncName, reason: &str, now: Timestamp) -> Result<()>;

    /// Stores a check; a later one of the same task replaces it.
    async fn put_check(&self, check: &Check) -> Result<()>;

    /// The check of a task.
    async fn check_of(&self, task: TaskId) -> Result<Option<Check>>;

    /// The newest checks first.
    async fn checks(&self, limit: u32) -> Result<Vec<Check>>;

    /// The verdicts of the newest checks of a destination's tasks after a time, newest first.
    async fn verdicts(
        &self,
        destination: &DestinationName,
        after: Timestamp,
        limit: u32,
    ) -> Result<Vec<Verdict>>;

    /// Holds every queued task of a destination, with its run, for this reason; running tasks
    /// continue. Returns how many.
    async fn hold_destination(&self, destination: &DestinationName, reason: &str) -> Result<u64>;

    /// Approves the runs of a destination that are held for their account. Returns how many there were. Those that
    /// have a plan and have sent nothing are deleted instead, so that they are planned again: the data that they were
    /// planned from may be the cause of the failed checks. A run that was held by an earlier version has no cause: it
    /// counts as held for its account if its reason contains `account_reason`.
    async fn approve_destination(
        &self,
        destination: &DestinationName,
        account_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<u64>;

    /// Tasks that are done and not checked yet, the longest waiting first.
    async fn unchecked_tasks(&self, limit: u32) -> Result<Vec<Task>>;
}
