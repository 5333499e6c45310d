//! One partition: its task, its engine, its part of the feed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use throng_budget::{AdGroupConfig, AdGroupState, Applied, Engine, Event, EventProblem, Series};
use throng_gate::feed::Frame;
use throng_log::{EventLog, LogError};
use throng_model::{AdGroupName, Clock, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::checkpoint::Checkpoint;
use super::{Accepted, BudgetsError, locked};

/// Batches that wait for a partition before callers are held up.
const QUEUE: usize = 1_024;
/// One append takes in no more waiting batches once it has this many events.
const APPEND_EVENTS: usize = 50_000;
/// A replay reads this many bytes at a time.
const REPLAY_BYTES: usize = 4 << 20;
/// Records before the checkpoint that are kept, for reprocessing and for a look at what happened:
/// the last million of each partition, some 100 MB.
const RETAINED_RECORDS: u64 = 1_000_000;

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

/// One partition of the event log with everything made of it.
pub(super) struct Partition {
    number: u32,
    checkpoints: PathBuf,
    log: Arc<dyn EventLog>,
    state: Arc<Mutex<State>>,
    queue: Mutex<Option<mpsc::Sender<Batch>>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Partition {
    /// Restores the state and starts the task.
    pub(super) async fn open(
        number: u32,
        ad_groups: Vec<AdGroupConfig>,
        checkpoints: PathBuf,
        log: Arc<dyn EventLog>,
        clock: &Arc<dyn Clock>,
        catalog_version: u64,
    ) -> Result<Arc<Self>, BudgetsError> {
        let now = clock.now();
        let mut state = restore(number, ad_groups, &checkpoints, now, catalog_version)?;
        replay(number, &mut state, &*log).await?;
        state.engine.close(now);
        // The first version of this epoch says everything.
        state.engine.delta(now);
        let state = Arc::new(Mutex::new(state));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            number,
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            clock: Arc::clone(clock),
        };
        let task = tokio::spawn(writer.run(receiver));
        Ok(Arc::new(Self {
            number,
            checkpoints,
            log,
            state,
            queue: Mutex::new(Some(sender)),
            task: tokio::sync::Mutex::new(Some(task)),
        }))
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

    /// Ends the task once what waits is done.
    pub(super) async fn stop_accepting(&self) {
        locked(&self.queue).take();
        if let Some(task) = self.task.lock().await.take()
            && task.await.is_err()
        {
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
    pub(super) async fn checkpoint(self: Arc<Self>) -> Result<(), BudgetsError> {
        let (checkpoint, offset) = {
            let state = locked(&self.state);
            let bytes = state.engine.checkpoint(state.offset);
            (Checkpoint { partition: self.number, epoch: state.epoch, state: bytes }, state.offset)
        };
        let folder = self.checkpoints.clone();
        tokio::task::spawn_blocking(move || checkpoint.write(&folder))
            .await
            .map_err(|_| BudgetsError::Closed)??;
        let keep_from = offset.saturating_sub(RETAINED_RECORDS);
        self.log.truncate_before(self.number, keep_from).await?;
        Ok(())
    }
}

/// The state in the checkpoint; an empty one if there is none.
fn restore(
    number: u32,
    ad_groups: Vec<AdGroupConfig>,
    checkpoints: &Path,
    now: Timestamp,
    catalog_version: u64,
) -> Result<State, BudgetsError> {
    // Higher than any before, also when the clock went back.
    let by_clock = u64::try_from(now.0).unwrap_or(0);
    match Checkpoint::read(checkpoints, number)? {
        Some(checkpoint) => {
            let epoch = by_clock.max(checkpoint.epoch + 1);
            let restored =
                Engine::restore(&checkpoint.state, number, epoch, catalog_version, ad_groups);
            let (engine, offset) =
                restored.map_err(|source| BudgetsError::State { partition: number, source })?;
            Ok(State { engine, offset, epoch })
        }
        None => {
            let engine = Engine::new(number, by_clock, catalog_version, ad_groups);
            Ok(State { engine, offset: 0, epoch: by_clock })
        }
    }
}

/// Applies what was appended after the checkpoint.
async fn replay(number: u32, state: &mut State, log: &dyn EventLog) -> Result<(), BudgetsError> {
    let begin = state.offset;
    loop {
        let records = log.read(number, state.offset, REPLAY_BYTES).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let event = Event::from_record(&record.value).map_err(|source| {
                BudgetsError::Record { partition: number, offset: record.offset, source }
            })?;
            // What it says was said when the event came.
            let _ = state.engine.apply(&event, record.at);
            state.offset = record.offset + 1;
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, events = state.offset - begin, "events replayed");
    }
    Ok(())
}

/// The task of a partition: appends what waits, then applies it in the log's order, so that the
/// state is at every moment the log's up to an offset.
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
            .flat_map(|batch| batch.events.iter())
            .map(|(_, event)| event.to_record().into())
            .collect();
        let now = self.clock.now();
        match self.log.append(self.number, now, records).await {
            Ok(_) => {
                for batch in batches {
                    let answer = self.apply(batch.events, now);
                    // A caller that went away: counted all the same.
                    let _ = batch.done.send(Ok(answer));
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

    fn apply(&self, events: Vec<(usize, Event)>, logged_at: Timestamp) -> Accepted {
        let mut answer = Accepted::default();
        let mut state = locked(&self.state);
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
            state.offset += 1;
        }
        answer
    }
}

fn overflow(message: &str) -> EventProblem {
    EventProblem {
        line: 0,
        field: "event".to_owned(),
        message: message.to_owned(),
        help: "look at the ad group's price".to_owned(),
    }
}
