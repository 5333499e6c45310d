//! Spend aggregation: events in, durable before the answer; budget states out, to gates and pages.
//!
//! Every ad group belongs to one partition of the event log, by the XXH3 of its name. A partition
//! has one owner: a task that applies events in the order of the log, and one engine. Its checkpoint
//! is the engine's state and the log's offset in one object; taking over is the checkpoint and a
//! replay. On one node all partitions are its own and events are applied before they are answered;
//! where many share a log, a consumer group says whose a partition is, frames reach the others over
//! the feed, and another aggregator applies the same events and stands in while the owner is silent.

mod accept;
mod apply;
mod board;
mod catalog;
mod checkpoint;
mod clock;
mod days;
mod error;
mod feed;
mod files;
mod gates;
mod history;
mod hub;
mod ids;
mod known;
mod partition;
mod position;
mod quarantine;
mod restart;
mod restore;
mod shared;
mod slices;
mod standby;
#[cfg(test)]
mod tests;
mod ticker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use parking_lot::Mutex;
use throng_feed::{Catalog, Frame};
use throng_gate::{Applied, Gate};
use throng_log::{EventLog, Retention};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Clock, Micros, Timestamp};
use throng_objects::Objects;
use throng_spec::Spec;
use throng_store::{BudgetDayRow, HistoryEntry};
use throng_telemetry::{metrics, spans};
use tokio::sync::broadcast;
use tracing::Instrument as _;
use xxhash_rust::xxh3::xxh3_64;

use crate::Health;

pub use accept::Accepted;
pub use board::Told;
pub use checkpoint::CheckpointError;
pub(crate) use checkpoint::{checkpoint_objects, checkpoint_offset};
pub use error::BudgetsError;
pub use feed::Feed;
pub use gates::GateReport;
pub use hub::{FeedFormat, Subscription};
pub use quarantine::{QuarantineList, QuarantinedRecord};
pub use shared::{follow_feed, share};
pub use standby::stand_by;
pub use throng_budget::AdGroupState;
pub use ticker::run;

use board::{Board, Taken};
use clock::SteadyClock;
use days::{Days, StoredDays};
use gates::Gates;
use history::Doors;
use hub::Framed;
use known::Known;
use partition::{Partition, Standing};
use restart::Restart;
pub use restore::Past;
use standby::{Heard, StandIns};

/// In a feed that others follow every so manieth frame says everything, for those who join.
const KEYFRAME_EVERY: u64 = 10;
/// Checkpoints on their way at the same time.
const CHECKPOINTS_AT_ONCE: usize = 2;

/// Who appends to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// This process alone, which applies what it appended before it answers.
    Here,
    /// Anybody. What is appended is applied by whoever owns the partition, soon after.
    Log,
}

/// What budget states are opened with.
pub struct BudgetsParts {
    /// Checkpoints.
    pub objects: Arc<dyn Objects>,
    /// Events.
    pub log: Arc<dyn EventLog>,
    /// The way of frames to other processes; `None` where there are none.
    pub feed: Option<Feed>,
    /// Who appends events.
    pub intake: Intake,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is kept of a log in files besides what a restart needs.
    pub retention: Retention,
    /// Partitions of which the operator has accepted that records are lost.
    pub accept_log_loss: Vec<u32>,
    /// How long ids are known, and how old events may be.
    pub promise: Duration,
    /// Where problems are reported.
    pub health: Arc<Health>,
}

