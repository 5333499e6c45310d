//! Syncs: runs, tasks, batches, receipts and checks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, DestinationName, SyncName, SyncRunId, TaskId, Timestamp};

use crate::Result;

/// How an audience is kept on a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// Adds and removes, so that the platform's audience equals the snapshot.
    Mirror,
    /// Adds only.
    Add,
    /// Replaces everything in one upload session.
    Replace,
}

/// What a batch does on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Puts users into the audience.
    Add,
    /// Takes users out of it.
    Remove,
    /// A batch of a replace session.
    Replace,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its task is queued or at work.
    Active,
    /// All rows have an end; the delivered version is recorded.
    Completed,
    /// It gave up; what was not sent is `pending` for ever. An alert says why.
    Failed,
    /// A guard stopped it before the first row (too many removals); waits for approval.
    Held,
}

/// Counts by reason.
pub type ReasonCounts = BTreeMap<String, u64>;

/// One execution of a sync. `read = sent + skipped + rejected + pending` at any moment, counted in
/// users (an add and a remove each count one).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncRun {
    /// Its number.
    pub id: SyncRunId,
    /// The sync.
    pub sync: SyncName,
    /// The audience.
    pub audience: AudienceName,
    /// The destination.
    pub destination: DestinationName,
    /// The mode.
    pub mode: SyncMode,
    /// The snapshot version delivered before (`None`: nothing was).
    pub from_version: Option<u64>,
    /// The snapshot version to deliver.
    pub to_version: u64,
    /// The state.
    pub state: RunState,
    /// Users to add.
    pub adds: u64,
    /// Users to remove.
    pub removes: u64,
    /// `adds + removes`.
    pub read: u64,
    /// Users that the platform took.
    pub sent: u64,
    /// Users that we did not send, by reason.
    pub skipped: ReasonCounts,
    /// Users that the platform refused, by reason.
    pub rejected: ReasonCounts,
    /// Users without an end yet.
    pub pending: u64,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or is held.
    pub reason: Option<String>,
    /// What was changed or refused in the identifiers that it puts in: `KEY.reason`.
    #[serde(default)]
    pub normalised: ReasonCounts,
    /// The object with its rows, until they are in the delivered state. `None` also for runs that an
    /// earlier version planned.
    #[serde(default, skip_serializing)]
    pub plan: Option<String>,
}

/// What holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// Too many users would leave.
    Guard,
    /// It would replace a list that the sync did not make.
    Adoption,
    /// All work of its destination waits: too many checks failed.
    Account,
}

/// A run waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What holds it.
    pub cause: HoldCause,
    /// Why, in plain words.
    pub reason: String,
}

impl Hold {
    /// A hold with its reason.
    pub fn new(cause: HoldCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }
}

/// A run to be planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRun {
    /// The sync.
    pub sync: SyncName,
    /// The audience.
    pub audience: AudienceName,
    /// The destination.
    pub destination: DestinationName,
    /// The mode.
    pub mode: SyncMode,
    /// The version delivered before.
    pub from_version: Option<u64>,
    /// The version to deliver.
    pub to_version: u64,
    /// Users to add.
    pub adds: u64,
    /// Users to remove.
    pub removes: u64,
    /// The batches, cut deterministically.
    pub batches: Vec<(Operation, u64)>,
    /// Tasks with a higher priority go first.
    pub priority: i32,
    /// Held instead of queued.
    pub held: Option<Hold>,
    /// The object with its rows.
    pub plan: Option<String>,
    /// What was changed or refused in the identifiers that it puts in: `KEY.reason`.
    pub normalised: ReasonCounts,
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a worker (or for `not_before`).
    Queued,
    /// A worker has it.
    Running,
    /// Every batch has an end.
    Done,
    /// It gave up.
    Failed,
    /// Waits for approval of its run.
    Held,
}

/// One audience's work on one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// The run it does.
    pub run: SyncRunId,
    /// The sync.
    pub sync: SyncName,
    /// The audience.
    pub audience: AudienceName,
    /// The destination.
    pub destination: DestinationName,
    /// The state.
    pub state: TaskState,
    /// Higher goes first.
    pub priority: i32,
    /// Failures in a row; a batch that gets through sets it to 0.
    pub failures: u32,
    /// Not before this time.
    pub not_before: Timestamp,
    /// Who has it.
    pub holder: Option<String>,
    /// Until when the holder may be silent.
    pub lease_until: Option<Timestamp>,
    /// Batches in all.
    pub batches: u32,
    /// Batches with an end.
    pub batches_done: u32,
    /// The last error, in plain words.
    pub last_error: Option<String>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it was done or failed.
    pub finished_at: Option<Timestamp>,
}

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Not sent, or sent without a receipt: it is sent again.
    Pending,
    /// Has a receipt for every row.
    Done,
}

