//! Spend aggregation: events in, durable before the answer; budget states out, to gates and pages.
//!
//! Every ad group belongs to one partition of the event log, by the XXH3 of its name. A partition
//! has one leader: a task that applies events in the order of the log, and one engine. Its checkpoint
//! is the engine's state and the log's offset in one object; a takeover reads the checkpoint and
//! replays the log. The leader publishes frames on the feed, and every process applies the frames of
//! all partitions to its gate and forwards them, the leader's own among them.
//!
//! It is the same in a single node, which leads all partitions of a log in files, with a feed in memory,
//! and where several processes share a log: there a consumer group assigns the partitions, and a standby
//! replica in another process applies the same events and publishes the figures while the leader is
//! silent.

mod accept;
mod applied_catalog;
mod apply;
mod assignment;
mod budget_days;
mod catalog;
mod catalog_check;
mod checkpoint;
mod clock;
mod clock_check;
mod deps;
mod error;
mod feed;
mod feed_broadcast;
mod feed_state;
mod files;
mod gates;
mod ids;
mod kafka_feed;
mod local_feed;
mod outcomes;
mod position;
mod quarantine;
mod replica;
mod restart;
mod restore;
mod slices;
mod standby;
mod state;
mod states;
mod status_transitions;
#[cfg(test)]
mod tests;
mod tick_loop;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use parking_lot::Mutex;
use throng_feed::{Catalog, Frame};
use throng_log::{EventLog, Retention};
use throng_model::{AdGroupIndex, AdGroupName, Clock, Timestamp, partition_of};
use throng_objects::Objects;
use throng_spec::Spec;
use throng_store::HistoryEntry;
use throng_telemetry::{metrics, spans};
use tokio::sync::broadcast;
use tracing::Instrument as _;

pub use accept::{Accepted, CheckedEvents};
pub use assignment::{follow_assignment, follow_feed};
pub use catalog::ad_groups_of;
pub use catalog_check::NewestSpec;
pub use checkpoint::{checkpoint_objects, checkpoint_offset};
pub use deps::{
    AggregatorDeps, AggregatorMember, BudgetsDeps, FrameSink, HealthReporter, Host, ProblemKind,
};
pub use error::{BudgetsError, CheckpointError};
pub use feed::{Feed, FrameStream};
pub use feed_broadcast::{FeedFormat, Subscription};
pub use feed_state::FeedPosition;
pub use gates::GateReport;
pub use kafka_feed::KafkaFeed;
pub use local_feed::LocalFeed;
pub use quarantine::{QuarantineList, QuarantinedRecord};
pub use restore::SpendHistory;
pub use standby::run_standbys;
pub use throng_budget::AdGroupState;
pub use tick_loop::run;

use applied_catalog::AppliedCatalog;
use budget_days::RemovedDays;
use catalog_check::SpecVersions;
use clock::SteadyClock;
use feed_broadcast::EncodedFrame;
use feed_state::{ApplyOutcome, FeedState};
use gates::Gates;
use replica::{PartitionReplica, ReplicaRole};
use restart::Restart;
use standby::{FeedLiveness, StandbyTasks};
use status_transitions::StatusTransitions;

/// Every tenth frame is a keyframe, for processes that begin to follow the feed.
const KEYFRAME_INTERVAL: u64 = 10;
/// Checkpoints that are written at the same time.
const CONCURRENT_CHECKPOINTS: usize = 2;

/// How long [`Budgets::accept`] waits until the events are applied. It takes milliseconds; after this time
/// the leader is stuck, and the caller is not kept from its own work by that.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Budget states of all ad groups. Reads are cheap. Async methods may wait for a disk or a network, others
/// do no I/O.
pub struct Budgets {
    clock: Arc<SteadyClock>,
    objects: Arc<dyn Objects>,
    log: Arc<dyn EventLog>,
    /// `None` if events are checked before they are appended.
    versions: Option<Arc<SpecVersions>>,
    feed: Arc<dyn Feed>,
    count: usize,
    /// The partitions that this process leads.
    led: ArcSwap<Vec<Arc<PartitionReplica>>>,
    standbys: StandbyTasks,
    liveness: Arc<FeedLiveness>,
    feed_state: FeedState,
    /// Held while a frame is applied and forwarded: subscribers get frames in the order in which they were
    /// applied, as a delta before its base is a gap for them.
    forwarding: Mutex<()>,
    applied: ArcSwap<AppliedCatalog>,
    frames: broadcast::Sender<EncodedFrame>,
    gates: Gates,
    status_transitions: Mutex<StatusTransitions>,
    /// Of ad groups that the spec no longer has.
    removed_days: Mutex<RemovedDays>,
    /// At each multiple of [`KEYFRAME_INTERVAL`] a tick publishes keyframes; 0 makes the next one do so.
    ticks: AtomicU64,
    retention: Retention,
    dedupe_window: Duration,
    append_timeout: Duration,
    apply_timeout: Duration,
    /// No more events are accepted.
    closed: AtomicBool,
    accept_log_loss: Mutex<BTreeSet<u32>>,
    health: Arc<dyn HealthReporter>,
    /// The newest record of the log if the clock is behind it: see `check_clock`.
    newer_record: Mutex<Option<Timestamp>>,
    /// Partitions whose log refuses events.
    refusing: Mutex<BTreeSet<u32>>,
    /// The last attempts to reopen partitions that failed.
    restarts: Mutex<BTreeMap<u32, Restart>>,
    /// Held by the caller that changes `led`: two at a time could open one partition twice, and the
    /// second one would fence the first.
    assignment: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budgets").field("partitions", &self.count).finish_non_exhaustive()
    }
}

