//! How to reach the brokers.

use std::path::PathBuf;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use throng_model::Secret;

use crate::{LogError, Result};

/// Whether this build can encrypt connections to brokers and authenticate by SCRAM: the cargo feature `kafka-tls`.
pub const HAS_KAFKA_TLS: bool = cfg!(feature = "kafka-tls");

/// Encryption of connections. Needs [`HAS_KAFKA_TLS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificate authorities of the brokers, a PEM file; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Authentication of this client.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; the latter two need [`HAS_KAFKA_TLS`].
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How to reach a Kafka cluster, with the secrets that this takes.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port` of some brokers, with commas between them.
    pub brokers: String,
    /// The prefix of the names of topics and groups: with `throng`, a topic is `throng.events`.
    pub prefix: String,
    /// Encryption; `None` for plaintext.
    pub tls: Option<Tls>,
    /// Authentication; `None` if the brokers do not require it.
    pub sasl: Option<Sasl>,
}

impl KafkaOptions {
    /// The full name of a topic or group.
    pub fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "throng");
        // librdkafka's default maximum is 10 s: after a restart of a broker, appends would wait that long for
        // no reason.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true").set("log.connection.close", "false");
        // The default of producers and admin clients is true: on brokers with `auto.create.topics.enable`, a request
        // for the metadata of a missing topic would create it with the brokers' settings.
        config.set("allow.auto.create.topics", "false");
        // A new leader is found by errors at once; this is for partitions without traffic.
        config.set("topic.metadata.refresh.interval.ms", "30000");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(Tls { ca_file }) = &self.tls {
            match ca_file {
                Some(path) => config.set("ssl.ca.location", path.to_string_lossy()),
                // The bundled OpenSSL has no default path of the system's certificates.
                None => config.set("ssl.ca.location", "probe"),
            };
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", &sasl.mechanism);
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", sasl.password.expose());
        }
        config
    }
}

/// A consumer with manually assigned partitions, outside of any group.
pub(super) fn consumer(options: &KafkaOptions, topic: &str) -> Result<BaseConsumer> {
    options
        .config()
        // Required by librdkafka, although no offsets are committed under it.
        .set("group.id", options.named("reader"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A deleted offset must be an error: any other setting skips records silently.
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true")
        .create()
        .map_err(failed("create a consumer for", topic))
}

/// Assigns one partition to a consumer, from an offset on.
pub(super) fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    from: u64,
) -> Result<()> {
    // `assign`, not `seek`, which fails before the partition is assigned and its leader is known.
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
    list.add_partition_offset(topic, partition, offset).map_err(failed("read", topic))?;
    consumer.assign(&list).map_err(failed("read", topic))
}

/// Whether a partition has no leader at the moment, or the client asked the previous one.
pub(super) fn has_no_leader_yet(error: &KafkaError) -> bool {
    // These are the retriable errors of a leader election in the protocol guide's table of error codes
    // (<https://kafka.apache.org/protocol.html#protocol_error_codes>). Other errors would be hidden by a
    // retry until the timeout.
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::ReplicaNotAvailable
        )
    )
}

/// An error of a call about a topic. The client's error is the source.
pub(super) fn failed(doing: &'static str, topic: &str) -> impl FnOnce(KafkaError) -> LogError {
    let topic = topic.to_owned();
    move |source| LogError::Kafka { doing, topic, hint: hint(&source), source: Box::new(source) }
}

/// Hints of errors, the same ones from both clients.
pub(super) mod hints {
    pub(in super::super) const AUTHENTICATION: &str =
        "check user, password and mechanism in node.kafka";
    pub(in super::super) const TLS: &str = "check node.kafka.tls and the certificates";
    pub(in super::super) const NETWORK: &str =
        "check that the brokers of node.kafka.brokers can be reached from here";
    pub(in super::super) const AUTHORIZATION: &str =
        "give the user the rights in docs/operate/kafka.md";
    pub(in super::super) const TOPICS: &str =
        "create the topics of docs/operate/kafka.md, or let Throng create them";
    pub(in super::super) const UNKNOWN: &str = "check the logs of the brokers";
}

/// The hint for an error code of Kafka.
pub(super) fn hint(error: &KafkaError) -> &'static str {
    use RDKafkaErrorCode::{
        Authentication, BrokerTransportFailure, ClusterAuthorizationFailed,
        GroupAuthorizationFailed, OperationTimedOut, Resolve, SSL, SaslAuthenticationFailed,
        TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition,
    };
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(Authentication | SaslAuthenticationFailed) => hints::AUTHENTICATION,
        Some(SSL) => hints::TLS,
        Some(BrokerTransportFailure | OperationTimedOut | Resolve) => hints::NETWORK,
        Some(TopicAuthorizationFailed | ClusterAuthorizationFailed | GroupAuthorizationFailed) => {
            hints::AUTHORIZATION
        }
        Some(UnknownTopic | UnknownTopicOrPartition) => hints::TOPICS,
        _ => hints::UNKNOWN,
    }
}
