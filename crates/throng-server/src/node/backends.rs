//! Opens the backends that the node settings choose. The only place that names all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_aggregator::{Feed, KafkaFeed, LocalFeed};
use throng_ledger::{PostgresLedger, SqliteLedger};
use throng_log::{
    EventLog, FileLog, FileLogOptions, GroupTiming, KafkaLog, KafkaOptions, KafkaQueue, KafkaTable,
    MemoryQueue, MinFreeDisk, PartitionAssignment, Queue, Sasl, Tls,
};
use throng_model::Secret;
use throng_objects::{BucketObjects, BucketOptions, DirectoryObjects, Objects, Service};
use throng_spec::{
    BucketSettings, KafkaSettings, LedgerSettings, LogSettings, NodeSettings, ObjectsSettings,
    Role, SecretRef, ServiceSettings,
};
use throng_store::Ledger;

use crate::Queues;

use super::stamps::Stamps;
use super::{Environment, NodeConfig, NodeError, Recovery};

/// The topic of events.
pub(super) const EVENTS: &str = "events";
/// The topic of feed frames.
pub(super) const FEED: &str = "feed";
/// The compacted topic of the newest keyframes.
pub(super) const KEYFRAMES: &str = "keyframes";
/// The consumer group of aggregators.
const AGGREGATE: &str = "aggregate";
/// The topic and consumer group of tasks.
pub(super) const TASKS: &str = "tasks";
/// The topic and consumer group of checks.
pub(super) const CHECKS: &str = "checks";
/// The dead-letter topic: tasks that failed for good.
pub(super) const DEAD_LETTERS: &str = "tasks.dead";
/// Partitions of a queue's topic: at most this many processes consume it at once.
const QUEUE_PARTITIONS: u32 = 64;

/// The opened backends of a node.
pub(super) struct Backends {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) feed: Arc<dyn Feed>,
    pub(super) queues: Queues,
    /// This process's assignment of partitions; `None` if it has all partitions, or does not
    /// aggregate.
    pub(super) share: Option<PartitionAssignment>,
    /// The stamps of the stores in the data directory; `None` if all stores are shared.
    pub(super) stamps: Option<Stamps>,
}

/// Opens the backends that the settings choose.
pub(super) async fn open(config: &NodeConfig, roles: &[Role]) -> Result<Backends, NodeError> {
    let settings = &config.spec.node;
    let objects = objects(config, settings)?;
    let ledger = ledger(config, settings).await?;
    // Before anything changes the stores.
    let stamps = Stamps::open(&config.data_dir, settings, &*ledger, config.recovery).await?;
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
                return Err(NodeError::LogPartitions { found, stored });
            }
            let partitions = found.or(stored).unwrap_or(settings.log_partitions);
            let floor =
                settings.min_free_disk_bytes.map_or(MinFreeDisk::Default, MinFreeDisk::Bytes);
            let options =
                FileLogOptions { min_free_disk: floor, ..FileLogOptions::new(partitions) };
            let log = Arc::new(FileLog::open_with(&dir, options)?);
            let memory = || Arc::new(MemoryQueue::default()) as Arc<dyn Queue>;
            let queues = Queues { tasks: memory(), checks: memory(), dead_letters: None };
            (log, Arc::new(LocalFeed::new(partitions)), queues, None)
        }
        LogSettings::Kafka(kafka) => kafka_log(config, kafka, roles).await?,
    };
    Ok(Backends { ledger, objects, log, feed, queues, share, stamps })
}

type Log = (Arc<dyn EventLog>, Arc<dyn Feed>, Queues, Option<PartitionAssignment>);

async fn kafka_log(
    config: &NodeConfig,
    settings: &KafkaSettings,
    roles: &[Role],
) -> Result<Log, NodeError> {
    let kafka = kafka_options(&config.env, settings)?;
    let session = Duration::from_millis(u64::from(settings.session_ms));
    let timing = GroupTiming { session, ..GroupTiming::default() };
    let partitions = config.spec.node.log_partitions;
    let log = KafkaLog::open(&kafka, EVENTS, partitions).await?;
    // One partition of frames for each partition of events.
    let frames = KafkaLog::open(&kafka, FEED, log.partitions()).await?;
    let keyframes = KafkaTable::open(&kafka, KEYFRAMES).await?;
    let feed = KafkaFeed::new(Arc::new(frames), keyframes);
    let consumes = roles.contains(&Role::Activate);
    let queue = async |name: &str| {
        let queue = match consumes {
            true => KafkaQueue::join(&kafka, name, QUEUE_PARTITIONS, timing).await?,
            false => KafkaQueue::open(&kafka, name, QUEUE_PARTITIONS).await?,
        };
        Ok::<_, NodeError>(Arc::new(queue) as Arc<dyn Queue>)
    };
    let queues = Queues {
        tasks: queue(TASKS).await?,
        checks: queue(CHECKS).await?,
        dead_letters: Some(Arc::new(KafkaQueue::open(&kafka, DEAD_LETTERS, 1).await?)),
    };
    let share = match roles.contains(&Role::Aggregate) {
        true => Some(PartitionAssignment::join(&kafka, EVENTS, AGGREGATE, timing)?),
        false => None,
    };
    Ok((Arc::new(log), Arc::new(feed), queues, share))
}

