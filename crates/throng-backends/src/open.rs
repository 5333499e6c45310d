//! Opens the backends that the node settings choose. The only place that names all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_activation::TaskQueues;
use throng_aggregator::{Feed, KafkaFeed, LocalFeed};
use throng_ledger::{PostgresLedger, SqliteLedger};
use throng_log::{
    EventLog, FileLog, FileLogOptions, GroupTiming, HAS_KAFKA_TLS, KafkaLog, KafkaOptions,
    KafkaQueue, KafkaTable, MemoryQueue, MinFreeDisk, PartitionAssignment, Queue, Sasl, Tls,
    TopicUse,
};
use throng_model::{Clock, Secret};
use throng_objects::{BucketObjects, BucketOptions, DirectoryObjects, Objects};
use throng_source_copies::service_of;
use throng_spec::{
    BucketSettings, Environment, KafkaSettings, LedgerSettings, LogSettings, NodeSettings,
    ObjectsSettings, Role, SecretRef,
};
use throng_store::Ledger;

use crate::error::BackendError;
use crate::stamps::{Recovery, Stamps};
use crate::topics::claim_topics;

/// The topic of events.
pub(crate) const EVENTS: &str = "events";
/// The topic of feed frames.
pub(crate) const FEED: &str = "feed";
/// The compacted topic of the newest keyframes.
pub(crate) const KEYFRAMES: &str = "keyframes";
/// The consumer group of aggregators.
const AGGREGATE: &str = "aggregate";
/// The topic and consumer group of tasks.
pub(crate) const TASKS: &str = "tasks";
/// The topic and consumer group of checks.
pub(crate) const CHECKS: &str = "checks";
/// The dead-letter topic: tasks that failed for good.
pub(crate) const DEAD_LETTERS: &str = "tasks.dead";
/// Partitions of a queue's topic: at most this many processes consume it at once.
const QUEUE_PARTITIONS: u32 = 64;

/// All topics, with the number of partitions with which they are created: with as many as are set, if that is `None`.
pub(crate) const TOPICS: [(&str, TopicUse, Option<u32>); 6] = [
    (EVENTS, TopicUse::Events, None),
    (FEED, TopicUse::Frames, None),
    (KEYFRAMES, TopicUse::Table, Some(1)),
    (TASKS, TopicUse::Queue, Some(QUEUE_PARTITIONS)),
    (CHECKS, TopicUse::Queue, Some(QUEUE_PARTITIONS)),
    (DEAD_LETTERS, TopicUse::Queue, Some(1)),
];

/// What decides which backends are opened.
pub struct BackendConfig<'a> {
    /// The folder of the stores on this machine, and of local copies.
    pub data_dir: &'a Path,
    /// The settings that choose the backends.
    pub settings: &'a NodeSettings,
    /// The roles of this process, which decide what it consumes.
    pub roles: &'a [Role],
    /// Where secrets of the kind `env:NAME` come from.
    pub env: &'a Environment,
    /// The time.
    pub clock: &'a dyn Clock,
    /// What to do if the ledger is missing, or does not belong to log and objects.
    pub recovery: Recovery,
}

impl std::fmt::Debug for BackendConfig<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendConfig").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// The opened backends of a node.
pub struct Backends {
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots, parts and checkpoints.
    pub objects: Arc<dyn Objects>,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The feed of frames.
    pub feed: Arc<dyn Feed>,
    /// The queues of work.
    pub queues: TaskQueues,
    /// This process's assignment of partitions; `None` if it has all partitions, or does not
    /// aggregate.
    pub share: Option<PartitionAssignment>,
    /// The stamps of the stores in the data directory; `None` if all stores are shared.
    pub stamps: Option<Stamps>,
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").field("stamps", &self.stamps).finish_non_exhaustive()
    }
}