/// A fixed range of a run's users: the ranks `[first_rank, first_rank + rows)` of the adds or
/// removes in (shard, ordinal) order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number within the task, from 0.
    pub number: u32,
    /// What it does.
    pub operation: Operation,
    /// Rank of the first user among the users of this operation.
    pub first_rank: u64,
    /// Users in it.
    pub rows: u64,
    /// The state.
    pub state: BatchState,
    /// What became of its users, once done.
    pub outcome: Option<BatchOutcome>,
}

/// What became of the users of a batch; the three add up to its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// Users that the platform took.
    pub sent: u64,
    /// Users that we did not send, by reason.
    pub skipped: ReasonCounts,
    /// Users that the platform refused, by reason.
    pub rejected: ReasonCounts,
    /// The places in the batch of those that were refused, as far as that is known: ranges, the end
    /// exclusive.
    #[serde(default)]
    pub refused: Vec<(u32, u32)>,
}

/// What the platform said about one request of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The task.
    pub task: TaskId,
    /// The batch.
    pub batch: u32,
    /// What was asked.
    pub operation: Operation,
    /// Rows in the request.
    pub rows: u64,
    /// Rows that the platform says it received.
    pub received: u64,
    /// Rows that the platform says are invalid.
    pub invalid: u64,
    /// Reasons with counts, from the platform's samples. Never a value of a row.
    pub invalid_reasons: ReasonCounts,
    /// HTTP status; 0 if the connection was cut.
    pub http_status: u16,
    /// The platform's error code, if it gave one.
    pub error_code: Option<i64>,
    /// The platform's id of the request or session.
    pub platform_ref: Option<String>,
    /// When the answer came.
    pub at: Timestamp,
}

/// A verdict on a finished task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Passed,
    /// Something is odd; a person should look.
    Suspect,
    /// The platform's audience is not what it should be.
    Failed,
}

/// A data-quality check of a finished task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The run.
    pub run: SyncRunId,
    /// The task.
    pub task: TaskId,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in plain words, one line each.
    pub reasons: Vec<String>,
    /// When.
    pub at: Timestamp,
}

/// The platform's audience that a sync fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformAudience {
    /// The platform's id.
    pub platform_id: String,
    /// The snapshot version that it holds, once a run completed.
    pub delivered_version: Option<u64>,
    /// When that run completed.
    pub delivered_at: Option<Timestamp>,
}

/// An audience on the platform that has a sync's name and holds users whom its runs did not put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignAudience {
    /// The sync.
    pub sync: SyncName,
    /// The platform's id.
    pub platform_id: String,
    /// The newest run of the sync at that time; 0 if it had none.
    pub run: SyncRunId,
    /// That run found it; else the sync had it, and has let go of it.
    pub found: bool,
}

/// What is known of what a platform was given for a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredRecord {
    /// The sync.
    pub sync: SyncName,
    /// The account that it was given to.
    pub account: String,
    /// The platform's keys, in the order of the cells of rows, joined by commas.
    pub columns: String,
    /// A fingerprint of the identifiers' SQL, key and columns.
    pub identifiers: String,
    /// The object with the delivered state; `None` if nothing is on the platform.
    pub state: Option<String>,
    /// Users in it.
    pub users: u64,
    /// The newest run that is in the state.
    pub run: SyncRunId,
    /// Removals that the platform refused: they are due.
    pub due: u64,
    /// When they are tried again.
    pub retry_at: Option<Timestamp>,
    /// How often they were tried in a row.
    pub tries: u32,
    /// A person wants everything to be sent anew in a replace session.
    pub replace: bool,
}

/// Runs, tasks, batches, receipts, checks.
#[async_trait]
pub trait SyncLedger: Send + Sync {
    /// Records a run with its task and batches in one transaction. `None` (and nothing done) if
    /// the sync has an active or held run already, or is paused. `Refused` if the batches' users are not
    /// `adds + removes`.
    async fn plan_run(&self, run: &NewRun, now: Timestamp) -> Result<Option<SyncRunId>>;

