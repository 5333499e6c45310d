//! Topics: created when they are missing, inspected before use.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::retry::{POLL_INTERVAL, RETRY_DELAY, TIMEOUT, retry};
use crate::{LogError, Result};

use super::client::{KafkaOptions, failed};

/// Polls for connection errors, two seconds in total.
const CONNECTION_ERROR_POLLS: u32 = 40;

/// The configuration of a topic that is created if it is missing.
#[derive(Debug, Clone)]
pub(crate) struct TopicSettings {
    /// The number of partitions.
    pub(crate) partitions: u32,
    /// Settings by Kafka's names, such as `retention.ms`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// The state of a topic on the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    /// The full name.
    pub topic: String,
    /// The number of partitions; `None` if there is no such topic.
    pub partitions: Option<u32>,
    /// If there is none: the error with which its creation by this user would fail.
    pub refusal: Option<String>,
}

/// Describes topics, by names without the prefix, and validates the creation of missing ones. Changes
/// nothing. Takes up to ten seconds per topic if no broker answers.
///
/// # Errors
/// [`LogError::Kafka`] if no broker answers, or this user may not describe a topic.
pub async fn check_brokers(options: &KafkaOptions, topics: &[&str]) -> Result<Vec<TopicReport>> {
    let (admin, probe) = (admin(options)?, Probe::new(options)?);
    let mut reports = Vec::with_capacity(topics.len());
    for name in topics {
        let topic = options.named(name);
        let partitions = probe.partitions(&topic).await?;
        let refusal = match partitions {
            Some(_) => None,
            None => {
                // Validated and not created: the brokers' answer is the one that a creation would
                // get, and a check must not leave a topic with one partition.
                let options = AdminOptions::new().validate_only(true);
                let options = options.operation_timeout(Some(TIMEOUT));
                let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1));
                let tried = admin
                    .create_topics([&new], &options)
                    .await
                    .map_err(failed("create", &topic))?;
                tried
                    .into_iter()
                    .find_map(std::result::Result::err)
                    .map(|(_, code)| code.to_string())
            }
        };
        reports.push(TopicReport { topic, partitions, refusal });
    }
    Ok(reports)
}

pub(super) type Admin = AdminClient<DefaultClientContext>;

pub(super) fn admin(options: &KafkaOptions) -> Result<Admin> {
    options.config().create().map_err(failed("connect to the brokers for", &options.prefix))
}

/// Inspects topics, and finds out why no broker answers: a failed call reports only a timeout.
#[derive(Clone)]
struct Probe(Arc<BaseProducer<ConnectionErrors>>);

/// The first connection error that the user can fix: authentication, TLS or name resolution.
#[derive(Default)]
struct ConnectionErrors(Mutex<Option<RDKafkaErrorCode>>);

impl ClientContext for ConnectionErrors {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{Authentication, Resolve, SSL, SaslAuthenticationFailed};
        tracing::debug!(%error, reason, "connection to a broker failed");
        let code = error.rdkafka_error_code();
        if let Some(Authentication | SaslAuthenticationFailed | SSL | Resolve) = code {
            // The first one: later ones are often consequences, such as a closed connection.
            let mut first = self.0.lock();
            *first = first.or(code);
        }
    }
}

impl ProducerContext for ConnectionErrors {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, _: Self::DeliveryOpaque) {}
}

impl Probe {
    fn new(options: &KafkaOptions) -> Result<Self> {
        let producer = options.config().create_with_context(ConnectionErrors::default());
        producer
            .map(|producer| Self(Arc::new(producer)))
            .map_err(failed("connect to the brokers for", &options.prefix))
    }

    /// The number of partitions of a topic; `None` if there is no such topic.
    async fn partitions(&self, topic: &str) -> Result<Option<u32>> {
        let (probe, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || probe.fetch_partitions(&topic))
            .await
            .map_err(|_| LogError::Closed)?
    }

    fn fetch_partitions(&self, topic: &str) -> Result<Option<u32>> {
        let metadata = match self.0.client().fetch_metadata(Some(topic), TIMEOUT) {
            Ok(metadata) => metadata,
            Err(source) => {
                let source = self.connection_error().map_or(source, KafkaError::MetadataFetch);
                return Err(failed("get the metadata of", topic)(source));
            }
        };
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        // A topic that does not exist is in the response too, with an error and no partitions.
        let code = found.and_then(|t| t.error()).map(RDKafkaErrorCode::from);
        if let Some(denied @ RDKafkaErrorCode::TopicAuthorizationFailed) = code {
            // The topic may exist: it must not be reported as missing.
            return Err(failed("inspect", topic)(KafkaError::MetadataFetch(denied)));
        }
        Ok(found
            .filter(|t| t.error().is_none())
            .map(|t| t.partitions().len() as u32)
            .filter(|n| *n > 0))
    }

    /// Why connections failed. Waits up to two seconds for an error: a broker that refuses a connection
    /// reports it at once, but another one that does not answer must not hide it.
    fn connection_error(&self) -> Option<RDKafkaErrorCode> {
        let first = &self.0.context().0;
        (0..CONNECTION_ERROR_POLLS).find_map(|_| {
            self.0.poll(POLL_INTERVAL);
            *first.lock()
        })
    }
}

/// The number of partitions of a topic, which is created if it is missing.
pub(super) async fn ensure(
    options: &KafkaOptions,
    topic: &str,
    wanted: &TopicSettings,
) -> Result<u32> {
    let probe = Probe::new(options)?;
    if let Some(found) = probe.partitions(topic).await? {
        return Ok(found);
    }
    let admin = admin(options)?;
    let partitions = i32::try_from(wanted.partitions.max(1)).unwrap_or(i32::MAX);
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in &wanted.settings {
        new = new.set(name, value);
    }
    // -1 above: the replication factor of the brokers' configuration (KIP-464). A fixed one would fail on a
    // cluster with fewer brokers, or be too low for production.
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let created = admin.create_topics([&new], &options).await.map_err(failed("create", topic))?;
    for result in created {
        match result {
            // Another node created it at the same time.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(failed("create", topic)(KafkaError::AdminOp(code)));
            }
        }
    }
    tracing::info!(topic, partitions, "created topic");
    // The metadata of a new topic reaches the other brokers asynchronously.
    let probe = &probe;
    let visible = retry((), RETRY_DELAY, |()| async move {
        match probe.partitions(topic).await {
            Ok(Some(found)) => ControlFlow::Break(Ok(found)),
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    });
    // It was created with this number: metadata that is late must not keep the node from starting.
    tokio::time::timeout(TIMEOUT, visible).await.unwrap_or(Ok(wanted.partitions.max(1)))
}
