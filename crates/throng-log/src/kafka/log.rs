//! A topic as an event log.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::{Offset, TopicPartitionList};
use throng_model::Timestamp;
use tokio::sync::watch;

use crate::file::MAX_RECORD_BYTES;
use crate::retry::{RETRY_DELAYS, TIMEOUT, retry};
use crate::{EventLog, LogError, Record, Result, Tail};

use super::client::{self, KafkaOptions, failed};
use super::reachability::{LogProducer, Reachability};
use super::reader::Reader;
use super::settings::{MAX_MESSAGE_BYTES, TopicSettings, TopicUse};
use super::tail::KafkaTail;
use super::topic::{self, Admin};

/// The header with the time of a record: microseconds since 1970, 8 bytes, little-endian. Records of
/// other producers may not have it; then the timestamp of the brokers is used.
pub(super) const TIME_HEADER: &str = "at";

/// A topic as a log: partition and offset are Kafka's. Any number of processes can write and read it.
pub struct KafkaLog {
    options: KafkaOptions,
    topic: String,
    producer: LogProducer,
    reachability: Reachability,
    /// Held while the records of one append are added to the queue of the producer, so that those of
    /// another append of this process are not between them.
    append_locks: Vec<tokio::sync::Mutex<()>>,
    admin: Arc<Admin>,
    /// For watermarks only.
    consumer: Arc<BaseConsumer>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog")
            .field("topic", &self.topic)
            .field("partitions", &self.append_locks.len())
            .finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Opens the topic `<prefix>.<name>`; creates it with this number of partitions if it is missing. An
    /// existing topic keeps its number. Other producers may write the topic.
    ///
    /// # Errors
    /// [`LogError::Kafka`]; [`LogError::TopicSettings`] if the topic exists with settings that do not work.
    pub async fn open(options: &KafkaOptions, name: &str, partitions: u32) -> Result<Self> {
        Self::open_for(options, name, TopicUse::Events, partitions).await
    }

    /// Like [`open`](Self::open), for a topic that only Throng writes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_frames(options: &KafkaOptions, name: &str, partitions: u32) -> Result<Self> {
        Self::open_for(options, name, TopicUse::Frames, partitions).await
    }

    async fn open_for(
        options: &KafkaOptions,
        name: &str,
        usage: TopicUse,
        partitions: u32,
    ) -> Result<Self> {
        let topic = options.named(name);
        let wanted = TopicSettings::new(usage, partitions);
        let count = topic::ensure(options, &topic, wanted).await?;
        Self::of_topic(options, topic, count)
    }

    /// A topic that exists, by its full name. Must be called in a Tokio runtime.
    pub(super) fn of_topic(options: &KafkaOptions, topic: String, count: u32) -> Result<Self> {
        let (context, lost) = Reachability::context();
        let mut config = options.config();
        config
            // Each record once and in order, also when the client retries (KIP-98): the brokers discard a
            // batch whose sequence number they have. Otherwise a retry would append a batch twice, or after
            // later ones.
            .set("enable.idempotence", "true")
            // All in-sync replicas have an acknowledged record, so that it survives the loss of the leader.
            .set("acks", "all")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("compression.type", "zstd")
            .set("linger.ms", "2")
            .set("queue.buffering.max.kbytes", "262144")
            // The client retries until then (KIP-91): longer than the election of a leader usually takes.
            // After that the caller decides what to do.
            .set("delivery.timeout.ms", "30000")
            .set("request.timeout.ms", "10000");
        let producer = LogProducer::create(&config, &topic, context)?;
        let consumer = client::consumer(options, &topic)?;
        Ok(Self {
            options: options.clone(),
            reachability: Reachability::follow(producer.clone(), topic.clone(), lost),
            producer,
            append_locks: (0..count).map(|_| tokio::sync::Mutex::default()).collect(),
            admin: Arc::new(topic::admin(options)?),
            consumer: Arc::new(consumer),
            topic,
        })
    }

    fn partition_number(&self, partition: u32) -> Result<i32> {
        if (partition as usize) < self.append_locks.len() {
            return Ok(partition as i32);
        }
        Err(LogError::NoSuchPartition { partition, partitions: self.append_locks.len() as u32 })
    }

    fn reader(&self, partition: i32, from: u64) -> Result<Reader> {
        Reader::new(&self.options, &self.topic, partition, from)
    }

    /// The offsets of the oldest and of the next record.
    async fn watermarks(&self, partition: u32) -> Result<(u64, u64)> {
        let number = self.partition_number(partition)?;
        let fetch = retry((), RETRY_DELAYS, |()| async move {
            let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
            let fetched = tokio::task::spawn_blocking(move || {
                consumer.fetch_watermarks(&topic, number, TIMEOUT)
            });
            match fetched.await {
                Ok(Ok(found)) => ControlFlow::Break(Ok(found)),
                // The topic was just created, or its leader changes.
                Ok(Err(error)) if client::has_no_leader_yet(&error) => ControlFlow::Continue(()),
                Ok(Err(error)) => {
                    ControlFlow::Break(Err(failed("get the offsets of", &self.topic)(error)))
                }
                Err(_) => ControlFlow::Break(Err(LogError::Closed)),
            }
        });
        let timeout = || LogError::BrokerTimeout { topic: self.topic.clone() };
        let (low, high) = tokio::time::timeout(TIMEOUT, fetch).await.map_err(|_| timeout())??;
        let low = u64::try_from(low).unwrap_or(0);
        Ok((low, u64::try_from(high).unwrap_or(0).max(low)))
    }
}

