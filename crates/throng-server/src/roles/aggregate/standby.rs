//! Stand-ins. Each partition has, besides its owner, another aggregator that applies the same events
//! from the same log. While the owner tells nothing, it tells the figures in its place, so that gates
//! do not wait until Kafka has noticed; and when Kafka makes it the owner, it goes on without a
//! replay.
//!
//! Who stands in is chosen by every aggregator for itself from the list of processes in the ledger.
//! Nothing depends on it: frames hold absolute figures made of the log alone, so two that tell at a
//! time tell the same, and only the owner writes checkpoints. A stand-in tells under the epoch after
//! the owner's, which the owner, if it lives, answers with a higher one.

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

use super::partition::{Partition, Standing};
use super::{Budgets, BudgetsError, Feed};
use crate::NodeContext;
use crate::roles::follow::{Peer, deployment};

/// How often a process looks for whom it should stand in.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// After another spec was applied: by then the checkpoints are of a time after it.
const SETTLE: Duration = Duration::from_secs(30);
/// An owner that tells nothing for this long after its next frame was due is doubted. A doubt is sure
/// after another interval.
const SILENCE: Duration = Duration::from_secs(1);
/// However fast the clock runs, a stand-in costs little.
const SHORTEST_TICK: Duration = Duration::from_millis(100);

/// When frames were heard last, by this machine's timer: clocks of machines differ.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<HashMap<u32, (u64, Instant)>>);

impl Heard {
    /// Notes a frame that told something new.
    pub(super) fn note(&self, frame: &Frame) {
        self.0.lock().insert(frame.partition, (frame.epoch, Instant::now()));
    }

    /// Epoch of the last frame; 0 if none was heard.
    pub(super) fn epoch(&self, partition: u32) -> u64 {
        self.last(partition).map_or(0, |(epoch, _)| epoch)
    }

    /// Epoch and time of the last frame.
    fn last(&self, partition: u32) -> Option<(u64, Instant)> {
        self.0.lock().get(&partition).copied()
    }
}

/// The partitions that this process stands in for.
#[derive(Default)]
pub(super) struct StandIns(Mutex<BTreeMap<u32, StandIn>>);