/// Opens the backends that the settings choose. May be called again after an error that a retry can end.
///
/// # Errors
/// [`BackendError`].
pub async fn open(config: &BackendConfig<'_>) -> Result<Backends, BackendError> {
    let settings = config.settings;
    let objects = objects(config)?;
    let ledger = ledger(config).await?;
    // Before anything changes the stores.
    let stamps = Stamps::open(config.data_dir, settings, &*ledger, config.recovery).await?;
    if settings.ledger == LedgerSettings::Sqlite {
        // The lock of the data directory excludes other processes, so every lease in this file is
        // of a dead process, and its work can resume at once. In a shared ledger a lease may be of
        // a running node: ending it would let two nodes do the same work, so it has to expire.
        let leases = ledger.expire_leases(config.clock.now()).await?;
        if leases > 0 {
            tracing::info!(leases, "resuming work of a dead process");
        }
    }
    let (log, feed, queues, share): Log = match &settings.log {
        LogSettings::Files => {
            let dir = config.data_dir.join("log");
            // The number of partitions is fixed when the log is created; the setting counts only
            // then. The log's file can be damaged, so the ledger stores the number too.
            let stored = ledger.log_partitions(None).await?;
            let found = FileLog::partitions_in(&dir)?;
            if let (Some(found), Some(stored)) = (found, stored)
                && found != stored
            {
                return Err(BackendError::LogPartitions { found, stored });
            }
            let partitions = found.or(stored).unwrap_or(settings.log_partitions);
            warn_of_partitions(settings.written_log_partitions(), partitions);
            let floor =
                settings.min_free_disk_bytes.map_or(MinFreeDisk::Default, MinFreeDisk::Bytes);
            let options =
                FileLogOptions { min_free_disk: floor, ..FileLogOptions::new(partitions) };
            let log = Arc::new(FileLog::open_with(&dir, options)?);
            let memory = || Arc::new(MemoryQueue::default()) as Arc<dyn Queue>;
            let queues = TaskQueues { tasks: memory(), checks: memory(), dead_letters: None };
            (log, Arc::new(LocalFeed::new(partitions)), queues, None)
        }
        LogSettings::Kafka(kafka) => kafka_log(config, kafka, &*ledger).await?,
    };
    Ok(Backends { ledger, objects, log, feed, queues, share, stamps })
}

/// The text of a setting that has no effect, because the log exists and has another number of partitions. `set`: what is
/// written in the spec.
pub(crate) fn unused_partitions(set: Option<u32>, found: u32) -> Option<String> {
    set.filter(|set| *set != found).map(|set| {
        format!(
            "node.log_partitions is {set} and has no effect: the event log was created with {found} partitions, and \
             keeps them; set it to {found}"
        )
    })
}

fn warn_of_partitions(set: Option<u32>, found: u32) {
    if let Some(set) = set.filter(|set| *set != found) {
        tracing::warn!(
            set,
            found,
            "node.log_partitions has no effect: an event log keeps its partitions"
        );
    }
}

type Log = (Arc<dyn EventLog>, Arc<dyn Feed>, TaskQueues, Option<PartitionAssignment>);

