//! One partition: its task, its engine, its part of the feed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throng_budget::{
    AdGroupConfig, AdGroupState, Applied, Engine, Event, EventProblem, EventRef, Series, Tally,
    events_to_record, read_record,
};
use throng_gate::feed::Frame;
use throng_log::{EventLog, LogError, Record, Tail};
use throng_model::{AdGroupName, Clock, Entropy as _, SystemEntropy, Timestamp};
use throng_objects::Objects;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::checkpoint::{Checkpoint, CheckpointError, Slot};
use super::{Accepted, BudgetsError, Intake, locked};

/// Batches that wait for a partition before callers are held up.
const QUEUE: usize = 1_024;
/// One append takes in no more waiting batches once it has this many events.
const APPEND_EVENTS: usize = 50_000;
/// Events of one record: it stays far below the longest that a log takes.
const RECORD_EVENTS: usize = 10_000;
/// Records before the checkpoint that are kept in files, for reprocessing and for a look at what
/// happened. Kafka keeps them by the topic's own rule.
const RETAINED_RECORDS: u64 = 1_000_000;
/// Events that are read before they are applied: they stay in the processor's caches.
const TOGETHER: usize = 512;
/// How long a stand-in that becomes the owner may take to apply what is in the log, and an owner that
/// answers a stand-in.
const CATCH_UP: Duration = Duration::from_secs(10);
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// A log in which nothing more comes for so long is at its end, whatever offset it tells: producers
/// with transactions leave marks that nobody reads.
const NOTHING_MORE: Duration = Duration::from_secs(5);
/// After a log failed a follower.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Events that wait to be appended, with their places in the caller's batch.
struct Batch {
    events: Vec<(usize, Event)>,
    done: oneshot::Sender<Result<Accepted, Arc<LogError>>>,
}

/// What a partition knows.
struct State {
    engine: Engine,
    /// The next record of the log to apply.
    offset: u64,
    epoch: u64,
}

/// What a process is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It tells the figures and writes checkpoints.
    Owner,
    /// It applies the same events and is ready to be the owner.
    StandIn,
}

/// What a partition is opened with.
pub(super) struct Opening {
    pub(super) number: u32,
    pub(super) ad_groups: Vec<AdGroupConfig>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog_version: u64,
    pub(super) intake: Intake,
    pub(super) standing: Standing,
    /// The highest epoch under which the partition's figures were heard.
    pub(super) heard: u64,
}

