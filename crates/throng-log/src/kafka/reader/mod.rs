//! Reading a partition by Kafka's own protocol.
//!
//! Everything else here is done by librdkafka, which knows groups, transactions and idempotent
//! producers. For reading it makes an object of every message, in one thread, that is freed in
//! another: about a microsecond, several times what the engine needs for the event in it (ADR 8).
//! A reader wants little of a client: find the leader, log in, fetch, look through batches. The
//! messages themselves are those of the crate `kafka-protocol`.

mod batch;
mod compression;
mod connection;
mod login;
mod trouble;

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use throng_model::with_causes;

use crate::{Record, Result};

use super::client::KafkaSettings;
use batch::Fetched;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use batch::{fuzz, fuzz_seeds};
use connection::{Connection, Dialer};
use trouble::Trouble;

/// Versions that brokers of 2.1, the oldest that Kafka 4 works with (KIP-896), know as well as it does.
const FETCH_VERSION: i16 = 10;
const METADATA_VERSION: i16 = 7;

/// How long a broker keeps a fetch that finds nothing.
const WAIT_MS: i32 = 500;
/// Bytes of one fetch, which are some times as many decompressed: what is larger leaves the processor's
/// caches before it is looked at. A longer batch comes whole all the same.
const FETCH_BYTES: i32 = 512 << 10;
const READ_COMMITTED: i8 = 1;
/// After trouble, doubled up to the longer one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Reads the committed records of a partition, from an offset on.
pub(super) struct Reader {
    dialer: Dialer,
    /// Who is asked for the leader: brokers that were heard of last, then those of the settings.
    brokers: Vec<String>,
    topic: String,
    partition: i32,
    next: i64,
    leader: Option<Connection>,
    pause: Duration,
    /// How long a broker that has too much to do wants no request.
    throttle: Duration,
}

