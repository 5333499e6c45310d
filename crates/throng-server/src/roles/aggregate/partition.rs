//! One partition: its task, its engine, its part of the feed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use throng_budget::{AdGroupConfig, AdGroupState, Engine, Event, LogPosition, Tally};
use throng_feed::Frame;
use throng_log::{EventLog, Record, Retention, Tail};
use throng_model::{AdGroupName, BudgetDay, Clock, Entropy as _, Micros, SystemEntropy, Timestamp};
use throng_objects::Objects;
use throng_telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::apply::{Applying, Batch, Follower, Writer, count, replay};
use super::checkpoint::{Checkpoint, CheckpointError, Slot};
use super::quarantine::Quarantine;
use super::restore::{Past, Restored, load_files, named_files};
use super::{Accepted, BudgetsError, Intake, files, ids, position, slices};

/// Batches that wait for a partition before callers are held up.
const QUEUE: usize = 1_024;
/// So many records of a replay may fail before the partition is given up: more are a fault of the program
/// or the log, not of a record.
const MAX_FAILING: usize = 100;
/// How long a stand-in that becomes the owner may take to apply what is in the log, and an owner that
/// answers a stand-in.
const CATCH_UP: Duration = Duration::from_secs(10);
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What a partition knows.
pub(super) struct State {
    pub(super) engine: Engine,
    /// The next record of the log to apply.
    pub(super) offset: u64,
    /// The checksum of the one before it: see [`LogPosition`].
    pub(super) last_record: Option<u64>,
    pub(super) epoch: u64,
}

impl State {
    /// Goes on to `position`, past these records.
    pub(super) fn advance(&mut self, position: u64, records: &[Record]) {
        let last = records.last().filter(|last| last.offset + 1 == position);
        match last {
            Some(last) => self.last_record = Some(position::checksum(last.at, &last.value)),
            // Marks of transactions lie between.
            None if position != self.offset => self.last_record = None,
            None => {}
        }
        self.offset = position;
    }

    /// The figures as frames tell them from now on, and what changed since the last time.
    fn tell(&mut self, now: Timestamp) -> Frame {
        self.engine.delta_at(now, self.offset)
    }

    /// How far in the log it is.
    fn position(&self) -> LogPosition {
        LogPosition { next_offset: self.offset, last_record: self.last_record }
    }
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
    pub(super) retention: Retention,
    /// Whether the operator has accepted that records of the log are lost.
    pub(super) accept_loss: bool,
    /// How long ids are known.
    pub(super) promise: Duration,
}

/// One partition of the event log with everything made of it.
pub(super) struct Partition {
    number: u32,
    log: Arc<dyn EventLog>,
    intake: Intake,
    state: Arc<Mutex<State>>,
    owner: u64,
    objects: Arc<dyn Objects>,
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
    quarantine: Arc<Quarantine>,
    retention: Retention,
    /// Files of checkpoints before that are removed in a while.
    unneeded: Mutex<files::Unneeded>,
    /// Its task has ended by a fault: what it knows is of no more use.
    failed: Arc<AtomicBool>,
}

/// Marks a partition as failed when its task panics.
struct FailureGuard(Arc<AtomicBool>);

impl Drop for FailureGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn spawn(
    failed: &Arc<AtomicBool>,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let guard = FailureGuard(Arc::clone(failed));
    let guarded = async move {
        let _guard = guard;
        task.await;
    };
    // The current span is that of the partition that is being opened.
    tokio::spawn(guarded.in_current_span())
}

/// Starts the task that applies events: as a follower of the log, or as the only one who appends to it.
fn start(
    intake: Intake,
    follower: Follower,
    tail: Box<dyn Tail>,
) -> (Option<mpsc::Sender<Batch>>, JoinHandle<()>) {
    let guarded = Arc::clone(&follower.failed);
    match intake {
        Intake::Log => (None, spawn(&guarded, follower.run(tail))),
        Intake::Here => {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let Follower { number, log, state, failed, .. } = follower;
            let writer = Writer { number, log, state, failed };
            (Some(sender), spawn(&guarded, writer.run(receiver)))
        }
    }
}

