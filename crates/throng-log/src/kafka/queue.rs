//! A topic as a queue of work: any number of workers of one group, each message to one of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::{LogError, Message, Queue, Result};

use super::client::{KafkaSettings, failed};
use super::group::GroupTiming;
use super::topic::{self, TopicSettings};

/// Messages that wait in this process before the partitions are paused.
const WAITING: usize = 256;
/// How often what is done is told to the brokers.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

fn queue_topic(partitions: u32) -> TopicSettings {
    TopicSettings {
        partitions,
        settings: vec![
            ("message.timestamp.type", "LogAppendTime"),
            // What is older has long been put on the queue again.
            ("retention.ms", "86400000"),
        ],
    }
}

/// A queue over a topic and a consumer group of the same name. Long work never loses its
/// partition: the client's own threads keep the membership, and a full process pauses its
/// partitions and goes on polling.
pub struct KafkaQueue {
    topic: String,
    producer: FutureProducer,
    taken: Option<Taking>,
}

struct Taking {
    messages: tokio::sync::Mutex<mpsc::Receiver<(Place, Message)>>,
    places: Arc<Mutex<Places>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for KafkaQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaQueue").field("topic", &self.topic).finish_non_exhaustive()
    }
}

type Place = (i32, i64);

/// Which messages of each partition are in hand, and how far all are done.
#[derive(Debug, Default)]
struct Places(HashMap<i32, Partition>);

#[derive(Debug, Default)]
struct Partition {
    in_hand: BTreeSet<i64>,
    next: i64,
    told: Option<i64>,
}

impl Places {
    fn took(&mut self, (partition, offset): Place) {
        let place = self.0.entry(partition).or_default();
        place.in_hand.insert(offset);
        place.next = place.next.max(offset + 1);
    }

    fn done(&mut self, (partition, offset): Place) {
        if let Some(place) = self.0.get_mut(&partition) {
            place.in_hand.remove(&offset);
        }
    }

    fn lost(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    /// Where a new owner would begin, where that has changed.
    fn news(&mut self) -> Vec<Place> {
        let mut changed = Vec::new();
        for (number, place) in &mut self.0 {
            let from = place.in_hand.first().copied().unwrap_or(place.next);
            if place.told != Some(from) {
                place.told = Some(from);
                changed.push((*number, from));
            }
        }
        changed
    }
}

impl KafkaQueue {
    /// Opens the topic `<prefix>.<name>` for putting work in; makes it if it is missing.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn open(settings: &KafkaSettings, name: &str, partitions: u32) -> Result<Self> {
        let topic = settings.named(name);
        topic::ensure(settings, &topic, &queue_topic(partitions)).await?;
        let producer = settings
            .config()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("delivery.timeout.ms", "30000")
            .create()
            .map_err(failed("make a producer for", &topic))?;
        Ok(Self { topic, producer, taken: None })
    }

