//! One replica of a partition: its task, its engine and its checkpoints; as the leader or as a standby.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use throng_budget::{AdGroupConfig, AdGroupState, DayPrediction, DaySpend};
use throng_feed::Frame;
use throng_log::{EventLog, Retention};
use throng_model::{
    AdGroupName, BudgetDay, Clock, Entropy as _, OverdeliveryCauses, SystemEntropy, Timestamp,
};
use throng_objects::Objects;
use throng_store::BudgetDayRow;
use throng_telemetry::metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::apply::{Follower, Replayed, count, replay_and_quarantine};
use super::catalog_check::{CatalogCheck, SpecVersions};
use super::checkpoint::{Checkpoint, CheckpointStore, write_first_checkpoint};
use super::outcomes::{Outcomes, Waiting};
use super::quarantine::Quarantine;
use super::restore::{RestoreSource, SpendHistory, load_files, named_files};
use super::state::PartitionState;
use super::{BudgetsError, CheckpointError, files, ids, position, slices};

/// How long a standby replica that is promoted may take to apply the rest of the log.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a leader that was superseded and bumps its epoch.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(1);
/// Attempts to write the checkpoint of a promotion, while the previous leader still writes its own.
const PROMOTION_ATTEMPTS: u32 = 3;

/// The role of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaRole {
    /// It publishes the figures and writes checkpoints.
    Leader,
    /// It applies the same events and can be promoted.
    Standby,
}

/// What a replica is opened with.
pub(super) struct ReplicaConfig {
    pub(super) number: u32,
    pub(super) ad_groups: Vec<AdGroupConfig>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) log: Arc<dyn EventLog>,
    /// See [`CatalogCheck`].
    pub(super) versions: Option<Arc<SpecVersions>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog_version: u64,
    pub(super) role: ReplicaRole,
    /// The highest epoch of the partition's frames that this process has applied.
    pub(super) observed_epoch: u64,
    pub(super) retention: Retention,
    /// Whether the operator has accepted that records of the log are lost.
    pub(super) accept_loss: bool,
    /// How long an event id is remembered.
    pub(super) dedupe_window: Duration,
}

/// One replica of a partition of the event log.
pub(super) struct PartitionReplica {
    number: u32,
    log: Arc<dyn EventLog>,
    state: Arc<Mutex<PartitionState>>,
    /// Identifies this replica in checkpoints; random.
    replica: u64,
    objects: Arc<dyn Objects>,
    store: tokio::sync::Mutex<CheckpointStore>,
    fenced: AtomicBool,
    /// The highest epoch of frames that another replica has published.
    observed_epoch: AtomicU64,
    /// The next offset to apply.
    applied: watch::Receiver<u64>,
    /// Whether it waits for a spec.
    is_behind: watch::Receiver<bool>,
    /// See [`Self::has_backlog`].
    publish_from: AtomicU64,
    outcomes: Arc<Outcomes>,
    /// Whether this replica is the leader: what standby replicas apply is not counted in metrics.
    is_leader: Arc<AtomicBool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    quarantine: Arc<Quarantine>,
    retention: Retention,
    /// Files of earlier checkpoints, which are removed after a delay.
    unneeded: Mutex<files::UnneededFiles>,
    /// Its task has failed: its state must not be used or written.
    failed: Arc<AtomicBool>,
}

/// Marks a partition as failed when its task panics.
struct FailureGuard(Arc<AtomicBool>);

