//! Standby replicas. Each partition has, besides its leader, a replica in another aggregator that applies
//! the same events from the same log. While the leader publishes nothing, the standby replica publishes
//! the figures, so that gates do not wait until Kafka has noticed; and when Kafka assigns the partition to
//! its process, it is promoted and continues without a replay.
//!
//! Every aggregator chooses its standby partitions by itself, from the list of members in the ledger.
//! Nothing depends on that choice: frames have absolute figures made from the log alone, so two replicas
//! that publish at the same time publish the same, and only the leader writes checkpoints. A standby
//! replica publishes under the epoch after the leader's; a leader that lives bumps its own above that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use throng_feed::Frame;
use throng_log::{EventLog, LogError};
use throng_model::{Clock, Timestamp};
use throng_telemetry::metrics;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::replica::{PartitionReplica, ReplicaRole};
use super::{AggregatorDeps, AggregatorMember, Budgets, BudgetsError, Feed};

/// How often a process chooses its standby partitions.
const POLL_INTERVAL: Duration = Duration::from_secs(3);
/// How long no standby replica is opened after another spec was applied: by then the leaders' checkpoints
/// are from after it, so that a replay applies it at the same event as they did.
const CATALOG_SETTLE_TIME: Duration = Duration::from_secs(30);
/// A leader that publishes nothing for this long after its next frame was due is suspected. After another
/// interval without a frame the standby replica publishes.
const LEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last frame of a partition says what its leader has: longer than a takeover takes, so that a
/// leader that is only slow is not taken for one that has ended.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(120);
/// However fast the clock runs, a standby replica costs little.
const MIN_TICK: Duration = Duration::from_millis(100);

/// When the last frame of each partition was applied, by this machine's timer: clocks of machines differ.
#[derive(Debug, Default)]
pub(super) struct FeedLiveness(Mutex<HashMap<u32, (u64, Instant)>>);

impl FeedLiveness {
    /// Records a frame that was applied.
    pub(super) fn record(&self, frame: &Frame) {
        self.0.lock().insert(frame.partition, (frame.epoch, Instant::now()));
    }

    /// The epoch of the last frame; 0 if there is none yet.
    pub(super) fn epoch(&self, partition: u32) -> u64 {
        self.last(partition).map_or(0, |(epoch, _)| epoch)
    }

    /// Whether the last frame of a partition was applied within two minutes before `now`.
    pub(super) fn is_recent(&self, partition: u32, now: Instant) -> bool {
        let last = self.last(partition);
        last.is_some_and(|(_, at)| now.saturating_duration_since(at) < LIVENESS_TIMEOUT)
    }

    /// Epoch and time of the last frame.
    fn last(&self, partition: u32) -> Option<(u64, Instant)> {
        self.0.lock().get(&partition).copied()
    }
}

/// The standby replicas of this process.
#[derive(Default)]
pub(super) struct StandbyTasks(Mutex<BTreeMap<u32, StandbyTask>>);

