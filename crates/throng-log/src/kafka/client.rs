//! How to reach the brokers.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use throng_model::Secret;

use crate::{LogError, Result};

/// Metadata, watermarks, administration: nothing of it takes this long on a broker that lives.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Encryption of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that the brokers' are signed with, PEM; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Who this client is.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How to reach a Kafka cluster.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, with commas between them.
    pub brokers: String,
    /// Put before every topic and group: `throng` makes `throng.events` and so on.
    pub prefix: String,
    /// Encryption, if any.
    pub tls: Option<Tls>,
    /// Who this client is, if the brokers ask.
    pub sasl: Option<Sasl>,
}

impl KafkaSettings {
    /// The full name of a topic or group.
    pub fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "throng");
        // A broker that went away for a moment is looked for again soon.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true").set("log.connection.close", "false");
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
                // The OpenSSL that is compiled in does not know where the system keeps them.
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

/// Whether a partition has no leader at the moment, or the client asked the one before.
pub(super) fn has_no_leader_yet(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::ReplicaNotAvailable
        )
    )
}

/// What went wrong at which topic. Kafka's own words come as the source.
pub(super) fn failed(doing: &'static str, topic: &str) -> impl FnOnce(KafkaError) -> LogError {
    let topic = topic.to_owned();
    move |source| LogError::Kafka { doing, topic, help: help(&source), source: Box::new(source) }
}

/// What to mend, told alike by whichever client meets it.
pub(super) mod mend {
    pub(in super::super) const LOGIN: &str = "check user, password and mechanism in node.kafka";
    pub(in super::super) const TLS: &str = "check node.kafka.tls and the certificates";
    pub(in super::super) const NETWORK: &str =
        "check that the brokers of node.kafka.brokers can be reached from here";
    pub(in super::super) const RIGHTS: &str = "give the user the rights in docs/operate/kafka.md";
    pub(in super::super) const TOPICS: &str =
        "create the topics of docs/operate/kafka.md, or let Throng create them";
    pub(in super::super) const UNKNOWN: &str = "look at the brokers' logs";
}

/// What to mend, where Kafka's code tells.
pub(super) fn help(error: &KafkaError) -> &'static str {
    use RDKafkaErrorCode::{
        Authentication, BrokerTransportFailure, ClusterAuthorizationFailed,
        GroupAuthorizationFailed, OperationTimedOut, Resolve, SSL, SaslAuthenticationFailed,
        TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition,
    };
    match error.rdkafka_error_code() {
        Some(Authentication | SaslAuthenticationFailed) => mend::LOGIN,
        Some(SSL) => mend::TLS,
        Some(BrokerTransportFailure | OperationTimedOut | Resolve) => mend::NETWORK,
        Some(TopicAuthorizationFailed | ClusterAuthorizationFailed | GroupAuthorizationFailed) => {
            mend::RIGHTS
        }
        Some(UnknownTopic | UnknownTopicOrPartition) => mend::TOPICS,
        _ => mend::UNKNOWN,
    }
}
