//! The worker: one task from its next batch to its end. Dropping the future at any await is safe:
//! a batch without a recorded outcome is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use throng_membership::MembershipIndex;
use throng_model::{Clock, HashSeed, HashedIdentifier};
use throng_store::{
    AlertKind, Batch, BatchState, HistoryEntry, Ledger, LedgerError, NewAlert, Operation, Task,
    TaskState,
};

use crate::difference::NO_IDENTIFIERS;
use crate::sending::{Line, Load, SendFailure, Session, send_batch, send_once};
use crate::{
    Advice, Destination, FailureFacts, IdentifierRow, IdentifierSource, PlanFile, PreparedRow,
    Quotas, RunUsers, Schema, SendClass, SendError, Skip, decide_after_failure,
};

/// Marks the receipt of a request that found its upload session lost; the next try has another id.
pub(crate) const LOST_SESSION: &str = "session lost";

/// However fast the clock runs, the ledger is not kept busy with leases.
const KEEP_AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// Settings of a worker.
#[derive(Debug, Clone, Copy)]
pub struct WorkerOptions {
    /// For how long a task is claimed; kept up at a third of it.
    pub lease: Duration,
    /// Users whose identifiers are held in memory at once: about 40 bytes for each cell. The
    /// identifier query runs once for each so many users of a run.
    pub pass_rows: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), pass_rows: 1_000_000 }
    }
}

/// What a task needs besides its row in the ledger.
pub struct Job {
    /// The account.
    pub destination: Arc<dyn Destination>,
    /// What the identifier columns mean.
    pub schema: Schema,
    /// The rows of the run.
    pub rows: JobRows,
    /// The audience's name on the platform.
    pub platform_name: String,
    /// An audience of this name that the sync did not make may be taken over, by a replace session.
    pub adopt: bool,
}

/// Where the rows of a run come from.
pub enum JobRows {
    /// They were worked out when the run was planned.
    Planned(Arc<PlanFile>),
    /// The run has users only, as it was planned by an earlier version: identifiers are read now.
    Users {
        /// Where the identifiers come from.
        identifiers: Arc<dyn IdentifierSource>,
        /// The users of the run.
        users: RunUsers,
        /// Gives users their ordinals. At least as new as the snapshot to deliver.
        index: Arc<MembershipIndex>,
    },
}

impl JobRows {
    fn put_operation(&self) -> Operation {
        match self {
            Self::Planned(plan) => plan.meta.put,
            Self::Users { users, .. } => users.put_operation(),
        }
    }

    fn puts(&self) -> u64 {
        match self {
            Self::Planned(plan) => plan.meta.rows[0] + plan.meta.rows[2],
            Self::Users { users, .. } => users.puts(),
        }
    }
}

/// How a try of a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// Every batch has an end.
    Done,
    /// It goes on later.
    Later,
    /// It has failed; an alert says why.
    Failed,
    /// Somebody else has it now.
    Lost,
}

/// Works on tasks. Cheap to clone; one value serves all workers of a node.
#[derive(Clone)]
pub struct Worker {
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
    /// The accounts' quota, shared by all workers of a node.
    pub quotas: Arc<Quotas>,
    /// Who this worker is in leases. Unique among workers: a lease is told apart by it.
    pub holder: String,
    /// Settings.
    pub options: WorkerOptions,
}