async fn kafka_log(
    config: &BackendConfig<'_>,
    settings: &KafkaSettings,
    ledger: &dyn Ledger,
) -> Result<Log, BackendError> {
    let kafka = kafka_options(config.env, settings)?;
    let session = Duration::from_millis(u64::from(settings.session_ms));
    let timing = GroupTiming { session, ..GroupTiming::default() };
    let partitions = config.settings.log_partitions;
    let log = KafkaLog::open(&kafka, EVENTS, partitions).await?;
    warn_of_partitions(config.settings.written_log_partitions(), log.partitions());
    // One partition of frames for each partition of events.
    let frames = KafkaLog::open_frames(&kafka, FEED, log.partitions()).await?;
    if frames.partitions() < log.partitions() {
        let (events, feed) = (log.partitions(), frames.partitions());
        return Err(BackendError::FeedPartitions { events, feed });
    }
    let keyframes = KafkaTable::open(&kafka, KEYFRAMES).await?;
    // Before anything is consumed: a task would be lost for its deployment.
    claim_topics(ledger, &keyframes, &frames, config.recovery, &kafka.prefix).await?;
    // At once: a ledger without the number looks like that of another deployment if the start fails after the claim.
    check_log_partitions(ledger, &log).await?;
    let feed = KafkaFeed::new(Arc::new(frames), keyframes);
    let consumes = config.roles.contains(&Role::Activate);
    let queue = async |name: &str| {
        let queue = match consumes {
            true => KafkaQueue::join(&kafka, name, QUEUE_PARTITIONS, timing).await?,
            false => KafkaQueue::open(&kafka, name, QUEUE_PARTITIONS).await?,
        };
        Ok::<_, BackendError>(Arc::new(queue) as Arc<dyn Queue>)
    };
    let queues = TaskQueues {
        tasks: queue(TASKS).await?,
        checks: queue(CHECKS).await?,
        dead_letters: Some(Arc::new(KafkaQueue::open(&kafka, DEAD_LETTERS, 1).await?)),
    };
    let share = match config.roles.contains(&Role::Aggregate) {
        true => Some(PartitionAssignment::join(&kafka, EVENTS, AGGREGATE, timing)?),
        false => None,
    };
    Ok((Arc::new(log), Arc::new(feed), queues, share))
}

/// A secret of the node settings. `field`: its name below `node`.
///
/// # Errors
/// [`BackendError::Secret`].
pub fn secret(
    env: &Environment,
    field: &'static str,
    reference: &SecretRef,
) -> Result<Secret, BackendError> {
    reference.resolve(&**env).map_err(|source| BackendError::Secret { field, source })
}

/// The URL of a PostgreSQL ledger. Refused if a password would be sent to another machine without
/// TLS and `node.ledger_insecure` does not allow that.
pub(crate) fn ledger_url(
    env: &Environment,
    reference: &SecretRef,
    insecure: bool,
) -> Result<Secret, BackendError> {
    let url = secret(env, "ledger_url", reference)?;
    if !insecure && throng_ledger::is_unencrypted_remote_postgres(&url)? {
        return Err(BackendError::UnencryptedLedger);
    }
    Ok(url)
}

/// The options of a Kafka client: the settings, with the resolved secrets. Refused if this build cannot encrypt what
/// they ask to encrypt.
pub(crate) fn kafka_options(
    env: &Environment,
    settings: &KafkaSettings,
) -> Result<KafkaOptions, BackendError> {
    if let Some(field) = needs_tls_build(settings).filter(|_| !HAS_KAFKA_TLS) {
        return Err(BackendError::KafkaTlsNotBuilt { field });
    }
    let sasl = match &settings.sasl {
        Some(sasl) => Some(Sasl {
            mechanism: sasl.mechanism.clone(),
            username: sasl.username.clone(),
            password: secret(env, "kafka.password", &sasl.password)?,
        }),
        None => None,
    };
    Ok(KafkaOptions {
        brokers: settings.brokers.clone(),
        prefix: settings.prefix.clone(),
        tls: settings.tls.then(|| Tls { ca_file: settings.ca_file.clone() }),
        sasl,
    })
}

/// The first setting that needs the OpenSSL of Kafka's client: librdkafka has no TLS and no SCRAM without it.
fn needs_tls_build(settings: &KafkaSettings) -> Option<&'static str> {
    if settings.tls {
        return Some("tls");
    }
    let sasl = settings.sasl.as_ref()?;
    (sasl.mechanism != "PLAIN").then_some("sasl.mechanism")
}

/// The options of a bucket: its settings, with the resolved secrets.
pub(crate) fn bucket_options(
    env: &Environment,
    bucket: &BucketSettings,
) -> Result<BucketOptions, BackendError> {
    let resolve = |field, reference: &SecretRef| secret(env, field, reference);
    let service = service_of(&bucket.service, resolve)?;
    Ok(BucketOptions {
        service,
        bucket: bucket.name.clone(),
        prefix: bucket.prefix.clone(),
        cache_bytes: bucket.cache_bytes,
    })
}