/// Budget states of all ad groups. Cheap to ask; nothing here waits for a disk or a network except
/// [`Budgets::accept`], [`Budgets::tick`], [`Budgets::past`], [`Budgets::checkpoint`] and
/// [`Budgets::close`].
pub struct Budgets {
    clock: Arc<SteadyClock>,
    objects: Arc<dyn Objects>,
    log: Arc<dyn EventLog>,
    feed: Option<Feed>,
    intake: Intake,
    count: usize,
    /// The partitions that this process owns.
    own: ArcSwap<Vec<Arc<Partition>>>,
    stand_ins: StandIns,
    heard: Arc<Heard>,
    board: Board,
    known: ArcSwap<Known>,
    frames: broadcast::Sender<Framed>,
    gates: Gates,
    doors: Mutex<Doors>,
    ticks: AtomicU64,
    retention: Retention,
    promise: Duration,
    accept_log_loss: Mutex<BTreeSet<u32>>,
    health: Arc<Health>,
    /// Partitions whose log refuses events.
    refusing: Mutex<BTreeSet<u32>>,
    /// Partitions that were opened anew after they failed.
    restarts: Mutex<BTreeMap<u32, Restart>>,
    /// Held by whoever changes `own`.
    opening: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budgets")
            .field("partitions", &self.count)
            .field("intake", &self.intake)
            .finish_non_exhaustive()
    }
}

/// The partition of an ad group, the same on every node and in every client.
fn partition_of(ad_group: &AdGroupName, partitions: usize) -> usize {
    (xxh3_64(ad_group.as_str().as_bytes()) % partitions.max(1) as u64) as usize
}

