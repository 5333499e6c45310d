//! The backends that the node settings choose. The only place that knows which there are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_aggregator::{AppendMode, Feed};
use throng_ledger::{PostgresLedger, SqliteLedger};
use throng_log::{
    DiskFloor, EventLog, FileLog, FileLogOptions, GroupTiming, KafkaLog, KafkaQueue, KafkaSettings,
    KafkaTable, MemoryQueue, Queue, Sasl, Share, Tls,
};
use throng_model::Secret;
use throng_objects::{BucketObjects, BucketSettings, DirectoryObjects, Objects, Service};
use throng_spec::{LedgerSettings, LogSettings, NodeSettings, ObjectsSettings, Role, SecretRef};
use throng_store::Ledger;

use crate::Queues;

use super::stamps::Stamps;
use super::{Environment, NodeConfig, NodeError, Recovery};

/// The topic of events, and the group of aggregators.
pub(super) const EVENTS: &str = "events";
/// The topic of frames.
pub(super) const FEED: &str = "feed";
/// The table of the newest keyframes.
pub(super) const KEYFRAMES: &str = "keyframes";
const AGGREGATE: &str = "aggregate";
/// The topic and group of tasks.
pub(super) const TASKS: &str = "tasks";
/// The topic and group of checks.
pub(super) const CHECKS: &str = "checks";
/// The topic of tasks that gave up.
pub(super) const DEAD: &str = "tasks.dead";
/// Partitions of a queue: as many processes can work on it at once.
const QUEUE_PARTITIONS: u32 = 64;

/// Everything that a node keeps and talks through.
pub(super) struct Backends {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) log: Arc<dyn EventLog>,
    /// The way of frames between processes; `None` where one process does everything.
    pub(super) feed: Option<Feed>,
    pub(super) append_mode: AppendMode,
    pub(super) queues: Queues,
    /// This process's share of the log; `None` where it has all of it, or no part in it.
    pub(super) share: Option<Share>,
    /// The stamps of what lies in the data directory; `None` if nothing does.
    pub(super) stamps: Option<Stamps>,
}

/// Opens what the settings choose.
pub(super) async fn open(config: &NodeConfig, roles: &[Role]) -> Result<Backends, NodeError> {
    let settings = &config.spec.node;
    let objects = objects(config, settings)?;
    let ledger = ledger(config, settings).await?;
    // Before anything changes what lies there.
    let stamps = Stamps::open(&config.data_dir, settings, &*ledger, config.recovery).await?;
    if settings.ledger == LedgerSettings::Sqlite {
        // The lock of the data directory says that nobody else is at work on this file: what is in
        // hand was left by a dead process. On a server other nodes may have it; what is left there
        // is due when its lease ends.
        let left = ledger.end_leases(config.clock.now()).await?;
        if left > 0 {
            tracing::info!(left, "taking up work that a dead process left");
        }
    }
    let (log, feed, append_mode, queues, share): Log = match &settings.log {
        LogSettings::Files => {
            let dir = config.data_dir.join("log");
            // The number of partitions is fixed when the log is made; the setting counts only then. A
            // file can be damaged, so the ledger knows it too.
            let stored = ledger.log_partitions(None).await?;
            let found = FileLog::partitions_in(&dir)?;
            if let (Some(found), Some(stored)) = (found, stored)
                && found != stored
            {
                return Err(NodeError::LogPartitions { found, stored });
            }
            let partitions = found.or(stored).unwrap_or(settings.log_partitions);
            let floor = settings.min_free_disk_bytes.map_or(DiskFloor::Default, DiskFloor::Bytes);
            let options = FileLogOptions { floor, ..FileLogOptions::new(partitions) };
            let log = Arc::new(FileLog::open_with(&dir, options)?);
            let memory = || Arc::new(MemoryQueue::default()) as Arc<dyn Queue>;
            let queues = Queues { tasks: memory(), checks: memory(), dead: None };
            (log, None, AppendMode::Exclusive, queues, None)
        }
        LogSettings::Kafka(kafka) => kafka_log(config, kafka, roles).await?,
    };
    Ok(Backends { ledger, objects, log, feed, append_mode, queues, share, stamps })
}

type Log = (Arc<dyn EventLog>, Option<Feed>, AppendMode, Queues, Option<Share>);

