//! Topics: created when they are missing, inspected before use.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::retry::{POLL_INTERVAL, RETRY_DELAYS, TIMEOUT, retry};
use crate::{LogError, Result};

use super::client::{KafkaOptions, failed};
use super::settings::{TopicDifferences, TopicSettings, TopicUse};

/// Polls for connection errors, two seconds in total.
const CONNECTION_ERROR_POLLS: u32 = 40;

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
                    // A node has created it since then.
                    .filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
                    .map(|(_, code)| code.to_string())
            }
        };
        reports.push(TopicReport { topic, partitions, refusal });
    }
    Ok(reports)
}

/// Like [`check_brokers`], and compares the topics that exist with what their use needs: with each topic by its name
/// without the prefix, and the number of partitions with which it would be created. Changes nothing.
///
/// # Errors
/// As [`check_brokers`].
pub async fn check_topics(
    options: &KafkaOptions,
    topics: &[(&str, TopicUse, u32)],
) -> Result<Vec<(TopicReport, TopicDifferences)>> {
    let names: Vec<&str> = topics.iter().map(|(name, ..)| *name).collect();
    let reports = check_brokers(options, &names).await?;
    let admin = admin(options)?;
    let mut checked = Vec::with_capacity(topics.len());
    for (report, (_, usage, partitions)) in reports.into_iter().zip(topics) {
        let differences = match report.partitions {
            Some(found) => {
                let wanted = TopicSettings::new(*usage, *partitions);
                let shown = settings_of(&admin, &report.topic).await?;
                wanted.compare(&options.brokers, &report.topic, found, shown.as_ref())
            }
            None => TopicDifferences::default(),
        };
        checked.push((report, differences));
    }
    Ok(checked)
}

/// The settings of a topic, also those that it has from the brokers; `None` if they do not show them to this user.
async fn settings_of(admin: &Admin, topic: &str) -> Result<Option<BTreeMap<String, String>>> {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, TopicAuthorizationFailed, UnsupportedFeature,
        UnsupportedVersion,
    };
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let described = match described {
        Ok(described) => described,
        // A right that earlier versions did not need, or a service that has only a part of Kafka's requests.
        Err(KafkaError::AdminOp(
            ClusterAuthorizationFailed
            | TopicAuthorizationFailed
            | UnsupportedFeature
            | UnsupportedVersion,
        ))
        // The client cannot read the response, such as a source of settings that it does not know.
        | Err(KafkaError::AdminOpCreation(_)) => return Ok(None),
        Err(error) => return Err(failed("get the settings of", topic)(error)),
    };
    // The client does not return an error of one topic, such as a missing right: there are no entries then.
    let entries = described.into_iter().flatten().flat_map(|resource| resource.entries);
    let shown: BTreeMap<String, String> =
        entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
    Ok((!shown.is_empty()).then_some(shown))
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

/// The number of partitions of a topic, which is created if it is missing, and whose settings are compared if it
/// exists.
///
/// # Errors
/// [`LogError::Kafka`]; [`LogError::TopicSettings`] if it exists with settings that do not work.
pub(super) async fn ensure(
    options: &KafkaOptions,
    topic: &str,
    wanted: TopicSettings,
) -> Result<u32> {
    let (probe, admin) = (Probe::new(options)?, admin(options)?);
    let found = match probe.partitions(topic).await? {
        Some(found) => found,
        None => {
            let is_new = create(&admin, topic, wanted).await?;
            let visible = wait_until_visible(&probe, topic, wanted).await?;
            if is_new {
                return Ok(visible);
            }
            visible
        }
    };
    // Anybody may have created it, such as the brokers for a producer of events: with their settings, an event whose
    // producer has another clock would not count, and a large one not be stored.
    let shown = settings_of(&admin, topic).await?;
    let differences = wanted.compare(&options.brokers, topic, found, shown.as_ref());
    // Its drop waits for a thread.
    tokio::task::spawn_blocking(move || drop(admin));
    let TopicDifferences { refused, warnings, help } = differences;
    if !refused.is_empty() {
        return Err(LogError::TopicSettings { topic: topic.to_owned(), found: refused, help });
    }
    if !warnings.is_empty() {
        let found = warnings.join("; ");
        tracing::warn!(topic, found, help, "topic has other settings than it should have");
    }
    Ok(found)
}

/// Creates a topic. `false` if it exists meanwhile.
async fn create(admin: &Admin, topic: &str, wanted: TopicSettings) -> Result<bool> {
    let partitions = i32::try_from(wanted.partitions).unwrap_or(i32::MAX);
    // -1: the replication factor of the brokers' configuration (KIP-464). A fixed one would fail on a cluster with
    // fewer brokers, or be too low for production.
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for setting in wanted.settings() {
        new = new.set(setting.name, setting.value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let created = admin.create_topics([&new], &options).await.map_err(failed("create", topic))?;
    match created.into_iter().find_map(std::result::Result::err) {
        None => {
            tracing::info!(topic, partitions, "created topic");
            Ok(true)
        }
        // Another node created it at the same time, or the brokers did for another client.
        Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
        Some((_, code)) => Err(failed("create", topic)(KafkaError::AdminOp(code))),
    }
}

/// The number of partitions of a topic that was just created: its metadata reaches the other brokers asynchronously.
async fn wait_until_visible(probe: &Probe, topic: &str, wanted: TopicSettings) -> Result<u32> {
    let visible = retry((), RETRY_DELAYS, |()| async move {
        match probe.partitions(topic).await {
            Ok(Some(found)) => ControlFlow::Break(Ok(found)),
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    });
    // It was created with this number: metadata that is late must not keep the node from starting.
    tokio::time::timeout(TIMEOUT, visible).await.unwrap_or(Ok(wanted.partitions))
}