    /// One run.
    async fn run(&self, id: SyncRunId) -> Result<SyncRun>;

    /// The newest runs first, of one sync or of all.
    async fn runs(&self, sync: Option<&SyncName>, limit: u32) -> Result<Vec<SyncRun>>;

    /// The syncs whose newest run is not completed, with the state of it, by name.
    async fn unsettled(&self) -> Result<Vec<(SyncName, RunState)>>;

    /// `held → active`.
    async fn approve_run(&self, id: SyncRunId, now: Timestamp) -> Result<()>;

    /// Takes this task if it is due, and if fewer than `at_most` tasks of its destination are in
    /// hand anywhere (two claims at the same moment may take one more). `None` if it is not due any
    /// more, or not yet, if there are too many, or if its sync is paused.
    async fn claim_this_task(
        &self,
        id: TaskId,
        holder: &str,
        at_most: u32,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Task>>;

    /// Of the tasks that are due, each destination's `at_most` of the highest priority; of them those
    /// that were not announced since `before`, the highest priority first. So an urgent task has
    /// little before it on the queue, and one account's tasks do not stand in the way of another's.
    /// Tasks of paused syncs are left out. Costs a look at every due task.
    async fn unannounced_tasks(
        &self,
        before: Timestamp,
        now: Timestamp,
        at_most: u32,
        limit: u32,
    ) -> Result<Vec<Task>>;

    /// Notes that these tasks were put on the queue.
    async fn announced_tasks(&self, ids: &[TaskId], now: Timestamp) -> Result<()>;

    /// Tasks that wait for their check and were not announced for it since `before`, the longest
    /// waiting first.
    async fn unannounced_checks(&self, before: Timestamp, limit: u32) -> Result<Vec<Task>>;

    /// The task if it is done and has no check yet.
    async fn unchecked_task(&self, id: TaskId) -> Result<Option<Task>>;

    /// Notes that the checks of these tasks were put on the queue.
    async fn announced_checks(&self, ids: &[TaskId], now: Timestamp) -> Result<()>;

    /// Ends the leases of all tasks, refreshes and removals, whoever holds them, so that their work is due at
    /// once. Only for a node that knows that it is alone on this ledger: what it finds in hand at
    /// its start was left by a process that is dead. Returns how many there were.
    async fn end_leases(&self, now: Timestamp) -> Result<u64>;

    /// Keeps the lease. `LeaseLost` if somebody else has the task.
    async fn keep_task(&self, id: TaskId, holder: &str, lease_until: Timestamp) -> Result<()>;

    /// One task.
    async fn task(&self, id: TaskId) -> Result<Task>;

    /// The task of a run.
    async fn task_of_run(&self, run: SyncRunId) -> Result<Task>;

    /// Tasks: first running, then queued and held by due order, then ended ones, newest first.
    async fn tasks(&self, limit: u32) -> Result<Vec<Task>>;

    /// How many tasks are in each state; every state is there, also with 0.
    async fn task_counts(&self) -> Result<Vec<(TaskState, u64)>>;

    /// How many batches of open tasks are not finished.
    async fn open_batches(&self) -> Result<u64>;

    /// The batches of a task by number.
    async fn batches(&self, task: TaskId) -> Result<Vec<Batch>>;

    /// Stores what the platform said. Called for every answer, also for failures. `NotFound` if
    /// there is no such batch.
    async fn add_receipt(&self, receipt: &Receipt) -> Result<()>;

    /// The receipts of a task, oldest first.
    async fn receipts(&self, task: TaskId) -> Result<Vec<Receipt>>;

    /// A batch has an end: marks it done, moves its rows from `pending` to where they belong in the
    /// run, and resets the task's failures, in one transaction. Does nothing if the batch is done
    /// already. `LeaseLost` if somebody else has the task, `Refused` if the outcome does not add up
    /// to the batch's users.
    async fn finish_batch(
        &self,
        task: TaskId,
        holder: &str,
        number: u32,
        outcome: &BatchOutcome,
    ) -> Result<()>;

    /// A try of a task failed: back to `queued` with `retry_at`, or `failed` (with its run) without
    /// it. `count` says whether it counts as a failure (a throttle does not).
    async fn fail_task(
        &self,
        id: TaskId,
        holder: &str,
        error: &str,
        retry_at: Option<Timestamp>,
        count: bool,
        now: Timestamp,
    ) -> Result<Task>;

    /// Gives a task back untouched (SIGTERM): `running → queued`, due at once.
    async fn release_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()>;

    /// Every batch has an end: task `done`, run `completed`, the sync's delivered version is the
    /// run's `to_version`, in one transaction. `WrongState` if a batch is pending, or if the sync has no platform
    /// audience (`put_platform_audience` comes first).
    async fn complete_task(&self, id: TaskId, holder: &str, now: Timestamp) -> Result<()>;

    /// Puts a failed task (and its run) back in the queue, with no failures counted. `WrongState` if
    /// it has not failed, or if its sync has a newer run: that one replaced it.
    async fn requeue_task(&self, id: TaskId, now: Timestamp) -> Result<()>;

    /// The platform's audience of a sync.
    async fn platform_audience(&self, sync: &SyncName) -> Result<Option<PlatformAudience>>;

    /// Records the platform's id for a sync if there is none yet; returns the one that counts. What is
    /// known of a foreign audience is forgotten.
    async fn put_platform_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
    ) -> Result<PlatformAudience>;