impl Drop for FailureGuard {
    fn drop(&mut self) {
        // Not when the task is aborted: it is stopped on purpose then, and its state is whole.
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

impl Drop for PartitionReplica {
    fn drop(&mut self) {
        // A replica that was not stopped: otherwise its task would hold the log open forever.
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl PartitionReplica {
    /// Reads the checkpoint, applies what was appended since, and starts the task.
    ///
    /// A leader first rewrites the checkpoint with a higher epoch, which fences the previous leader. Before
    /// the replay and not after it: a previous leader that still runs writes a checkpoint every ten seconds.
    /// With one in between, the write of this replica would be the one that is refused.
    pub(super) async fn open(config: ReplicaConfig) -> Result<Arc<Self>, BudgetsError> {
        let ReplicaConfig { number, ad_groups, objects, log, clock, catalog_version, .. } = config;
        let (role, dedupe_window) = (config.role, config.dedupe_window);
        let quarantine = Quarantine::open(Arc::clone(&objects), number, log.partitions()).await?;
        let (mut store, found) = CheckpointStore::open(Arc::clone(&objects), number).await?;
        let now = clock.now();
        let stored_epoch = found.as_ref().map_or(0, |c| c.epoch);
        // Above both: a standby replica publishes under an epoch that is in no checkpoint, and
        // gates ignore figures of a lower one.
        let epoch = next_epoch(stored_epoch.max(config.observed_epoch), now);
        let replica = SystemEntropy.next_u64();
        let files = load_files(&*objects, number, found.as_ref()).await?;
        let source =
            RestoreSource { number, ad_groups, epoch, catalog_version, now, dedupe_window, files };
        let mut state = source.state(found)?;
        // Before anything is written: a log that does not belong to the checkpoint is refused
        // without a change of either.
        position::check(&mut state, &*log, &quarantine, config.accept_loss, now).await?;
        let bytes = state.engine.checkpoint(state.position());
        let checkpoint = Checkpoint { partition: number, epoch, replica, state: bytes };
        if role == ReplicaRole::Leader {
            write_first_checkpoint(&mut store, &checkpoint, log.is_exclusive()).await?;
            // Only after the fencing: before it, the previous leader could write a checkpoint that
            // names a file which is removed here.
            source.remove_orphans(&*objects).await;
        }
        let mut check = CatalogCheck::open(number, &log, config.versions, catalog_version).await;
        // From memory: the object may be a later one by now, and the second pass has to begin at
        // the same record.
        let restore = || source.state(Some(checkpoint.clone()));
        let times = (now, dedupe_window);
        let Replayed { counts, tail, unapplied_end } =
            replay_and_quarantine(&quarantine, &mut state, restore, &*log, &mut check, times)
                .await?;
        if role == ReplicaRole::Leader {
            count(counts);
        }
        drop(checkpoint);
        state.engine.close(now);
        // Keyframes repeat the newest version: it has to be the state after the replay.
        state.next_delta(now);
        let ((progress, applied), is_behind) = (watch::channel(state.offset), check.is_behind());
        let is_leader = Arc::new(AtomicBool::new(role == ReplicaRole::Leader));
        let (state, quarantine) = (Arc::new(Mutex::new(state)), Arc::new(quarantine));
        let (failed, outcomes) = (Arc::<AtomicBool>::default(), Arc::<Outcomes>::default());
        let follower = Follower {
            number,
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            progress,
            outcomes: Arc::clone(&outcomes),
            is_leader: Arc::clone(&is_leader),
            quarantine: Arc::clone(&quarantine),
            clock,
            dedupe_window,
            failed: Arc::clone(&failed),
            check,
        };
        let task = spawn(&failed, follower.run(tail));
        Ok(Arc::new(Self {
            number,
            log,
            state,
            replica,
            objects,
            store: tokio::sync::Mutex::new(store),
            fenced: AtomicBool::new(false),
            observed_epoch: AtomicU64::new(config.observed_epoch),
            applied,
            is_behind,
            publish_from: AtomicU64::new(unapplied_end),
            outcomes,
            is_leader,
            task: tokio::sync::Mutex::new(Some(task)),
            quarantine,
            retention: config.retention,
            unneeded: Mutex::default(),
            failed,
        }))
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether another process has taken the partition over: figures of this replica no longer count.
    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Whether its task has failed: its figures no longer count, and it has to be reopened.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Makes a standby replica the leader without a replay: it continues from what it has applied. Waits
    /// until it has applied all that is in the log, or waits for a spec. `epoch`: that of the newest frame.
    ///
    /// The state may be ahead of the leader's last checkpoint or behind it. Both are safe: it is made from
    /// the same log, and its checkpoint names its own offset. What it must not do is keep what is in
    /// files of the previous leader: see [`detach_slice_files`](Self::detach_slice_files).
    pub(super) async fn promote(&self, epoch: u64, now: Timestamp) -> Result<(), BudgetsError> {
        self.observe_epoch(epoch);
        let mut attempts = 0;
        let found = loop {
            // At each attempt: the write replaces the version that is read here, so that a
            // checkpoint in between is detected.
            let found = self.store.lock().await.read().await?;
            self.detach_slice_files(found.as_ref(), now)?;
            let found_epoch = found.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
            let bumped = self.bump_epoch(found_epoch, now).await;
            attempts += 1;
            match bumped {
                // The previous leader has written its last checkpoint between the read and the write. This
                // replica is not fenced by that: it reads the newer one and tries again.
                Err(BudgetsError::Checkpoint(CheckpointError::Fenced { .. }))
                    if attempts < PROMOTION_ATTEMPTS =>
                {
                    self.fenced.store(false, Ordering::Relaxed);
                }
                Ok(()) => break found,
                Err(error) => return Err(error),
            }
        };
        self.is_leader.store(true, Ordering::Relaxed);
        let end = self.log.end(self.number).await?;
        // If it waits for a spec, it has to be the leader to get it.
        self.publish_from.store(end, Ordering::Relaxed);
        if !self.wait_until_applied_or_behind(end, PROMOTION_TIMEOUT).await {
            return Err(BudgetsError::Closed);
        }
        let Some(found) = found else { return Ok(()) };
        let merged = self.state.lock().engine.merge_causes(&found.state);
        merged.map_err(|source| BudgetsError::State { partition: self.number, source })
    }

    /// Makes the state independent of files of closed slices until the next [`Self::checkpoint`]: the
    /// previous leader may have removed those that this replica knows, and a checkpoint that names them
    /// could not be read. Those of the leader's checkpoint are removed after a delay.
    fn detach_slice_files(
        &self,
        found: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<(), BudgetsError> {
        self.state.lock().engine.detach_slice_files();
        let Some(found) = found else { return Ok(()) };
        let names = named_files(self.number, &found.state)?.slices;
        let objects = names.iter().map(|name| slices::object(self.number, name));
        self.unneeded.lock().add(objects, now);
        Ok(())
    }

    /// Waits until all is applied that is in the log now, or that can be under this spec. `false` after the timeout.
    pub(super) async fn catch_up(&self, timeout: Duration) -> Result<bool, BudgetsError> {
        let end = self.log.end(self.number).await?;
        Ok(self.wait_until_applied_or_behind(end, timeout).await)
    }

    /// As [`Self::wait_until_applied`]; also `true` as soon as it continues only under the next spec, which may be the
    /// one that the caller is about to apply.
    async fn wait_until_applied_or_behind(&self, end: u64, timeout: Duration) -> bool {
        let mut is_behind = self.is_behind.clone();
        tokio::select! {
            is_applied = self.wait_until_applied(end, timeout) => is_applied,
            true = async { is_behind.wait_for(|is_behind| *is_behind).await.is_ok() } => true,
        }
    }

    /// Whether it has not applied what was in the log when it became the leader, because it waits for a spec. Its
    /// figures must not be published: under its new epoch they would replace the newer ones of the previous leader.
    pub(super) fn has_backlog(&self) -> bool {
        self.applied() < self.publish_from.load(Ordering::Relaxed)
    }

    /// Ends a backlog of records that the log has lost: figures would not be published until it is as long again.
    pub(super) async fn shorten_backlog(&self) {
        if self.has_backlog()
            && let Ok(end) = self.log.end(self.number).await
        {
            self.publish_from.fetch_min(end, Ordering::Relaxed);
        }
    }

    /// Waits until all records before an offset are applied. `false` after the timeout, or when the task has
    /// ended.
    pub(super) async fn wait_until_applied(&self, end: u64, timeout: Duration) -> bool {
        let mut applied = self.applied.clone();
        let waiting = applied.wait_for(|applied| *applied >= end);
        matches!(tokio::time::timeout(timeout, waiting).await, Ok(Ok(_)))
    }

    /// Has the outcomes of events kept, for a caller that is about to append some and to wait for them.
    pub(super) fn wait_for_outcomes(&self) -> Waiting {
        self.outcomes.wait()
    }

    /// Records the epoch of a frame of this partition that this process received.
    pub(super) fn observe_epoch(&self, epoch: u64) {
        self.observed_epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Whether another replica publishes figures under a higher epoch: gates ignore those of this one then.
    pub(super) fn is_superseded(&self) -> bool {
        self.observed_epoch.load(Ordering::Relaxed) > self.state.lock().epoch
    }

    /// The newest time of any record that was applied.
    pub(super) fn newest_record(&self) -> Timestamp {
        self.state.lock().engine.newest_record()
    }

    /// The version of the catalog that its ad groups are from.
    pub(super) fn catalog_version(&self) -> u64 {
        self.state.lock().engine.catalog_version()
    }

    /// Bumps the epoch if another replica publishes figures of this partition under a higher one. A standby
    /// replica that published while this leader was silent is superseded by that, and stops. If instead
    /// another process has become the leader, it has rewritten the checkpoint, and this replica is fenced.
    /// The checkpoint decides, not the frames: without the write, two leaders would bump their epochs in
    /// turn forever. Returns whether the epoch was bumped.
    pub(super) async fn reclaim(&self, now: Timestamp) -> Result<bool, BudgetsError> {
        if !self.is_superseded() || self.is_fenced() {
            return Ok(false);
        }
        // It does not get there before it has the spec: the caller has other partitions to look at.
        if *self.is_behind.borrow() {
            return Ok(false);
        }
        // After a pause there may be much to apply; until then the other replica has newer figures.
        let end = self.log.end(self.number).await?;
        if !self.wait_until_applied(end, RECLAIM_TIMEOUT).await {
            return Ok(false);
        }
        let epoch = self.observed_epoch.load(Ordering::Relaxed);
        tracing::info!(
            partition = self.number,
            epoch,
            "superseded by another replica; bumping the epoch"
        );
        self.bump_epoch(epoch, now).await.map(|()| true)
    }

    /// Continues under a higher epoch: in the checkpoint first, then in frames. The other way round, a
    /// replica that is fenced would publish frames that win over those of the leader.
    async fn bump_epoch(&self, epoch: u64, now: Timestamp) -> Result<(), BudgetsError> {
        let epoch = next_epoch(epoch.max(self.observed_epoch.load(Ordering::Relaxed)), now);
        // Held to the end: a checkpoint between the write and the new epoch would store the old one
        // again, and the next leader could choose one that is used already.
        let mut store = self.store.lock().await;
        self.write_checkpoint(&mut store, epoch, now).await?;
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.engine.set_epoch(epoch);
        // Keyframes repeat the newest version: it has to be one of the new epoch.
        state.next_delta(now);
        Ok(())
    }

    /// A keyframe that a standby replica publishes while the leader is silent, under an epoch of its own.
    pub(super) fn standby_keyframe(&self, epoch: u64, now: Timestamp) -> Frame {
        let mut state = self.state.lock();
        state.engine.close(now);
        state.next_delta(now);
        Frame { epoch, ..state.engine.keyframe() }
    }

    /// Closes windows by the clock.
    pub(super) fn close(&self, now: Timestamp) {
        self.state.lock().engine.close(now);
    }

    /// Writes runs of ids that are in memory. Every replica that applies the same events makes the same
    /// runs, under the same names.
    pub(super) async fn save_ids(&self) -> Result<(), BudgetsError> {
        // Objects that became unneeded here stay: the leader's checkpoint may name them.
        ids::save(&*self.objects, self.number, &self.state).await.map(drop)
    }

    /// The next offset of the log to apply.
    pub(super) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Stops applying events. What is appended later is applied by the next replica.
    pub(super) async fn stop(&self) {
        let Some(task) = self.task.lock().await.take() else { return };
        // Between two batches: the state is whole.
        task.abort();
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(partition = self.number, "the partition's task panicked");
        }
    }

    /// Continues with other ad groups, unless it has those of a newer spec. Returns the budget days of ad groups that
    /// it no longer has: nothing is added to them from then on.
    pub(super) fn set_catalog(
        &self,
        ad_groups: Vec<AdGroupConfig>,
        version: u64,
        now: Timestamp,
    ) -> Vec<BudgetDayRow> {
        let mut state = self.state.lock();
        // Under the lock: a caller that has read the catalog before another spec was applied may get here
        // after it, and the partition would keep the earlier prices.
        if version < state.engine.catalog_version() {
            return Vec::new();
        }
        let removed = state.days_without(&ad_groups, now);
        state.engine.configure(version, ad_groups, now);
        // Pass-through rates are computed there: an ad group with a plan would be shown at every request until the next
        // tick, and one with a higher budget at none.
        state.engine.close(now);
        // Keyframes repeat the newest version: it has to be one of the new catalog.
        state.next_delta(now);
        if !self.is_leader.load(Ordering::Relaxed) {
            // Gates have those of the leader.
            state.engine.forget_frames();
        }
        removed
    }

    pub(super) fn keyframe(&self) -> Frame {
        self.state.lock().engine.keyframe()
    }

    /// Closes windows by the clock, and returns what changed since the last version.
    pub(super) fn tick(&self, now: Timestamp) -> Frame {
        let mut state = self.state.lock();
        state.engine.close(now);
        state.next_delta(now)
    }

    pub(super) fn states(&self, now: Timestamp) -> Vec<AdGroupState> {
        self.state.lock().engine.states(now)
    }

    pub(super) fn spend_history(
        &self,
        ad_group: &AdGroupName,
        now: Timestamp,
    ) -> Option<SpendHistory> {
        SpendHistory::of(&self.state.lock().engine, ad_group, now)
    }

    /// The spend of every ad group's last days, in the currencies that they had.
    pub(super) fn days(&self, now: Timestamp) -> Vec<(AdGroupName, Vec<DaySpend>)> {
        self.state.lock().engine.all_days(now)
    }

    /// What was predicted and earned on every ad group's last days.
    pub(super) fn predictions(&self, now: Timestamp) -> Vec<(AdGroupName, Vec<DayPrediction>)> {
        self.state.lock().engine.predictions(now)
    }

    /// What was spent above the budgets of the last days, by cause.
    pub(super) fn overdelivery_causes(
        &self,
        now: Timestamp,
    ) -> Vec<(AdGroupName, Vec<(BudgetDay, OverdeliveryCauses)>)> {
        self.state.lock().engine.overdelivery_causes(now)
    }

    /// [`Self::checkpoint`], with metrics.
    pub(super) async fn checkpoint_at(&self, now: Timestamp) -> Result<(), BudgetsError> {
        let written = self.checkpoint(now).await;
        if written.is_err() {
            metrics::counter!(metrics::CHECKPOINT_FAILURES_TOTAL).increment(1);
        } else {
            let seconds = now.0.div_euclid(1_000_000) as f64;
            let name = metrics::CHECKPOINT_LAST_SUCCESS_TIMESTAMP_SECONDS;
            metrics::gauge!(name, "partition" => self.number.to_string()).set(seconds);
            let open = self.state.lock().engine.open_insertions() as f64;
            let name = metrics::OPEN_INSERTIONS;
            metrics::gauge!(name, "partition" => self.number.to_string()).set(open);
        }
        written
    }

    /// Writes a checkpoint, and deletes records of the log by the retention rule.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another process leads the partition; this replica must be dropped.
    pub(super) async fn checkpoint(&self, now: Timestamp) -> Result<(), BudgetsError> {
        let partition = self.number;
        // Its state may be half changed: the next leader would continue from it.
        if self.is_failed() {
            return Err(BudgetsError::Unavailable { partition });
        }
        // Before the checkpoint: no replay reads these records after it, so they would never be
        // listed again.
        let flushed = self.quarantine.flush().await;
        flushed.map_err(|source| BudgetsError::Quarantine { partition, source })?;
        // One write at a time: otherwise an older state could replace that of a later write.
        let mut store = self.store.lock().await;
        let (epoch, offset) = {
            let state = self.state.lock();
            (state.epoch, state.offset)
        };
        // If the topic was recreated, a checkpoint with this offset would make the next leader skip that
        // many records of the new topic.
        let end = self.log.end(partition).await?;
        if end < offset {
            return Err(BudgetsError::LogBehind { partition, checkpoint: offset, end });
        }
        slices::save(&*self.objects, partition, &self.state, now).await?;
        let offset = self.write_checkpoint(&mut store, epoch, now).await?;
        // After the checkpoint: records from its offset on are needed for a replay.
        self.log.retain(partition, self.retention, offset, now).await?;
        Ok(())
    }

    /// Writes a checkpoint and returns its offset. Files are written before the checkpoint that names them,
    /// and removed some time after one that does not.
    async fn write_checkpoint(
        &self,
        store: &mut CheckpointStore,
        epoch: u64,
        now: Timestamp,
    ) -> Result<u64, BudgetsError> {
        let unneeded = ids::save(&*self.objects, self.number, &self.state).await?;
        let (checkpoint, offset, named) = {
            let mut state = self.state.lock();
            // Checked again here: the task may have failed meanwhile, and a half changed state must
            // not be stored.
            if self.is_failed() || state.engine.has_failed() {
                return Err(BudgetsError::Unavailable { partition: self.number });
            }
            let (partition, replica) = (self.number, self.replica);
            let slice_file = |name: &String| slices::object(partition, name);
            let runs = state.engine.take_dropped_id_runs();
            let runs = runs.iter().map(|run| ids::object(partition, run));
            let slice_files = state.engine.take_dropped_slice_files();
            let dropped = runs.chain(slice_files.iter().map(slice_file));
            // Only noted: the stored checkpoint names them until the write below has succeeded.
            self.unneeded.lock().add(unneeded.into_iter().chain(dropped), now);
            let named: HashSet<String> =
                state.engine.slice_file_names().iter().map(slice_file).collect();
            // Under the same lock as the offset: an event that is applied in between would be in
            // the state and after its offset.
            let bytes = state.engine.checkpoint(state.position());
            (Checkpoint { partition, epoch, replica, state: bytes }, state.offset, named)
        };
        let written = store.write(&checkpoint).await;
        if matches!(written, Err(CheckpointError::Fenced { .. })) {
            self.fenced.store(true, Ordering::Relaxed);
        }
        written?;
        let mut due = self.unneeded.lock().due(now);
        // A file with the same contents, and so with the same name, may have been made again.
        due.retain(|object| !named.contains(object));
        files::remove(&*self.objects, due).await;
        Ok(offset)
    }
}

/// An epoch that is higher than `epoch`, also after the clock was set back.
fn next_epoch(epoch: u64, now: Timestamp) -> u64 {
    // The highest number is not an epoch that a replica has chosen. There is none above it, and that must
    // not stop a node.
    u64::try_from(now.0).unwrap_or(0).max(epoch.saturating_add(1))
}