impl Partition {
    /// Reads the checkpoint, applies what came since, and starts the task. An owner writes the
    /// checkpoint anew with a higher epoch first, so that an owner before can write no more.
    pub(super) async fn open(opening: Opening) -> Result<Arc<Self>, BudgetsError> {
        let Opening { number, ad_groups, objects, log, clock, catalog_version, .. } = opening;
        let (intake, standing, heard) = (opening.intake, opening.standing, opening.heard);
        let promise = opening.promise;
        let quarantine = Quarantine::open(Arc::clone(&objects), number).await;
        let quarantine =
            quarantine.map_err(|source| BudgetsError::Quarantine { partition: number, source })?;
        let (mut slot, found) = Slot::open(Arc::clone(&objects), number).await?;
        let now = clock.now();
        let epoch = epoch_above(found.as_ref().map_or(0, |c| c.epoch.max(heard)).max(heard), now);
        let owner = SystemEntropy.next_u64();
        let files = load_files(&*objects, number, found.as_ref()).await?;
        let restored = Restored { number, ad_groups, epoch, catalog_version, now, promise, files };
        let mut state = restored.state(found)?;
        match opening.accept_loss {
            true => position::accept_loss(number, &mut state, &*log).await?,
            false => position::verify(number, &state, &*log).await?,
        }
        let taken = state.engine.checkpoint(state.position());
        let checkpoint = Checkpoint { partition: number, epoch, owner, state: taken };
        if standing == Standing::Owner {
            take_slot(&mut slot, &checkpoint, intake).await?;
            let needed = restored.objects();
            for folder in [ids::folder(number), slices::folder(number)] {
                files::remove_orphans(&*objects, &folder, &needed, now).await;
            }
        }
        let again = || {
            let checkpoint = Some(checkpoint.clone());
            restored.state(checkpoint)
        };
        let (replayed, tail) =
            replay_past_failures(intake, &quarantine, &mut state, again, &*log, (now, promise))
                .await?;
        if standing == Standing::Owner {
            count(replayed);
        }
        drop(checkpoint);
        state.engine.close(now);
        // The first version of this epoch says everything.
        state.tell(now);
        let (progress, applied) = watch::channel(state.offset);
        let owns = Arc::new(AtomicBool::new(standing == Standing::Owner));
        let state = Arc::new(Mutex::new(state));
        let quarantine = Arc::new(quarantine);
        let failed = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            number,
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            progress,
            owns: Arc::clone(&owns),
            quarantine: Arc::clone(&quarantine),
            clock,
            promise,
            failed: Arc::clone(&failed),
        };
        let (queue, task) = start(intake, follower, tail);
        Ok(Arc::new(Self {
            number,
            log,
            intake,
            state,
            owner,
            objects,
            slot: tokio::sync::Mutex::new(slot),
            fenced: AtomicBool::new(false),
            outdone: AtomicU64::new(heard),
            applied,
            owns,
            queue: Mutex::new(queue),
            task: tokio::sync::Mutex::new(Some(task)),
            quarantine,
            retention: opening.retention,
            unneeded: Mutex::default(),
            failed,
        }))
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether another process has taken it over. What this one says no longer counts.
    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Whether its task has ended by a fault. What it says no longer counts; it has to be opened
    /// anew.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Makes a stand-in the owner, as if it had been opened as one, without the replay: what it has
    /// applied goes on. Waits until it has applied all that is in the log.
    /// `heard`: the epoch of the newest frame.
    pub(super) async fn take_over(&self, heard: u64, now: Timestamp) -> Result<(), BudgetsError> {
        self.hear(heard);
        let mut tries = 0;
        loop {
            let found = self.slot.lock().await.look().await?;
            self.leave_slice_files(found.as_ref(), now)?;
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

    /// Needs no file of closed slices until the next [`Self::checkpoint`]: the owner before may have removed
    /// those that this process knows. Those of the owner's checkpoint are removed some time after this
    /// process's.
    fn leave_slice_files(
        &self,
        found: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<(), BudgetsError> {
        self.state.lock().engine.leave_slice_files();
        let Some(found) = found else { return Ok(()) };
        let names = named_files(self.number, &found.state)?.slices;
        let objects = names.iter().map(|name| slices::object(self.number, name));
        self.unneeded.lock().add(objects, now);
        Ok(())
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
        self.outdone.load(Ordering::Relaxed) > self.state.lock().epoch
    }

    /// Of which version of the catalog its ad groups are.
    pub(super) fn catalog_version(&self) -> u64 {
        self.state.lock().engine.catalog_version()
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
        self.write(&mut slot, epoch, now).await?;
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.engine.set_epoch(epoch);
        // A version that says everything.
        state.tell(now);
        Ok(())
    }

    /// All figures, as a stand-in tells them while the owner is silent.
    pub(super) fn stand_in(&self, epoch: u64, now: Timestamp) -> Frame {
        let mut state = self.state.lock();
        state.engine.close(now);
        state.tell(now);
        Frame { epoch, ..state.engine.keyframe() }
    }

    /// Closes windows by the clock.
    pub(super) fn close(&self, now: Timestamp) {
        self.state.lock().engine.close(now);
    }

    /// Writes runs of ids that are in memory. Every process that applies the same events makes the same
    /// ones, under the same names.
    pub(super) async fn save_ids(&self) -> Result<(), BudgetsError> {
        // What became unneeded meanwhile may be named by the owner's checkpoint.
        ids::save(&*self.objects, self.number, &self.state).await.map(drop)
    }

    /// The next record of the log to apply.
    pub(super) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Appends and applies events, given with their places in the caller's batch and the time that they
    /// were checked by.
    pub(super) async fn append(
        &self,
        events: Vec<(usize, Event)>,
        now: Timestamp,
    ) -> Result<Accepted, BudgetsError> {
        let queue = self.queue.lock().clone().ok_or(BudgetsError::Closed)?;
        let (done, answer) = oneshot::channel();
        // The task ends by itself only if it fails.
        let ended = || BudgetsError::Unavailable { partition: self.number };
        queue.send(Batch { events, now, done }).await.map_err(|_| ended())?;
        let answer = answer.await.map_err(|_| ended())?;
        answer.map_err(BudgetsError::Append)
    }

    /// Ends the task: once what waits is done, or at once where others append.
    pub(super) async fn stop(&self) {
        self.queue.lock().take();
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
        let mut state = self.state.lock();
        state.engine.configure(version, ad_groups, now);
        // A version that says everything under the new catalog.
        state.tell(now);
    }

    pub(super) fn keyframe(&self) -> Frame {
        self.state.lock().engine.keyframe()
    }

    /// Closes windows by the clock, and tells what changed since the last time.
    pub(super) fn tick(&self, now: Timestamp) -> Frame {
        let mut state = self.state.lock();
        state.engine.close(now);
        state.tell(now)
    }

    pub(super) fn states(&self, now: Timestamp) -> Vec<AdGroupState> {
        self.state.lock().engine.states(now)
    }

    pub(super) fn past(&self, ad_group: &AdGroupName, now: Timestamp) -> Option<Past> {
        Past::of(&self.state.lock().engine, ad_group, now)
    }

    /// The spend of every ad group's last days.
    pub(super) fn days(&self, now: Timestamp) -> Vec<(AdGroupName, Vec<(BudgetDay, Micros)>)> {
        self.state.lock().engine.all_days(now)
    }

    /// [`Self::checkpoint`], counted for metrics.
    pub(super) async fn checkpoint_at(&self, now: Timestamp) -> Result<(), BudgetsError> {
        let written = self.checkpoint(now).await;
        if written.is_err() {
            metrics::counter!(metrics::CHECKPOINT_FAILURES_TOTAL).increment(1);
        } else {
            let seconds = now.0.div_euclid(1_000_000) as f64;
            let name = metrics::CHECKPOINT_LAST_SUCCESS_TIMESTAMP_SECONDS;
            metrics::gauge!(name, "partition" => self.number.to_string()).set(seconds);
        }
        written
    }

    /// Makes the state durable, and lets records go that are older than any use of them.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another process has the partition; this one is of no more use.
    pub(super) async fn checkpoint(&self, now: Timestamp) -> Result<(), BudgetsError> {
        let partition = self.number;
        if self.is_failed() {
            return Err(BudgetsError::Unavailable { partition });
        }
        let flushed = self.quarantine.flush().await;
        flushed.map_err(|source| BudgetsError::Quarantine { partition, source })?;
        let mut slot = self.slot.lock().await;
        let (epoch, offset) = {
            let state = self.state.lock();
            (state.epoch, state.offset)
        };
        if self.intake == Intake::Log {
            // A topic that was made anew: what is counted must not be taken for a part of it.
            let end = self.log.end(partition).await?;
            if end < offset {
                return Err(BudgetsError::LogBehind { partition, checkpoint: offset, end });
            }
        }
        slices::save(&*self.objects, partition, &self.state, now).await?;
        let offset = self.write(&mut slot, epoch, now).await?;
        if self.intake == Intake::Here {
            self.log.retain(partition, self.retention, offset, now).await?;
        }
        Ok(())
    }

    /// Writes a checkpoint; the offset in it.
    async fn write(
        &self,
        slot: &mut Slot,
        epoch: u64,
        now: Timestamp,
    ) -> Result<u64, BudgetsError> {
        let unneeded = ids::save(&*self.objects, self.number, &self.state).await?;
        let (checkpoint, offset, named) = {
            let mut state = self.state.lock();
            if self.is_failed() || state.engine.has_failed() {
                return Err(BudgetsError::Unavailable { partition: self.number });
            }
            let (partition, owner) = (self.number, self.owner);
            let slice_file = |name: &String| slices::object(partition, name);
            let runs = state.engine.take_dropped_id_runs();
            let runs = runs.iter().map(|run| ids::object(partition, run));
            let slice_files = state.engine.take_dropped_slice_files();
            let dropped = runs.chain(slice_files.iter().map(slice_file));
            self.unneeded.lock().add(unneeded.into_iter().chain(dropped), now);
            let named: HashSet<String> =
                state.engine.slice_file_names().iter().map(slice_file).collect();
            let bytes = state.engine.checkpoint(state.position());
            (Checkpoint { partition, epoch, owner, state: bytes }, state.offset, named)
        };
        let put = slot.put(&checkpoint).await;
        if matches!(put, Err(CheckpointError::Fenced { .. })) {
            self.fenced.store(true, Ordering::Relaxed);
        }
        put?;
        let mut due = self.unneeded.lock().due(now);
        // It was made again, with the same contents.
        due.retain(|object| !named.contains(object));
        files::remove(&*self.objects, due).await;
        Ok(offset)
    }
}

/// Writes the checkpoint anew, so that an owner before can write no more.
async fn take_slot(
    slot: &mut Slot,
    checkpoint: &Checkpoint,
    intake: Intake,
) -> Result<(), BudgetsError> {
    match slot.put(checkpoint).await {
        // Nobody else can have the partition: a disk that is full must not keep it from being served.
        Err(error @ CheckpointError::Store { .. }) if intake == Intake::Here => {
            tracing::error!(
                partition = checkpoint.partition,
                error = &error as &dyn std::error::Error,
                "the first checkpoint cannot be written; it is tried again"
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Applies what came since the checkpoint. Records that cannot be applied are found by applying them one by
/// one from the checkpoint on, and go to the quarantine.
async fn replay_past_failures(
    intake: Intake,
    quarantine: &Quarantine,
    state: &mut State,
    again: impl Fn() -> Result<State, BudgetsError>,
    log: &dyn EventLog,
    (now, promise): (Timestamp, Duration),
) -> Result<(Tally, Box<dyn Tail>), BudgetsError> {
    let number = state.engine.partition();
    let mut applying = Applying { number, intake, quarantine, now, promise, one_by_one: false };
    let mut failing = 0;
    loop {
        match replay(&applying, state, log).await {
            Err(BudgetsError::Panicked { offset, .. }) if failing < MAX_FAILING => {
                if applying.one_by_one {
                    failing += 1;
                    quarantine.note(offset, "applying it panics", now);
                    let flushed = quarantine.flush().await;
                    flushed
                        .map_err(|source| BudgetsError::Quarantine { partition: number, source })?;
                }
                applying.one_by_one = true;
                *state = again()?;
            }
            other => return other,
        }
    }
}

/// Higher than any epoch before, also when the clock went back.
fn epoch_above(epoch: u64, now: Timestamp) -> u64 {
    // An epoch at the end of all numbers was made up: it cannot be outdone, and must not stop a node.
    u64::try_from(now.0).unwrap_or(0).max(epoch.saturating_add(1))
}
