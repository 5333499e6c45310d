//! Spend aggregation: events in, durable before the answer; budget states out, to gates and pages.
//!
//! Every ad group belongs to one partition of the event log, by the XXH3 of its name. A partition
//! has one task that appends and applies in the order of the log, and one engine. Its checkpoint is
//! the engine's state and the log's offset in one file; recovery is the checkpoint and a replay.

mod catalog;
mod checkpoint;
mod history;
mod hub;
mod partition;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use throng_budget::{Event, EventProblem, Series};
use throng_gate::feed::Frame;
use throng_gate::{Applied, Catalog, Gate};
use throng_ledger::BudgetDayRow;
use throng_log::{EventLog, LogError};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Clock, TimeZoneName, Timestamp};
use throng_spec::Spec;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Change, NodeContext};

pub use checkpoint::CheckpointError;
pub use hub::Subscription;
pub use throng_budget::AdGroupState;

use history::Doors;
use partition::Partition;

/// Checkpoints are this far apart on the node's clock, so that a replay is short.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// And at least this far apart on the machine's, when the node's clock runs fast.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Budget days go into the ledger this often.
const DAYS_EVERY: Duration = Duration::from_secs(60);
/// A tick is never shorter than this on the machine's clock.
const SHORTEST_TICK: Duration = Duration::from_millis(5);
/// A gate that has been silent for this long is forgotten.
const GATE_MEMORY: Duration = Duration::from_secs(3_600);
/// The most gates that are remembered.
const MOST_GATES: usize = 20_000;

/// Why budget states could not be opened, or events not be accepted.
#[derive(Debug, thiserror::Error)]
pub enum BudgetsError {
    /// The event log.
    #[error("the event log failed")]
    Log(#[from] LogError),
    /// A checkpoint file.
    #[error("a checkpoint failed")]
    Checkpoint(#[from] CheckpointError),
    /// The state in a checkpoint.
    #[error("the state in the checkpoint of partition {partition} cannot be restored")]
    State {
        /// The partition.
        partition: u32,
        /// What the engine says.
        #[source]
        source: throng_budget::CheckpointError,
    },
    /// A record of the log is not an event of this version.
    #[error("record {offset} of partition {partition} of the event log is not an event")]
    Record {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: EventProblem,
    },
    /// Events could not be appended; several callers share the reason.
    #[error("the events could not be written to the event log")]
    Append(#[source] Arc<LogError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
}

/// What became of a batch of events. The three add up to the batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Events that count.
    pub accepted: u64,
    /// Events that had been counted before, by their id.
    pub duplicates: u64,
    /// Events that do not count, by their place in the batch.
    pub rejected: Vec<(usize, EventProblem)>,
}

/// What a gate reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReport {
    /// The gate's name.
    pub id: String,
    /// Partition and version of the last frame applied.
    pub versions: Vec<(u32, u64)>,
    /// When.
    pub at: Timestamp,
}

/// Budget states of all ad groups. Cheap to ask; nothing here waits for a disk except
/// [`Budgets::accept`], [`Budgets::checkpoint`] and [`Budgets::close`].
pub struct Budgets {
    clock: Arc<dyn Clock>,
    partitions: Vec<Arc<Partition>>,
    catalog: ArcSwap<Catalog>,
    names: ArcSwap<HashMap<AdGroupName, TimeZoneName>>,
    frames: broadcast::Sender<Bytes>,
    gates: Mutex<HashMap<String, GateReport>>,
    doors: Mutex<Doors>,
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budgets")
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes here guard is right after every statement; a panic elsewhere does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The partition of an ad group, the same on every node and in every client.
fn partition_of(ad_group: &AdGroupName, partitions: usize) -> usize {
    (xxh3_64(ad_group.as_str().as_bytes()) % partitions.max(1) as u64) as usize
}

/// The ad groups of a spec with the zones that their days follow.
fn names(spec: &Spec) -> HashMap<AdGroupName, TimeZoneName> {
    spec.ad_groups.iter().map(|a| (a.name.clone(), catalog::zone(spec, a))).collect()
}

/// Whether an event can count.
fn check(
    event: &Event,
    names: &HashMap<AdGroupName, TimeZoneName>,
    now: Timestamp,
) -> Result<(), EventProblem> {
    if !names.contains_key(&event.ad_group) {
        let meant = catalog::nearest(&event.ad_group, names.keys());
        return Err(EventProblem::unknown_ad_group(&event.ad_group, meant));
    }
    event.check_time(now)
}

impl Budgets {
    /// Restores every partition from its checkpoint and the log, and starts its task. Reads what
    /// was appended since the checkpoint: some ten seconds of traffic after a crash. Must be called
    /// in a Tokio runtime.
    ///
    /// # Errors
    /// [`BudgetsError`].
    pub async fn open(
        checkpoints: PathBuf,
        log: Arc<dyn EventLog>,
        clock: Arc<dyn Clock>,
        spec: &Spec,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
    ) -> Result<Self, BudgetsError> {
        std::fs::create_dir_all(&checkpoints).map_err(|source| CheckpointError::Io {
            doing: "make the folder of",
            path: checkpoints.clone(),
            source,
        })?;
        let count = log.partitions();
        let mut partitions = Vec::new();
        for number in 0..count {
            let own = catalog::of_partition(spec, indexes, number as usize, count as usize);
            let opened = Partition::open(
                number,
                own,
                checkpoints.clone(),
                Arc::clone(&log),
                &clock,
                version,
            );
            partitions.push(opened.await?);
        }
        Ok(Self {
            clock,
            partitions,
            catalog: ArcSwap::from_pointee(catalog::for_gates(spec, indexes, version)),
            names: ArcSwap::from_pointee(names(spec)),
            frames: broadcast::channel(hub::BACKLOG).0,
            gates: Mutex::default(),
            doors: Mutex::default(),
        })
    }