impl Budgets {
    /// Budget states without figures: [`set_assignment`](Self::set_assignment) opens the partitions that
    /// this process leads, and [`apply_frame`](Self::apply_frame) applies the frames of the others.
    pub fn new(
        parts: BudgetsDeps,
        spec: &Spec,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
    ) -> Self {
        let count = parts.log.partitions() as usize;
        let newest = parts.newest_spec.filter(|_| !parts.log.is_exclusive());
        Self {
            clock: Arc::new(SteadyClock::new(parts.clock)),
            objects: parts.objects,
            log: parts.log,
            versions: newest.map(|newest| Arc::new(SpecVersions::new(newest))),
            feed: parts.feed,
            count,
            led: ArcSwap::default(),
            standbys: StandbyTasks::default(),
            liveness: Arc::default(),
            feed_state: FeedState::default(),
            forwarding: Mutex::default(),
            applied: ArcSwap::from_pointee(AppliedCatalog::of(spec, indexes, version, count)),
            frames: broadcast::channel(feed_broadcast::CHANNEL_CAPACITY).0,
            gates: Gates::default(),
            status_transitions: Mutex::default(),
            removed_days: Mutex::default(),
            ticks: AtomicU64::new(0),
            retention: parts.retention,
            dedupe_window: parts.dedupe_window,
            append_timeout: parts.append_timeout,
            apply_timeout: parts.apply_timeout,
            closed: AtomicBool::new(false),
            accept_log_loss: Mutex::new(parts.accept_log_loss.into_iter().collect()),
            health: parts.health,
            newer_record: Mutex::default(),
            refusing: Mutex::default(),
            restarts: Mutex::default(),
            assignment: tokio::sync::Mutex::default(),
        }
    }

    /// How many partitions the event log has.
    pub fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    /// The partitions that this process leads, ascending.
    pub fn led_partitions(&self) -> Vec<u32> {
        self.led.load().iter().map(|p| p.number()).collect()
    }

    /// Leads exactly these partitions from now on: checkpoints and stops those that are not among
    /// them, and opens those that are new, each from its checkpoint and the log, or by promoting the
    /// standby replica of this process. Reads what was appended since the checkpoint: some ten seconds
    /// of traffic after a crash. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`BudgetsError`] of the first partition that could not be opened; the others are led.
    pub async fn set_assignment(&self, wanted: &[u32]) -> Result<(), BudgetsError> {
        let _assignment = self.assignment.lock().await;
        let before = self.led.load_full();
        // A fenced replica is dropped even if it is wanted: its state may lack what the other leader has
        // applied, and its checkpoint is refused. It is opened again below, from the newer checkpoint.
        let keep = |p: &Arc<PartitionReplica>| wanted.contains(&p.number()) && !p.is_fenced();
        let (mut led, revoked): (Vec<_>, Vec<_>) =
            before.iter().map(Arc::clone).partition(|p| keep(p));
        // Before the revoked ones stop: from here on no tick publishes their figures, so that the next
        // leader is not superseded by frames of this process.
        self.led.store(Arc::new(led.clone()));
        for partition in revoked {
            partition.stop().await;
            // Another leader has replaced the checkpoint: the write would be refused.
            if partition.is_fenced() {
                continue;
            }
            // Saves the next leader the replay. If that one has taken over already, the write is refused,
            // and its checkpoint is the newer one.
            if let Err(error) = partition.checkpoint(self.clock.now()).await {
                tracing::debug!(
                    partition = partition.number(),
                    error = &error as &dyn std::error::Error,
                    "failed to write the last checkpoint of a revoked partition"
                );
            }
        }
        // After the revoked ones have stopped: nothing reports problems of theirs from here on.
        self.clear_unassigned(wanted);
        let mut failed = None;
        for number in wanted {
            if led.iter().any(|p| p.number() == *number) {
                continue;
            }
            // A standby replica has applied the events already: a replay would leave the partition
            // without a leader for longer.
            let opened = match self.standbys.take(*number) {
                Some(replica) => {
                    let epoch = self.liveness.epoch(*number);
                    standby::promote(replica, epoch, self.clock.now()).await
                }
                None => self.open(*number, ReplicaRole::Leader).await,
            };
            match opened {
                Ok(partition) => {
                    self.clear_partition(*number);
                    led.push(Arc::clone(&partition));
                    led.sort_by_key(|p| p.number());
                    // One at a time, so that a partition is served as soon as it is open.
                    self.led.store(Arc::new(led.clone()));
                    self.update_catalog(&partition);
                    self.check_clock(&partition);
                }
                Err(error) => {
                    // One partition that cannot be opened does not keep the others from being led.
                    self.report_partition(*number, &error);
                    failed = failed.or(Some(error));
                }
            }
        }
        // The next tick publishes keyframes, with the new epochs.
        self.ticks.store(0, Ordering::Relaxed);
        failed.map_or(Ok(()), Err)
    }