/// The error of a failed delivery: `Unconfirmed` if the brokers may have stored the record.
fn delivery_error(topic: &str, error: KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        // The request may have reached the broker and only the response is missing. As a plain failure it
        // would say that the records are not in the log, and they would be read later nevertheless.
        Some(
            RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::PurgeInflight
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::RequestTimedOut
            // The leader has the record, and too few replicas.
            | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
        ) => LogError::Unconfirmed { topic: topic.to_owned() },
        _ => failed("append to", topic)(error),
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.append_locks.len() as u32
    }

    fn reachability(&self) -> Option<watch::Receiver<bool>> {
        Some(self.reachability.receiver())
    }

    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64> {
        let number = self.partition_number(partition)?;
        // At once: the client would keep the records until its timeout.
        if !self.reachability.is_reachable() {
            return Err(LogError::Unreachable { topic: self.topic.clone() });
        }
        if let Some(large) = values.iter().find(|v| v.len() > MAX_RECORD_BYTES) {
            return Err(LogError::RecordTooLarge { bytes: large.len(), limit: MAX_RECORD_BYTES });
        }
        // With a request to the brokers: an append of nothing has to fail if the topic cannot be
        // reached.
        if values.is_empty() {
            return self.end(partition).await;
        }
        // In a header: Kafka's timestamps are milliseconds, and the topic replaces them by the brokers' time.
        let time = at.0.to_le_bytes();
        let mut deliveries = Vec::with_capacity(values.len());
        {
            let _lock = self.append_locks[partition as usize].lock().await;
            for value in &values {
                let headers = OwnedHeaders::new_with_capacity(1)
                    .insert(Header { key: TIME_HEADER, value: Some(time.as_slice()) });
                let record = FutureRecord::<(), [u8]>::to(&self.topic)
                    .partition(number)
                    .payload(value)
                    .headers(headers);
                match self.producer.enqueue(record).await {
                    Ok(delivery) => deliveries.push(delivery),
                    // Earlier records of this append may be sent already.
                    Err(_) if !deliveries.is_empty() => {
                        return Err(LogError::Unconfirmed { topic: self.topic.clone() });
                    }
                    Err(error) => return Err(failed("append to", &self.topic)(error)),
                }
            }
        }
        // Outside of the lock, so that the next append is queued while this one is on its way.
        let mut first = None;
        let mut failure = None;
        // All are awaited, also after a failure: only then is it known whether a part of the append
        // is in the topic.
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(offset)) => first = first.or(u64::try_from(offset).ok()),
                Ok(Err(error)) => failure = Some(delivery_error(&self.topic, error)),
                Err(_) => failure = Some(LogError::Closed),
            }
        }
        match (first, failure) {
            (Some(offset), None) => Ok(offset),
            // Some records are in the topic and some are not.
            (Some(_), Some(_)) => Err(LogError::Unconfirmed { topic: self.topic.clone() }),
            (None, failure) => Err(failure.unwrap_or(LogError::Closed)),
        }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        let number = self.partition_number(partition)?;
        let (first, end) = self.watermarks(partition).await?;
        if from < first {
            return Err(LogError::OffsetOutOfRange { partition, wanted: from, first });
        }
        if from >= end {
            return Ok(Vec::new());
        }
        let mut reader = self.reader(number, from)?;
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        // Up to the end of this moment: without it a read at the end of the log would wait for new records.
        // By position, not by records, because the last offsets may be control records of transactions.
        while reader.position() < end {
            let before = reader.position();
            let fetch = async {
                loop {
                    let fetched = reader.next().await?;
                    if reader.position() > before {
                        return Ok(fetched);
                    }
                }
            };
            let timeout = || LogError::BrokerTimeout { topic: self.topic.clone() };
            let fetched =
                tokio::time::timeout(TIMEOUT, fetch).await.unwrap_or_else(|_| Err(timeout()))?;
            for record in fetched {
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
        let number = self.partition_number(partition)?;
        let (first, _) = self.watermarks(partition).await?;
        if from < first {
            return Err(LogError::OffsetOutOfRange { partition, wanted: from, first });
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
        let number = self.partition_number(partition)?;
        let (first, end) = self.watermarks(partition).await?;
        // The brokers refuse an offset past the end with OFFSET_OUT_OF_RANGE (KIP-107).
        let before = offset.min(end);
        if before <= first {
            return Ok(());
        }
        let failed = || failed("delete old records of", &self.topic);
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, number, offset).map_err(failed())?;
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let deleted = self.admin.delete_records(&list, &options).await.map_err(failed())?;
        for element in deleted.elements() {
            element.error().map_err(failed())?;
        }
        Ok(())
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // For a process that exits at once: the thread of the producer, which delivers messages too, would end with it.
        // Only those of appends whose callers stopped waiting are in flight.
        let _ = self.producer.flush(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_the_brokers_may_have_stored_is_unconfirmed() {
        use RDKafkaErrorCode::{
            MessageSizeTooLarge, MessageTimedOut, NotEnoughReplicas, NotEnoughReplicasAfterAppend,
            RequestTimedOut, TopicAuthorizationFailed,
        };
        let uncertain = |code| {
            let error = KafkaError::MessageProduction(code);
            delivery_error("throng.events", error).may_be_appended()
        };
        for code in [MessageTimedOut, RequestTimedOut, NotEnoughReplicasAfterAppend] {
            assert!(uncertain(code), "{code}");
        }
        for code in [NotEnoughReplicas, MessageSizeTooLarge, TopicAuthorizationFailed] {
            assert!(!uncertain(code), "{code}");
        }
    }
}