struct StandbyTask {
    partition: Arc<PartitionReplica>,
    is_publishing: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for StandbyTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandbyTasks {
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether this process publishes the figures of a partition instead of its leader.
    fn is_publishing(&self, number: u32) -> bool {
        let tasks = self.0.lock();
        tasks.get(&number).is_some_and(|standby| standby.is_publishing.load(Ordering::Relaxed))
    }

    /// Ends the standby task of a partition. The replica still applies events: the caller promotes or stops
    /// it.
    pub(super) fn take(&self, number: u32) -> Option<Arc<PartitionReplica>> {
        self.0.lock().remove(&number).map(|standby| Arc::clone(&standby.partition))
    }

    /// Ends all standby tasks and stops their replicas.
    pub(super) fn clear(&self) {
        let before = std::mem::take(&mut *self.0.lock());
        for standby in before.into_values() {
            stop(&standby.partition);
        }
    }
}

/// Stops a replica without waiting for it.
fn stop(partition: &Arc<PartitionReplica>) {
    let partition = Arc::clone(partition);
    tokio::spawn(async move { partition.stop().await });
}

/// Makes a standby replica the leader. If that fails, the replica is stopped. `epoch`: that of the newest
/// frame.
pub(super) async fn promote(
    replica: Arc<PartitionReplica>,
    epoch: u64,
    now: Timestamp,
) -> Result<Arc<PartitionReplica>, BudgetsError> {
    let promoted = replica.promote(epoch, now).await;
    if promoted.is_err() {
        replica.stop().await;
    }
    promoted.map(|()| replica)
}

impl Budgets {
    /// Runs standby replicas of these partitions from now on, of those that this process does not lead. One
    /// that is no longer wanted is stopped once another process, of those in `others`, runs one, and not
    /// while it publishes: its partition would have no figures until the other one starts to.
    async fn set_standbys(&self, wanted: &[u32], others: &[u32], interval: Duration) {
        let before = self.standbys.numbers();
        for unwanted in before.iter().filter(|n| !wanted.contains(n) && others.contains(n)) {
            if !self.standbys.is_publishing(*unwanted)
                && let Some(partition) = self.standbys.take(*unwanted)
            {
                stop(&partition);
            }
        }
        for number in wanted.iter().filter(|number| !before.contains(number)) {
            // Before the replica is opened, which takes a while: a spec that is applied meanwhile
            // has to be noticed below.
            let version = self.catalog().version;
            let partition = match self.open(*number, ReplicaRole::Standby).await {
                Ok(partition) => partition,
                Err(error) => {
                    tracing::warn!(
                        partition = number,
                        error = &error as &dyn std::error::Error,
                        "failed to open a standby replica"
                    );
                    // The next poll tries again. Until then the partition has no standby replica,
                    // and its leader is not affected.
                    continue;
                }
            };
            let is_publishing = Arc::new(AtomicBool::new(false));
            let standby = Standby {
                partition: Arc::clone(&partition),
                log: Arc::clone(&self.log),
                feed: Arc::clone(&self.feed),
                liveness: Arc::clone(&self.liveness),
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                interval,
                started_at: Instant::now(),
                state: StandbyState::Following,
                is_publishing: Arc::clone(&is_publishing),
            };
            let mut tasks = self.standbys.0.lock();
            // Checked under the lock that `apply_spec` takes to clear the tasks: a spec that is applied from
            // here on clears this one too, and one that was applied since the replica was opened is seen.
            if self.catalog().version != version || self.led_partitions().contains(number) {
                drop(tasks);
                stop(&partition);
                break;
            }
            let task = tokio::spawn(standby.run());
            tasks.insert(*number, StandbyTask { partition, is_publishing, task });
        }
        metrics::gauge!(metrics::STANDBY_PARTITIONS).set(self.standbys.numbers().len() as f64);
    }
}

/// Runs the standby replicas of this process until `shutdown`.
pub async fn run_standbys(deps: AggregatorDeps, shutdown: CancellationToken) {
    let mut version = deps.budgets.catalog().version;
    let mut settled_at = Instant::now();
    loop {
        if version != deps.budgets.catalog().version {
            version = deps.budgets.catalog().version;
            settled_at = Instant::now() + CATALOG_SETTLE_TIME;
        }
        let round = async {
            if Instant::now() >= settled_at {
                choose_standbys(&deps).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = round => {}
        }
    }
    deps.budgets.standbys.clear();
}

async fn choose_standbys(deps: &AggregatorDeps) {
    let (led, partitions) = (deps.budgets.led_partitions(), deps.budgets.partitions());
    if led.len() == partitions as usize {
        // Nobody else leads a partition: the list of members is not needed.
        return;
    }
    let aggregators = match deps.host.aggregators().await {
        Ok(aggregators) => aggregators,
        Err(error) => {
            return tracing::debug!(
                error = &error as &dyn std::error::Error,
                "failed to read the list of members; standby replicas stay as they are"
            );
        }
    };
    let wanted = standby_partitions_of(&deps.name, &led, partitions, &aggregators);
    let others = aggregators.iter().filter(|member| member.name != deps.name);
    let others: Vec<u32> = others.flat_map(|member| member.standby_partitions.clone()).collect();
    let interval = deps.clock.wall_duration(deps.host.feed_interval());
    deps.budgets.set_standbys(&wanted, &others, interval).await;
}

/// The partitions of which `me` runs the standby replica. Rendezvous hashing over the aggregators that do
/// not lead a partition: every process computes the same, and little changes when one joins or leaves.
fn standby_partitions_of(
    me: &str,
    led: &[u32],
    partitions: u32,
    aggregators: &[AggregatorMember],
) -> Vec<u32> {
    let chosen = |partition: u32| {
        aggregators
            .iter()
            .filter(|member| match member.name == me {
                // What this process leads is known here before it is in the list.
                true => !led.contains(&partition),
                false => !member.partitions.contains(&partition),
            })
            .max_by_key(|member| xxh3_64_with_seed(member.name.as_bytes(), u64::from(partition)))
    };
    // Without a leader there is no checkpoint to start from, and no figures to continue.
    let has_leader = |partition: &u32| {
        aggregators.iter().any(|m| m.name != me && m.partitions.contains(partition))
    };
    let is_mine = |partition: &u32| chosen(*partition).is_some_and(|member| member.name == me);
    (0..partitions).filter(has_leader).filter(is_mine).collect()
}

/// Whether a standby replica publishes figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StandbyState {
    /// The leader does.
    Following,
    /// No frame came in time; the ends of feed and log when that was noticed.
    Suspecting { feed_end: u64, log_end: u64, since: Instant },
    /// The leader does not.
    Publishing { epoch: u64 },
}

/// The task of a standby replica.
struct Standby {
    partition: Arc<PartitionReplica>,
    log: Arc<dyn EventLog>,
    feed: Arc<dyn Feed>,
    liveness: Arc<FeedLiveness>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    started_at: Instant,
    state: StandbyState,
    is_publishing: Arc<AtomicBool>,
}

impl Standby {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval.max(MIN_TICK));
        // After a pause one tick and not all that were missed: each may publish a keyframe of all
        // figures.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // In every state: closing also takes the samples of the charts, which would have a gap
            // after a promotion.
            self.partition.close(self.clock.now());
            let before = self.state;
            if let Err(error) = self.step().await {
                tracing::debug!(
                    partition = self.partition.number(),
                    error = &error as &dyn std::error::Error,
                    "standby replica failed to reach the brokers"
                );
                // A process that cannot reach the brokers does not know whether the leader is alive.
                self.state = StandbyState::Following;
            }
            // Only while nobody waits for frames of this replica: writing runs of ids takes a while.
            if self.state == StandbyState::Following
                && let Err(error) = self.partition.save_ids().await
            {
                tracing::debug!(
                    partition = self.partition.number(),
                    error = &error as &dyn std::error::Error,
                    "standby replica failed to write runs of ids"
                );
            }
            let publishes = |state: StandbyState| matches!(state, StandbyState::Publishing { .. });
            if publishes(before) != publishes(self.state) {
                let publishing = publishes(self.state);
                self.is_publishing.store(publishing, Ordering::Relaxed);
                tracing::info!(
                    partition = self.partition.number(),
                    publishing,
                    "standby replica started or stopped publishing"
                );
            }
        }
    }

    /// Moves to the next state, and publishes a keyframe in the last one.
    ///
    /// From a missed frame to publishing it takes two steps, because silence alone proves nothing: this
    /// process may just have been paused or cut off itself, and then its figures are old. So it notes where
    /// feed and log end at the brokers. It publishes only if the feed has not moved an interval later, and
    /// all events have been applied that were in the log. Without the first check it would supersede a
    /// leader that lives, without the second one gates would go back to older figures.
    async fn step(&mut self) -> Result<(), LogError> {
        let number = self.partition.number();
        // A partition without frames has no leader yet.
        let Some((epoch, frame_at)) = self.liveness.last(number) else { return Ok(()) };
        let timeout = self.interval + LEADER_TIMEOUT;
        self.state = match self.state {
            // Not before this replica has followed for that long: it has not had the time to
            // receive a frame.
            StandbyState::Following if frame_at.max(self.started_at).elapsed() < timeout => {
                StandbyState::Following
            }
            StandbyState::Following => self.suspect().await?,
            StandbyState::Suspecting { since, .. } if frame_at > since => StandbyState::Following,
            StandbyState::Suspecting { since, .. } if since.elapsed() < self.interval => {
                return Ok(());
            }
            StandbyState::Suspecting { feed_end, log_end, .. } => {
                // Asked at the brokers: a frame that is on its way to this process is in the feed
                // already.
                let applied = self.partition.applied();
                if self.feed.end(number).await? != feed_end {
                    self.suspect().await?
                } else if applied < log_end && applied < self.log.end(number).await? {
                    // Its figures have all events that those of the leader had as soon as it has what was in the log
                    // then. The end of now is a later one at each step, and might never be reached.
                    return Ok(());
                } else {
                    StandbyState::Publishing { epoch: epoch.saturating_add(1) }
                }
            }
            // The leader is back and has bumped its epoch, or there is another one.
            StandbyState::Publishing { epoch: own } if epoch > own => StandbyState::Following,
            publishing => publishing,
        };
        if let StandbyState::Publishing { epoch } = self.state {
            let now = self.clock.now();
            let keyframe = self.partition.standby_keyframe(epoch, now);
            self.feed.publish(Arc::new(keyframe), now).await?;
            metrics::counter!(metrics::STANDBY_FRAMES_TOTAL).increment(1);
        }
        Ok(())
    }

    /// Notes where feed and log end now.
    async fn suspect(&self) -> Result<StandbyState, LogError> {
        let (number, since) = (self.partition.number(), Instant::now());
        let feed_end = self.feed.end(number).await?;
        let log_end = self.log.end(number).await?;
        Ok(StandbyState::Suspecting { feed_end, log_end, since })
    }
}

