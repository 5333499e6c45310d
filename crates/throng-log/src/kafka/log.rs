//! A topic as an event log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use throng_model::Timestamp;

use crate::file::MAX_RECORD_BYTES;
use crate::{EventLog, LogError, Record, Result, Tail};

use super::client::{self, KafkaSettings, PATIENCE, failed};
use super::reader::Reader;
use super::tail::KafkaTail;
use super::topic::{self, Admin, TopicSettings};

/// The header with the time of a record: microseconds since 1970, 8 bytes, little-endian. Records of
/// other producers may lack it; the brokers' time counts then.
pub(super) const AT: &str = "at";
/// Room for a record and its envelope.
const MESSAGE_BYTES: &str = "17825792";
/// A producer that is full is asked again this soon.
const FULL: Duration = Duration::from_millis(5);

/// What the topic of an event log is made with. The time of a record is the brokers': producers'
/// clocks may be wrong, and a record from the past must not be deleted for its age at once.
pub(crate) fn event_topic(partitions: u32) -> TopicSettings {
    TopicSettings {
        partitions,
        settings: vec![
            ("max.message.bytes", MESSAGE_BYTES),
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", "604800000"),
            ("compression.type", "producer"),
        ],
    }
}

/// A topic as a log: partition and offset are Kafka's. Any number of processes write and read it.
pub struct KafkaLog {
    settings: KafkaSettings,
    topic: String,
    producer: FutureProducer,
    /// Appends to a partition are put in the producer's queue next to each other.
    turns: Vec<tokio::sync::Mutex<()>>,
    admin: Arc<Admin>,
    asker: Arc<BaseConsumer>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog")
            .field("topic", &self.topic)
            .field("partitions", &self.turns.len())
            .finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Opens the topic `<prefix>.<name>`; makes it with so many partitions if it is missing. A topic
    /// that is there keeps its number.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn open(settings: &KafkaSettings, name: &str, partitions: u32) -> Result<Self> {
        let topic = settings.named(name);
        let count = topic::ensure(settings, &topic, &event_topic(partitions)).await?;
        let producer = settings
            .config()
            // Every record once and in order, although the client tries again.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", MESSAGE_BYTES)
            .set("compression.type", "zstd")
            .set("linger.ms", "2")
            .set("queue.buffering.max.kbytes", "262144")
            .set("delivery.timeout.ms", "30000")
            .set("request.timeout.ms", "10000")
            .create()
            .map_err(failed("make a producer for", &topic))?;
        let asker = client::consumer(settings, &topic)?;
        Ok(Self {
            settings: settings.clone(),
            producer,
            turns: (0..count).map(|_| tokio::sync::Mutex::default()).collect(),
            admin: Arc::new(topic::admin(settings)?),
            asker: Arc::new(asker),
            topic,
        })
    }

    fn known(&self, partition: u32) -> Result<i32> {
        if (partition as usize) < self.turns.len() {
            return Ok(partition as i32);
        }
        Err(LogError::NoSuchPartition { partition, partitions: self.turns.len() as u32 })
    }

    fn reader(&self, partition: i32, from: u64) -> Result<Reader> {
        Reader::new(&self.settings, &self.topic, partition, from)
    }

    /// Oldest offset and next offset.
    async fn watermarks(&self, partition: u32) -> Result<(u64, u64)> {
        let number = self.known(partition)?;
        let asking = async {
            loop {
                let (asker, topic) = (Arc::clone(&self.asker), self.topic.clone());
                let asked = tokio::task::spawn_blocking(move || {
                    asker.fetch_watermarks(&topic, number, PATIENCE)
                });
                match asked.await.map_err(|_| LogError::Closed)? {
                    Ok(found) => return Ok(found),
                    // It has just been created, or its leader changes.
                    Err(error) if client::has_no_leader_yet(&error) => {
                        tokio::time::sleep(LEADER_POLL_INTERVAL).await;
                    }
                    Err(error) => return Err(failed("ask for the offsets of", &self.topic)(error)),
                }
            }
        };
        let unanswered = || LogError::Unanswered { topic: self.topic.clone() };
        let (low, high) =
            tokio::time::timeout(PATIENCE, asking).await.map_err(|_| unanswered())??;
        let low = u64::try_from(low).unwrap_or(0);
        Ok((low, u64::try_from(high).unwrap_or(0).max(low)))
    }
}

