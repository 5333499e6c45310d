//! A topic as a queue of work: a consumer group of any number of processes, each message to one of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message as _;
use rdkafka::producer::FutureRecord;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::retry::POLL_INTERVAL;
use crate::{LogError, Message, Queue, Result};

use super::client::{KafkaOptions, failed};
use super::group::GroupTiming;
use super::producer::Producer;
use super::settings::{TopicSettings, TopicUse};
use super::{threads, topic};

/// The largest number of prefetched messages; the partitions are paused before there are more.
const MAX_PREFETCHED: usize = 256;
/// Between two commits of offsets.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// A queue over a topic and a consumer group of the same name. A long task does not lose its partition:
/// a thread polls all the time, and pauses the partitions while the process has enough messages.
pub struct KafkaQueue {
    topic: String,
    producer: Producer,
    /// `None` if this process only puts.
    consumer: Option<ConsumerHandle>,
}

struct ConsumerHandle {
    messages: tokio::sync::Mutex<mpsc::Receiver<Message>>,
    offsets: Arc<Mutex<OffsetTracker>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for KafkaQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaQueue").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A partition and an offset.
type PartitionOffset = (i32, i64);

/// The messages of each partition that are not acknowledged, and the offset to commit.
#[derive(Debug, Default)]
struct OffsetTracker(HashMap<i32, PartitionOffsets>);

#[derive(Debug, Default)]
struct PartitionOffsets {
    unacknowledged: BTreeSet<i64>,
    next: i64,
    committed: Option<i64>,
}

impl OffsetTracker {
    fn received(&mut self, (partition, offset): PartitionOffset) {
        let offsets = self.0.entry(partition).or_default();
        offsets.unacknowledged.insert(offset);
        // A committed offset is that of the next message to read, not of the last one (documentation of
        // `KafkaConsumer`): without the 1 the last message would be delivered again after each restart.
        offsets.next = offsets.next.max(offset + 1);
    }

    fn acknowledged(&mut self, (partition, offset): PartitionOffset) {
        // Not of a partition that was revoked meanwhile: it would be tracked again, and committed.
        if let Some(offsets) = self.0.get_mut(&partition) {
            offsets.unacknowledged.remove(&offset);
        }
    }

    fn revoked(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    /// The offsets to commit, of the partitions where they have changed: a new consumer of the partition
    /// begins there.
    fn offsets_to_commit(&mut self) -> Vec<PartitionOffset> {
        let mut changed = Vec::new();
        for (number, offsets) in &mut self.0 {
            // The lowest unacknowledged offset. Kafka has one offset per partition and group: with the highest
            // acknowledged one, a crash would lose the unacknowledged messages before it.
            let from = offsets.unacknowledged.first().copied().unwrap_or(offsets.next);
            if offsets.committed != Some(from) {
                offsets.committed = Some(from);
                changed.push((*number, from));
            }
        }
        changed
    }
}

impl KafkaQueue {
    /// Opens the topic `<prefix>.<name>` for putting messages; creates it if it is missing.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn open(options: &KafkaOptions, name: &str, partitions: u32) -> Result<Self> {
        let topic = options.named(name);
        let wanted = TopicSettings::new(TopicUse::Queue, partitions);
        topic::ensure(options, &topic, wanted).await?;
        let mut config = options.config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("delivery.timeout.ms", "30000");
        let producer = Producer::create(&config, &topic, DefaultClientContext)?;
        Ok(Self { topic, producer, consumer: None })
    }

