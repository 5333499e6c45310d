//! A compacted topic as a table: the newest value of every key.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{LogError, Result};

use super::client::{self, KafkaSettings, PATIENCE, failed};
use super::topic::{self, TopicSettings};

/// How long a put waits for a place in the producer's queue.
const QUEUE_FULL: Duration = Duration::from_secs(5);

/// Values by key that any number of processes put and read. For small tables: reading costs the
/// whole topic, which the brokers keep to little more than one value a key.
pub struct KafkaTable {
    settings: KafkaSettings,
    topic: String,
    producer: FutureProducer,
}

impl std::fmt::Debug for KafkaTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTable").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaTable {
    /// Opens the topic `<prefix>.<name>`; makes it if it is missing.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub async fn open(settings: &KafkaSettings, name: &str) -> Result<Self> {
        let topic = settings.named(name);
        let wanted = TopicSettings {
            partitions: 1,
            settings: vec![
                ("cleanup.policy", "compact"),
                // Only closed segments are compacted.
                ("segment.ms", "600000"),
                ("min.cleanable.dirty.ratio", "0.1"),
                ("max.message.bytes", "17825792"),
            ],
        };
        topic::ensure(settings, &topic, &wanted).await?;
        let producer = settings
            .config()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", "17825792")
            .set("compression.type", "zstd")
            .set("delivery.timeout.ms", "30000")
            .create()
            .map_err(failed("make a producer for", &topic))?;
        Ok(Self { settings: settings.clone(), topic, producer })
    }

    /// Makes a value the newest of its key. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Kafka`]; the value may be there all the same.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let record = FutureRecord::to(&self.topic).partition(0).key(key).payload(value);
        let sent = self.producer.send(record, QUEUE_FULL).await;
        sent.map(|_| ()).map_err(|(error, _)| failed("put a value into", &self.topic)(error))
    }

    /// The newest value of every key that was put before the call.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn all(&self) -> Result<BTreeMap<String, Bytes>> {
        let (settings, topic) = (self.settings.clone(), self.topic.clone());
        let read = tokio::task::spawn_blocking(move || {
            let consumer = client::consumer(&settings, &topic)?;
            let watermarks = consumer.fetch_watermarks(&topic, 0, PATIENCE);
            let (low, high) = watermarks.map_err(failed("ask for the offsets of", &topic))?;
            let mut table = BTreeMap::new();
            if low >= high {
                return Ok(table);
            }
            client::seek(&consumer, &topic, 0, u64::try_from(low).unwrap_or(0))?;
            loop {
                let message = match consumer.poll(PATIENCE) {
                    Some(message) => message.map_err(failed("read", &topic))?,
                    None => return Err(LogError::Unanswered { topic }),
                };
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let value = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                table.insert(key, value);
                // The last record of a topic is never compacted away.
                if message.offset() + 1 >= high {
                    return Ok(table);
                }
            }
        });
        read.await.map_err(|_| LogError::Closed)?
    }
}