    /// Takes events in. When it returns, those accepted are durable and counted. An event that
    /// cannot count is rejected alone. Waits for one sync of the disk, shared with whoever else
    /// calls at the time.
    ///
    /// # Errors
    /// [`BudgetsError::Log`] if the log failed: some of the events may be counted, and sending all
    /// of them again is right, as those count once. [`BudgetsError::Closed`].
    pub async fn accept(&self, events: Vec<Event>) -> Result<Accepted, BudgetsError> {
        let mut by_partition: Vec<Vec<(usize, Event)>> = vec![Vec::new(); self.partitions.len()];
        let mut answer = Accepted::default();
        let (catalog, now) = (self.names.load(), self.clock.now());
        for (place, event) in events.into_iter().enumerate() {
            let partition = partition_of(&event.ad_group, self.partitions.len());
            match check(&event, &catalog, now) {
                Ok(()) => by_partition[partition].push((place, event)),
                Err(problem) => answer.rejected.push((place, problem)),
            }
        }
        let appends = self.partitions.iter().zip(by_partition).filter(|(_, e)| !e.is_empty());
        let counted =
            futures::future::try_join_all(appends.map(|(p, events)| p.append(events))).await?;
        for part in counted {
            answer.accepted += part.accepted;
            answer.duplicates += part.duplicates;
            answer.rejected.extend(part.rejected);
        }
        answer.rejected.sort_by_key(|(place, _)| *place);
        metrics::counter!("throng_events_accepted_total").increment(answer.accepted);
        metrics::counter!("throng_events_duplicate_total").increment(answer.duplicates);
        metrics::counter!("throng_events_rejected_total").increment(answer.rejected.len() as u64);
        Ok(answer)
    }

    /// The feed from now on: keyframes first.
    pub fn subscribe(self: Arc<Self>) -> Subscription {
        let frames = self.frames.subscribe();
        Subscription::new(self, frames)
    }

    /// A keyframe of every partition, encoded.
    fn keyframes(&self) -> Vec<Bytes> {
        self.partitions.iter().map(|p| p.keyframe().encode().into()).collect()
    }

    /// Brings a gate in this process up to date.
    pub fn feed_gate(&self, gate: &Gate) {
        for partition in &self.partitions {
            gate.apply(&partition.keyframe());
        }
    }