    /// Like [`open`](Self::open), and joins the consumer group.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn join(
        options: &KafkaOptions,
        name: &str,
        partitions: u32,
        timing: GroupTiming,
    ) -> Result<Self> {
        let mut queue = Self::open(options, name, partitions).await?;
        let topic = queue.topic.clone();
        let offsets = Arc::default();
        let consumer: BaseConsumer<RebalanceListener> = options
            .config()
            .set("group.id", &topic)
            // Committed here when messages are done. The client would commit what it has delivered, and a
            // crash would lose messages that are not done.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A new group begins with the messages that were put before it joined.
            .set("auto.offset.reset", "earliest")
            // Eager: all partitions are revoked for the time of a rebalance, which costs nothing here. With
            // cooperative rebalances (KIP-429) members keep consuming, and so committing, while one runs;
            // such a commit can fail (REBALANCE_IN_PROGRESS) and lose the assignment.
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", timing.session_ms())
            .set("heartbeat.interval.ms", timing.heartbeat_ms())
            .set("max.poll.interval.ms", timing.max_poll_ms())
            .create_with_context(RebalanceListener { offsets: Arc::clone(&offsets) })
            .map_err(failed("join the group of", &topic))?;
        consumer.subscribe(&[&topic]).map_err(failed("join the group of", &topic))?;
        let (sender, messages) = mpsc::channel(MAX_PREFETCHED);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = QueueConsumer {
            consumer,
            topic: topic.clone(),
            offsets: Arc::clone(&offsets),
            stop: Arc::clone(&stop),
            is_paused: false,
        };
        threads::start("kafka-queue", &topic, move || thread.run(&sender))?;
        let messages = tokio::sync::Mutex::new(messages);
        queue.consumer = Some(ConsumerHandle { messages, offsets, stop });
        Ok(queue)
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    async fn put(&self, messages: Vec<Message>) -> Result<()> {
        // All at once and then the answers: with a wait for each, a message would cost the delay of
        // a batch.
        let sends = messages.iter().map(|message| {
            let record = FutureRecord::to(&self.topic).key(&message.key).payload(&message.body[..]);
            self.producer.send(record)
        });
        for sent in futures::future::join_all(sends).await {
            sent.map_err(failed("put a message on", &self.topic))?;
        }
        Ok(())
    }

    async fn take(&self) -> Result<Message> {
        let consumer = self.consumer.as_ref().ok_or(LogError::ReadOnly)?;
        consumer.messages.lock().await.recv().await.ok_or(LogError::Closed)
    }

    async fn done(&self, message: &Message) -> Result<()> {
        if let (Some(consumer), Some(source)) = (&self.consumer, message.source) {
            consumer.offsets.lock().acknowledged(source);
        }
        Ok(())
    }
}

impl Drop for KafkaQueue {
    fn drop(&mut self) {
        if let Some(consumer) = &self.consumer {
            consumer.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Removes revoked partitions from the offset tracker.
struct RebalanceListener {
    offsets: Arc<Mutex<OffsetTracker>>,
}

impl ClientContext for RebalanceListener {}

impl ConsumerContext for RebalanceListener {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Before the partitions go to another member: the coordinator accepts a commit of any member of the
        // group, so a late one would set the offset of the new owner back, or past messages that it has not
        // processed.
        if let Rebalance::Revoke(list) = rebalance {
            let mut offsets = self.offsets.lock();
            list.elements().iter().for_each(|e| offsets.revoked(e.partition()));
        }
    }
}

/// The thread that polls the consumer.
struct QueueConsumer {
    consumer: BaseConsumer<RebalanceListener>,
    topic: String,
    offsets: Arc<Mutex<OffsetTracker>>,
    stop: Arc<AtomicBool>,
    is_paused: bool,
}

impl QueueConsumer {
    fn run(mut self, sender: &mpsc::Sender<Message>) {
        let mut polls = 0u32;
        let polls_per_commit = (COMMIT_INTERVAL.as_millis() / POLL_INTERVAL.as_millis()) as u32;
        while !self.stop.load(Ordering::Relaxed) {
            // Polls even while nothing may be received: a member that does not poll for
            // `max.poll.interval.ms` loses its partitions (KIP-62), and tasks take longer than that.
            self.pause_when_full(sender.capacity());
            match self.consumer.poll(POLL_INTERVAL) {
                None => {}
                Some(Ok(received)) => {
                    let source = (received.partition(), received.offset());
                    let key = String::from_utf8_lossy(received.key().unwrap_or_default());
                    let body = Bytes::copy_from_slice(received.payload().unwrap_or_default());
                    let message = Message { key: key.into_owned(), body, source: Some(source) };
                    // Before the message is sent: its acknowledgement could come first otherwise, and its
                    // offset would stay unacknowledged and stop the commits of the partition.
                    self.offsets.lock().received(source);
                    // Waits only if messages arrive that were fetched before the pause.
                    if sender.blocking_send(message).is_err() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.topic, "failed to poll the queue");
                }
            }
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(polls_per_commit.max(1)) {
                self.commit(CommitMode::Async);
            }
        }
        // The messages of the last second would be delivered again without this commit. Synchronous, because
        // leaving the group would overtake an asynchronous one.
        self.commit(CommitMode::Sync);
        self.consumer.unsubscribe();
    }

    fn pause_when_full(&mut self, capacity: usize) {
        // Two limits: with one, each message that is done would resume and pause all partitions.
        let pause = if self.is_paused { capacity < MAX_PREFETCHED / 2 } else { capacity <= 1 };
        // Before the assignment is requested from a thread of the client, which would be for each message.
        if !pause && !self.is_paused {
            return;
        }
        let Ok(assigned) = self.consumer.assignment() else { return };
        let changed = if pause {
            // Again at every poll: a rebalance may have assigned partitions that are not paused.
            self.consumer.pause(&assigned)
        } else {
            self.consumer.resume(&assigned)
        };
        match changed {
            Ok(()) => self.is_paused = pause,
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "failed to pause or resume partitions");
            }
        }
    }

    fn commit(&self, mode: CommitMode) {
        let offsets = self.offsets.lock().offsets_to_commit();
        if offsets.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            // Fails only for negative offsets, which Kafka does not assign.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::debug!(%error, topic = self.topic, "failed to commit offsets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unacknowledged_offset_is_committed() {
        let mut offsets = OffsetTracker::default();
        for offset in 10..14 {
            offsets.received((0, offset));
        }
        assert_eq!(offsets.offsets_to_commit(), [(0, 10)]);
        offsets.acknowledged((0, 12));
        offsets.acknowledged((0, 10));
        assert_eq!(offsets.offsets_to_commit(), [(0, 11)]);
        offsets.acknowledged((0, 11));
        offsets.acknowledged((0, 13));
        assert_eq!(offsets.offsets_to_commit(), [(0, 14)]);
        assert_eq!(offsets.offsets_to_commit(), []);
        offsets.revoked(0);
        offsets.acknowledged((0, 13));
        assert_eq!(offsets.offsets_to_commit(), []);
    }
}