impl Reader {
    /// # Errors
    /// [`crate::LogError::Kafka`] if the certificates cannot be used. Nothing is asked yet.
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: &str,
        partition: i32,
        from: u64,
    ) -> Result<Self> {
        let dialer = Dialer::new(settings).map_err(|trouble| trouble.into_error(topic))?;
        Ok(Self {
            brokers: dialer.bootstrap(),
            dialer,
            topic: topic.to_owned(),
            partition,
            next: i64::try_from(from).unwrap_or(i64::MAX),
            leader: None,
            pause: FIRST_PAUSE,
            throttle: Duration::ZERO,
        })
    }

    /// The offset that is read next.
    pub(super) fn position(&self) -> u64 {
        u64::try_from(self.next).unwrap_or(0)
    }

    /// The next records, in order; none if nothing came within half a second or only what does not
    /// count. Tries until a broker answers. Safe to drop while it waits.
    ///
    /// # Errors
    /// [`crate::LogError::Kafka`] for what does not pass by itself. Calling again tries again.
    pub(super) async fn next(&mut self) -> Result<Vec<Record>> {
        loop {
            let trouble = match self.fetch().await {
                Ok(fetched) => {
                    self.next = fetched.next;
                    self.pause = FIRST_PAUSE;
                    return Ok(fetched.records);
                }
                Err(trouble) => trouble,
            };
            if !trouble.may_pass() {
                return Err(trouble.into_error(&self.topic));
            }
            tracing::warn!(
                error = with_causes(&trouble),
                topic = self.topic,
                partition = self.partition,
                "reading goes on when the brokers answer"
            );
            tokio::time::sleep(self.pause).await;
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        }
    }

    async fn fetch(&mut self) -> std::result::Result<Fetched, Trouble> {
        tokio::time::sleep(std::mem::take(&mut self.throttle)).await;
        // Put back when all went well: whatever else happens, the next fetch connects anew.
        let mut leader = match self.leader.take() {
            Some(leader) => leader,
            None => self.find().await?,
        };
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            // Whatever the leader's: a broker that is it no more says so.
            .with_current_leader_epoch(-1)
            .with_fetch_offset(self.next)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic =
            FetchTopic::default().with_topic(name(&self.topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(READ_COMMITTED)
            // No session: there is one partition, and it is in every fetch.
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = leader.send(FETCH_VERSION, &request).await?;
        self.throttle =
            Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
        refused(response.error_code)?;
        let partition = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| Trouble::Response("it is empty".to_owned()))?;
        refused(partition.error_code)?;
        let aborted = partition.aborted_transactions.unwrap_or_default();
        let records = partition.records.unwrap_or_default();
        let fetched = batch::read(records, self.next, aborted)?;
        self.leader = Some(leader);
        Ok(fetched)
    }

    /// Connects to the leader.
    async fn find(&mut self) -> std::result::Result<Connection, Trouble> {
        let mut last = Trouble::Late;
        for place in 0..self.brokers.len() {
            match find_by(&self.dialer, &self.brokers[place], &self.topic, self.partition).await {
                Ok((leader, known)) => {
                    let seeds = self.dialer.bootstrap().into_iter();
                    let more: Vec<_> = seeds.filter(|seed| !known.contains(seed)).collect();
                    self.brokers = [known, more].concat();
                    return Ok(leader);
                }
                // A broker that refuses tells more than one that is away.
                Err(trouble) if last.may_pass() => last = trouble,
                Err(_) => {}
            }
        }
        Err(last)
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn refused(code: i16) -> std::result::Result<(), Trouble> {
    ResponseError::try_from_code(code).map_or(Ok(()), |error| Err(Trouble::Refused(error)))
}

/// Connects to the leader of a partition, whom one of the brokers knows. Besides, all brokers: the
/// leader first.
async fn find_by(
    dialer: &Dialer,
    broker: &str,
    topic: &str,
    partition: i32,
) -> std::result::Result<(Connection, Vec<String>), Trouble> {
    let mut connection = dialer.dial(broker).await?;
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let response = connection.send(METADATA_VERSION, &request).await?;
    let missing = |code| match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(ResponseError::UnknownTopicOrPartition) => Err(Trouble::Missing),
        Some(error) => Err(Trouble::Refused(error)),
    };
    let found = response.topics.into_iter().next().ok_or(Trouble::Missing)?;
    missing(found.error_code)?;
    let found = found.partitions.into_iter().find(|p| p.partition_index == partition);
    let found = found.ok_or(Trouble::Missing)?;
    missing(found.error_code)?;
    let (leaders, others): (Vec<_>, Vec<_>) =
        response.brokers.iter().partition(|broker| broker.node_id == found.leader_id);
    let known: Vec<String> =
        leaders.iter().chain(&others).map(|broker| address_of(broker)).collect();
    match (leaders.is_empty(), known.first()) {
        (false, Some(leader)) if leader == broker => Ok((connection, known)),
        // By its own name, also if it is the same one: certificates and proxies go by names.
        (false, Some(leader)) => Ok((dialer.dial(leader).await?, known)),
        _ => Err(Trouble::Refused(ResponseError::LeaderNotAvailable)),
    }
}

fn address_of(broker: &MetadataResponseBroker) -> String {
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

    fn secure(mechanism: &str, password: &str) -> KafkaSettings {
        KafkaSettings {
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

    /// The mend, and the causes.
    async fn refusal(settings: &KafkaSettings) -> String {
        let read = async { Reader::new(settings, "no-such-topic", 0, 0)?.next().await };
        with_causes(&read.await.unwrap_err())
    }

    #[tokio::test]
    async fn what_does_not_pass_is_told_with_a_mend() {
        let right = setting("THRONG_KAFKA_PASSWORD");
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let refused = refusal(&secure(mechanism, "wrong")).await;
            assert!(refused.contains("check user, password and mechanism"), "{refused}");
            assert!(!refused.contains("wrong"), "the password is told: {refused}");
            let missing = refusal(&secure(mechanism, &right)).await;
            assert!(missing.contains("create the topics"), "{missing}");
        }
        let refused = refusal(&secure("GSSAPI", &right)).await;
        assert!(refused.contains("It knows") && refused.contains("SCRAM-SHA-512"), "{refused}");
        let mut guest = secure("PLAIN", &right);
        guest.sasl.as_mut().unwrap().username = setting("THRONG_KAFKA_GUEST");
        let refused = refusal(&guest).await;
        assert!(refused.contains("give the user the rights"), "{refused}");
        // Nobody's authority but its own.
        let stranger = KafkaSettings { tls: Some(Tls::default()), ..secure("PLAIN", &right) };
        let refused = refusal(&stranger).await;
        assert!(
            refused.contains("node.kafka.tls") && refused.contains("UnknownIssuer"),
            "{refused}"
        );
        let missing = Some(Tls { ca_file: Some(PathBuf::from("no/such.pem")) });
        let refused = refusal(&KafkaSettings { tls: missing, ..secure("PLAIN", &right) }).await;
        assert!(refused.contains("node.kafka.tls"), "{refused}");
    }
}
