//! Reads a partition with Kafka's wire protocol.
//!
//! Everything else uses librdkafka, which implements groups, transactions and idempotent producers. For
//! each record that it reads it allocates an object in one thread and frees it in another: about a
//! microsecond, several times what the engine needs for the event in it (ADR 8). A reader needs only a
//! small part of a client: find the leader, authenticate, fetch, decode batches. The requests and
//! responses are those of the crate `kafka-protocol`.

mod batch;
mod compression;
mod connection;
mod connector;
mod error;
mod sasl;

use std::ops::ControlFlow;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use throng_model::with_causes;

use crate::retry::{RETRY_DELAYS, retry};
use crate::{Record, Result};

use super::client::KafkaOptions;
use batch::Fetched;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use batch::{fuzz, fuzz_seeds};
use connection::Connection;
use connector::Connector;
use error::ReadError;

/// Versions that every broker since 2.1 supports, the oldest release that works with Kafka 4 (KIP-896).
const FETCH_VERSION: i16 = 10;
const METADATA_VERSION: i16 = 7;

/// How long a broker holds a fetch while there are no new records.
const FETCH_MAX_WAIT_MS: i32 = 500;
/// The size of one fetch, which is several times as large decompressed: more would leave the processor's
/// caches before it is decoded. A larger batch arrives complete if it is the first one, so that a reader
/// makes progress (KIP-74).
const FETCH_MAX_BYTES: i32 = 512 << 10;
/// The isolation level: the response ends before the first open transaction and lists the aborted ones
/// (KIP-98).
const READ_COMMITTED: i8 = 1;

/// Reads the committed records of a partition, from an offset on.
pub(super) struct Reader {
    connector: Connector,
    /// Brokers to ask for the leader: those of the last metadata, then those of the settings.
    brokers: Vec<String>,
    topic: String,
    partition: i32,
    next: i64,
    leader: Option<Connection>,
    /// How long the broker's quota requires to wait before the next request.
    throttle: Duration,
}

impl Reader {
    /// Sends no request yet.
    ///
    /// # Errors
    /// [`crate::LogError::Kafka`] if the certificates cannot be used.
    pub(super) fn new(
        options: &KafkaOptions,
        topic: &str,
        partition: i32,
        from: u64,
    ) -> Result<Self> {
        let connector = Connector::new(options).map_err(|error| error.into_error(topic))?;
        Ok(Self {
            brokers: connector.bootstrap(),
            connector,
            topic: topic.to_owned(),
            partition,
            next: i64::try_from(from).unwrap_or(i64::MAX),
            leader: None,
            throttle: Duration::ZERO,
        })
    }

    /// The offset of the next record.
    pub(super) fn position(&self) -> u64 {
        u64::try_from(self.next).unwrap_or(0)
    }

    /// The next records, in order; empty if there are none within half a second, or only control records
    /// and aborted ones. Retries until a broker answers. Cancel safe.
    ///
    /// # Errors
    /// [`crate::LogError::Kafka`] for errors that are not retryable. A later call fetches again.
    pub(super) async fn next(&mut self) -> Result<Vec<Record>> {
        retry(self, RETRY_DELAYS, |reader| async move {
            match reader.fetch().await {
                Ok(fetched) => {
                    reader.next = fetched.next;
                    ControlFlow::Break(Ok(fetched.records))
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(
                        error = with_causes(&error),
                        topic = reader.topic,
                        partition = reader.partition,
                        "failed to read from Kafka; retrying"
                    );
                    ControlFlow::Continue(reader)
                }
                Err(error) => ControlFlow::Break(Err(error.into_error(&reader.topic))),
            }
        })
        .await
    }

    async fn fetch(&mut self) -> std::result::Result<Fetched, ReadError> {
        // Since version 8 of Fetch the broker answers at once and expects the client to wait (KIP-219). It does
        // not read from the connection for that time: a request would only wait there, and its timeout runs.
        tokio::time::sleep(std::mem::take(&mut self.throttle)).await;
        // Taken out until the fetch succeeds: after an error, or if this future is dropped with a response
        // outstanding, the next fetch opens a new connection.
        let mut leader = match self.leader.take() {
            Some(leader) => leader,
            None => self.connect_to_leader().await?,
        };
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            // -1 skips the check of the epoch (KIP-320), which detects a truncation of unreplicated records
            // after an unclean election. A broker that is no longer the leader returns an error anyway.
            .with_current_leader_epoch(-1)
            .with_fetch_offset(self.next)
            // Used by follower replicas only, like the replica id below; consumers send -1.
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_MAX_BYTES);
        let topic =
            FetchTopic::default().with_topic(name(&self.topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(FETCH_MAX_WAIT_MS)
            // Answered as soon as there is any record: a larger minimum would delay spend for throughput.
            .with_min_bytes(1)
            .with_max_bytes(FETCH_MAX_BYTES)
            .with_isolation_level(READ_COMMITTED)
            // Epoch -1: no fetch session (KIP-227). Sessions save bytes for fetches of many partitions; with
            // one there is nothing to save, and the broker's limited session slots stay free.
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = leader.send(FETCH_VERSION, &request).await?;
        self.throttle =
            Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
        // Two codes: one of the request, such as a session error, and one of the partition.
        check_code(response.error_code)?;
        let partition = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| ReadError::Protocol("it is empty".to_owned()))?;
        check_code(partition.error_code)?;
        let aborted = partition.aborted_transactions.unwrap_or_default();
        let records = partition.records.unwrap_or_default();
        let fetched = batch::read(records, self.next, aborted)?;
        self.leader = Some(leader);
        Ok(fetched)
    }