impl Worker {
    /// Works on a claimed task until it ends one way or another, and records that. `job` is an
    /// error if what the task needs could not be had (a token, a snapshot, an SQL).
    ///
    /// # Errors
    /// Only the ledger's; the task's lease then runs out and another worker takes it.
    pub async fn work(
        &self,
        task: &Task,
        job: Result<&Job, SendError>,
    ) -> Result<TaskEnd, LedgerError> {
        let worked = match job {
            Ok(job) => {
                tokio::select! {
                    worked = self.deliver(task, job) => worked,
                    lost = self.keep_lease(task) => Err(lost.into()),
                }
            }
            Err(error) => Err(error.into()),
        };
        match worked {
            Ok(()) => self.complete(task).await,
            Err(SendFailure::Destination(error)) => self.failed(task, &error).await,
            Err(SendFailure::Ledger(LedgerError::LeaseLost { .. })) => Ok(TaskEnd::Lost),
            Err(SendFailure::Ledger(error)) => Err(error),
            Err(SendFailure::Paused) => {
                let now = self.clock.now();
                match self.ledger.release_task(task.id, &self.holder, now).await {
                    Ok(()) => Ok(TaskEnd::Later),
                    Err(LedgerError::LeaseLost { .. }) => Ok(TaskEnd::Lost),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Returns only when the lease is lost.
    async fn keep_lease(&self, task: &Task) -> LedgerError {
        loop {
            let pause = self.clock.wall_duration(self.options.lease / 3).max(KEEP_AT_MOST_EVERY);
            tokio::time::sleep(pause).await;
            let until = self.clock.now().plus(self.options.lease);
            match self.ledger.keep_task(task.id, &self.holder, until).await {
                Ok(()) => {}
                Err(error @ LedgerError::LeaseLost { .. }) => return error,
                Err(error) => tracing::warn!(task = %task.id, %error, "the lease was not kept"),
            }
        }
    }

    async fn deliver(&self, task: &Task, job: &Job) -> Result<(), SendFailure> {
        let platform_id = match self.ledger.platform_audience(&task.sync).await? {
            Some(known) => known.platform_id,
            None => self.first_audience(task, job).await?,
        };
        let remove_schema = match &job.rows {
            JobRows::Planned(plan) => {
                Schema { keys: plan.meta.remove_keys.clone(), ..job.schema.clone() }
            }
            JobRows::Users { .. } => job.schema.clone(),
        };
        let line = Line {
            destination: &*job.destination,
            ledger: &*self.ledger,
            clock: &*self.clock,
            quotas: &self.quotas,
            name: &task.destination,
            run: task.run,
            task: task.id,
            platform_id: &platform_id,
            schema: &job.schema,
            remove_schema: &remove_schema,
        };
        let batches = self.ledger.batches(task.id).await?;
        let replaces = job.rows.put_operation() == Operation::Replace;
        let mut session = None;
        let mut todo: Vec<Batch> = batches;
        if replaces {
            // A session that was broken off is started over, as its window may be over: all batches
            // are sent again. Those that have an end keep it. The last batch has an end only when
            // its session was closed.
            if todo.iter().all(|b| b.state == BatchState::Done) {
                return Ok(());
            }
            session = Some(self.new_session(task, &platform_id, job.rows.puts()).await?);
        } else {
            todo.retain(|b| b.state == BatchState::Pending);
        }
        let last = todo.last().map(|b| b.number);
        match &job.rows {
            JobRows::Planned(plan) => {
                for batch in &todo {
                    self.refuse_paused(task).await?;
                    let rows = self.read_planned(plan, batch).await?;
                    let last = last == Some(batch.number);
                    self.send_rows(&line, batch, rows, last, &mut session).await?;
                }
            }
            JobRows::Users { identifiers, users, index } => {
                for pass in passes(&todo, self.options.pass_rows) {
                    let mut found = read_pass(&**identifiers, users, index, pass).await?;
                    for batch in pass {
                        self.refuse_paused(task).await?;
                        let mut collected = found.remove(&batch.number).unwrap_or_default();
                        let rows = split(batch, &mut collected);
                        let last = last == Some(batch.number);
                        self.send_rows(&line, batch, rows, last, &mut session).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Between two batches: whether the sync was paused since the task was claimed.
    async fn refuse_paused(&self, task: &Task) -> Result<(), SendFailure> {
        match self.ledger.is_sync_paused(&task.sync).await? {
            true => Err(SendFailure::Paused),
            false => Ok(()),
        }
    }

    /// The rows of a batch out of a plan.
    async fn read_planned(
        &self,
        plan: &Arc<PlanFile>,
        batch: &Batch,
    ) -> Result<BatchRows, SendError> {
        let (plan, operation) = (Arc::clone(plan), batch.operation);
        let (first, count) = (batch.first_rank, batch.rows);
        let read = tokio::task::spawn_blocking(move || plan.rows(operation, first, count)).await;
        let entries = match read {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => {
                let message = format!("the rows of the run cannot be read: {error}");
                return Err(SendError::local(SendClass::Stop, message));
            }
            Err(_) => {
                let message = "the rows of the run were not read";
                return Err(SendError::local(SendClass::Retry, message));
            }
        };
        let mut rows = BatchRows::default();
        for (place, entry) in (0u32..).zip(entries) {
            match entry.send {
                Ok(row) => {
                    rows.prepared.push(row);
                    rows.places.push(place);
                }
                Err(reason) => *rows.skipped.entry(reason).or_default() += 1,
            }
        }
        Ok(rows)
    }

    async fn send_rows(
        &self,
        line: &Line<'_>,
        batch: &Batch,
        rows: BatchRows,
        last: bool,
        session: &mut Option<Session>,
    ) -> Result<(), SendFailure> {
        let load = Load {
            number: batch.number,
            operation: batch.operation,
            first_rank: batch.first_rank,
            rows: &rows.prepared,
            last,
            repeated: false,
        };
        let (mut outcome, refused) = send_batch(line, &load, session).await?;
        if load.last {
            close(line, batch, session).await?;
        }
        outcome.skipped = rows.skipped;
        outcome.refused = ranges(refused.iter().filter_map(|at| rows.places.get(*at).copied()));
        self.ledger.finish_batch(line.task, &self.holder, batch.number, &outcome).await?;
        Ok(())
    }

    async fn new_session(
        &self,
        task: &Task,
        platform_id: &str,
        users: u64,
    ) -> Result<Session, LedgerError> {
        let receipts = self.ledger.receipts(task.id).await?;
        // The same id as long as the platform knows the session: it starts over with the first
        // request, where another id would have to wait until the old one has run out.
        let lost = receipts.iter().filter(|r| r.platform_ref.as_deref() == Some(LOST_SESSION));
        let text = format!("{platform_id}/{}/{}/{}", task.sync, task.run, lost.count());
        let digest = HashedIdentifier::of_normalised(&text).0;
        let mut id = [0u8; 8];
        id.copy_from_slice(&digest[..8]);
        Ok(Session {
            id: (i64::from_be_bytes(id) & i64::MAX).max(1),
            opened: false,
            closed: false,
            sent: 0,
            spare: Vec::new(),
            estimated_total: users,
        })
    }

    async fn complete(&self, task: &Task) -> Result<TaskEnd, LedgerError> {
        let now = self.clock.now();
        self.ledger.complete_task(task.id, &self.holder, now).await?;
        let subject = task.sync.as_str();
        self.ledger.resolve_alert(AlertKind::TaskFailed, subject, now).await?;
        self.ledger.resolve_alert(AlertKind::RunHeld, subject, now).await?;
        let run = self.ledger.run(task.run).await?;
        let why = format!(
            "version {}: {} read, {} sent, {} skipped, {} rejected",
            run.to_version,
            run.read,
            run.sent,
            run.skipped.values().sum::<u64>(),
            run.rejected.values().sum::<u64>()
        );
        self.record(task, "delivered", why).await?;
        Ok(TaskEnd::Done)
    }

    async fn failed(&self, task: &Task, error: &SendError) -> Result<TaskEnd, LedgerError> {
        let now = self.clock.now();
        // The row was read when the task was claimed; a batch that got through has reset the count.
        let before = self.ledger.task(task.id).await?.failures;
        let decision = decide_after_failure(FailureFacts {
            class: error.class,
            failures_before: before,
            seed: task.id.0 as u64,
        });
        if let Some(pause) = decision.pause_account {
            match error.class {
                SendClass::Wait(_) => self.quotas.pause(&task.destination, pause, now),
                _ => self.quotas.rest(&task.destination, pause, now),
            }
        }
        let retry_at = decision.retry_after.map(|after| now.plus(after));
        let why = error.message_for(&task.sync);
        let failed = self
            .ledger
            .fail_task(task.id, &self.holder, &why, retry_at, decision.counts, now)
            .await;
        let task = match failed {
            Ok(task) => task,
            Err(LedgerError::LeaseLost { .. }) => return Ok(TaskEnd::Lost),
            Err(error) => return Err(error),
        };
        tracing::warn!(task = %task.id, sync = %task.sync, failures = task.failures, error = why, "a try failed");
        let gave_up = task.state == TaskState::Failed;
        if decision.alert {
            let next = match (retry_at, error.advice) {
                (Some(at), _) => format!(" It is tried again at {at}."),
                (None, Advice::Requeue) => {
                    format!(" Fix the cause, then run `throng sync requeue {}`.", task.id)
                }
                (None, Advice::Recreate | Advice::None) => String::new(),
            };
            let message = format!("{} failures in a row, the last: {why}.{next}", task.failures);
            let alert =
                NewAlert { kind: AlertKind::TaskFailed, subject: task.sync.to_string(), message };
            self.ledger.raise_alert(&alert, now).await?;
        }
        if decision.counts {
            let what = if gave_up { "failed" } else { "try_failed" };
            self.record(&task, what, why).await?;
        }
        Ok(if gave_up { TaskEnd::Failed } else { TaskEnd::Later })
    }

    async fn record(&self, task: &Task, what: &str, why: String) -> Result<(), LedgerError> {
        let entry = HistoryEntry {
            subject_kind: throng_store::SubjectKind::Sync,
            subject: task.sync.to_string(),
            what: what.to_owned(),
            why,
            at: self.clock.now(),
            actor: None,
        };
        self.ledger.record(&[entry]).await
    }
}

/// Reads the identifiers of the users in these batches: rank in the batch → best row.
async fn read_pass(
    identifiers: &dyn IdentifierSource,
    users: &RunUsers,
    index: &MembershipIndex,
    pass: &[Batch],
) -> Result<BTreeMap<u32, Collected>, SendError> {
    let mut collected: BTreeMap<u32, Collected> = BTreeMap::new();
    let mut stream = identifiers.open().await?;
    while let Some(rows) = stream.next().await? {
        for IdentifierRow { user, row, .. } in rows {
            let Some(user) = index.locate(user) else { continue };
            let Some((operation, rank)) = users.rank(user.shard, user.ordinal) else { continue };
            let Some(batch) = batch_of(pass, operation, rank) else { continue };
            let place = rank - batch.first_rank;
            collected.entry(batch.number).or_default().offer(place, row);
        }
    }
    Ok(collected)
}

/// The rows of a batch.
#[derive(Debug, Default)]
struct BatchRows {
    /// Those to send.
    prepared: Vec<PreparedRow>,
    /// Their places in the batch.
    places: Vec<u32>,
    /// The counts of those that are not sent, by reason.
    skipped: BTreeMap<String, u64>,
}

/// Places as ranges, in order.
fn ranges(places: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut places: Vec<u32> = places.collect();
    places.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for place in places {
        match ranges.last_mut() {
            Some((_, end)) if *end >= place => *end = (*end).max(place + 1),
            _ => ranges.push((place, place + 1)),
        }
    }
    ranges
}

/// Whole batches, as many as fit; at least one.
fn passes(batches: &[Batch], rows: u64) -> Vec<&[Batch]> {
    let mut passes = Vec::new();
    let (mut start, mut in_pass) = (0, 0u64);
    for (at, batch) in batches.iter().enumerate() {
        if at > start && in_pass + batch.rows > rows {
            passes.push(&batches[start..at]);
            (start, in_pass) = (at, 0);
        }
        in_pass += batch.rows;
    }
    if start < batches.len() {
        passes.push(&batches[start..]);
    }
    passes
}

/// The batch of a pass that holds this rank. A pass has its batches in order of operation and rank.
fn batch_of(pass: &[Batch], operation: Operation, rank: u64) -> Option<&Batch> {
    let key = |b: &Batch| (b.operation == Operation::Remove, b.first_rank);
    let wanted = (operation == Operation::Remove, rank);
    let after = pass.partition_point(|b| key(b) <= wanted);
    let batch = pass.get(after.checked_sub(1)?)?;
    (batch.operation == operation && rank < batch.first_rank + batch.rows).then_some(batch)
}

/// The rows found for a batch's users, by place in the batch.
#[derive(Default)]
struct Collected(BTreeMap<u64, Result<PreparedRow, Skip>>);

impl Collected {
    /// Of several rows of a user the smallest usable one counts: the same one in whatever order
    /// the query returns them.
    fn offer(&mut self, place: u64, row: Result<PreparedRow, Skip>) {
        match self.0.entry(place) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(row);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                // `Ok` is less than `Err`.
                if row < *entry.get() {
                    *entry.get_mut() = row;
                }
            }
        }
    }
}

/// The rows to send, and the counts of those that are not.
fn split(batch: &Batch, collected: &mut Collected) -> BatchRows {
    let mut rows = BatchRows::default();
    let missing = batch.rows - collected.0.len() as u64;
    if missing > 0 {
        rows.skipped.insert(NO_IDENTIFIERS.to_owned(), missing);
    }
    for (place, row) in std::mem::take(&mut collected.0) {
        match row {
            Ok(row) => {
                rows.prepared.push(row);
                rows.places.push(place as u32);
            }
            Err(Skip(reason)) => *rows.skipped.entry(reason.to_owned()).or_default() += 1,
        }
    }
    rows
}

/// Closes a replace session whose last rows were not sent or were refused, by sending a row of it
/// a second time, which platforms allow.
async fn close(
    line: &Line<'_>,
    batch: &Batch,
    session: &mut Option<Session>,
) -> Result<(), SendFailure> {
    let Some(open) = session.clone().filter(|s| s.opened && !s.closed) else { return Ok(()) };
    let load = Load {
        number: batch.number,
        operation: Operation::Replace,
        first_rank: 0,
        rows: &[],
        last: true,
        repeated: true,
    };
    // Larger than the number of every row.
    let from = open.estimated_total + 1;
    send_once(line, &load, &open.spare, session, from, true).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;

    fn batch(number: u32, operation: Operation, first_rank: u64, rows: u64) -> Batch {
        Batch { number, operation, first_rank, rows, state: BatchState::Pending, outcome: None }
    }

    #[test]
    fn passes_are_whole_batches_and_ranks_find_theirs() {
        let batches = [
            batch(0, Operation::Add, 0, 10),
            batch(1, Operation::Add, 10, 10),
            batch(2, Operation::Add, 20, 3),
            batch(3, Operation::Remove, 0, 10),
        ];
        let sizes: Vec<usize> = passes(&batches, 20).iter().map(|p| p.len()).collect();
        assert_eq!(sizes, [2, 2]);
        assert_eq!(passes(&batches, 1).len(), 4);
        let at = |op, rank| batch_of(&batches, op, rank).map(|b| b.number);
        assert_eq!(at(Operation::Add, 9), Some(0));
        assert_eq!(at(Operation::Add, 22), Some(2));
        assert_eq!(at(Operation::Add, 23), None);
        assert_eq!(at(Operation::Remove, 0), Some(3));
        assert_eq!(batch_of(&batches[1..2], Operation::Add, 3).map(|b| b.number), None);
    }

    #[test]
    fn the_best_row_of_a_user_does_not_depend_on_the_order() {
        let plain = |text: &str| -> PreparedRow { vec![Cell::Plain(text.into())].into() };
        let rows = [Err(Skip("no_usable_identifier")), Ok(plain("b")), Ok(plain("a"))];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut collected = Collected::default();
            for at in order {
                collected.offer(3, rows[at].clone());
            }
            let rows = split(&batch(0, Operation::Add, 0, 5), &mut collected);
            assert_eq!((rows.prepared, rows.places), (vec![plain("a")], vec![3]));
            assert_eq!(rows.skipped, BTreeMap::from([(NO_IDENTIFIERS.to_owned(), 4)]));
        }
    }
}
