//! A compacted topic as a table: the latest value of each key.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::FutureRecord;

use crate::retry::TIMEOUT;
use crate::{LogError, Result};

use super::client::{self, KafkaOptions, failed};
use super::producer::Producer;
use super::settings::{MAX_MESSAGE_BYTES, TopicSettings, TopicUse};
use super::topic;

/// Values by key that any number of processes put and read. For small tables: a read reads the whole
/// topic, which the brokers compact to little more than one value per key.
pub struct KafkaTable {
    options: KafkaOptions,
    topic: String,
    producer: Producer,
}

impl std::fmt::Debug for KafkaTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTable").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaTable {
    /// Opens the topic `<prefix>.<name>`; creates it if it is missing.
    ///
    /// # Errors
    /// [`LogError::Kafka`]; [`LogError::TopicSettings`] if the topic exists with settings that do not work.
    pub async fn open(options: &KafkaOptions, name: &str) -> Result<Self> {
        let topic = options.named(name);
        topic::ensure(options, &topic, TopicSettings::new(TopicUse::Table, 1)).await?;
        let mut config = options.config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("compression.type", "zstd")
            .set("delivery.timeout.ms", "30000");
        let producer = Producer::create(&config, &topic, DefaultClientContext)?;
        Ok(Self { options: options.clone(), topic, producer })
    }

    /// Puts a value. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Kafka`]; the value may be stored anyway.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        // One partition has the order of all puts, so that a read up to its end has the latest values.
        let record = FutureRecord::to(&self.topic).partition(0).key(key).payload(value);
        self.producer.send(record).await.map_err(failed("put a value into", &self.topic))?;
        Ok(())
    }

    /// The latest value of each key that was put before the call.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn all(&self) -> Result<BTreeMap<String, Bytes>> {
        let insert = |table: &mut BTreeMap<String, Bytes>, key: &str, value: &[u8]| {
            table.insert(key.to_owned(), Bytes::copy_from_slice(value));
        };
        self.read(BTreeMap::new(), insert).await
    }

    /// The keys that begin with `prefix` and whose latest value is not empty, the one first that was put first.
    /// Compaction keeps the order of keys that are put once.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        let add = move |keys: &mut Vec<String>, key: &str, value: &[u8]| {
            if !key.starts_with(&prefix) {
                return;
            }
            if value.is_empty() {
                keys.retain(|known| known != key);
            } else if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        };
        self.read(Vec::new(), add).await
    }

    /// Adds every record that was put before the call to `table`, in the order of the topic.
    async fn read<T: Send + 'static>(
        &self,
        mut table: T,
        add: impl Fn(&mut T, &str, &[u8]) + Send + 'static,
    ) -> Result<T> {
        let (options, topic) = (self.options.clone(), self.topic.clone());
        let read = tokio::task::spawn_blocking(move || {
            // A new consumer for each read: it begins at the oldest record, and the table is read
            // rarely.
            let consumer = client::consumer(&options, &topic)?;
            let watermarks = consumer.fetch_watermarks(&topic, 0, TIMEOUT);
            let (low, high) = watermarks.map_err(failed("get the offsets of", &topic))?;
            if low >= high {
                return Ok(table);
            }
            client::assign(&consumer, &topic, 0, u64::try_from(low).unwrap_or(0))?;
            loop {
                let message = match consumer.poll(TIMEOUT) {
                    Some(message) => message.map_err(failed("read", &topic))?,
                    None => return Err(LogError::BrokerTimeout { topic }),
                };
                let key = String::from_utf8_lossy(message.key().unwrap_or_default());
                add(&mut table, &key, message.payload().unwrap_or_default());
                // Compaction keeps the last record of a topic, so this offset is reached.
                if message.offset() + 1 >= high {
                    return Ok(table);
                }
            }
        });
        read.await.map_err(|_| LogError::Closed)?
    }
}