    /// Connects to the leader of the partition.
    async fn connect_to_leader(&mut self) -> std::result::Result<Connection, ReadError> {
        // One after the other: any broker has the metadata of all partitions, so the first that answers is
        // enough, and a cluster that recovers is not loaded by all readers at once.
        let mut last = ReadError::Timeout;
        for at in 0..self.brokers.len() {
            let broker = &self.brokers[at];
            match connect_via(&self.connector, broker, &self.topic, self.partition).await {
                Ok((leader, known)) => {
                    // The bootstrap brokers stay in the list: all known ones may be replaced by new ones.
                    let bootstrap = self.connector.bootstrap().into_iter();
                    let more: Vec<_> = bootstrap.filter(|broker| !known.contains(broker)).collect();
                    self.brokers = [known, more].concat();
                    return Ok(leader);
                }
                // An error that is not retryable is more useful than a timeout of another broker.
                Err(error) if last.is_retryable() => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn check_code(code: i16) -> std::result::Result<(), ReadError> {
    ResponseError::try_from_code(code).map_or(Ok(()), |error| Err(ReadError::Broker(error)))
}

/// Connects to the leader of a partition, which it gets from the metadata of one of the brokers. Also
/// returns the addresses of all brokers, the leader's first.
async fn connect_via(
    connector: &Connector,
    broker: &str,
    topic: &str,
    partition: i32,
) -> std::result::Result<(Connection, Vec<String>), ReadError> {
    let mut connection = connector.connect(broker).await?;
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    // A reader must not create a topic: brokers would do so with their default number of partitions.
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let response = connection.send(METADATA_VERSION, &request).await?;
    let check = |code| match ResponseError::try_from_code(code) {
        None => Ok(()),
        // Retriable by the protocol guide, because a new topic is not known to all brokers at once. Not here:
        // a topic is read after it was created and seen, so it is missing for good and the user has to know.
        Some(ResponseError::UnknownTopicOrPartition) => Err(ReadError::UnknownTopic),
        Some(error) => Err(ReadError::Broker(error)),
    };
    let found = response.topics.into_iter().next().ok_or(ReadError::UnknownTopic)?;
    check(found.error_code)?;
    let found = found.partitions.into_iter().find(|p| p.partition_index == partition);
    let found = found.ok_or(ReadError::UnknownTopic)?;
    check(found.error_code)?;
    let (leaders, others): (Vec<_>, Vec<_>) =
        response.brokers.iter().partition(|broker| broker.node_id == found.leader_id);
    let known: Vec<String> =
        leaders.iter().chain(&others).map(|broker| address_of(broker)).collect();
    match (leaders.is_empty(), known.first()) {
        (false, Some(leader)) if leader == broker => Ok((connection, known)),
        // By the advertised name, even if it is the same broker: certificates and proxies use names.
        (false, Some(leader)) => Ok((connector.connect(leader).await?, known)),
        // No leader, or one that is not among the brokers of the response: an election is in progress.
        _ => Err(ReadError::Broker(ResponseError::LeaderNotAvailable)),
    }
}

fn address_of(broker: &MetadataResponseBroker) -> String {
    // An IPv6 address has colons itself: without brackets the port could not be split off.
    let (host, port) = (broker.host.as_str(), broker.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use throng_model::Secret;

    use super::super::client::{Sasl, Tls};
    use super::*;

    fn setting(name: &str) -> String {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
    }

    fn secure(mechanism: &str, password: &str) -> KafkaOptions {
        KafkaOptions {
            brokers: setting("THRONG_KAFKA_SECURE"),
            prefix: "reader".to_owned(),
            tls: Some(Tls { ca_file: Some(PathBuf::from(setting("THRONG_CA"))) }),
            sasl: Some(Sasl {
                mechanism: mechanism.to_owned(),
                username: setting("THRONG_KAFKA_USER"),
                password: Secret::new(password),
            }),
        }
    }

    /// The text of the error with its hint and its causes.
    async fn read_error(options: &KafkaOptions) -> String {
        let read = async { Reader::new(options, "no-such-topic", 0, 0)?.next().await };
        with_causes(&read.await.unwrap_err())
    }

    #[tokio::test]
    async fn errors_that_are_not_retryable_have_a_hint() {
        let right = setting("THRONG_KAFKA_PASSWORD");
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let error = read_error(&secure(mechanism, "wrong")).await;
            assert!(error.contains("check user, password and mechanism"), "{error}");
            assert!(!error.contains("wrong"), "the password is in the error: {error}");
            let missing = read_error(&secure(mechanism, &right)).await;
            assert!(missing.contains("create the topics"), "{missing}");
        }
        let error = read_error(&secure("GSSAPI", &right)).await;
        assert!(error.contains("It supports") && error.contains("SCRAM-SHA-512"), "{error}");
        let mut guest = secure("PLAIN", &right);
        guest.sasl.as_mut().unwrap().username = setting("THRONG_KAFKA_GUEST");
        let error = read_error(&guest).await;
        assert!(error.contains("give the user the rights"), "{error}");
        // The system's authorities did not issue the broker's certificate.
        let other_ca = KafkaOptions { tls: Some(Tls::default()), ..secure("PLAIN", &right) };
        let error = read_error(&other_ca).await;
        assert!(error.contains("node.kafka.tls") && error.contains("UnknownIssuer"), "{error}");
        let missing = Some(Tls { ca_file: Some(PathBuf::from("no/such.pem")) });
        let error = read_error(&KafkaOptions { tls: missing, ..secure("PLAIN", &right) }).await;
        assert!(error.contains("node.kafka.tls"), "{error}");
    }
}