    /// The state of every ad group of the applied spec, by name.
    pub fn states(&self) -> Vec<AdGroupState> {
        let now = self.clock.now();
        let mut states: Vec<AdGroupState> =
            self.partitions.iter().flat_map(|p| p.states(now)).collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// An ad group over time: recent points of its figures, and what was predicted against what
    /// came per 3 minutes. `None` if the applied spec does not have it.
    pub fn series(&self, ad_group: &AdGroupName) -> Option<Series> {
        let partition = partition_of(ad_group, self.partitions.len());
        self.partitions[partition].series(ad_group)
    }

    /// What gates are told about the ad groups.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Goes on with the ad groups of another spec. Figures of ad groups that stay are kept.
    pub fn apply_spec(&self, spec: &Spec, indexes: &[(AdGroupName, AdGroupIndex)], version: u64) {
        let (count, now) = (self.partitions.len(), self.clock.now());
        for (number, partition) in self.partitions.iter().enumerate() {
            let own = catalog::of_partition(spec, indexes, number, count);
            partition.set_catalog(own, version, now);
        }
        self.catalog.store(Arc::new(catalog::for_gates(spec, indexes, version)));
        self.names.store(Arc::new(names(spec)));
        for frame in self.keyframes() {
            // Nobody listening is no error.
            let _ = self.frames.send(frame);
        }
    }

    /// Notes what a gate has applied. `false` if there are too many gates to note another one.
    pub fn gate_report(&self, id: &str, versions: Vec<(u32, u64)>, at: Timestamp) -> bool {
        let mut gates = locked(&self.gates);
        if gates.len() >= MOST_GATES && !gates.contains_key(id) {
            gates.retain(|_, gate| at.since(gate.at) < GATE_MEMORY);
            if gates.len() >= MOST_GATES {
                return false;
            }
        }
        gates.insert(id.to_owned(), GateReport { id: id.to_owned(), versions, at });
        true
    }

    /// The gates that have reported within the last hour.
    pub fn gates(&self) -> Vec<GateReport> {
        let now = self.clock.now();
        let mut gates = locked(&self.gates);
        gates.retain(|_, gate| now.since(gate.at) < GATE_MEMORY);
        let mut all: Vec<GateReport> = gates.values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Closes windows by the clock and sends a delta of every partition to all gates, the node's
    /// own among them. Returns whether any figure changed.
    pub fn tick(&self, gate: &Gate) -> bool {
        let now = self.clock.now();
        let mut changed = false;
        for partition in &self.partitions {
            let frame = partition.tick(now);
            changed |= !frame.entries.is_empty();
            self.send(&frame, gate, partition);
        }
        changed
    }

    fn send(&self, frame: &Frame, gate: &Gate, partition: &Partition) {
        if gate.apply(frame) == Applied::NeedKeyframe {
            gate.apply(&partition.keyframe());
        }
        let bytes: Bytes = frame.encode().into();
        metrics::counter!("throng_feed_frame_bytes_total").increment(bytes.len() as u64);
        metrics::counter!("throng_feed_updates_total").increment(frame.entries.len() as u64);
        // Nobody listening is no error.
        let _ = self.frames.send(bytes);
    }

    /// Writes a checkpoint of every partition and lets old records of the log go.
    ///
    /// # Errors
    /// [`BudgetsError`]; the checkpoints before stay.
    pub async fn checkpoint(&self) -> Result<(), BudgetsError> {
        for partition in &self.partitions {
            Arc::clone(partition).checkpoint().await?;
        }
        Ok(())
    }

    /// Takes no more events, and writes the last checkpoint. Safe to call again.
    ///
    /// # Errors
    /// [`BudgetsError`].
    pub async fn close(&self) -> Result<(), BudgetsError> {
        for partition in &self.partitions {
            partition.stop_accepting().await;
        }
        self.checkpoint().await
    }

    /// The figures of today, for the ledger.
    fn days(&self) -> Vec<BudgetDayRow> {
        let (names, now) = (self.names.load(), self.clock.now());
        self.states()
            .into_iter()
            .filter_map(|state| {
                let day = BudgetDay::of(now, &names.get(&state.name)?.rules());
                let (budget, actual) = (state.budget, state.actual);
                Some(BudgetDayRow { ad_group: state.name, day, budget, actual })
            })
            .collect()
    }
}

/// Ticks until `shutdown`: closes windows, feeds gates, writes checkpoints, tells history and pages.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut checkpoint_at = ctx.clock.now().plus(CHECKPOINT_EVERY);
    let mut days_at = ctx.clock.now();
    let mut pause = tokio::time::interval(CHECKPOINT_PAUSE);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let interval = Duration::from_millis(u64::from(ctx.spec.load().node.feed_interval_ms));
        let wait = ctx.clock.wall_duration(interval).max(SHORTEST_TICK);
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(wait) => {
                if ctx.budgets.tick(&ctx.gate) {
                    ctx.changed(Change::Budgets);
                }
                record_doors(&ctx).await;
            }
            _ = pause.tick() => {
                let now = ctx.clock.now();
                if now >= checkpoint_at {
                    checkpoint_at = now.plus(CHECKPOINT_EVERY);
                    if let Err(error) = ctx.budgets.checkpoint().await {
                        tracing::error!(error = &error as &dyn std::error::Error, "no checkpoint");
                    }
                }
                if now >= days_at {
                    days_at = now.plus(DAYS_EVERY);
                    store_days(&ctx).await;
                }
            }
        }
    }
    store_days(&ctx).await;
}

/// Ad groups that opened or closed since the last look go into the history.
async fn record_doors(ctx: &NodeContext) {
    let entries = locked(&ctx.budgets.doors).look(&ctx.budgets.states(), ctx.clock.now());
    if entries.is_empty() {
        return;
    }
    if let Err(error) = ctx.ledger.record(&entries).await {
        tracing::error!(error = &error as &dyn std::error::Error, "history not recorded");
    }
}

async fn store_days(ctx: &NodeContext) {
    let rows = ctx.budgets.days();
    if rows.is_empty() {
        return;
    }
    if let Err(error) = ctx.ledger.put_budget_days(&rows).await {
        tracing::error!(error = &error as &dyn std::error::Error, "budget days not stored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_an_ad_group_never_changes() {
        let partition = |name: &str| partition_of(&AdGroupName::new(name).unwrap(), 4);
        // A change here would split the history of every deployment's ad groups in two.
        assert_eq!(
            ["red", "green", "blue", "amber"].map(partition),
            ["red", "green", "blue", "amber"].map(|n| (xxh3_64(n.as_bytes()) % 4) as usize)
        );
    }
}