pub(super) fn secret(
    env: &Environment,
    field: &'static str,
    reference: &SecretRef,
) -> Result<Secret, NodeError> {
    reference.resolve(&**env).map_err(|source| NodeError::Secret { field, source })
}

/// The URL of a PostgreSQL ledger. Refused if a password would be sent to another machine without
/// TLS and `node.ledger_insecure` does not allow that.
pub(super) fn ledger_url(
    env: &Environment,
    reference: &SecretRef,
    insecure: bool,
) -> Result<Secret, NodeError> {
    let url = secret(env, "ledger_url", reference)?;
    if !insecure && throng_ledger::is_unencrypted_remote_postgres(&url)? {
        return Err(NodeError::UnencryptedLedger);
    }
    Ok(url)
}

/// The options of a Kafka client: the settings, with the resolved secrets.
pub(super) fn kafka_options(
    env: &Environment,
    settings: &KafkaSettings,
) -> Result<KafkaOptions, NodeError> {
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

/// The options of a bucket: its settings, with the resolved secrets.
pub(super) fn bucket_options(
    env: &Environment,
    bucket: &BucketSettings,
) -> Result<BucketOptions, NodeError> {
    let service = match &bucket.service {
        ServiceSettings::S3 { endpoint, region, keys, ca_file, .. } => Service::S3 {
            endpoint: endpoint.clone(),
            ca_file: ca_file.clone(),
            region: region.clone(),
            keys: match keys {
                Some((access, secret_key)) => Some((
                    secret(env, "bucket.access_key", access)?,
                    secret(env, "bucket.secret_key", secret_key)?,
                )),
                None => None,
            },
        },
        ServiceSettings::Gcs { service_account } => Service::Gcs {
            service_account: match service_account {
                Some(key) => Some(secret(env, "bucket.service_account", key)?),
                None => None,
            },
        },
    };
    Ok(BucketOptions {
        service,
        bucket: bucket.name.clone(),
        prefix: bucket.prefix.clone(),
        cache_bytes: bucket.cache_bytes,
    })
}

fn objects(config: &NodeConfig, settings: &NodeSettings) -> Result<Arc<dyn Objects>, NodeError> {
    let root = config.data_dir.join("objects");
    Ok(match &settings.objects {
        ObjectsSettings::Directory => Arc::new(DirectoryObjects::open(root)?),
        ObjectsSettings::Bucket(bucket) => {
            Arc::new(BucketObjects::open(root, &bucket_options(&config.env, bucket)?)?)
        }
    })
}

/// Whether a node has used the data directory: it holds an event log or an object.
fn is_used(data_dir: &Path) -> Result<bool, NodeError> {
    for folder in [data_dir.join("log"), data_dir.join("objects")] {
        match std::fs::read_dir(&folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(NodeError::io("list", folder.display())(error)),
        }
    }
    Ok(false)
}

/// Opens the ledger that the node settings choose.
async fn ledger(
    config: &NodeConfig,
    settings: &NodeSettings,
) -> Result<Arc<dyn Ledger>, NodeError> {
    match &settings.ledger {
        LedgerSettings::Sqlite => {
            let path = config.data_dir.join("ledger.db");
            let exists = std::fs::metadata(&path).is_ok_and(|facts| facts.len() > 0);
            if !exists && config.recovery == Recovery::Refuse && is_used(&config.data_dir)? {
                return Err(NodeError::LedgerMissing { path });
            }
            let ledger = SqliteLedger::open(&path).await?;
            Ok(Arc::new(ledger))
        }
        LedgerSettings::Postgres { url, connections, insecure } => {
            let url = ledger_url(&config.env, url, *insecure)?;
            let ledger = PostgresLedger::open(&url, *connections).await?;
            // A node with a local log or local objects must be the only one: another node would
            // miss files and events that the ledger names.
            if !settings.is_shared() && !ledger.acquire_node_lock().await? {
                return Err(NodeError::LedgerInUse);
            }
            Ok(Arc::new(ledger))
        }
    }
}
