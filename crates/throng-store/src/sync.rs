//! Syncs: runs, tasks, batches, receipts and checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throng_model::{
    AudienceName, DestinationName, SyncMode, SyncName, SyncRunId, TaskId, Timestamp,
};

/// What a batch does on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Puts users into the audience.
    Add,
    /// Removes users from it.
    Remove,
    /// A batch of a replace session.
    Replace,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its task is queued or running.
    Active,
    /// All batches are done; the delivered version is recorded.
    Completed,
    /// It gave up; users that were not sent stay `pending`. An alert says why.
    Failed,
    /// It waits for approval, for example because it removes too many users.
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
    /// The previously delivered snapshot version; `None` if none was delivered.
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
    /// Users that the platform accepted.
    pub sent: u64,
    /// Users that were not sent, by reason.
    pub skipped: ReasonCounts,
    /// Users that the platform rejected, by reason.
    pub rejected: ReasonCounts,
    /// Users whose batch is not done.
    pub pending: u64,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or is held.
    pub reason: Option<String>,
    /// Identifiers of added users that were changed or refused, by `KEY.reason`.
    #[serde(default)]
    pub normalised: ReasonCounts,
    /// The object with its rows, until they are in the delivered state. `None` also for runs that
    /// were planned by an earlier version.
    #[serde(default, skip_serializing)]
    pub plan: Option<String>,
    /// See [`NewRun::users_removed`](crate::NewRun::users_removed). 0 also for runs that were planned by an earlier version.
    #[serde(default)]
    pub users_removed: u64,
}

/// Why a run is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// It would remove too many users.
    Guard,
    /// It would replace an audience that the sync did not create.
    Adoption,
    /// All runs of its destination are held: too many checks failed.
    Account,
}

/// A run waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The cause.
    pub cause: HoldCause,
    /// The reason, in plain words.
    pub reason: String,
}

impl Hold {
    /// A hold with its reason.
    pub fn new(cause: HoldCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a worker (or for `not_before`).
    Queued,
    /// A worker has claimed it.
    Running,
    /// Every batch is done.
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
    /// The run that it carries out.
    pub run: SyncRunId,
    /// The sync.
    pub sync: SyncName,
    /// The audience.
    pub audience: AudienceName,
    /// The destination.
    pub destination: DestinationName,
    /// The state.
    pub state: TaskState,
    /// Tasks with a higher priority go first.
    pub priority: i32,
    /// Consecutive failures; a batch that succeeds resets it to 0.
    pub failures: u32,
    /// It is not tried before this time.
    pub not_before: Timestamp,
    /// The worker that has it, while `running`.
    pub holder: Option<String>,
    /// When the holder's lease expires, unless it is renewed.
    pub lease_until: Option<Timestamp>,
    /// How many batches it has.
    pub batches: u32,
    /// How many of them are done.
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
    /// Every user is sent, skipped or rejected.
    Done,
}

/// A fixed range of a run's users: the ranks `[first_rank, first_rank + rows)` of the adds or
/// removes in (shard, ordinal) order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number within the task, from 0.
    pub number: u32,
    /// What it does on the platform.
    pub operation: Operation,
    /// Rank of the first user among the users of this operation.
    pub first_rank: u64,
    /// How many users it has.
    pub rows: u64,
    /// The state.
    pub state: BatchState,
    /// The result for its users, once done.
    pub outcome: Option<BatchOutcome>,
}

/// The result for the users of a batch; the three counts add up to its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// Users that the platform accepted.
    pub sent: u64,
    /// Users that were not sent, by reason.
    pub skipped: ReasonCounts,
    /// Users that the platform rejected, by reason.
    pub rejected: ReasonCounts,
    /// The positions in the batch of rejected users, as far as they are known: ranges, the end
    /// exclusive. Not those of added users who may be on the list nevertheless.
    #[serde(default)]
    pub refused: Vec<(u32, u32)>,
}

/// The platform's answer to one request of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The task.
    pub task: TaskId,
    /// The batch.
    pub batch: u32,
    /// What was requested.
    pub operation: Operation,
    /// Rows in the request.
    pub rows: u64,
    /// Rows that the platform reports as received.
    pub received: u64,
    /// Rows that the platform reports as invalid.
    pub invalid: u64,
    /// Reasons with counts, from the platform's samples. Never a value of a row.
    pub invalid_reasons: ReasonCounts,
    /// HTTP status; 0 if the connection broke before an answer.
    pub http_status: u16,
    /// The platform's error code, if it gave one.
    pub error_code: Option<i64>,
    /// The platform's id of the request or session.
    pub platform_ref: Option<String>,
    /// When the answer was received.
    pub at: Timestamp,
}

/// A verdict on a finished task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The platform's audience is as expected.
    Passed,
    /// A difference may be an error; a person should inspect it.
    Suspect,
    /// The platform's audience is not as expected.
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
    /// The reasons, in plain words, one line each.
    pub reasons: Vec<String>,
    /// When the check was made.
    pub at: Timestamp,
}

/// The platform's audience that a sync delivers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformAudience {
    /// The platform's id.
    pub platform_id: String,
    /// The snapshot version that was delivered, once a run has completed.
    pub delivered_version: Option<u64>,
    /// When that run was completed.
    pub delivered_at: Option<Timestamp>,
}

/// An audience on the platform that has a sync's name and has users whom the sync's runs did not
/// add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignAudience {
    /// The sync.
    pub sync: SyncName,
    /// The platform's id.
    pub platform_id: String,
    /// The newest run of the sync at that time; 0 if it had none.
    pub run: SyncRunId,
    /// Whether that run found it. If not, it was the sync's own audience until the delivered state
    /// was forgotten.
    pub found: bool,
}

/// The delivered state of a sync: what was delivered to a platform for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredRecord {
    /// The sync.
    pub sync: SyncName,
    /// The account that it was delivered to.
    pub account: String,
    /// The platform's keys, in the order of the cells of rows, with commas between them.
    pub columns: String,
    /// A fingerprint of the identifiers' SQL, key and columns, and the audience's name.
    pub identifiers: String,
    /// The object with the delivered state; `None` if nothing is on the platform.
    pub state: Option<String>,
    /// Users in it.
    pub users: u64,
    /// The newest run whose rows are in the state.
    pub run: SyncRunId,
    /// Removals that the platform rejected and that are to be tried again.
    pub due: u64,
    /// When they are tried again, and additions that the platform has not confirmed, of which there may be some if
    /// `due` is 0.
    pub retry_at: Option<Timestamp>,
    /// How many times they were tried without success.
    pub tries: u32,
    /// The next run sends all users in a replace session, because a person has requested it. Stays set until such
    /// a run completes.
    pub replace: bool,
    /// A run is requested and not planned yet. Planning a run clears it in the same transaction: a request gives one
    /// run, also if that run fails.
    #[serde(default)]
    pub requested: bool,
    /// The tables that the delivered identifiers were read from, with the types of their columns, as the source of
    /// identifiers writes them. `None` also if an earlier version has read them.
    #[serde(default)]
    pub tables: Option<String>,
}