#[cfg(test)]
mod tests {
    use throng_feed::FrameKind;

    use super::*;

    fn member(name: &str, partitions: &[u32]) -> AggregatorMember {
        AggregatorMember {
            name: name.to_owned(),
            partitions: partitions.to_vec(),
            standby_partitions: Vec::new(),
        }
    }

    #[test]
    fn a_frame_is_recent_for_two_minutes() {
        let (liveness, before) = (FeedLiveness::default(), Instant::now());
        assert!(!liveness.is_recent(2, before), "there is none yet");
        liveness.record(&Frame {
            partition: 2,
            epoch: 5,
            version: 1,
            kind: FrameKind::Keyframe,
            at: Timestamp(1),
            catalog_version: 1,
            log_position: None,
            entries: Vec::new(),
        });
        assert!(liveness.is_recent(2, before));
        assert!(!liveness.is_recent(2, Instant::now() + LIVENESS_TIMEOUT));
        assert!(!liveness.is_recent(3, before));
    }

    #[test]
    fn every_partition_has_one_standby_replica_outside_of_its_leader() {
        let members = [member("a", &[0, 1, 2, 3]), member("b", &[4, 5, 6, 7]), member("c", &[])];
        let mut all = Vec::new();
        for one in &members {
            let mine = standby_partitions_of(&one.name, &one.partitions, 8, &members);
            assert!(mine.iter().all(|p| !one.partitions.contains(p)), "{}: {mine:?}", one.name);
            all.extend(mine);
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
        let alone = [member("b", &[])];
        assert_eq!(standby_partitions_of("b", &[], 8, &alone), [] as [u32; 0]);
        // The only aggregator leads all partitions, and there is nobody for a standby replica.
        let led = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(standby_partitions_of("a", &led, 8, &members[..1]), [] as [u32; 0]);
    }
}