struct StandIn {
    partition: Arc<Partition>,
    tells: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIns {
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether a partition's figures are told by this process in its owner's place.
    fn tells(&self, number: u32) -> bool {
        self.0.lock().get(&number).is_some_and(|one| one.tells.load(Ordering::Relaxed))
    }

    /// Ends standing in for a partition; what has been applied goes on in the caller's hands.
    pub(super) fn take(&self, number: u32) -> Option<Arc<Partition>> {
        self.0.lock().remove(&number).map(|stand_in| Arc::clone(&stand_in.partition))
    }

    pub(super) fn clear(&self) {
        let before = std::mem::take(&mut *self.0.lock());
        for stand_in in before.into_values() {
            give_up(&stand_in.partition);
        }
    }
}

/// Ends the task that applies events.
fn give_up(partition: &Arc<Partition>) {
    let partition = Arc::clone(partition);
    tokio::spawn(async move { partition.stop().await });
}

/// Makes a stand-in the owner. If that fails, it applies nothing any more.
pub(super) async fn promote(
    warm: Arc<Partition>,
    heard: u64,
    now: Timestamp,
) -> Result<Arc<Partition>, BudgetsError> {
    let taken_over = warm.take_over(heard, now).await;
    if taken_over.is_err() {
        warm.stop().await;
    }
    taken_over.map(|()| warm)
}

impl Budgets {
    /// Stands in for these partitions from now on, as far as this process does not own them. One that
    /// is not wanted any more is given up when another process, of those in `others`, stands in for it.
    async fn stand_in_for(&self, wanted: &[u32], others: &[u32], feed: &Feed, interval: Duration) {
        let before = self.stand_ins.numbers();
        for gone in before.iter().filter(|n| !wanted.contains(n) && others.contains(n)) {
            if !self.stand_ins.tells(*gone)
                && let Some(partition) = self.stand_ins.take(*gone)
            {
                give_up(&partition);
            }
        }
        for number in wanted.iter().filter(|number| !before.contains(number)) {
            let version = self.catalog().version;
            let partition = match self.open(*number, Standing::StandIn).await {
                Ok(partition) => partition,
                Err(error) => {
                    tracing::warn!(
                        partition = number,
                        error = &error as &dyn std::error::Error,
                        "nobody stands in for this partition; it is tried again"
                    );
                    continue;
                }
            };
            let tells = Arc::new(AtomicBool::new(false));
            let deputy = Deputy {
                partition: Arc::clone(&partition),
                log: Arc::clone(&self.log),
                feed: feed.clone(),
                heard: Arc::clone(&self.heard),
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                interval,
                began: Instant::now(),
                voice: Voice::Quiet,
                tells: Arc::clone(&tells),
            };
            let mut stand_ins = self.stand_ins.0.lock();
            // A spec that is applied from here on clears them.
            if self.catalog().version != version || self.owned().contains(number) {
                drop(stand_ins);
                give_up(&partition);
                break;
            }
            let task = tokio::spawn(deputy.run());
            stand_ins.insert(*number, StandIn { partition, tells, task });
        }
        metrics::gauge!(metrics::STANDBY_PARTITIONS).set(self.stand_ins.numbers().len() as f64);
    }
}

/// Chooses whom to stand in for, again and again until `shutdown`.
pub async fn stand_by(ctx: Arc<NodeContext>, feed: Feed, shutdown: CancellationToken) {
    let mut version = ctx.budgets.catalog().version;
    let mut rests_until = Instant::now();
    loop {
        if version != ctx.budgets.catalog().version {
            version = ctx.budgets.catalog().version;
            rests_until = Instant::now() + SETTLE;
        }
        let round = async {
            if Instant::now() >= rests_until {
                look(&ctx, &feed).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = round => {}
        }
    }
    ctx.budgets.stand_ins.clear();
}

async fn look(ctx: &NodeContext, feed: &Feed) {
    let peers = match deployment(ctx).await {
        Ok((peers, _)) => peers,
        Err(error) => {
            return tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the list of processes cannot be read; stand-ins stay as they are"
            );
        }
    };
    let (owned, partitions) = (ctx.budgets.owned(), ctx.budgets.partitions());
    let wanted = chosen(&ctx.holder, &owned, partitions, &peers);
    let others = peers.iter().filter(|peer| peer.name != ctx.holder);
    let others: Vec<u32> = others.flat_map(|peer| peer.stands_by.clone()).collect();
    let interval = u64::from(ctx.spec.load().node.feed_interval_ms);
    let interval = ctx.clock.wall_duration(Duration::from_millis(interval));
    ctx.budgets.stand_in_for(&wanted, &others, feed, interval).await;
}

/// The partitions that `me` stands in for: of the aggregators that do not own a partition, each comes
/// first for some, and which ones changes little when a process comes or goes.
fn chosen(me: &str, owned: &[u32], partitions: u32, peers: &[Peer]) -> Vec<u32> {
    let aggregates = |peer: &&Peer| peer.roles.split(", ").any(|role| role == "aggregate");
    let aggregators: Vec<&Peer> = peers.iter().filter(aggregates).collect();
    let first = |partition: u32| {
        aggregators
            .iter()
            .filter(|peer| match peer.name == me {
                true => !owned.contains(&partition),
                false => !peer.partitions.contains(&partition),
            })
            .max_by_key(|peer| xxh3_64_with_seed(peer.name.as_bytes(), u64::from(partition)))
    };
    // Where there is no owner yet there is nobody to stand in for.
    let has_owner =
        |partition: &u32| peers.iter().any(|p| p.name != me && p.partitions.contains(partition));
    let mine = |partition: &u32| first(*partition).is_some_and(|peer| peer.name == me);
    (0..partitions).filter(has_owner).filter(mine).collect()
}

/// Whether a stand-in tells figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    /// The owner does.
    Quiet,
    /// Nobody does, it seems; so far did feed and events reach when that was noticed.
    Doubt { feed_end: u64, log_end: u64, since: Instant },
    /// Nobody else does.
    Tells { epoch: u64 },
}

/// The task of a stand-in.
struct Deputy {
    partition: Arc<Partition>,
    log: Arc<dyn EventLog>,
    feed: Feed,
    heard: Arc<Heard>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    began: Instant,
    voice: Voice,
    tells: Arc<AtomicBool>,
}

