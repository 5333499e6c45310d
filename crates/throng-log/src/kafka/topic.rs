//! Topics: made when they are missing, looked at before use.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::{LogError, Result};

use super::client::{KafkaSettings, PATIENCE, failed};

/// A broker that refuses says so at once; another one that is away must not hide it.
const REASON_LOOK: Duration = Duration::from_millis(50);
const REASON_LOOKS: u32 = 40;

/// What a topic is made with when it is missing.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// Its partitions.
    pub partitions: u32,
    /// Settings by Kafka's names, such as `retention.ms`.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    /// Its full name.
    pub topic: String,
    /// How many partitions it has; `None` if there is no such topic.
    pub partitions: Option<u32>,
    /// If there is none: why this user could not make it.
    pub refusal: Option<String>,
}

/// Asks the brokers for topics, by names without the prefix, and whether those that are missing could
/// be made. Changes nothing. Takes up to ten seconds a topic where nobody answers.
///
/// # Errors
/// [`LogError::Kafka`] if no broker answers, or not to this user.
pub async fn check_brokers(settings: &KafkaSettings, topics: &[&str]) -> Result<Vec<TopicReport>> {
    let (admin, probe) = (admin(settings)?, Probe::new(settings)?);
    let mut reports = Vec::with_capacity(topics.len());
    for name in topics {
        let topic = settings.named(name);
        let partitions = probe.look(&topic).await?;
        let refusal = match partitions {
            Some(_) => None,
            None => {
                let options = AdminOptions::new().validate_only(true);
                let options = options.operation_timeout(Some(PATIENCE));
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

pub(super) fn admin(settings: &KafkaSettings) -> Result<Admin> {
    settings.config().create().map_err(failed("connect to the brokers for", &settings.prefix))
}

/// Looks at topics, and hears why no broker answers: a call only says that none did.
#[derive(Clone)]
struct Probe(Arc<BaseProducer<Heard>>);

/// The first reason that a connection was refused with, where it is one that can be mended here.
#[derive(Default)]
struct Heard(Mutex<Option<RDKafkaErrorCode>>);

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{Authentication, Resolve, SSL, SaslAuthenticationFailed};
        tracing::debug!(%error, reason, "a broker cannot be used");
        let code = error.rdkafka_error_code();
        if let Some(Authentication | SaslAuthenticationFailed | SSL | Resolve) = code {
            let mut heard = self.0.lock();
            *heard = heard.or(code);
        }
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, _: Self::DeliveryOpaque) {}
}

impl Probe {
    fn new(settings: &KafkaSettings) -> Result<Self> {
        let producer = settings.config().create_with_context(Heard::default());
        producer
            .map(|producer| Self(Arc::new(producer)))
            .map_err(failed("connect to the brokers for", &settings.prefix))
    }

    /// How many partitions a topic has; `None` if there is none.
    async fn look(&self, topic: &str) -> Result<Option<u32>> {
        let (probe, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || probe.count(&topic))
            .await
            .map_err(|_| LogError::Closed)?
    }

    fn count(&self, topic: &str) -> Result<Option<u32>> {
        let metadata = match self.0.client().fetch_metadata(Some(topic), PATIENCE) {
            Ok(metadata) => metadata,
            Err(source) => {
                let source = self.reason().map_or(source, KafkaError::MetadataFetch);
                return Err(failed("ask the brokers about", topic)(source));
            }
        };
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let code = found.and_then(|t| t.error()).map(RDKafkaErrorCode::from);
        if let Some(denied @ RDKafkaErrorCode::TopicAuthorizationFailed) = code {
            // Not the same as one that is missing.
            return Err(failed("look at", topic)(KafkaError::MetadataFetch(denied)));
        }
        Ok(found
            .filter(|t| t.error().is_none())
            .map(|t| t.partitions().len() as u32)
            .filter(|n| *n > 0))
    }

    /// Why the connections that were tried failed. Waits two seconds for one to be told.
    fn reason(&self) -> Option<RDKafkaErrorCode> {
        let heard = &self.0.context().0;
        (0..REASON_LOOKS).find_map(|_| {
            self.0.poll(REASON_LOOK);
            *heard.lock()
        })
    }
}

/// The number of partitions of a topic, which is made if it is missing.
pub(super) async fn ensure(
    settings: &KafkaSettings,
    topic: &str,
    wanted: &TopicSettings,
) -> Result<u32> {
    let probe = Probe::new(settings)?;
    if let Some(found) = probe.look(topic).await? {
        return Ok(found);
    }
    let admin = admin(settings)?;
    let partitions = i32::try_from(wanted.partitions.max(1)).unwrap_or(i32::MAX);
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in &wanted.settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let made = admin.create_topics([&new], &options).await.map_err(failed("create", topic))?;
    for result in made {
        match result {
            // Another node made it at the same time.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(failed("create", topic)(KafkaError::AdminOp(code)));
            }
        }
    }
    tracing::info!(topic, partitions, "the topic was made");
    // The brokers tell each other; soon all of them know.
    for _ in 0..100 {
        if let Some(found) = probe.look(topic).await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(wanted.partitions.max(1))
}
