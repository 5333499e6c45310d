//! Following a partition: one consumer, one thread, records in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use throng_model::Timestamp;
use tokio::sync::mpsc;

use crate::{LogError, Record, Result, Tail};

use super::client::{KafkaSettings, failed};
use super::log::AT;

/// Batches that wait for the follower before the thread does.
const BATCHES: usize = 4;
/// A batch ends at so many records or bytes.
const BATCH_RECORDS: usize = 8_192;
const BATCH_BYTES: usize = 1 << 20;
/// How long the thread waits for a record before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// A consumer that reads partitions it is told to, and joins no group.
pub(super) fn consumer(settings: &KafkaSettings, topic: &str) -> Result<BaseConsumer> {
    settings
        .config()
        // The client wants one, although nothing is stored under it.
        .set("group.id", settings.named("reader"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that is gone must be told, not skipped.
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true")
        .create()
        .map_err(failed("make a consumer for", topic))
}

/// Reads on from an offset of one partition.
pub(super) fn seek(consumer: &BaseConsumer, topic: &str, partition: i32, from: u64) -> Result<()> {
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
    list.add_partition_offset(topic, partition, offset).map_err(failed("read", topic))?;
    consumer.assign(&list).map_err(failed("read", topic))
}

fn offset_of(message: &BorrowedMessage<'_>) -> u64 {
    u64::try_from(message.offset()).unwrap_or(0)
}

/// The time of a record: its header's, or else the broker's.
fn at_of(message: &BorrowedMessage<'_>) -> Timestamp {
    let header = message.headers().and_then(|headers| {
        let at = headers.iter().find(|header| header.key == AT)?;
        Some(i64::from_le_bytes(at.value?.try_into().ok()?))
    });
    let broker = || message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000);
    Timestamp(header.unwrap_or_else(broker))
}

pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let value = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Record { offset: offset_of(message), at: at_of(message), value }
}

/// Follows a partition. Dropping it ends its thread.
pub(super) struct KafkaTail {
    batches: mpsc::Receiver<Result<Vec<Record>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaTail {
    pub(super) fn start(
        settings: &KafkaSettings,
        topic: &str,
        partition: i32,
        from: u64,
    ) -> Result<Self> {
        let consumer = consumer(settings, topic)?;
        seek(&consumer, topic, partition, from)?;
        let (sender, batches) = mpsc::channel(BATCHES);
        let stop = Arc::new(AtomicBool::new(false));
        let follower =
            Follower { consumer, topic: topic.to_owned(), partition, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name(format!("tail-{partition}"))
            .spawn(move || follower.run(&sender))
            .map_err(|source| LogError::Io {
                doing: "start a thread for",
                path: topic.into(),
                source,
            })?;
        Ok(Self { batches, stop, thread: Some(thread) })
    }
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self) -> Result<Vec<Record>> {
        self.batches.recv().await.unwrap_or(Err(LogError::Closed))
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.batches.close();
        // Not joined: the thread sees the flag within a moment, and the caller may be async.
        drop(self.thread.take());
    }
}

struct Follower {
    consumer: BaseConsumer,
    topic: String,
    partition: i32,
    stop: Arc<AtomicBool>,
}

impl Follower {
    fn run(self, batches: &mpsc::Sender<Result<Vec<Record>>>) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.consumer.poll(LOOK) {
                None => {}
                Some(Ok(first)) => {
                    let batch = self.gather(first);
                    if batches.blocking_send(Ok(batch)).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    if let Some(error) = self.fatal(error) {
                        // Nobody listening is no error.
                        let _ = batches.blocking_send(Err(error));
                        return;
                    }
                }
            }
        }
    }

    /// What is there already, behind the first one. Values share one allocation.
    fn gather(&self, first: BorrowedMessage<'_>) -> Vec<Record> {
        let mut values = BytesMut::with_capacity(first.payload_len().max(4_096));
        let mut heads = Vec::new();
        let mut take = |message: &BorrowedMessage<'_>| {
            let payload = message.payload().unwrap_or_default();
            values.put_slice(payload);
            heads.push((offset_of(message), at_of(message), payload.len()));
            heads.len() < BATCH_RECORDS && values.len() < BATCH_BYTES
        };
        let mut room = take(&first);
        while room {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => room = take(&message),
                // An error comes again with the next poll, if it lasts.
                Some(Err(_)) | None => break,
            }
        }
        let mut values = values.freeze();
        heads
            .into_iter()
            .map(|(offset, at, length)| Record { offset, at, value: values.split_to(length) })
            .collect()
    }

    /// Errors that the client does not get over by itself.
    fn fatal(&self, error: KafkaError) -> Option<LogError> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => Some(failed("read", &self.topic)(error)),
            _ => {
                let (topic, partition) = (&self.topic, self.partition);
                tracing::warn!(%error, topic, partition, "reading goes on when the brokers answer");
                None
            }
        }
    }
}
