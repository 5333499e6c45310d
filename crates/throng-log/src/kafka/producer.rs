//! A producer whose deliveries are futures. The client has one, `FutureProducer`, whose thread uses 1 % of a processor
//! while nothing is sent: in the last millisecond of each poll, a timeout that is truncated to 0 ms makes it spin.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, ToBytes};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use crate::Result;
use crate::retry::{QUEUE_FULL_RETRY_DELAYS, TIMEOUT, retry};

use super::client::failed;
use super::threads;

/// Between two checks for events of an idle producer: errors of connections, and lines of the client's log.
const IDLE_INTERVAL: Duration = Duration::from_millis(100);
/// One poll while there are messages or events. Deliveries complete within it, and only its last millisecond spins. Not
/// longer, because a poll ends at its timeout only, and so does the thread of a dropped producer.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// The offset of a delivered message, or why it was not delivered.
pub(super) type Delivered = std::result::Result<i64, KafkaError>;
/// Completes when the message is delivered, or is not: also if the producer is dropped first.
pub(super) type Delivery = oneshot::Receiver<Delivered>;

/// A producer that is served by a thread. Clones are the same producer.
///
/// The drop of the last clone does not wait: the thread delivers the messages in flight for up to [`TIMEOUT`], ends
/// the deliveries of the rest with an error (`PurgeQueue` or `PurgeInflight`), and closes the connections. Messages in
/// flight are lost if the process exits before; [`flush`](Self::flush) waits for them, and
/// [`wait_until_clients_close`](super::wait_until_clients_close) for the thread.
pub(super) struct Producer<C: ClientContext + 'static = DefaultClientContext>(Arc<Shared<C>>);

struct Shared<C: ClientContext + 'static> {
    base: Arc<BaseProducer<Deliveries<C>>>,
    /// After `base`, as fields are dropped in this order: the thread has to find that it is the only owner.
    thread: PollThread,
}

impl<C: ClientContext + 'static> Clone for Producer<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: ClientContext + 'static> Producer<C> {
    /// A producer with this configuration, for a topic.
    ///
    /// # Errors
    /// `LogError::Kafka` if the configuration is wrong; `LogError::Io` if no thread can be started.
    pub(super) fn create(config: &ClientConfig, topic: &str, context: C) -> Result<Self> {
        Self::create_with(config, topic, context, TIMEOUT)
    }

    /// Like [`create`](Self::create), with a timeout for the messages in flight at its drop.
    fn create_with(
        config: &ClientConfig,
        topic: &str,
        context: C,
        flush_timeout: Duration,
    ) -> Result<Self> {
        let base: BaseProducer<Deliveries<C>> = config
            .create_with_context(Deliveries(context))
            .map_err(failed("create a producer for", topic))?;
        let base = Arc::new(base);
        let served = Arc::clone(&base);
        let thread = threads::start("kafka-producer", topic, move || {
            serve(&served);
            // Fails for messages that are not delivered in time. The drop of the producer purges them.
            let _ = served.flush(flush_timeout);
        })?;
        Ok(Self(Arc::new(Shared { base, thread: PollThread(thread) })))
    }