    /// Gives a replica the applied catalog, if another one was applied while it was being opened:
    /// [`apply_spec`](Self::apply_spec) reaches only replicas that are in `led`.
    fn update_catalog(&self, partition: &PartitionReplica) {
        let applied = self.applied.load_full();
        if partition.catalog_version() < applied.catalog.version {
            self.set_catalog(partition, &applied, self.clock.now());
        }
    }

    async fn open(
        &self,
        number: u32,
        role: ReplicaRole,
    ) -> Result<Arc<PartitionReplica>, BudgetsError> {
        let applied = self.applied.load_full();
        // For one opening as the leader, whose checkpoint stores the new offset. A standby replica
        // writes no checkpoint, so the loss would have to be accepted again.
        let accept_loss =
            role == ReplicaRole::Leader && self.accept_log_loss.lock().contains(&number);
        let opened = PartitionReplica::open(replica::ReplicaConfig {
            number,
            ad_groups: applied.configs.get(number as usize).cloned().unwrap_or_default(),
            objects: Arc::clone(&self.objects),
            log: Arc::clone(&self.log),
            versions: self.versions.clone(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            catalog_version: applied.catalog.version,
            role,
            observed_epoch: self.liveness.epoch(number),
            retention: self.retention,
            accept_loss,
            dedupe_window: self.dedupe_window,
        })
        .instrument(spans::partition(number))
        .await;
        if opened.is_ok() && accept_loss {
            // What is lost later has to be accepted again.
            self.accept_log_loss.lock().remove(&number);
        }
        opened
    }

    /// Whether this process leads the partition with this replica.
    fn is_led(&self, replica: &Arc<PartitionReplica>) -> bool {
        self.led.load().iter().any(|led| Arc::ptr_eq(led, replica))
    }

    /// Whether another process has taken over a partition that is assigned to this one: it has to be
    /// opened again.
    fn has_fenced(&self) -> bool {
        self.led.load().iter().any(|partition| partition.is_fenced())
    }

    /// The partitions of which this process runs the standby replica, ascending.
    pub fn standby_partitions(&self) -> Vec<u32> {
        self.standbys.numbers()
    }

    /// Bumps the epoch of partitions that this process leads and another one publishes figures of.
    async fn reclaim_superseded(&self) {
        for partition in self.led.load_full().iter() {
            partition.shorten_backlog().await;
            match partition.reclaim(self.clock.now()).await {
                // The next tick publishes keyframes, with the new epoch.
                Ok(true) => self.ticks.store(0, Ordering::Relaxed),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    partition = partition.number(),
                    error = &error as &dyn std::error::Error,
                    "failed to bump the epoch of a superseded partition"
                ),
            }
        }
    }

    /// The feed from now on: keyframes first.
    pub fn subscribe(self: Arc<Self>, format: FeedFormat) -> Subscription {
        // Before the keyframes are made: a frame in between is in both then, and a gate ignores it
        // the second time. The other way round it would be in neither.
        let frames = self.frames.subscribe();
        Subscription::new(self, frames, format)
    }

    /// A keyframe of every partition that has published figures, encoded.
    fn keyframes(&self) -> Vec<EncodedFrame> {
        self.feed_state.keyframes().iter().map(EncodedFrame::new).collect()
    }