impl Budgets {
    /// Budget states that nothing is known of yet: [`own`](Self::own) takes partitions over, and
    /// [`take_in`](Self::take_in) hears of the others.
    pub fn new(
        parts: BudgetsParts,
        spec: &Spec,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
    ) -> Self {
        let count = parts.log.partitions() as usize;
        Self {
            clock: Arc::new(SteadyClock::new(parts.clock)),
            objects: parts.objects,
            log: parts.log,
            feed: parts.feed,
            intake: parts.intake,
            count,
            own: ArcSwap::default(),
            stand_ins: StandIns::default(),
            heard: Arc::default(),
            board: Board::default(),
            known: ArcSwap::from_pointee(Known::of(spec, indexes, version, count)),
            frames: broadcast::channel(hub::BACKLOG).0,
            gates: Gates::default(),
            doors: Mutex::default(),
            ticks: AtomicU64::new(0),
            retention: parts.retention,
            promise: parts.promise,
            accept_log_loss: Mutex::new(parts.accept_log_loss.into_iter().collect()),
            health: parts.health,
            refusing: Mutex::default(),
            restarts: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// How many partitions the event log has.
    pub fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    /// The partitions that this process owns, ascending.
    pub fn owned(&self) -> Vec<u32> {
        self.own.load().iter().map(|p| p.number()).collect()
    }

    /// Owns exactly these partitions from now on: checkpoints and gives up those that are not among
    /// them, takes over those that are new, each from its checkpoint and the log. Reads what was
    /// appended since the checkpoint: some ten seconds of traffic after a crash. Must be called in
    /// a Tokio runtime, by one caller at a time.
    ///
    /// # Errors
    /// [`BudgetsError`] of the first partition that could not be taken over; the others are owned.
    pub async fn own(&self, wanted: &[u32]) -> Result<(), BudgetsError> {
        let _opening = self.opening.lock().await;
        let before = self.own.load_full();
        let keep = |p: &Arc<Partition>| wanted.contains(&p.number()) && !p.is_fenced();
        let (mut own, gone): (Vec<_>, Vec<_>) =
            before.iter().map(Arc::clone).partition(|p| keep(p));
        self.own.store(Arc::new(own.clone()));
        for partition in gone {
            partition.stop().await;
            if partition.is_fenced() {
                continue;
            }
            // Spares the next owner the replay; it may have taken over already.
            if let Err(error) = partition.checkpoint(self.clock.now()).await {
                tracing::debug!(
                    partition = partition.number(),
                    error = &error as &dyn std::error::Error,
                    "no last checkpoint"
                );
            }
        }
        let mut failed = None;
        for number in wanted {
            if own.iter().any(|p| p.number() == *number) {
                continue;
            }
            let opened = match self.stand_ins.take(*number) {
                Some(warm) => {
                    let heard = self.heard.epoch(*number);
                    standby::promote(warm, heard, self.clock.now()).await
                }
                None => self.open(*number, Standing::Owner).await,
            };
            match opened {
                Ok(partition) => {
                    self.clear_partition(*number);
                    own.push(Arc::clone(&partition));
                    own.sort_by_key(|p| p.number());
                    self.own.store(Arc::new(own.clone()));
                    // A spec that was applied meanwhile.
                    let known = self.known.load_full();
                    if partition.catalog_version() != known.catalog.version {
                        let ad_groups = known.configs.get(*number as usize);
                        let (version, now) = (known.catalog.version, self.clock.now());
                        partition.set_catalog(ad_groups.cloned().unwrap_or_default(), version, now);
                    }
                }
                Err(error) => {
                    self.report_partition(*number, &error);
                    failed = failed.or(Some(error));
                }
            }
        }
        // Everybody hears of the new epochs at once.
        self.ticks.store(0, Ordering::Relaxed);
        failed.map_or(Ok(()), Err)
    }

    async fn open(&self, number: u32, standing: Standing) -> Result<Arc<Partition>, BudgetsError> {
        let known = self.known.load_full();
        let accept_loss =
            standing == Standing::Owner && self.accept_log_loss.lock().contains(&number);
        let opened = Partition::open(partition::Opening {
            number,
            ad_groups: known.configs.get(number as usize).cloned().unwrap_or_default(),
            objects: Arc::clone(&self.objects),
            log: Arc::clone(&self.log),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            catalog_version: known.catalog.version,
            intake: self.intake,
            standing,
            heard: self.heard.epoch(number),
            retention: self.retention,
            accept_loss,
            promise: self.promise,
        })
        .instrument(spans::partition(number))
        .await;
        if opened.is_ok() && accept_loss {
            // What is lost later has to be accepted anew.
            self.accept_log_loss.lock().remove(&number);
        }
        opened
    }

    /// Whether another process has taken over a partition that this one is to own: it takes it back.
    fn is_fenced(&self) -> bool {
        self.own.load().iter().any(|partition| partition.is_fenced())
    }

    /// The partitions that this process stands in for, ascending.
    pub fn standing_by(&self) -> Vec<u32> {
        self.stand_ins.numbers()
    }

    /// Answers whoever told figures of a partition that this process owns.
    async fn answer(&self) {
        for partition in self.own.load_full().iter() {
            match partition.answer(self.clock.now()).await {
                // The next tick is a keyframe for everybody.
                Ok(true) => self.ticks.store(0, Ordering::Relaxed),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    partition = partition.number(),
                    error = &error as &dyn std::error::Error,
                    "another process told figures of this partition"
                ),
            }
        }
    }

    /// The feed from now on: keyframes first.
    pub fn subscribe(self: Arc<Self>, format: FeedFormat) -> Subscription {
        let frames = self.frames.subscribe();
        Subscription::new(self, frames, format)
    }

    /// A keyframe of every partition that has been heard of, encoded.
    fn keyframes(&self) -> Vec<Framed> {
        self.board.keyframes().iter().map(Framed::new).collect()
    }

    /// Brings a gate in this process up to date.
    pub fn feed_gate(&self, gate: &Gate) {
        for partition in self.own.load().iter() {
            self.board.take(&partition.keyframe());
        }
        for frame in self.board.keyframes() {
            gate.apply(&frame);
        }
    }

    /// The state of every ad group of the applied spec, by name: as this moment has it for the
    /// partitions that this process owns, as the feed told it last for the others.
    pub fn states(&self) -> Vec<AdGroupState> {
        let (own, known) = (self.own.load_full(), self.known.load_full());
        let now = self.clock.now();
        let mut states: Vec<AdGroupState> = own.iter().flat_map(|p| p.states(now)).collect();
        for (number, configs) in (0..).zip(&known.configs) {
            if own.iter().all(|p| p.number() != number) {
                states.extend(configs.iter().map(|config| {
                    let (actual, in_flight) = self.board.figures(number, config.index);
                    AdGroupState::of(config, actual, in_flight)
                }));
            }
        }
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// An ad group over time: recent points of its figures, what was predicted against what came per 3
    /// minutes, and what was spent in the last days. `None` if the applied spec does not have it. Of a partition that another
    /// process owns it is what the last checkpoint says, some ten seconds old.
    ///
    /// # Errors
    /// [`BudgetsError`] if that checkpoint cannot be read.
    pub async fn past(&self, ad_group: &AdGroupName) -> Result<Option<Past>, BudgetsError> {
        let now = self.clock.now();
        let number = partition_of(ad_group, self.count) as u32;
        let own = self.own.load_full();
        if let Some(partition) = own.iter().find(|p| p.number() == number) {
            return Ok(partition.past(ad_group, now));
        }
        let known = self.known.load_full();
        let configs = known.configs.get(number as usize).cloned().unwrap_or_default();
        restore::past_of(Arc::clone(&self.objects), number, configs, ad_group, now).await
    }

    /// What gates are told about the ad groups.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.load().catalog)
    }

    /// Goes on with the ad groups of another spec. Figures of ad groups that stay are kept.
    pub fn apply_spec(&self, spec: &Spec, indexes: &[(AdGroupName, AdGroupIndex)], version: u64) {
        let known = Arc::new(Known::of(spec, indexes, version, self.count));
        let now = self.clock.now();
        // First, so that a partition that is being opened does not miss it.
        self.known.store(Arc::clone(&known));
        // They may not be where the owner is when it hears of the spec.
        self.stand_ins.clear();
        for partition in self.own.load().iter() {
            let own = known.configs.get(partition.number() as usize).cloned().unwrap_or_default();
            partition.set_catalog(own, version, now);
            if self.feed.is_none() {
                self.board.take(&partition.keyframe());
            }
        }
        // The next tick is a keyframe for everybody.
        self.ticks.store(0, Ordering::Relaxed);
        for frame in self.keyframes() {
            // Nobody listening is no error.
            let _ = self.frames.send(frame);
        }
    }

    /// Notes what a gate has applied. `false` if there are too many gates to note another one.
    pub fn gate_report(&self, id: &str, versions: Vec<(u32, u64)>, at: Timestamp) -> bool {
        self.gates.report(id, versions, at)
    }

    /// The gates that have reported within the last hour.
    pub fn gates(&self) -> Vec<GateReport> {
        self.gates.all(self.clock.now())
    }

    /// How far the feed has come with each partition, as this node heard it.
    pub fn told(&self) -> Vec<Told> {
        self.board.told()
    }

    /// Closes windows by the clock and tells every gate about the partitions that this process
    /// owns. Returns whether any figure changed.
    pub async fn tick(&self, gate: &Gate) -> bool {
        let now = self.clock.now();
        let ahead = if self.clock.is_ahead() { 1.0 } else { 0.0 };
        metrics::gauge!(metrics::CLOCK_STEP_PENDING).set(ahead);
        let mut changed = false;
        let whole = self.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(KEYFRAME_EVERY);
        let own = self.own.load_full();
        let mut sends = Vec::new();
        for partition in own.iter().filter(|p| !p.is_fenced() && !p.is_failed()) {
            if partition.is_outdone() {
                // A frame that nobody takes would only keep stand-ins quiet.
                partition.close(now);
                continue;
            }
            let delta = partition.tick(now);
            changed |= !delta.entries.is_empty();
            match &self.feed {
                None => {
                    if self.board.take(&delta) == Taken::Gap {
                        self.board.take(&partition.keyframe());
                    }
                    self.tell(&delta, gate);
                }
                // A keyframe of the same version stands for the delta.
                Some(feed) => {
                    let frame = if whole { partition.keyframe() } else { delta };
                    sends.push(async move { feed.send(&frame, now).await });
                }
            }
        }
        for sent in futures::future::join_all(sends).await {
            if let Err(error) = sent {
                // Deltas build on each other: the next one must say everything.
                self.ticks.store(0, Ordering::Relaxed);
                tracing::warn!(error = &error as &dyn std::error::Error, "a frame was not sent");
            }
        }
        changed
    }

    /// Takes a frame of the feed in, and passes it on to gates. `false` if it told nothing new, or
    /// something before it is missing.
    pub fn take_in(&self, frame: &Frame, gate: &Gate) -> bool {
        let taken = self.board.take(frame);
        if let Some(own) = self.own.load().iter().find(|p| p.number() == frame.partition) {
            own.hear(frame.epoch);
        }
        if taken == Taken::Fresh {
            self.heard.note(frame);
            let age = self.clock.now().since(frame.at).as_secs_f64();
            metrics::histogram!(metrics::FEED_AGE_SECONDS).record(age);
            self.tell(frame, gate);
        }
        taken == Taken::Fresh
    }

    fn tell(&self, frame: &Frame, gate: &Gate) {
        if gate.apply(frame) == Applied::NeedKeyframe
            && let Some(keyframe) = self.board.keyframe(frame.partition)
        {
            gate.apply(&keyframe);
        }
        if self.frames.receiver_count() == 0 {
            return;
        }
        let bytes = Framed::new(frame);
        metrics::counter!(metrics::FEED_FRAME_BYTES_TOTAL).increment(bytes.newest.len() as u64);
        metrics::counter!(metrics::FEED_UPDATES_TOTAL).increment(frame.entries.len() as u64);
        // Nobody listening is no error.
        let _ = self.frames.send(bytes);
    }

    /// Writes a checkpoint of every partition of this process, and lets old records go.
    ///
    /// # Errors
    /// [`BudgetsError`] of the first that failed; its checkpoint before stays.
    pub async fn checkpoint(&self) -> Result<(), BudgetsError> {
        let own: Vec<Arc<Partition>> = self.own.load().iter().map(Arc::clone).collect();
        // Not all at once: writing a state down takes the processor for a while.
        let now = self.clock.now();
        let written = futures::stream::iter(own)
            .filter(|partition| std::future::ready(!partition.is_fenced()))
            .map(|partition| async move {
                let written = partition.checkpoint_at(now).await;
                self.note_checkpoint(partition.number(), written.as_ref().err());
                written
            })
            .buffer_unordered(CHECKPOINTS_AT_ONCE);
        written.collect::<Vec<_>>().await.into_iter().collect()
    }

    /// Takes no more events, and writes the last checkpoint. Safe to call again.
    ///
    /// # Errors
    /// [`BudgetsError`].
    pub async fn close(&self) -> Result<(), BudgetsError> {
        for partition in self.own.load_full().iter() {
            partition.stop().await;
        }
        self.checkpoint().await
    }

    /// The spend of the last days of the partitions that this process owns, for the ledger: today's, and
    /// those of earlier days that changed since `stored`.
    fn days(&self, stored: &mut StoredDays) -> Days {
        let (known, now) = (self.known.load(), self.clock.now());
        let mut days = Days::default();
        for partition in self.own.load_full().iter() {
            let mut past: HashMap<AdGroupName, Vec<(BudgetDay, Micros)>> =
                partition.days(now).into_iter().collect();
            for state in partition.states(now) {
                let Some(zone) = known.zones.get(&state.name) else { continue };
                let today = BudgetDay::of(now, &zone.rules());
                let (budget, actual) = (state.budget, state.actual);
                let row = |day, actual| BudgetDayRow {
                    ad_group: state.name.clone(),
                    day,
                    budget,
                    actual,
                };
                days.today.push(row(today, actual));
                let spent = past.remove(&state.name).unwrap_or_default();
                for (day, actual) in spent.into_iter().filter(|(day, _)| *day != today) {
                    if stored.changes(&state.name, day, actual) {
                        days.past.push(row(day, actual));
                    }
                }
            }
        }
        stored.forget_before(now);
        days
    }

    /// Ad groups of this process's partitions that opened or closed since the last look.
    fn doors(&self) -> Vec<HistoryEntry> {
        let now = self.clock.now();
        let own = self.own.load_full();
        let states: Vec<AdGroupState> = own.iter().flat_map(|p| p.states(now)).collect();
        self.doors.lock().look(&states, now)
    }
}
