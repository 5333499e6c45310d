//! Partition assignment by a consumer group: which partitions belong to this process. The group
//! coordinator assigns them and detects dead members; the records are read elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::watch;

use crate::Result;
use crate::retry::POLL_INTERVAL;

use super::client::{KafkaOptions, failed};
use super::threads;

/// How soon a group detects a dead member.
#[derive(Debug, Clone, Copy)]
pub struct GroupTiming {
    /// A member without a heartbeat for this time loses its partitions (`session.timeout.ms`). The
    /// brokers' `group.min.session.timeout.ms` is the minimum (6 s by default).
    pub session: Duration,
    /// A member that does not poll for this time loses its partitions, even if it sends heartbeats
    /// (`max.poll.interval.ms`). Not shorter than `session`. Throng polls in threads of their own,
    /// however long a task takes: this detects a process that hangs.
    pub max_poll: Duration,
}

impl Default for GroupTiming {
    fn default() -> Self {
        // Five minutes is the default of Kafka's clients.
        Self { session: Duration::from_secs(6), max_poll: Duration::from_secs(300) }
    }
}

impl GroupTiming {
    pub(super) fn session_ms(self) -> String {
        self.session.as_millis().to_string()
    }

    pub(super) fn max_poll_ms(self) -> String {
        self.max_poll.max(self.session).as_millis().to_string()
    }

    pub(super) fn heartbeat_ms(self) -> String {
        // At most a third of the session timeout (documentation of `heartbeat.interval.ms`), so that one lost
        // heartbeat does not end the membership. Not longer than the default of 3 s, because a member learns
        // of a rebalance by the answer to its heartbeat, and the rebalance waits for it.
        (self.session.as_millis() / 4).clamp(100, 3_000).to_string()
    }
}

/// The partitions of a topic that a consumer group assigns to this process. Drop leaves the group at
/// once, so that the other members get the partitions before the session timeout.
#[derive(Debug)]
pub struct PartitionAssignment {
    partitions: watch::Receiver<Vec<u32>>,
    stop: Arc<AtomicBool>,
}

impl PartitionAssignment {
    /// Joins the group `<prefix>.<group>` of the topic `<prefix>.<topic>`.
    ///
    /// # Errors
    /// [`LogError::Kafka`](crate::LogError::Kafka).
    pub fn join(
        options: &KafkaOptions,
        topic: &str,
        group: &str,
        timing: GroupTiming,
    ) -> Result<Self> {
        let topic = options.named(topic);
        let (sender, partitions) = watch::channel(Vec::new());
        let consumer: BaseConsumer<AssignmentListener> = options
            .config()
            .set("group.id", options.named(group))
            // The offsets of this group are in the checkpoints. Committed ones would be a second truth.
            .set("enable.auto.commit", "false")
            // A fetch may start before the pause takes effect. At the end of the log it returns little.
            .set("auto.offset.reset", "latest")
            // Members keep the partitions that do not move while a rebalance runs (KIP-429). With an eager
            // strategy every process would stop and restore all of its partitions when one process starts.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", timing.session_ms())
            .set("heartbeat.interval.ms", timing.heartbeat_ms())
            .set("max.poll.interval.ms", timing.max_poll_ms())
            .create_with_context(AssignmentListener { sender })
            .map_err(failed("join the group of", &topic))?;
        consumer.subscribe(&[&topic]).map_err(failed("join the group of", &topic))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        threads::start("kafka-assign", &topic, move || {
            while !stopped.load(Ordering::Relaxed) {
                // Polls serve rebalances, and without them the member leaves the group after
                // `max.poll.interval.ms` (KIP-62). No records arrive, because all partitions are paused.
                if let Some(Err(error)) = consumer.poll(POLL_INTERVAL) {
                    tracing::debug!(%error, "failed to poll the consumer group");
                }
            }
            // Leaves the group. Otherwise nobody would have these partitions until the session timeout.
            consumer.unsubscribe();
        })?;
        Ok(Self { partitions, stop })
    }

    /// The partitions that are assigned to this process now, ascending.
    pub fn partitions(&self) -> Vec<u32> {
        self.partitions.borrow().clone()
    }

    /// Waits until the assignment changes. `false` if the group is left.
    pub async fn changed(&mut self) -> bool {
        self.partitions.changed().await.is_ok()
    }
}

impl Drop for PartitionAssignment {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Publishes assigned and revoked partitions.
struct AssignmentListener {
    sender: watch::Sender<Vec<u32>>,
}

fn numbers(list: &TopicPartitionList) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        list.elements().iter().filter_map(|e| u32::try_from(e.partition()).ok()).collect();
    numbers.sort_unstable();
    numbers
}

impl ClientContext for AssignmentListener {}

impl ConsumerContext for AssignmentListener {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Before the rebalance continues: with a cooperative strategy the coordinator assigns the partitions to
        // another member only in the next round, so this process knows first. It is not a guarantee that it
        // has stopped: a paused process learns late, and its writes are fenced by the checkpoint (ADR 6).
        if let Rebalance::Revoke(list) = rebalance {
            let revoked = numbers(list);
            self.sender.send_modify(|assigned| assigned.retain(|p| !revoked.contains(p)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // The records are read by `Reader`: without the pause every record would be transferred twice.
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "failed to pause assigned partitions");
            }
            // A cooperative assignment lists the new partitions only (KIP-429): replacing the list would
            // drop those that stayed.
            let new = numbers(list);
            self.sender.send_modify(|assigned| {
                assigned.extend(new);
                assigned.sort_unstable();
                assigned.dedup();
            });
        }
    }
}