    /// Applies all figures to a gate in this process.
    pub fn update_gate(&self, gate: &dyn FrameSink) {
        for partition in self.led.load().iter().filter(|led| !led.has_backlog()) {
            self.forward(&partition.keyframe(), gate);
        }
        for frame in self.feed_state.keyframes() {
            _ = gate.apply_frame(&frame);
        }
    }

    /// An ad group over time: recent points of its figures, predicted and actual spend of every 3
    /// minutes, and the spend of the last days. `None` if the applied spec does not have it. For a
    /// partition that another process leads it is read from the last checkpoint, some ten seconds old.
    ///
    /// # Errors
    /// [`BudgetsError`] if that checkpoint cannot be read.
    pub async fn spend_history(
        &self,
        ad_group: &AdGroupName,
    ) -> Result<Option<SpendHistory>, BudgetsError> {
        let now = self.clock.now();
        let number = partition_of(ad_group.as_str(), self.count) as u32;
        let led = self.led.load_full();
        if let Some(partition) = led.iter().find(|p| p.number() == number) {
            return Ok(partition.spend_history(ad_group, now));
        }
        let applied = self.applied.load_full();
        let configs = applied.configs.get(number as usize).cloned().unwrap_or_default();
        restore::history_of(Arc::clone(&self.objects), number, configs, ad_group, now).await
    }