    /// Adds a message to the queue; waits while it is full. If the future is dropped before it completes, the message
    /// is not sent; after that it is, whether the delivery is awaited or not. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// An error of the client, such as a message that is too large.
    pub(super) async fn enqueue<K, P>(
        &self,
        record: FutureRecord<'_, K, P>,
    ) -> std::result::Result<Delivery, KafkaError>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let (sender, delivery) = oneshot::channel();
        let record = BaseRecord {
            topic: record.topic,
            partition: record.partition,
            payload: record.payload,
            key: record.key,
            timestamp: record.timestamp,
            headers: record.headers,
            delivery_opaque: Box::new(sender),
        };
        retry(record, QUEUE_FULL_RETRY_DELAYS, |record| {
            std::future::ready(match self.0.base.send(record) {
                Ok(()) => ControlFlow::Break(Ok(())),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                    ControlFlow::Continue(record)
                }
                Err((error, _)) => ControlFlow::Break(Err(error)),
            })
        })
        .await?;
        // After the message is in the queue: the thread parks only if there is none, and an `unpark` before it parks is
        // not lost.
        self.0.thread.0.unpark();
        Ok(delivery)
    }

    /// Sends a message, and waits until it is delivered. If the future is dropped, it may or may not be.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue); `QueueFull` if the queue is full for [`TIMEOUT`]; why it was not delivered.
    pub(super) async fn send<K, P>(&self, record: FutureRecord<'_, K, P>) -> Delivered
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let enqueued = tokio::time::timeout(TIMEOUT, self.enqueue(record)).await;
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        let delivery = enqueued.unwrap_or(Err(full))?;
        delivery.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Waits until no message is in flight. Blocks the thread.
    ///
    /// # Errors
    /// [`KafkaError::Flush`] after the timeout.
    pub(super) fn flush(&self, timeout: Duration) -> KafkaResult<()> {
        self.0.base.flush(timeout)
    }

    /// The metadata of a topic, from any broker. Blocks the thread.
    ///
    /// # Errors
    /// [`KafkaError::MetadataFetch`] if no broker answers in time.
    pub(super) fn fetch_metadata(&self, topic: &str, timeout: Duration) -> KafkaResult<Metadata> {
        self.0.base.client().fetch_metadata(Some(topic), timeout)
    }
}

/// Wakes the thread of a producer when it is dropped.
struct PollThread(Thread);

impl Drop for PollThread {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// Serves the events of a producer until nobody else has it.
fn serve<C: ClientContext + 'static>(producer: &Arc<BaseProducer<Deliveries<C>>>) {
    while Arc::strong_count(producer) > 1 {
        // Messages that are not delivered yet, and events that are not served yet.
        if producer.in_flight_count() == 0 {
            // Not a long poll: nothing could end it when the producer is dropped.
            std::thread::park_timeout(IDLE_INTERVAL);
        } else {
            producer.poll(POLL_TIMEOUT);
        }
    }
}

/// The context of a client that completes deliveries.
struct Deliveries<C>(C);

impl<C: ClientContext> ClientContext for Deliveries<C> {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.0.log(level, fac, log_message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl<C: ClientContext + 'static> ProducerContext for Deliveries<C> {
    type DeliveryOpaque = Box<oneshot::Sender<Delivered>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Self::DeliveryOpaque) {
        let delivered = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits for it if the caller was cancelled.
        let _ = sender.send(delivered);
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const TOPIC: &str = "t.work";

    fn producer(brokers: &str, setting: (&str, &str), flush_timeout: Duration) -> Producer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set(setting.0, setting.1);
        Producer::create_with(&config, TOPIC, DefaultClientContext, flush_timeout).unwrap()
    }

    fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        cluster
    }

    fn record(value: &str) -> FutureRecord<'_, (), str> {
        FutureRecord::to(TOPIC).partition(0).payload(value)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_producer_delivers_its_messages_in_flight_and_does_not_wait_for_it() {
        let cluster = cluster();
        // The messages are still in the queue when the producer is dropped, and when the poll of that time ends.
        let producer = producer(&cluster.bootstrap_servers(), ("linger.ms", "2000"), TIMEOUT);
        let mut first = producer.enqueue(record("first")).await.unwrap();
        let second = producer.clone().enqueue(record("second")).await.unwrap();
        drop(producer);
        assert_eq!(first.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap().unwrap()), (0, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_producer_without_brokers_ends_its_deliveries() {
        let producer = producer("127.0.0.1:1", ("linger.ms", "0"), Duration::ZERO);
        let delivery = producer.enqueue(record("lost")).await.unwrap();
        drop(producer);
        let error = delivery.await.unwrap().unwrap_err();
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_message_waits_while_the_queue_is_full() {
        let cluster = cluster();
        let setting = ("queue.buffering.max.messages", "1");
        let producer = producer(&cluster.bootstrap_servers(), setting, TIMEOUT);
        let first = producer.enqueue(record("first")).await.unwrap();
        // There is room for it only when the first one is delivered.
        assert_eq!(producer.send(record("second")).await.unwrap(), 1);
        assert_eq!(first.await.unwrap().unwrap(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_message_that_is_too_large_is_refused() {
        let producer = producer("127.0.0.1:1", ("message.max.bytes", "1000"), Duration::ZERO);
        let error = producer.send(record(&"x".repeat(2_000))).await.unwrap_err();
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    }
}