fn objects(config: &BackendConfig<'_>) -> Result<Arc<dyn Objects>, BackendError> {
    let root = config.data_dir.join("objects");
    Ok(match &config.settings.objects {
        ObjectsSettings::Directory => Arc::new(DirectoryObjects::open(root)?),
        ObjectsSettings::Bucket(bucket) => {
            Arc::new(BucketObjects::open(root, &bucket_options(config.env, bucket)?)?)
        }
    })
}

/// Whether a node has used the data directory: it holds an event log or an object.
fn is_used(data_dir: &Path) -> Result<bool, BackendError> {
    for folder in [data_dir.join("log"), data_dir.join("objects")] {
        match std::fs::read_dir(&folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackendError::io("list", folder.display())(error)),
        }
    }
    Ok(false)
}

/// Opens the ledger that the node settings choose.
async fn ledger(config: &BackendConfig<'_>) -> Result<Arc<dyn Ledger>, BackendError> {
    match &config.settings.ledger {
        LedgerSettings::Sqlite => {
            let path = config.data_dir.join("ledger.db");
            let exists = std::fs::metadata(&path).is_ok_and(|facts| facts.len() > 0);
            if !exists && config.recovery == Recovery::Refuse && is_used(config.data_dir)? {
                return Err(BackendError::LedgerMissing { path });
            }
            let ledger = SqliteLedger::open(&path).await?;
            Ok(Arc::new(ledger))
        }
        LedgerSettings::Postgres { url, connections, insecure } => {
            let url = ledger_url(config.env, url, *insecure)?;
            let ledger = PostgresLedger::open(&url, *connections).await?;
            // A node with a local log or local objects must be the only one: another node would
            // miss files and events that the ledger names.
            if !config.settings.is_shared() && !ledger.acquire_node_lock().await? {
                return Err(BackendError::LedgerInUse);
            }
            Ok(Arc::new(ledger))
        }
    }
}

/// Records the number of partitions of a new log in the ledger, and compares the number of an old one.
///
/// # Errors
/// [`BackendError::LogPartitions`] if they differ.
pub async fn check_log_partitions(
    ledger: &dyn Ledger,
    log: &dyn EventLog,
) -> Result<(), BackendError> {
    let found = log.partitions();
    let stored = ledger.log_partitions(Some(found)).await?.unwrap_or(found);
    match found == stored {
        true => Ok(()),
        false => Err(BackendError::LogPartitions { found, stored }),
    }
}

#[cfg(test)]
mod tests {
    use throng_spec::SaslSettings;

    use super::*;

    fn settings(tls: bool, mechanism: Option<&str>) -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            prefix: "throng".to_owned(),
            tls,
            ca_file: None,
            sasl: mechanism.map(|mechanism| SaslSettings {
                mechanism: mechanism.to_owned(),
                username: "throng".to_owned(),
                password: SecretRef::Env("PASSWORD".to_owned()),
            }),
            session_ms: 6_000,
            insecure: true,
        }
    }

    #[test]
    fn tls_and_scram_need_the_openssl_of_kafkas_client() {
        let needs = |tls, mechanism| needs_tls_build(&settings(tls, mechanism));
        assert_eq!(needs(false, None), None);
        assert_eq!(needs(false, Some("PLAIN")), None);
        assert_eq!(needs(false, Some("SCRAM-SHA-256")), Some("sasl.mechanism"));
        assert_eq!(needs(false, Some("SCRAM-SHA-512")), Some("sasl.mechanism"));
        assert_eq!(needs(true, None), Some("tls"));
        assert_eq!(needs(true, Some("PLAIN")), Some("tls"));
        let env: Environment = std::sync::Arc::new(|_: &str| Some("secret".to_owned()));
        assert_eq!(kafka_options(&env, &settings(true, None)).is_ok(), HAS_KAFKA_TLS);
        assert!(kafka_options(&env, &settings(false, Some("PLAIN"))).is_ok());
    }
}