/// Between two questions to a partition without a leader.
const LEADER_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether a record that was given to the producer may still be in the topic later.
fn undelivered(topic: &str, error: KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::PurgeInflight) => {
            LogError::Unconfirmed { topic: topic.to_owned() }
        }
        _ => failed("append to", topic)(error),
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.turns.len() as u32
    }

    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64> {
        let number = self.known(partition)?;
        if let Some(long) = values.iter().find(|v| v.len() > MAX_RECORD_BYTES) {
            return Err(LogError::TooLong { bytes: long.len(), limit: MAX_RECORD_BYTES });
        }
        if values.is_empty() {
            return self.end(partition).await;
        }
        let time = at.0.to_le_bytes();
        let mut deliveries = Vec::with_capacity(values.len());
        {
            let _turn = self.turns[partition as usize].lock().await;
            for value in &values {
                let headers = OwnedHeaders::new_with_capacity(1)
                    .insert(Header { key: AT, value: Some(time.as_slice()) });
                let mut record = FutureRecord::<(), [u8]>::to(&self.topic)
                    .partition(number)
                    .payload(value)
                    .headers(headers);
                loop {
                    match self.producer.send_result(record) {
                        Ok(delivery) => break deliveries.push(delivery),
                        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                            record = back;
                            tokio::time::sleep(FULL).await;
                        }
                        // Some may be on their way already.
                        Err(_) if !deliveries.is_empty() => {
                            return Err(LogError::Unconfirmed { topic: self.topic.clone() });
                        }
                        Err((error, _)) => return Err(failed("append to", &self.topic)(error)),
                    }
                }
            }
        }
        let mut first = None;
        let mut lost = None;
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(delivered)) => first = first.or(u64::try_from(delivered.offset).ok()),
                Ok(Err((error, _))) => lost = Some(undelivered(&self.topic, error)),
                Err(_) => lost = Some(LogError::Closed),
            }
        }
        match (first, lost) {
            (Some(offset), None) => Ok(offset),
            // Some are there and some are not.
            (Some(_), Some(_)) => Err(LogError::Unconfirmed { topic: self.topic.clone() }),
            (None, lost) => Err(lost.unwrap_or(LogError::Closed)),
        }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        let number = self.known(partition)?;
        let (first, end) = self.watermarks(partition).await?;
        if from < first {
            return Err(LogError::Gone { partition, wanted: from, first });
        }
        if from >= end {
            return Ok(Vec::new());
        }
        let mut reader = self.reader(number, from)?;
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        // The last ones may be marks of transactions, which nobody reads.
        while reader.position() < end {
            let before = reader.position();
            let moved = async {
                loop {
                    let more = reader.next().await?;
                    if reader.position() > before {
                        return Ok(more);
                    }
                }
            };
            let more = tokio::time::timeout(PATIENCE, moved).await;
            let more = more.unwrap_or(Err(LogError::Unanswered { topic: self.topic.clone() }))?;
            for record in more {
                bytes += record.value.len();
                if record.offset >= end || (bytes > max_bytes && !records.is_empty()) {
                    return Ok(records);
                }
                records.push(record);
            }
        }
        Ok(records)
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Box<dyn Tail>> {
        let number = self.known(partition)?;
        let (first, _) = self.watermarks(partition).await?;
        if from < first {
            return Err(LogError::Gone { partition, wanted: from, first });
        }
        Ok(Box::new(KafkaTail::start(self.reader(number, from)?)))
    }

    async fn start(&self, partition: u32) -> Result<u64> {
        Ok(self.watermarks(partition).await?.0)
    }

    async fn end(&self, partition: u32) -> Result<u64> {
        Ok(self.watermarks(partition).await?.1)
    }

    async fn truncate_before(&self, partition: u32, offset: u64) -> Result<()> {
        let number = self.known(partition)?;
        let (first, end) = self.watermarks(partition).await?;
        let before = offset.min(end);
        if before <= first {
            return Ok(());
        }
        let failed = || failed("delete old records of", &self.topic);
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, number, offset).map_err(failed())?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let deleted = self.admin.delete_records(&list, &options).await.map_err(failed())?;
        for element in deleted.elements() {
            element.error().map_err(failed())?;
        }
        Ok(())
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // What callers wait for is delivered already; this is for whoever went away.
        let _ = self.producer.flush(Duration::from_secs(2));
    }
}