async fn kafka_log(
    config: &NodeConfig,
    settings: &throng_spec::KafkaSettings,
    roles: &[Role],
) -> Result<Log, NodeError> {
    let kafka = kafka_settings(&config.env, settings)?;
    let session = Duration::from_millis(u64::from(settings.session_ms));
    let timing = GroupTiming { session, ..GroupTiming::default() };
    let partitions = config.spec.node.log_partitions;
    let log = KafkaLog::open(&kafka, EVENTS, partitions).await?;
    // As many as the events have: each has its frames.
    let frames = KafkaLog::open(&kafka, FEED, log.partitions()).await?;
    let keyframes = KafkaTable::open(&kafka, KEYFRAMES).await?;
    let feed = Feed { frames: Arc::new(frames), keyframes: Arc::new(keyframes) };
    let works = roles.contains(&Role::Activate);
    let queue = async |name: &str| {
        let queue = match works {
            true => KafkaQueue::join(&kafka, name, QUEUE_PARTITIONS, timing).await?,
            false => KafkaQueue::open(&kafka, name, QUEUE_PARTITIONS).await?,
        };
        Ok::<_, NodeError>(Arc::new(queue) as Arc<dyn Queue>)
    };
    let queues = Queues {
        tasks: queue(TASKS).await?,
        checks: queue(CHECKS).await?,
        dead: Some(Arc::new(KafkaQueue::open(&kafka, DEAD, 1).await?)),
    };
    let share = match roles.contains(&Role::Aggregate) {
        true => Some(Share::join(&kafka, EVENTS, AGGREGATE, timing)?),
        false => None,
    };
    Ok((Arc::new(log), Some(feed), AppendMode::Shared, queues, share))
}

pub(super) fn secret(
    env: &Environment,
    field: &'static str,
    reference: &SecretRef,
) -> Result<Secret, NodeError> {
    reference.resolve(&**env).map_err(|source| NodeError::Secret { field, source })
}

/// The URL of a PostgreSQL ledger. Refused if a password would go to another machine without TLS and
/// `node.ledger_insecure` does not allow it.
pub(super) fn ledger_url(
    env: &Environment,
    reference: &SecretRef,
    insecure: bool,
) -> Result<Secret, NodeError> {
    let url = secret(env, "ledger_url", reference)?;
    if !insecure && throng_ledger::is_plain_remote_postgres(&url)? {
        return Err(NodeError::UnencryptedLedger);
    }
    Ok(url)
}

/// How to reach the brokers, with the secrets.
pub(super) fn kafka_settings(
    env: &Environment,
    settings: &throng_spec::KafkaSettings,
) -> Result<KafkaSettings, NodeError> {
    let sasl = match &settings.sasl {
        Some(sasl) => Some(Sasl {
            mechanism: sasl.mechanism.clone(),
            username: sasl.username.clone(),
            password: secret(env, "kafka.password", &sasl.password)?,
        }),
        None => None,
    };
    Ok(KafkaSettings {
        brokers: settings.brokers.clone(),
        prefix: settings.prefix.clone(),
        tls: settings.tls.then(|| Tls { ca_file: settings.ca_file.clone() }),
        sasl,
    })
}

/// A bucket with its secrets.
pub(super) fn bucket_settings(
    env: &Environment,
    bucket: &throng_spec::BucketSettings,
) -> Result<BucketSettings, NodeError> {
    let service = match &bucket.service {
        throng_spec::Service::S3 { endpoint, region, keys, ca_file, .. } => Service::S3 {
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
        throng_spec::Service::Gcs { service_account } => Service::Gcs {
            service_account: match service_account {
                Some(key) => Some(secret(env, "bucket.service_account", key)?),
                None => None,
            },
        },
    };
    Ok(BucketSettings {
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
            Arc::new(BucketObjects::open(root, &bucket_settings(&config.env, bucket)?)?)
        }
    })
}

/// Whether a node worked in the data directory: it left an event log or an object.
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
            let is_there = std::fs::metadata(&path).is_ok_and(|facts| facts.len() > 0);
            if !is_there && config.recovery == Recovery::Refuse && is_used(&config.data_dir)? {
                return Err(NodeError::LedgerMissing { path });
            }
            let ledger = SqliteLedger::open(&path).await?;
            Ok(Arc::new(ledger))
        }
        LedgerSettings::Postgres { url, connections, insecure } => {
            let url = ledger_url(&config.env, url, *insecure)?;
            let ledger = PostgresLedger::open(&url, *connections).await?;
            // A node that keeps something for itself must be the only one: the others would look
            // for files and events that they do not have.
            if !settings.is_shared() && !ledger.take().await? {
                return Err(NodeError::LedgerInUse);
            }
            Ok(Arc::new(ledger))
        }
    }
}
