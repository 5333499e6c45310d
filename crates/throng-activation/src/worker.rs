//! The worker: sends one task from its next pending batch to its end. Dropping the future at any await is
//! safe: a batch without a recorded outcome is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use throng_delivered::SKIP_NO_IDENTIFIERS;
use throng_membership::MembershipIndex;
use throng_model::{Clock, HashSeed, HashedIdentifier, count, counted};
use throng_store::{
    AlertKind, Batch, BatchState, HistoryEntry, HistoryEvent, Ledger, LedgerError, NewAlert,
    Operation, Task, TaskState,
};

use crate::sending::{
    LOST_SESSION, RequestPosition, SendContext, SendInterruption, UploadSession, send_batch,
    send_once,
};
use crate::{
    Advice, Destination, FailureFacts, IdentifierRow, IdentifierSource, PlanFile, PreparedRow,
    Quotas, RunUsers, Schema, SendClass, SendError, Skip, decide_after_failure,
};

/// The shortest time between renewals of a lease: limits the load on the ledger if the clock runs fast.
const MIN_RENEW_INTERVAL: Duration = Duration::from_millis(100);

/// Settings of a worker.
#[derive(Debug, Clone, Copy)]
pub struct WorkerOptions {
    /// The duration of a task's lease; renewed at a third of it.
    pub lease: Duration,
    /// Users whose identifiers are kept in memory at the same time: about 40 bytes for each cell. The
    /// identifier query runs once for each pass of this many users of a run.
    pub pass_rows: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), pass_rows: 1_000_000 }
    }
}

/// The inputs of a task besides its row in the ledger.
pub struct TaskInput {
    /// The account.
    pub destination: Arc<dyn Destination>,
    /// The meaning of the identifier columns. A plan has its own keys.
    pub schema: Schema,
    /// The rows of the run.
    pub rows: TaskRows,
    /// The audience's name on the platform.
    pub platform_name: String,
    /// A replace session may adopt an audience of this name that the sync did not create, if the run was planned for
    /// that.
    pub adopt: bool,
    /// The id of the audience that the run was planned to adopt, which a person has approved. What the spec says now is
    /// no such approval: the run may have been planned before it was changed.
    pub adopts: Option<String>,
}

/// The source of a run's rows.
pub enum TaskRows {
    /// The rows were computed when the run was planned.
    Planned(Arc<PlanFile>),
    /// The run has only users, because an earlier version planned it: identifiers are read now.
    Users {
        /// The source of the identifiers.
        identifiers: Arc<dyn IdentifierSource>,
        /// The users of the run.
        users: RunUsers,
        /// Maps users to ordinals. At least as new as the snapshot to deliver.
        index: Arc<MembershipIndex>,
    },
}

impl TaskRows {
    fn add_operation(&self) -> Operation {
        match self {
            Self::Planned(plan) => plan.meta.put,
            Self::Users { users, .. } => users.add_operation(),
        }
    }

    fn adds(&self) -> u64 {
        match self {
            Self::Planned(plan) => plan.meta.rows[0] + plan.meta.rows[2],
            Self::Users { users, .. } => users.adds(),
        }
    }
}

/// The outcome of one try of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOutcome {
    /// Every batch has an outcome.
    Completed,
    /// It is retried later.
    Rescheduled,
    /// It has failed; an alert says why.
    Failed,
    /// Another worker has the lease now.
    LeaseLost,
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
    /// Identifies this worker in leases. Unique among all workers: with a shared name two workers would
    /// renew each other's leases.
    pub holder: String,
    /// Settings.
    pub options: WorkerOptions,
}