/// One partition of the event log with everything made of it.
pub(super) struct Partition {
    number: u32,
    log: Arc<dyn EventLog>,
    intake: Intake,
    state: Arc<Mutex<State>>,
    owner: u64,
    slot: tokio::sync::Mutex<Slot>,
    fenced: AtomicBool,
    /// The highest epoch of somebody else that was heard of.
    outdone: AtomicU64,
    /// The next record to apply, where others append.
    applied: watch::Receiver<u64>,
    /// Whether this process is the owner: what stand-ins apply is not counted in metrics.
    owns: Arc<AtomicBool>,
    queue: Mutex<Option<mpsc::Sender<Batch>>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Partition {
    /// Reads the checkpoint, applies what came since, and starts the task. An owner writes the
    /// checkpoint anew with a higher epoch first, so that an owner before can write no more.
    pub(super) async fn open(opening: Opening) -> Result<Arc<Self>, BudgetsError> {
        let Opening { number, ad_groups, objects, log, clock, catalog_version, .. } = opening;
        let (intake, standing, heard) = (opening.intake, opening.standing, opening.heard);
        let (mut slot, found) = Slot::open(objects, number).await?;
        let now = clock.now();
        let epoch = epoch_above(found.as_ref().map_or(0, |c| c.epoch.max(heard)).max(heard), now);
        let owner = SystemEntropy.next_u64();
        let mut state = restore(number, ad_groups, found, epoch, catalog_version)?;
        if standing == Standing::Owner {
            let taken = state.engine.checkpoint(state.offset);
            slot.put(&Checkpoint { partition: number, epoch, owner, state: taken }).await?;
        }
        let mut tail = None;
        if state.offset < log.end(number).await? || intake == Intake::Log {
            let (replayed, rest) = replay(number, &mut state, &*log, intake).await?;
            if standing == Standing::Owner {
                count(replayed);
            }
            tail = Some(rest);
        }
        state.engine.close(now);
        // The first version of this epoch says everything.
        state.engine.delta(now);
        let (progress, applied) = watch::channel(state.offset);
        let owns = Arc::new(AtomicBool::new(standing == Standing::Owner));
        let state = Arc::new(Mutex::new(state));
        let (queue, task) = match (intake, tail) {
            (Intake::Log, Some(tail)) => {
                let (log, state) = (Arc::clone(&log), Arc::clone(&state));
                let owns = Arc::clone(&owns);
                let follower = Follower { number, log, state, progress, owns };
                (None, tokio::spawn(follower.run(tail)))
            }
            _ => {
                let (sender, receiver) = mpsc::channel(QUEUE);
                let (log, state) = (Arc::clone(&log), Arc::clone(&state));
                (Some(sender), tokio::spawn(Writer { number, log, state, clock }.run(receiver)))
            }
        };
        Ok(Arc::new(Self {
            number,
            log,
            intake,
            state,
            owner,
            slot: tokio::sync::Mutex::new(slot),
            fenced: AtomicBool::new(false),
            outdone: AtomicU64::new(heard),
            applied,
            owns,
            queue: Mutex::new(queue),
            task: tokio::sync::Mutex::new(Some(task)),
        }))
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether another process has taken it over. What this one says does not count any more.
    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Makes a stand-in the owner, as if it had been opened as one, without the replay: what it has
    /// applied goes on. Waits until it has applied all that is in the log.
    /// `heard`: the epoch of the newest frame.
    pub(super) async fn take_over(&self, heard: u64, now: Timestamp) -> Result<(), BudgetsError> {
        self.hear(heard);
        let mut tries = 0;
        loop {
            let found = self.slot.lock().await.look().await?;
            let rises = self.rise_above(found.map_or(0, |checkpoint| checkpoint.epoch), now).await;
            tries += 1;
            match rises {
                // The owner before has just written its last one.
                Err(BudgetsError::Checkpoint(CheckpointError::Fenced { .. })) if tries < 3 => {
                    self.fenced.store(false, Ordering::Relaxed);
                }
                other => break other?,
            }
        }
        self.owns.store(true, Ordering::Relaxed);
        if self.catches_up(CATCH_UP).await? { Ok(()) } else { Err(BudgetsError::Closed) }
    }

    /// Waits until everything is applied that is in the log now. `false` if that takes too long.
    async fn catches_up(&self, patience: Duration) -> Result<bool, BudgetsError> {
        let end = self.log.end(self.number).await?;
        let mut applied = self.applied.clone();
        let caught_up = applied.wait_for(|applied| *applied >= end);
        Ok(matches!(tokio::time::timeout(patience, caught_up).await, Ok(Ok(_))))
    }

    /// Notes a frame of this partition's that this process has not made.
    pub(super) fn hear(&self, epoch: u64) {
        self.outdone.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Whether somebody tells figures under a higher epoch: nobody takes this process's then.
    pub(super) fn is_outdone(&self) -> bool {
        self.outdone.load(Ordering::Relaxed) > locked(&self.state).epoch
    }

    /// Of which version of the catalog its ad groups are.
    pub(super) fn catalog_version(&self) -> u64 {
        locked(&self.state).engine.catalog_version()
    }

    /// Answers whoever told figures of this partition under a higher epoch: a stand-in, while this
    /// process was silent, is outdone again; an owner after it has changed the checkpoint, and this
    /// process is fenced. Whether it was necessary.
    pub(super) async fn answer(&self, now: Timestamp) -> Result<bool, BudgetsError> {
        if !self.is_outdone() || self.is_fenced() {
            return Ok(false);
        }
        // After a pause there may be much to apply; until then the other one knows better.
        if !self.catches_up(ANSWER_PATIENCE).await? {
            return Ok(false);
        }
        let heard = self.outdone.load(Ordering::Relaxed);
        tracing::info!(partition = self.number, "another process told figures; they are told anew");
        self.rise_above(heard, now).await.map(|()| true)
    }

    /// Goes on under a higher epoch: in the checkpoint first, then in frames.
    async fn rise_above(&self, epoch: u64, now: Timestamp) -> Result<(), BudgetsError> {
        let epoch = epoch_above(epoch.max(self.outdone.load(Ordering::Relaxed)), now);
        let mut slot = self.slot.lock().await;
        self.write(&mut slot, epoch).await?;
        let mut state = locked(&self.state);
        state.epoch = epoch;
        state.engine.set_epoch(epoch);
        // A version that says everything.
        state.engine.delta(now);
        Ok(())
    }

    /// All figures, as a stand-in tells them while the owner is silent.
    pub(super) fn stand_in(&self, epoch: u64, now: Timestamp) -> Frame {
        let mut state = locked(&self.state);
        state.engine.close(now);
        state.engine.delta(now);
        Frame { epoch, ..state.engine.keyframe() }
    }

    /// Closes windows by the clock.
    pub(super) fn close(&self, now: Timestamp) {
        locked(&self.state).engine.close(now);
    }

    /// The next record of the log to apply.
    pub(super) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Appends and applies events, given with their places in the caller's batch.
    pub(super) async fn append(
        &self,
        events: Vec<(usize, Event)>,
    ) -> Result<Accepted, BudgetsError> {
        let queue = locked(&self.queue).clone().ok_or(BudgetsError::Closed)?;
        let (done, answer) = oneshot::channel();
        queue.send(Batch { events, done }).await.map_err(|_| BudgetsError::Closed)?;
        let answer = answer.await.map_err(|_| BudgetsError::Closed)?;
        answer.map_err(BudgetsError::Append)
    }

    /// Ends the task: once what waits is done, or at once where others append.
    pub(super) async fn stop(&self) {
        locked(&self.queue).take();
        let Some(task) = self.task.lock().await.take() else { return };
        if self.intake == Intake::Log {
            task.abort();
        }
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(partition = self.number, "the partition's task panicked");
        }
    }

    /// Goes on with other ad groups.
    pub(super) fn set_catalog(&self, ad_groups: Vec<AdGroupConfig>, version: u64, now: Timestamp) {
        let mut state = locked(&self.state);
        state.engine.configure(version, ad_groups);
        // A version that says everything under the new catalog.
        state.engine.delta(now);
    }

    pub(super) fn keyframe(&self) -> Frame {
        locked(&self.state).engine.keyframe()
    }

    /// Closes windows by the clock, and tells what changed since the last time.
    pub(super) fn tick(&self, now: Timestamp) -> Frame {
        let mut state = locked(&self.state);
        state.engine.close(now);
        state.engine.delta(now)
    }

    pub(super) fn states(&self, now: Timestamp) -> Vec<AdGroupState> {
        locked(&self.state).engine.states(now)
    }

    pub(super) fn series(&self, ad_group: &AdGroupName) -> Option<Series> {
        locked(&self.state).engine.series(ad_group)
    }

    /// Makes the state durable, and lets records go that are older than any use of them.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another process has the partition; this one is of no more use.
    pub(super) async fn checkpoint(&self) -> Result<(), BudgetsError> {
        let mut slot = self.slot.lock().await;
        let epoch = locked(&self.state).epoch;
        let offset = self.write(&mut slot, epoch).await?;
        if self.intake == Intake::Here {
            let keep_from = offset.saturating_sub(RETAINED_RECORDS);
            self.log.truncate_before(self.number, keep_from).await?;
        }
        Ok(())
    }

    /// Writes a checkpoint; the offset in it.
    async fn write(&self, slot: &mut Slot, epoch: u64) -> Result<u64, BudgetsError> {
        let (checkpoint, offset) = {
            let state = locked(&self.state);
            let (partition, owner) = (self.number, self.owner);
            let bytes = state.engine.checkpoint(state.offset);
            (Checkpoint { partition, epoch, owner, state: bytes }, state.offset)
        };
        let put = slot.put(&checkpoint).await;
        if matches!(put, Err(CheckpointError::Fenced { .. })) {
            self.fenced.store(true, Ordering::Relaxed);
        }
        put?;
        Ok(offset)
    }
}

/// Higher than any epoch before, also when the clock went back.
fn epoch_above(epoch: u64, now: Timestamp) -> u64 {
    u64::try_from(now.0).unwrap_or(0).max(epoch + 1)
}

/// The series of an ad group as the last checkpoint of its partition has it.
pub(super) async fn series_of(
    objects: Arc<dyn Objects>,
    number: u32,
    ad_groups: Vec<AdGroupConfig>,
    ad_group: &AdGroupName,
) -> Result<Option<Series>, BudgetsError> {
    let (_, found) = Slot::open(objects, number).await?;
    Ok(restore(number, ad_groups, found, 0, 0)?.engine.series(ad_group))
}

/// The state in the checkpoint; an empty one if there is none.
fn restore(
    number: u32,
    ad_groups: Vec<AdGroupConfig>,
    found: Option<Checkpoint>,
    epoch: u64,
    catalog_version: u64,
) -> Result<State, BudgetsError> {
    let Some(checkpoint) = found else {
        let engine = Engine::new(number, epoch, catalog_version, ad_groups);
        return Ok(State { engine, offset: 0, epoch });
    };
    let restored = Engine::restore(&checkpoint.state, number, epoch, catalog_version, ad_groups);
    let (engine, offset) =
        restored.map_err(|source| BudgetsError::State { partition: number, source })?;
    Ok(State { engine, offset, epoch })
}

/// Applies what was appended since the checkpoint, and follows on from there.
async fn replay(
    number: u32,
    state: &mut State,
    log: &dyn EventLog,
    intake: Intake,
) -> Result<(Tally, Box<dyn Tail>), BudgetsError> {
    let mut tally = Tally::default();
    let begin = state.offset;
    let mut tail = log.tail(number, begin).await?;
    // More comes while a long replay lasts.
    'all: loop {
        let end = log.end(number).await?;
        if state.offset >= end {
            break;
        }
        while state.offset < end {
            match tokio::time::timeout(NOTHING_MORE, tail.next()).await {
                Ok(records) => tally += apply_records(number, state, &records?, intake)?,
                Err(_) => break 'all,
            }
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, records = state.offset - begin, "events replayed");
    }
    Ok((tally, tail))
}

/// Applies records' events, each for itself. Where anybody may append, events are checked here,
/// against the record's time, so that a replay decides the same; a record that is none is passed
/// over and counted. Where only this program appends, such a record is damage.
fn apply_records(
    number: u32,
    state: &mut State,
    records: &[Record],
    intake: Intake,
) -> Result<Tally, BudgetsError> {
    let mut events: Vec<(EventRef<'_>, Timestamp)> = Vec::with_capacity(TOGETHER);
    let (mut tally, mut refused) = (Tally::default(), 0);
    for record in records {
        let before = events.len();
        let read = read_record(&record.value, |event| {
            if intake == Intake::Here || event.is_sound(record.at) {
                events.push((event, record.at));
            } else {
                refused += 1;
            }
        });
        match (read, intake) {
            (Ok(()), _) => {}
            (Err(problem), Intake::Log) => {
                events.truncate(before);
                refused += 1;
                tracing::debug!(partition = number, offset = record.offset, %problem, "a record of the log does not count");
            }
            (Err(source), Intake::Here) => {
                let (partition, offset) = (number, record.offset);
                return Err(BudgetsError::Record { partition, offset, source });
            }
        }
        if events.len() >= TOGETHER {
            tally += state.engine.apply_all(&events);
            events.clear();
        }
    }
    tally += state.engine.apply_all(&events);
    if let Some(last) = records.last() {
        state.offset = last.offset + 1;
    }
    tally.rejected += refused;
    if tally.rejected > 0 {
        let (from, to) = (records.first().map(|r| r.offset), records.last().map(|r| r.offset));
        tracing::debug!(
            partition = number,
            from,
            to,
            rejected = tally.rejected,
            "events of these records do not count: no such ad group, too old, or not as the schema has them"
        );
    }
    Ok(tally)
}

fn count(tally: Tally) {
    metrics::counter!("throng_events_applied_total").increment(tally.counted);
    metrics::counter!("throng_events_applied_duplicate_total").increment(tally.duplicates);
    metrics::counter!("throng_events_applied_rejected_total").increment(tally.rejected);
}

/// The task of a partition that others append to: applies what comes.
struct Follower {
    number: u32,
    log: Arc<dyn EventLog>,
    state: Arc<Mutex<State>>,
    progress: watch::Sender<u64>,
    owns: Arc<AtomicBool>,
}

impl Follower {
    async fn run(self, mut tail: Box<dyn Tail>) {
        loop {
            match tail.next().await {
                Ok(records) => {
                    let mut state = locked(&self.state);
                    // With this intake no record is an error.
                    let applied = apply_records(self.number, &mut state, &records, Intake::Log);
                    if self.owns.load(Ordering::Relaxed) {
                        count(applied.unwrap_or_default());
                    }
                    self.progress.send_replace(state.offset);
                }
                Err(error) => {
                    tracing::error!(
                        partition = self.number,
                        error = &error as &dyn std::error::Error,
                        "the event log failed an aggregator"
                    );
                    tail = self.again().await;
                }
            }
        }
    }

    /// Follows on from where it stopped, as soon as that works.
    async fn again(&self) -> Box<dyn Tail> {
        loop {
            tokio::time::sleep(AFTER_TROUBLE).await;
            let from = locked(&self.state).offset;
            match self.log.tail(self.number, from).await {
                Ok(tail) => return tail,
                Err(error) => tracing::error!(
                    partition = self.number,
                    error = &error as &dyn std::error::Error,
                    "the event log cannot be followed"
                ),
            }
        }
    }
}

/// The task of a partition that only this process appends to: appends what waits, then applies it
/// in the log's order, so that the state is at every moment the log's up to an offset.
struct Writer {
    number: u32,
    log: Arc<dyn EventLog>,
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Batch>) {
        while let Some(first) = queue.recv().await {
            let mut count = first.events.len();
            let mut batches = vec![first];
            while count < APPEND_EVENTS
                && let Ok(next) = queue.try_recv()
            {
                count += next.events.len();
                batches.push(next);
            }
            self.append_and_apply(batches).await;
        }
    }

    async fn append_and_apply(&self, batches: Vec<Batch>) {
        let records: Vec<Bytes> = batches
            .iter()
            .flat_map(|batch| records(batch.events.iter().map(|(_, event)| event)))
            .collect();
        let (now, count) = (self.clock.now(), records.len() as u64);
        match self.log.append(self.number, now, records).await {
            Ok(_) => {
                let mut answers = Vec::with_capacity(batches.len());
                {
                    let mut state = locked(&self.state);
                    for batch in batches {
                        answers.push((batch.done, apply(&mut state, batch.events, now)));
                    }
                    state.offset += count;
                }
                for (done, answer) in answers {
                    // A caller that went away: counted all the same.
                    let _ = done.send(Ok(answer));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for batch in batches {
                    let _ = batch.done.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

/// Events as records of the log.
pub(super) fn records<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Bytes> {
    let events: Vec<&Event> = events.collect();
    events.chunks(RECORD_EVENTS).map(|c| events_to_record(c.iter().copied()).into()).collect()
}

fn apply(state: &mut State, events: Vec<(usize, Event)>, logged_at: Timestamp) -> Accepted {
    let mut answer = Accepted::default();
    for (place, event) in events {
        match state.engine.apply(&event, logged_at) {
            Ok(Applied::Counted) => answer.accepted += 1,
            Ok(Applied::Duplicate) => answer.duplicates += 1,
            // Its ad group went away after the check.
            Ok(Applied::UnknownAdGroup) => {
                let problem = EventProblem::unknown_ad_group(&event.ad_group, None);
                answer.rejected.push((place, problem));
            }
            Err(error) => answer.rejected.push((place, overflow(&error.to_string()))),
        }
    }
    answer
}

fn overflow(message: &str) -> EventProblem {
    EventProblem {
        line: 0,
        field: "event".to_owned(),
        message: message.to_owned(),
        help: "look at the ad group's price".to_owned(),
    }
}
