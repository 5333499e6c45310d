//! Checks that shared backends belong together, as after a restore: a part of `throng check
//! --connect`. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use throng_aggregator::checkpoint_offset;
use throng_ledger::PostgresLedger;
use throng_log::{EventLog as _, KafkaLog, check_brokers};
use throng_objects::{BucketObjects, Objects};
use throng_spec::{Environment, LedgerSettings, LogSettings, NodeSettings, ObjectsSettings};
use throng_store::MaintenanceLedger as _;

use crate::error::BackendError;
use crate::finding::Finding;
use crate::open::{EVENTS, bucket_options, kafka_options, ledger_url};

/// How many missing objects or offsets a finding names.
const MAX_EXAMPLES: usize = 3;

/// Compares the ledger with the bucket, and the checkpoints in the bucket with the events in Kafka.
/// Lists the bucket and reads every checkpoint. Empty if not everything is shared, or if a backend
/// does not respond, which another finding reports.
pub(crate) async fn check(settings: &NodeSettings, env: &Environment) -> Vec<Finding> {
    let ObjectsSettings::Bucket(bucket) = &settings.objects else { return Vec::new() };
    let folder = std::env::temp_dir().join(format!("throng-compare-{}", std::process::id()));
    let mut findings = Vec::new();
    let opened = bucket_options(env, bucket)
        .and_then(|bucket| Ok(BucketObjects::open(folder.clone(), &bucket)?));
    if let Ok(objects) = opened {
        let objects: Arc<dyn Objects> = Arc::new(objects);
        findings.extend(snapshots(settings, env, &*objects).await);
        findings.extend(checkpoints(settings, env, &*objects).await);
    }
    // It holds local copies of checkpoints at most.
    let _ = std::fs::remove_dir_all(folder);
    findings
}

/// Every object that the ledger names.
async fn names(ledger: &PostgresLedger) -> Result<BTreeSet<String>, BackendError> {
    let named = ledger.referenced_objects().await?;
    let mut names: BTreeSet<String> = named.objects.into_iter().map(|o| o.name).collect();
    for manifest in &named.manifests {
        names.extend(throng_membership::manifest_files(manifest)?);
    }
    Ok(names)
}

async fn snapshots(
    settings: &NodeSettings,
    env: &Environment,
    objects: &dyn Objects,
) -> Option<Finding> {
    const NAME: &str = "snapshots";
    let LedgerSettings::Postgres { url, insecure, .. } = &settings.ledger else { return None };
    let url = ledger_url(env, url, *insecure).ok()?;
    let status = PostgresLedger::inspect(&url).await.ok()?;
    if status.schema != Some(status.newest) {
        return None;
    }
    let compared = async {
        let ledger = PostgresLedger::attach(&url).await?;
        let names = names(&ledger).await?;
        let mut present = HashSet::new();
        let folders: BTreeSet<&str> =
            names.iter().filter_map(|name| name.split('/').next()).collect();
        for folder in folders {
            present.extend(objects.list(folder).await?.into_iter().map(|listed| listed.name));
        }
        let mut missing: Vec<String> =
            names.iter().filter(|name| !present.contains(*name)).cloned().collect();
        if !missing.is_empty() {
            // Nodes may run: an object that one of them removed since then is no longer in the
            // ledger.
            let current = self::names(&ledger).await?;
            missing.retain(|name| current.contains(name));
        }
        ledger.close().await?;
        Ok::<_, BackendError>((names.len(), missing))
    };
    Some(match compared.await {
        Ok((count, missing)) if missing.is_empty() => Finding::ok_with(
            NAME,
            format!("the bucket has all {count} objects that the ledger names"),
        ),
        Ok((count, missing)) => {
            let examples =
                missing.iter().take(MAX_EXAMPLES).cloned().collect::<Vec<_>>().join(", ");
            Finding {
                backend: NAME,
                ok: false,
                message: format!(
                    "the bucket lacks {} of the {count} objects that the ledger names: {examples}",
                    missing.len()
                ),
                help: Some(
                    "restore the bucket to the time of the ledger's backup or later \
                     (docs/operate/backup.md), or refresh the audiences whose snapshots are missing"
                        .to_owned(),
                ),
            }
        }
        Err(error) => Finding::failed(NAME, &error, "grant the rights of docs/operate/backends.md"),
    })
}

async fn checkpoints(
    settings: &NodeSettings,
    env: &Environment,
    objects: &dyn Objects,
) -> Option<Finding> {
    const NAME: &str = "checkpoints";
    let LogSettings::Kafka(kafka) = &settings.log else { return None };
    let kafka = kafka_options(env, kafka).ok()?;
    let reports = check_brokers(&kafka, &[EVENTS]).await.ok()?;
    let partitions = reports.first().and_then(|report| report.partitions);
    let compared = async {
        let mut offsets: BTreeMap<u32, u64> = BTreeMap::new();
        for listed in objects.list("checkpoints").await? {
            let number = listed.name.rsplit('/').next().and_then(|name| name.parse().ok());
            let (Some(number), Some(found)) = (number, objects.load(&listed.name).await?) else {
                continue;
            };
            offsets.insert(number, checkpoint_offset(&found.bytes, number)?);
        }
        let mut wrong = Vec::new();
        if offsets.is_empty() {
            return Ok((0, wrong));
        }
        let Some(partitions) = partitions else {
            wrong.push("the topic of events does not exist".to_owned());
            return Ok((offsets.len(), wrong));
        };
        // The topic exists, so opening it creates nothing.
        let log = KafkaLog::open(&kafka, EVENTS, partitions).await?;
        for (partition, offset) in &offsets {
            if *partition >= log.partitions() {
                wrong.push(format!("partition {partition} does not exist"));
                continue;
            }
            let (start, end) = (log.start(*partition).await?, log.end(*partition).await?);
            if !(start..=end).contains(offset) {
                wrong.push(format!(
                    "partition {partition} has offsets {start} to {end}, its checkpoint is at {offset}"
                ));
            }
        }
        Ok::<_, BackendError>((offsets.len(), wrong))
    };
    Some(match compared.await {
        Ok((0, _)) => Finding::ok_with(NAME, "none yet"),
        Ok((count, wrong)) if wrong.is_empty() => {
            Finding::ok_with(NAME, format!("all {count} are at offsets that Kafka has"))
        }
        Ok((_, wrong)) => Finding {
            backend: NAME,
            ok: false,
            message: wrong.iter().take(MAX_EXAMPLES).cloned().collect::<Vec<_>>().join("; "),
            help: Some(
                "events between the checkpoint and the topic are lost, or it is another topic: restore \
                 the topic, or see docs/operate/backup.md for how to start with a new topic"
                    .to_owned(),
            ),
        },
        Err(error) => Finding::failed(NAME, &error, "see docs/operate/kafka.md"),
    })
}