    /// As [`open`](Self::open), and joins the group of workers.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn join(
        settings: &KafkaSettings,
        name: &str,
        partitions: u32,
        timing: GroupTiming,
    ) -> Result<Self> {
        let mut queue = Self::open(settings, name, partitions).await?;
        let topic = queue.topic.clone();
        let places = Arc::default();
        let consumer: BaseConsumer<Losses> = settings
            .config()
            .set("group.id", &topic)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            // Committing in a cooperative rebalance can lose the share; taking all away for a
            // moment costs nothing here.
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", timing.session_ms())
            .set("heartbeat.interval.ms", timing.heartbeat_ms())
            .set("max.poll.interval.ms", timing.max_poll_ms())
            .create_with_context(Losses { places: Arc::clone(&places) })
            .map_err(failed("join the group of", &topic))?;
        consumer.subscribe(&[&topic]).map_err(failed("join the group of", &topic))?;
        let (sender, messages) = mpsc::channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let taker = Taker {
            consumer,
            topic: topic.clone(),
            places: Arc::clone(&places),
            stop: Arc::clone(&stop),
            paused: false,
        };
        std::thread::Builder::new()
            .name("queue".to_owned())
            .spawn(move || taker.run(&sender))
            .map_err(|source| LogError::Io {
                doing: "start a thread for",
                path: topic.into(),
                source,
            })?;
        queue.taken = Some(Taking { messages: tokio::sync::Mutex::new(messages), places, stop });
        Ok(queue)
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    async fn put(&self, messages: Vec<Message>) -> Result<()> {
        let sends = messages.iter().map(|message| {
            let record = FutureRecord::to(&self.topic).key(&message.key).payload(&message.body[..]);
            self.producer.send(record, Duration::from_secs(10))
        });
        for sent in futures::future::join_all(sends).await {
            sent.map_err(|(error, _)| failed("put work on", &self.topic)(error))?;
        }
        Ok(())
    }

    async fn take(&self) -> Result<Message> {
        let taking = self.taken.as_ref().ok_or(LogError::ReadOnly)?;
        let next = taking.messages.lock().await.recv().await;
        let ((partition, offset), mut message) = next.ok_or(LogError::Closed)?;
        message.place = Some((partition, offset));
        Ok(message)
    }

    async fn done(&self, message: &Message) -> Result<()> {
        if let (Some(taking), Some(place)) = (&self.taken, message.place) {
            taking.places.lock().done(place);
        }
        Ok(())
    }
}

impl Drop for KafkaQueue {
    fn drop(&mut self) {
        if let Some(taking) = &self.taken {
            taking.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Forgets what was in hand of partitions that are somebody else's now.
struct Losses {
    places: Arc<Mutex<Places>>,
}

impl ClientContext for Losses {}

impl ConsumerContext for Losses {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let mut places = self.places.lock();
            list.elements().iter().for_each(|e| places.lost(e.partition()));
        }
    }
}

struct Taker {
    consumer: BaseConsumer<Losses>,
    topic: String,
    places: Arc<Mutex<Places>>,
    stop: Arc<AtomicBool>,
    paused: bool,
}

impl Taker {
    fn run(mut self, sender: &mpsc::Sender<(Place, Message)>) {
        let mut polls = 0u32;
        let per_commit = (COMMIT_EVERY.as_millis() / POLL.as_millis()) as u32;
        while !self.stop.load(Ordering::Relaxed) {
            self.pause_when_full(sender.capacity());
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let place = (message.partition(), message.offset());
                    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
                    let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    let taken = Message { key: key.into_owned(), body, place: None };
                    self.places.lock().took(place);
                    // There is room, or all is paused: this waits at most for what was fetched.
                    if sender.blocking_send((place, taken)).is_err() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.topic, "work comes again when a broker answers");
                }
            }
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(per_commit.max(1)) {
                self.tell(CommitMode::Async);
            }
        }
        self.tell(CommitMode::Sync);
        self.consumer.unsubscribe();
    }

    fn pause_when_full(&mut self, room: usize) {
        let pause = if self.paused { room < WAITING / 2 } else { room <= 1 };
        let Ok(mine) = self.consumer.assignment() else { return };
        let changed = match (pause, self.paused) {
            (true, _) => self.consumer.pause(&mine),
            (false, true) => self.consumer.resume(&mine),
            (false, false) => return,
        };
        match changed {
            Ok(()) => self.paused = pause,
            Err(error) => tracing::debug!(%error, topic = self.topic, "not paused or resumed"),
        }
    }

    fn tell(&self, mode: CommitMode) {
        let news = self.places.lock().news();
        if news.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in news {
            // The list takes every offset that came out of Kafka.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::debug!(%error, topic = self.topic, "how far the work is done was not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_owner_begins_at_the_first_that_is_not_done() {
        let mut places = Places::default();
        for offset in 10..14 {
            places.took((0, offset));
        }
        assert_eq!(places.news(), [(0, 10)]);
        places.done((0, 12));
        places.done((0, 10));
        assert_eq!(places.news(), [(0, 11)]);
        places.done((0, 11));
        places.done((0, 13));
        assert_eq!(places.news(), [(0, 14)]);
        assert_eq!(places.news(), []);
        places.lost(0);
        places.done((0, 13));
        assert_eq!(places.news(), []);
    }
}