impl Worker {
    /// Works on a claimed task until the try ends, and records its outcome. `input` is an error if an input
    /// of the task is not available (a token, a snapshot, a query).
    ///
    /// # Errors
    /// Only those of the ledger; the task's lease then expires and another worker claims the task.
    pub async fn work(
        &self,
        task: &Task,
        input: Result<&TaskInput, SendError>,
    ) -> Result<TaskOutcome, LedgerError> {
        let result = match input {
            Ok(input) => {
                tokio::select! {
                    result = self.deliver(task, input) => result,
                    lost = self.renew_lease(task) => Err(lost.into()),
                }
            }
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(()) => self.complete(task).await,
            Err(SendInterruption::Destination(error)) => match error.class {
                SendClass::Paced(wait) => self.postpone(task, &error, wait).await,
                _ => self.record_failure(task, &error).await,
            },
            Err(SendInterruption::Ledger(LedgerError::LeaseLost { .. })) => {
                Ok(TaskOutcome::LeaseLost)
            }
            Err(SendInterruption::Ledger(error)) => Err(error),
            Err(SendInterruption::Paused) => {
                let now = self.clock.now();
                match self.ledger.release_task(task.id, &self.holder, now).await {
                    Ok(()) => Ok(TaskOutcome::Rescheduled),
                    Err(LedgerError::LeaseLost { .. }) => Ok(TaskOutcome::LeaseLost),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Renews the lease of a task. Returns only when the lease is lost: the caller must stop sending then,
    /// because another worker may be sending the same batches.
    async fn renew_lease(&self, task: &Task) -> LedgerError {
        loop {
            let pause = self.clock.wall_duration(self.options.lease / 3).max(MIN_RENEW_INTERVAL);
            tokio::time::sleep(pause).await;
            let until = self.clock.now().plus(self.options.lease);
            match self.ledger.renew_task_lease(task.id, &self.holder, until).await {
                Ok(()) => {}
                Err(error @ LedgerError::LeaseLost { .. }) => return error,
                Err(error) => tracing::warn!(task = %task.id, %error, "failed to renew lease"),
            }
        }
    }

    /// Sends the pending batches of a task, in order.
    async fn deliver(&self, task: &Task, input: &TaskInput) -> Result<(), SendInterruption> {
        let platform_id = match self.ledger.platform_audience(&task.sync).await? {
            Some(known) => known.platform_id,
            None => self.create_or_adopt_audience(task, input).await?,
        };
        // The columns of the sync may have changed since the rows were planned.
        let planned = |keys: &[String]| Schema { keys: keys.to_vec(), ..input.schema.clone() };
        let (schema, remove_schema) = match &input.rows {
            TaskRows::Planned(plan) => (planned(&plan.meta.keys), planned(&plan.meta.remove_keys)),
            TaskRows::Users { .. } => (input.schema.clone(), input.schema.clone()),
        };
        let context = SendContext {
            destination: &*input.destination,
            ledger: &*self.ledger,
            clock: &*self.clock,
            quotas: &self.quotas,
            name: &task.destination,
            run: task.run,
            task: task.id,
            platform_id: &platform_id,
            schema: &schema,
            remove_schema: &remove_schema,
        };
        let batches = self.ledger.batches(task.id).await?;
        let replaces = input.rows.add_operation() == Operation::Replace;
        let mut session = None;
        let mut pending: Vec<Batch> = batches;
        if replaces {
            // An interrupted session is started over, because its time window may have ended: all batches
            // are sent again. Batches with an outcome keep it. The last batch has an outcome only if its
            // session was closed, so a task without pending batches has replaced the list.
            if pending.iter().all(|b| b.state == BatchState::Done) {
                return Ok(());
            }
            session = Some(self.new_session(task, &platform_id, input.rows.adds()).await?);
        } else {
            pending.retain(|b| b.state == BatchState::Pending);
        }
        let last = pending.last().map(|b| b.number);
        match &input.rows {
            TaskRows::Planned(plan) => {
                for batch in &pending {
                    self.check_not_paused(task).await?;
                    let rows = self.read_plan_rows(plan, batch).await?;
                    let last = last == Some(batch.number);
                    self.send_rows(&context, batch, rows, last, &mut session).await?;
                }
            }
            TaskRows::Users { identifiers, users, index } => {
                for pass in passes(&pending, self.options.pass_rows) {
                    let mut found = read_pass(&**identifiers, users, index, pass).await?;
                    for batch in pass {
                        self.check_not_paused(task).await?;
                        let mut rows_by_index = found.remove(&batch.number).unwrap_or_default();
                        let rows = batch_rows_of(batch, &mut rows_by_index);
                        let last = last == Some(batch.number);
                        self.send_rows(&context, batch, rows, last, &mut session).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Between two batches: fails if the sync was paused after the task was claimed.
    async fn check_not_paused(&self, task: &Task) -> Result<(), SendInterruption> {
        match self.ledger.is_sync_paused(&task.sync).await? {
            true => Err(SendInterruption::Paused),
            false => Ok(()),
        }
    }

    /// Reads the rows of a batch from a plan.
    async fn read_plan_rows(
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
                let message = "reading the rows of the run was interrupted";
                return Err(SendError::local(SendClass::Retry, message));
            }
        };
        let mut rows = BatchRows::default();
        for (index_in_batch, entry) in (0u32..).zip(entries) {
            match entry.send {
                Ok(row) => {
                    rows.prepared.push(row);
                    rows.indices.push(index_in_batch);
                }
                Err(reason) => *rows.skipped.entry(reason).or_default() += 1,
            }
        }
        Ok(rows)
    }

    async fn send_rows(
        &self,
        context: &SendContext<'_>,
        batch: &Batch,
        rows: BatchRows,
        last: bool,
        session: &mut Option<UploadSession>,
    ) -> Result<(), SendInterruption> {
        let (mut outcome, refused) =
            send_batch(context, batch, &rows.prepared, last, session).await?;
        if last {
            close_session(context, batch, session).await?;
            let is_closed = session.as_ref().is_none_or(|session| session.closed);
            if batch.operation == Operation::Replace && !is_closed {
                // The batch stays pending: a completed run would say that the list was replaced.
                let message = "the platform has accepted no row of the list, so that its list was not replaced";
                return Err(SendError::local(SendClass::Stop, message).into());
            }
        }
        outcome.skipped = rows.skipped;
        outcome.refused = ranges(refused.iter().filter_map(|at| rows.indices.get(*at).copied()));
        self.ledger.finish_batch(context.task, &self.holder, batch.number, &outcome).await?;
        Ok(())
    }

    async fn new_session(
        &self,
        task: &Task,
        platform_id: &str,
        users: u64,
    ) -> Result<UploadSession, LedgerError> {
        let receipts = self.ledger.receipts(task.id).await?;
        // The same id as long as the platform knows the session: its first request starts the session over.
        // With another id the request would be refused until the old session expires.
        let lost = receipts.iter().filter(|r| r.platform_ref.as_deref() == Some(LOST_SESSION));
        let text = format!("{platform_id}/{}/{}/{}", task.sync, task.run, lost.count());
        let digest = HashedIdentifier::of_normalised(&text).0;
        let mut id = [0u8; 8];
        id.copy_from_slice(&digest[..8]);
        Ok(UploadSession {
            id: (i64::from_be_bytes(id) & i64::MAX).max(1),
            opened: false,
            closed: false,
            sent: 0,
            closing_row: Vec::new(),
            estimated_total: users,
        })
    }

    async fn complete(&self, task: &Task) -> Result<TaskOutcome, LedgerError> {
        let now = self.clock.now();
        self.ledger.complete_task(task.id, &self.holder, now).await?;
        let subject = task.sync.as_str();
        self.ledger.resolve_alert(AlertKind::TaskFailed, subject, now).await?;
        self.ledger.resolve_alert(AlertKind::RunHeld, subject, now).await?;
        let run = self.ledger.run(task.run).await?;
        let why = format!(
            "version {}: {} read, {} sent, {} skipped, {} rejected",
            run.to_version,
            count(run.read),
            count(run.sent),
            count(run.skipped.values().sum()),
            count(run.rejected.values().sum())
        );
        self.record_history(task, HistoryEvent::Delivered, why).await?;
        Ok(TaskOutcome::Completed)
    }

    async fn record_failure(
        &self,
        task: &Task,
        error: &SendError,
    ) -> Result<TaskOutcome, LedgerError> {
        let now = self.clock.now();
        // Read again: since the task was claimed, a completed batch may have reset the count.
        let before = self.ledger.task(task.id).await?.failures;
        let decision = decide_after_failure(FailureFacts {
            class: error.class,
            failures_before: before,
            seed: task.id.0 as u64,
        });
        if let Some(pause) = decision.pause_account {
            match error.class {
                SendClass::Throttled(_) => self.quotas.pause(&task.destination, pause, now),
                _ => self.quotas.suspend(&task.destination, pause, now),
            }
        }
        let retry_at = decision.retry_after.map(|after| now.plus(after));
        let why = error.message_for(&task.sync);
        let recorded = self
            .ledger
            .fail_task(task.id, &self.holder, &why, retry_at, decision.counts, now)
            .await;
        let task = match recorded {
            Ok(task) => task,
            Err(LedgerError::LeaseLost { .. }) => return Ok(TaskOutcome::LeaseLost),
            Err(error) => return Err(error),
        };
        tracing::warn!(task = %task.id, sync = %task.sync, failures = task.failures, error = why, "try of task failed");
        let has_failed = task.state == TaskState::Failed;
        if decision.alert {
            let next = match (retry_at, error.advice) {
                (Some(at), _) => format!(" It is retried at {at}."),
                (None, Advice::Requeue) => {
                    format!(" Fix the cause, then run `throng sync requeue {}`.", task.id)
                }
                (None, Advice::Recreate | Advice::None) => String::new(),
            };
            let failures = counted(u64::from(task.failures), "consecutive failure");
            let message = format!("{failures}, the last: {why}.{next}");
            let (kind, subject) = (AlertKind::TaskFailed, task.sync.to_string());
            self.ledger.raise_alert(&NewAlert { kind, subject, message }, now).await?;
        }
        if decision.counts {
            let what = if has_failed { HistoryEvent::Failed } else { HistoryEvent::TryFailed };
            self.record_history(&task, what, why).await?;
        }
        Ok(if has_failed { TaskOutcome::Failed } else { TaskOutcome::Rescheduled })
    }

    async fn record_history(
        &self,
        task: &Task,
        what: HistoryEvent,
        why: String,
    ) -> Result<(), LedgerError> {
        let entry = HistoryEntry {
            subject_kind: throng_store::SubjectKind::Sync,
            subject: task.sync.to_string(),
            what,
            why,
            at: self.clock.now(),
            actor: None,
        };
        self.ledger.record_history(&[entry]).await
    }
}

/// Reads the identifiers of the users in these batches: for each batch the best row by index in the batch.
async fn read_pass(
    identifiers: &dyn IdentifierSource,
    users: &RunUsers,
    index: &MembershipIndex,
    pass: &[Batch],
) -> Result<BTreeMap<u32, RowsByIndex>, SendError> {
    let mut rows_by_index: BTreeMap<u32, RowsByIndex> = BTreeMap::new();
    let mut stream = identifiers.open(&[]).await?;
    while let Some(rows) = stream.next().await? {
        for IdentifierRow { user, row, .. } in rows {
            let Some(user) = index.locate(user) else { continue };
            let Some((operation, rank)) = users.rank(user.shard, user.ordinal) else { continue };
            let Some(batch) = batch_of(pass, operation, rank) else { continue };
            let index_in_batch = rank - batch.first_rank;
            rows_by_index.entry(batch.number).or_default().insert_best(index_in_batch, row);
        }
    }
    Ok(rows_by_index)
}

/// The rows of a batch.
#[derive(Debug, Default)]
struct BatchRows {
    /// The rows to send.
    prepared: Vec<PreparedRow>,
    /// Their indices in the batch.
    indices: Vec<u32>,
    /// The counts of skipped rows, by reason.
    skipped: BTreeMap<String, u64>,
}

/// Indices as sorted ranges.
fn ranges(indices: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut indices: Vec<u32> = indices.collect();
    indices.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some((_, end)) if *end >= index => *end = (*end).max(index + 1),
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}

/// Groups whole batches into passes of at most `rows` rows; a pass has at least one batch.
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

/// The batch of a pass that contains this rank. The batches of a pass are sorted by operation and rank.
fn batch_of(pass: &[Batch], operation: Operation, rank: u64) -> Option<&Batch> {
    let key = |b: &Batch| (b.operation == Operation::Remove, b.first_rank);
    let wanted = (operation == Operation::Remove, rank);
    let after = pass.partition_point(|b| key(b) <= wanted);
    let batch = pass.get(after.checked_sub(1)?)?;
    (batch.operation == operation && rank < batch.first_rank + batch.rows).then_some(batch)
}

/// The rows found for a batch's users, by index in the batch.
#[derive(Default)]
struct RowsByIndex(BTreeMap<u64, Result<PreparedRow, Skip>>);

impl RowsByIndex {
    /// Of several rows of a user the smallest usable one counts, so that the order of the query's rows does
    /// not matter.
    fn insert_best(&mut self, index_in_batch: u64, row: Result<PreparedRow, Skip>) {
        match self.0.entry(index_in_batch) {
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

/// The rows to send, and the counts of skipped rows.
fn batch_rows_of(batch: &Batch, rows_by_index: &mut RowsByIndex) -> BatchRows {
    let mut rows = BatchRows::default();
    let missing = batch.rows - rows_by_index.0.len() as u64;
    if missing > 0 {
        rows.skipped.insert(SKIP_NO_IDENTIFIERS.to_owned(), missing);
    }
    for (index_in_batch, row) in std::mem::take(&mut rows_by_index.0) {
        match row {
            Ok(row) => {
                rows.prepared.push(row);
                rows.indices.push(index_in_batch as u32);
            }
            Err(Skip(reason)) => *rows.skipped.entry(reason.to_owned()).or_default() += 1,
        }
    }
    rows
}

/// Closes a replace session whose last rows were skipped or refused, by sending one of its rows a second
/// time, which platforms allow. Without it the platform would never apply the session.
async fn close_session(
    context: &SendContext<'_>,
    batch: &Batch,
    session: &mut Option<UploadSession>,
) -> Result<(), SendInterruption> {
    let Some(open) = session.clone().filter(|s| s.opened && !s.closed) else { return Ok(()) };
    let closing = Batch { operation: Operation::Replace, first_rank: 0, ..batch.clone() };
    // Larger than the sequence number of every row.
    let first = open.estimated_total + 1;
    let position = RequestPosition { first, last: true, repeated: true, part: true };
    send_once(context, &closing, &open.closing_row, position, session).await?;
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
    fn passes_are_whole_batches_and_a_rank_finds_its_batch() {
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
            let mut rows_by_index = RowsByIndex::default();
            for at in order {
                rows_by_index.insert_best(3, rows[at].clone());
            }
            let rows = batch_rows_of(&batch(0, Operation::Add, 0, 5), &mut rows_by_index);
            assert_eq!((rows.prepared, rows.indices), (vec![plain("a")], vec![3]));
            assert_eq!(rows.skipped, BTreeMap::from([(SKIP_NO_IDENTIFIERS.to_owned(), 4)]));
        }
    }
}