    /// What gates need to know of the ad groups.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.applied.load().catalog)
    }

    /// Continues with the ad groups of another spec. Figures of ad groups that stay are kept.
    pub fn apply_spec(&self, spec: &Spec, indexes: &[(AdGroupName, AdGroupIndex)], version: u64) {
        let applied = Arc::new(AppliedCatalog::of(spec, indexes, version, self.count));
        let now = self.clock.now();
        // First, so that a partition that is being opened does not miss it: see `update_catalog`.
        self.applied.store(Arc::clone(&applied));
        // A standby replica may be at another offset than the leader when the spec is applied, and
        // would give events in between another price. They start again from the leader's checkpoint.
        self.standbys.clear();
        // Before the partitions have them again: older rows would replace newer ones.
        self.removed_days.lock().forget_declared(&applied);
        for partition in self.led.load().iter() {
            self.set_catalog(partition, &applied, now);
        }
        // The next tick publishes keyframes.
        self.ticks.store(0, Ordering::Relaxed);
        let led = self.led.load_full();
        let complete = led.iter().filter(|led| !led.has_backlog());
        let keyframes: Vec<Frame> = complete.map(|led| led.keyframe()).collect();
        // As in `forward`: a frame that is forwarded in between could reach subscribers before its
        // base.
        let _forwarding = self.forwarding.lock();
        for keyframe in &keyframes {
            self.feed_state.apply(keyframe);
        }
        for frame in self.keyframes() {
            // It fails only if there are no subscribers.
            let _ = self.frames.send(frame);
        }
    }

    /// Records what a gate has applied. `false` if there are too many gates to record another one.
    pub fn gate_report(&self, id: &str, versions: Vec<(u32, u64)>, at: Timestamp) -> bool {
        self.gates.report(id, versions, at)
    }

    /// The gates that have reported within the last hour.
    pub fn gates(&self) -> Vec<GateReport> {
        self.gates.all(self.clock.now())
    }

    /// The newest frame of each partition that this node has applied.
    pub fn feed_positions(&self) -> Vec<FeedPosition> {
        self.feed_state.positions()
    }

    /// Closes windows by the clock and publishes the figures of the partitions that this process leads on
    /// the feed.
    pub async fn tick(&self) {
        let now = self.clock.now();
        let pending = if self.clock.has_pending_step() { 1.0 } else { 0.0 };
        metrics::gauge!(metrics::CLOCK_STEP_PENDING).set(pending);
        let keyframes =
            self.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(KEYFRAME_INTERVAL);
        let led = self.led.load_full();
        let mut sends = Vec::new();
        // Neither has figures that count: another leader has newer ones, or they are half changed.
        for partition in led.iter().filter(|p| !p.is_fenced() && !p.is_failed()) {
            if partition.is_superseded() || partition.has_backlog() {
                // Followers ignore a frame of a lower epoch, but its record moves the feed's end. As long
                // as that moves, a standby replica takes the leader for alive and publishes nothing, and
                // nobody would have figures.
                partition.close(now);
                continue;
            }
            let delta = partition.tick(now);
            // A keyframe of the same version replaces the delta.
            let frame = Arc::new(if keyframes { partition.keyframe() } else { delta });
            sends.push(self.feed.publish(frame, now));
        }
        // Concurrently: a broker that is slow must not delay the frames of partitions on other
        // brokers.
        for sent in futures::future::join_all(sends).await {
            if let Err(error) = sent {
                // A delta needs the one before it, which followers may not have: keyframes come next.
                self.ticks.store(0, Ordering::Relaxed);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to publish a frame"
                );
            }
        }
    }

    /// Applies a frame of the feed, and forwards it to gates. Returns whether any figure changed.
    pub fn apply_frame(&self, frame: &Frame, gate: &dyn FrameSink) -> bool {
        let outcome = self.forward(frame, gate);
        // Also of a frame that is not applied: its epoch shows that another process publishes figures of
        // a partition that this one leads.
        if let Some(led) = self.led.load().iter().find(|p| p.number() == frame.partition) {
            led.observe_epoch(frame.epoch);
            if outcome == ApplyOutcome::Gap {
                // The next tick publishes a keyframe, which closes it.
                self.ticks.store(0, Ordering::Relaxed);
            }
        }
        // Only of the newest frames: frames of a replaced leader do not show that the current one
        // is alive, and the standby replica would wait.
        if outcome.is_newest() {
            self.liveness.record(frame);
            let age = self.clock.now().since(frame.at).as_secs_f64();
            metrics::histogram!(metrics::FEED_AGE_SECONDS).record(age);
        }
        outcome == ApplyOutcome::Applied
    }

    /// Applies a frame to the figures of this process, and forwards it to gates if it is the newest one.
    fn forward(&self, frame: &Frame, gate: &dyn FrameSink) -> ApplyOutcome {
        let _forwarding = self.forwarding.lock();
        let outcome = self.feed_state.apply(frame);
        if outcome.is_newest() {
            self.send_to_gates(frame, gate);
        }
        outcome
    }

    /// Sends a frame to the gate of this process and to the subscribers of this node.
    fn send_to_gates(&self, frame: &Frame, gate: &dyn FrameSink) {
        // The gate has missed a frame. The figures of this process include this one, so their
        // keyframe closes the gap.
        if !gate.apply_frame(frame)
            && let Some(keyframe) = self.feed_state.keyframe(frame.partition)
        {
            _ = gate.apply_frame(&keyframe);
        }
        if self.frames.receiver_count() == 0 {
            return;
        }
        let bytes = EncodedFrame::new(frame);
        metrics::counter!(metrics::FEED_FRAME_BYTES_TOTAL).increment(bytes.newest.len() as u64);
        metrics::counter!(metrics::FEED_UPDATES_TOTAL).increment(frame.entries.len() as u64);
        // It fails only if there are no subscribers.
        let _ = self.frames.send(bytes);
    }

    /// Writes a checkpoint of every partition that this process leads, and deletes old records of the
    /// log.
    ///
    /// # Errors
    /// [`BudgetsError`] of the first that failed; its previous checkpoint stays.
    pub async fn checkpoint(&self) -> Result<(), BudgetsError> {
        let led: Vec<Arc<PartitionReplica>> = self.led.load().iter().map(Arc::clone).collect();
        // Not all at once: encoding a state keeps a processor busy for a while.
        let now = self.clock.now();
        let written = futures::stream::iter(led)
            // Its writes are refused: each would be reported as a problem, although the other
            // leader's checkpoint is the right one.
            .filter(|partition| std::future::ready(!partition.is_fenced()))
            .map(|partition| async move {
                let written = partition.checkpoint_at(now).await;
                // One that was revoked meanwhile is reported by its next leader.
                if self.is_led(&partition) {
                    self.report_checkpoint(partition.number(), written.as_ref().err());
                }
                written
            })
            .buffer_unordered(CONCURRENT_CHECKPOINTS);
        // All first, and then the error: one partition that fails must not keep the others from
        // being written.
        written.collect::<Vec<_>>().await.into_iter().collect()
    }

    /// Stops accepting and applying events, and writes the last checkpoint. Safe to call again.
    ///
    /// # Errors
    /// [`BudgetsError`].
    pub async fn close(&self) -> Result<(), BudgetsError> {
        self.closed.store(true, Ordering::Relaxed);
        // Before the checkpoint: what is applied after it would have to be replayed at the next
        // start.
        for partition in self.led.load_full().iter() {
            partition.stop().await;
        }
        self.checkpoint().await
    }

    /// Ad groups of the partitions that this process leads that opened or closed since the last call.
    fn status_transitions(&self) -> Vec<HistoryEntry> {
        let now = self.clock.now();
        let led = self.led.load_full();
        let states: Vec<AdGroupState> = led.iter().flat_map(|p| p.states(now)).collect();
        self.status_transitions.lock().record(&states, now)
    }
}