impl Deputy {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval.max(SHORTEST_TICK));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.partition.close(self.clock.now());
            let before = self.voice;
            if let Err(error) = self.step().await {
                tracing::debug!(
                    partition = self.partition.number(),
                    error = &error as &dyn std::error::Error,
                    "a stand-in cannot reach the brokers"
                );
                self.voice = Voice::Quiet;
            }
            // Nobody waits for a stand-in that is quiet, and what is written need not be in memory.
            if self.voice == Voice::Quiet
                && let Err(error) = self.partition.save_ids().await
            {
                tracing::debug!(
                    partition = self.partition.number(),
                    error = &error as &dyn std::error::Error,
                    "a stand-in cannot write its runs of ids"
                );
            }
            let tells = |voice: Voice| matches!(voice, Voice::Tells { .. });
            if tells(before) != tells(self.voice) {
                self.tells.store(tells(self.voice), Ordering::Relaxed);
                tracing::info!(
                    partition = self.partition.number(),
                    stands_in = tells(self.voice),
                    "the figures of a partition are told by its stand-in, or not any more"
                );
            }
        }
    }

    async fn step(&mut self) -> Result<(), LogError> {
        let number = self.partition.number();
        // Where nobody has ever told anything there is nobody to stand in for.
        let Some((epoch, heard_at)) = self.heard.last(number) else { return Ok(()) };
        let silence = self.interval + SILENCE;
        self.voice = match self.voice {
            Voice::Quiet if heard_at.max(self.began).elapsed() < silence => Voice::Quiet,
            Voice::Quiet => self.doubt().await?,
            Voice::Doubt { since, .. } if heard_at > since => Voice::Quiet,
            Voice::Doubt { since, .. } if since.elapsed() < self.interval => return Ok(()),
            // This process may just have been paused itself: what counts is whether the feed goes
            // on at the brokers, and whether all events have been applied that were there.
            Voice::Doubt { feed_end, log_end, .. } => {
                let still = self.feed.frames.end(number).await? == feed_end;
                match still && self.partition.applied() >= log_end {
                    true => Voice::Tells { epoch: epoch.saturating_add(1) },
                    false => self.doubt().await?,
                }
            }
            Voice::Tells { epoch: mine } if epoch > mine => Voice::Quiet,
            tells => tells,
        };
        if let Voice::Tells { epoch } = self.voice {
            let now = self.clock.now();
            self.feed.send(&self.partition.stand_in(epoch, now), now).await?;
            metrics::counter!(metrics::STANDBY_FRAMES_TOTAL).increment(1);
        }
        Ok(())
    }

    async fn doubt(&self) -> Result<Voice, LogError> {
        let (number, since) = (self.partition.number(), Instant::now());
        let feed_end = self.feed.frames.end(number).await?;
        let log_end = self.log.end(number).await?;
        Ok(Voice::Doubt { feed_end, log_end, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, roles: &str, partitions: &[u32]) -> Peer {
        Peer {
            name: name.to_owned(),
            roles: roles.to_owned(),
            url: String::new(),
            started_at: Timestamp(0),
            seen_at: Timestamp(0),
            partitions: partitions.to_vec(),
            stands_by: Vec::new(),
            gates: 0,
        }
    }

    #[test]
    fn every_partition_has_one_stand_in_that_is_not_its_owner() {
        let peers = [
            peer("a", "api, aggregate", &[0, 1, 2, 3]),
            peer("b", "aggregate", &[4, 5, 6, 7]),
            peer("c", "aggregate", &[]),
            peer("d", "relay", &[]),
        ];
        let mut all = Vec::new();
        for peer in &peers {
            let mine = chosen(&peer.name, &peer.partitions, 8, &peers);
            assert!(mine.iter().all(|p| !peer.partitions.contains(p)), "{}: {mine:?}", peer.name);
            assert!(peer.name != "d" || mine.is_empty());
            all.extend(mine);
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(chosen("b", &[], 8, &[peer("b", "aggregate", &[])]), [] as [u32; 0]);
        // A process that is alone has nobody to stand in for it.
        assert_eq!(chosen("a", &[0, 1, 2, 3, 4, 5, 6, 7], 8, &peers[..1]), [] as [u32; 0]);
    }
}