    /// A run has found an audience of its sync's name that holds other users. A later one replaces it.
    async fn put_foreign_audience(
        &self,
        sync: &SyncName,
        platform_id: &str,
        run: SyncRunId,
    ) -> Result<()>;

    /// The foreign audiences that are known, by sync.
    async fn foreign_audiences(&self) -> Result<Vec<ForeignAudience>>;

    /// The platform's audience, with the delivered version, of every sync that has one, by sync.
    async fn delivered(&self) -> Result<Vec<(SyncName, PlatformAudience)>>;

    /// What is known of what platforms were given, by sync. Syncs of which nothing is known, because
    /// nothing or only an earlier version delivered for them, are not there.
    async fn delivered_records(&self) -> Result<Vec<DeliveredRecord>>;

    /// Records what a platform was given, and that these runs are in it: their plans are not needed
    /// from then on.
    async fn put_delivered_record(
        &self,
        record: &DeliveredRecord,
        recorded: &[SyncRunId],
    ) -> Result<()>;

    /// Ended runs whose plans are not in a delivered state yet, the oldest first.
    async fn unrecorded_runs(&self) -> Result<Vec<SyncRun>>;

    /// A version is delivered without a run, as the platform has all of it already. `NotFound` if the
    /// sync has no audience on the platform.
    async fn deliver_version(&self, sync: &SyncName, version: u64, now: Timestamp) -> Result<()>;

    /// Forgets the platform's audience of a sync and what it was given: the next run makes a new one.
    /// Its runs that have not ended fail for this reason. The audience is foreign from then on. Right
    /// also if nothing is known.
    async fn forget_delivered(&self, sync: &SyncName, reason: &str, now: Timestamp) -> Result<()>;

    /// Stores a verdict; a later one for the same task replaces it.
    async fn put_check(&self, check: &Check) -> Result<()>;

    /// The verdict on a task.
    async fn check_of(&self, task: TaskId) -> Result<Option<Check>>;

    /// The newest checks first.
    async fn checks(&self, limit: u32) -> Result<Vec<Check>>;

    /// The verdicts on the newest checks of a destination's tasks after a moment, newest first.
    async fn verdicts(
        &self,
        destination: &DestinationName,
        after: Timestamp,
        limit: u32,
    ) -> Result<Vec<Verdict>>;

    /// Holds every task of a destination that is queued, with its run, for this reason; tasks in
    /// hand go on. Returns how many.
    async fn hold_destination(&self, destination: &DestinationName, reason: &str) -> Result<u64>;

    /// Lets every held run of a destination go on. Returns how many. Those that are held for their account,
    /// have a plan and have sent nothing are removed: they are to be planned anew, as what they were made of
    /// may be what was wrong. A run that an earlier version held has no cause: it is one of them if its
    /// reason contains `account_reason`.
    async fn approve_destination(
        &self,
        destination: &DestinationName,
        account_reason: Option<&str>,
        now: Timestamp,
    ) -> Result<u64>;

    /// Tasks that are done and have no check yet, the longest waiting first.
    async fn unchecked_tasks(&self, limit: u32) -> Result<Vec<Task>>;
}
