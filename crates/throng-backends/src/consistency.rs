//! Checks that shared backends belong together, as after a restore: a part of `throng check
//! --connect`. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use throng_aggregator::checkpoint_offset;
use throng_ledger::PostgresLedger;
use throng_log::{EventLog as _, KafkaLog, KafkaTable, check_brokers};
use throng_model::{HashSeed, Secret};
use throng_objects::{BucketObjects, Objects};
use throng_spec::{
    Environment, KafkaSettings, LedgerSettings, LogSettings, NodeSettings, ObjectsSettings,
};
use throng_store::{MaintenanceLedger as _, SpecLedger as _};

use crate::error::BackendError;
use crate::finding::Finding;
use crate::open::{EVENTS, FEED, KEYFRAMES, bucket_options, kafka_options, ledger_url};
use crate::topics::{has_frames, name_of, owner_of};

/// How many missing objects or offsets a finding names.
const MAX_EXAMPLES: usize = 3;

/// The comparison of the ledger with the bucket.
const SNAPSHOTS: &str = "snapshots";
/// The comparison of the ledger with the owner of the topics.
const TOPICS: &str = "topics";
/// The comparison of the checkpoints in the bucket with Kafka.
const CHECKPOINTS: &str = "checkpoints";

/// What a comparison of the topics with a ledger found.
enum Owner {
    /// Nobody has claimed them.
    Nobody,
    /// The deployment of the ledger.
    Own,
    /// Another one.
    Other,
    /// The ledger has the tables of another version, which this one cannot read.
    OtherTables { found: u64, newest: u64 },
}

/// Compares the topics with the ledger, as a start does, and changes nothing.
async fn compare_topics(
    env: &Environment,
    kafka: &KafkaSettings,
    url: &Secret,
) -> Result<Owner, BackendError> {
    let options = kafka_options(env, kafka)?;
    let reports = check_brokers(&options, &[KEYFRAMES, FEED]).await?;
    let partitions = |name: &str| {
        let topic = options.named(name);
        reports.iter().find(|report| report.topic == topic)?.partitions
    };
    // A topic that exists is opened, which creates nothing.
    let owner = match partitions(KEYFRAMES) {
        Some(_) => owner_of(&KafkaTable::open(&options, KEYFRAMES).await?).await?,
        None => None,
    };
    if owner.is_none() {
        let is_used = match partitions(FEED) {
            Some(count) => has_frames(&KafkaLog::open_frames(&options, FEED, count).await?).await?,
            None => false,
        };
        if !is_used {
            return Ok(Owner::Nobody);
        }
    }
    let status = PostgresLedger::inspect(url).await?;
    match status.schema {
        None => return Ok(Owner::Other),
        Some(found) if found != status.newest => {
            return Ok(Owner::OtherTables { found, newest: status.newest });
        }
        Some(_) => {}
    }
    let ledger = PostgresLedger::attach(url).await?;
    let is_own = match &owner {
        // A ledger that has a number of partitions has a seed: it is only read.
        Some(owner) => match ledger.log_partitions(None).await? {
            Some(_) => name_of(ledger.hash_seed(HashSeed(0)).await?) == *owner,
            None => false,
        },
        // The frames are of an earlier version, which claims nothing.
        None => ledger.applied_version().await?.is_some(),
    };
    ledger.close().await?;
    Ok(match (is_own, owner) {
        (true, Some(_)) => Owner::Own,
        (true, None) => Owner::Nobody,
        (false, _) => Owner::Other,
    })
}

/// Compares the topics with the ledger, and changes nothing. `None` unless both are shared.
pub(crate) async fn check_topics(settings: &NodeSettings, env: &Environment) -> Option<Finding> {
    let LogSettings::Kafka(kafka) = &settings.log else { return None };
    let LedgerSettings::Postgres { url, insecure, .. } = &settings.ledger else { return None };
    let compared = async { compare_topics(env, kafka, &ledger_url(env, url, *insecure)?).await };
    Some(match compared.await {
        Ok(Owner::Nobody) => {
            Finding::ok_with(TOPICS, "of no deployment yet: the first node that starts claims them")
        }
        Ok(Owner::Own) => Finding::ok_with(TOPICS, "of the deployment of this ledger"),
        Ok(Owner::Other) => {
            let error = BackendError::ForeignTopics { prefix: kafka.prefix.clone() };
            Finding::failed(TOPICS, &error, "see docs/operate/kafka.md")
        }
        Ok(Owner::OtherTables { found, newest }) => Finding {
            backend: TOPICS,
            ok: false,
            message: format!(
                "not compared with the ledger, which has tables of version {found}: this version of throng reads \
                 version {newest}"
            ),
            help: Some("run `throng migrate`, and check again".to_owned()),
        },
        Err(error) => Finding::failed(TOPICS, &error, "see docs/operate/kafka.md"),
    })
}

/// Compares the ledger with the bucket, and the checkpoints in the bucket with the events in Kafka.
/// Lists the bucket and reads every checkpoint. Has a finding for each comparison of two shared backends;
/// one that could not be made is a failed finding.
pub(crate) async fn check(settings: &NodeSettings, env: &Environment) -> Vec<Finding> {
    let ObjectsSettings::Bucket(bucket) = &settings.objects else { return Vec::new() };
    let comparisons = [
        (SNAPSHOTS, matches!(settings.ledger, LedgerSettings::Postgres { .. })),
        (CHECKPOINTS, matches!(settings.log, LogSettings::Kafka(_))),
    ];
    let folder = std::env::temp_dir().join(format!("throng-compare-{}", std::process::id()));
    let opened = bucket_options(env, bucket)
        .and_then(|bucket| Ok(BucketObjects::open(folder.clone(), &bucket)?));
    let findings: Vec<Finding> = match opened {
        Ok(objects) => {
            let found = [
                snapshots(settings, env, &objects).await,
                checkpoints(settings, env, &objects).await,
            ];
            found.into_iter().flatten().collect()
        }
        Err(error) => {
            let help = "check name, endpoint, region and keys in node.bucket";
            let missing = comparisons.into_iter().filter(|(_, is_shared)| *is_shared);
            missing.map(|(name, _)| Finding::failed(name, &error, help)).collect()
        }
    };
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

/// What the comparison of the ledger with the bucket found.
enum Snapshots {
    /// The ledger has no tables yet, so it names no objects.
    NoTables,
    /// The ledger has the tables of another version, which this one cannot read.
    OtherTables { found: u64, newest: u64 },
    /// How many objects the ledger names, and those that the bucket lacks.
    Compared { count: usize, missing: Vec<String> },
}

/// `None` if the ledger is not shared.
async fn snapshots(
    settings: &NodeSettings,
    env: &Environment,
    objects: &dyn Objects,
) -> Option<Finding> {
    let LedgerSettings::Postgres { url, insecure, .. } = &settings.ledger else { return None };
    let compared = async {
        let url = ledger_url(env, url, *insecure)?;
        let status = PostgresLedger::inspect(&url).await?;
        match status.schema {
            None => return Ok(Snapshots::NoTables),
            Some(found) if found != status.newest => {
                return Ok(Snapshots::OtherTables { found, newest: status.newest });
            }
            Some(_) => {}
        }
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
        Ok::<_, BackendError>(Snapshots::Compared { count: names.len(), missing })
    };
    Some(match compared.await {
        Ok(Snapshots::NoTables) => {
            Finding::ok_with(SNAPSHOTS, "none yet: the ledger has no tables")
        }
        Ok(Snapshots::OtherTables { found, newest }) => Finding {
            backend: SNAPSHOTS,
            ok: false,
            message: format!(
                "not compared with the bucket: the ledger has tables of version {found}, and this version of \
                 throng reads version {newest}"
            ),
            help: Some("run `throng migrate`, and check again".to_owned()),
        },
        Ok(Snapshots::Compared { count, missing }) if missing.is_empty() => Finding::ok_with(
            SNAPSHOTS,
            format!("the bucket has all {count} objects that the ledger names"),
        ),
        Ok(Snapshots::Compared { count, missing }) => {
            let examples = examples(&missing, ", ");
            Finding {
                backend: SNAPSHOTS,
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
        Err(error) => {
            Finding::failed(SNAPSHOTS, &error, "grant the rights of docs/operate/backends.md")
        }
    })
}

/// The first of what is wrong, for a message.
fn examples(wrong: &[String], separator: &str) -> String {
    let first = &wrong[..wrong.len().min(MAX_EXAMPLES)];
    first.join(separator)
}

/// `None` if the event log is not shared.
async fn checkpoints(
    settings: &NodeSettings,
    env: &Environment,
    objects: &dyn Objects,
) -> Option<Finding> {
    let LogSettings::Kafka(kafka) = &settings.log else { return None };
    let compared = async {
        let kafka = kafka_options(env, kafka)?;
        let reports = check_brokers(&kafka, &[EVENTS]).await?;
        let partitions = reports.first().and_then(|report| report.partitions);
        let mut offsets: BTreeMap<u32, u64> = BTreeMap::new();
        for listed in objects.list("checkpoints").await? {
            let number = listed.name.rsplit('/').next().and_then(|name| name.parse().ok());
            let (Some(number), Some(found)) = (number, objects.load(&listed.name).await?) else {
                continue;
            };
            offsets.insert(number, checkpoint_offset(&found.bytes, number)?);
        }
        if offsets.is_empty() {
            return Ok((0, None));
        }
        let Some(partitions) = partitions else {
            let count = offsets.len();
            let message =
                format!("the topic of events does not exist, and {count} have offsets of it");
            return Ok((count, Some(message)));
        };
        let mut wrong = Vec::new();
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
        let message = (!wrong.is_empty()).then(|| wrong_offsets(&wrong, offsets.len()));
        Ok::<_, BackendError>((offsets.len(), message))
    };
    Some(match compared.await {
        Ok((0, _)) => Finding::ok_with(CHECKPOINTS, "none yet"),
        Ok((count, None)) => {
            Finding::ok_with(CHECKPOINTS, format!("all {count} are at offsets that Kafka has"))
        }
        Ok((_, Some(message))) => Finding {
            backend: CHECKPOINTS,
            ok: false,
            message,
            help: Some(
                "events between the checkpoint and the topic are lost, or it is another topic: restore \
                 the topic, or see docs/operate/backup.md for how to start with a new topic"
                    .to_owned(),
            ),
        },
        Err(error) => Finding::failed(CHECKPOINTS, &error, "see docs/operate/kafka.md"),
    })
}

/// How many of `count` checkpoints are at offsets that Kafka does not have, and some of them.
fn wrong_offsets(wrong: &[String], count: usize) -> String {
    format!("{} of {count}: {}", wrong.len(), examples(wrong, "; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throng_spec::{BucketSettings, SecretRef, ServiceSettings};

    use super::*;

    #[test]
    fn a_message_has_the_number_of_wrong_checkpoints_and_some_of_them() {
        let wrong: Vec<String> = (0..5).map(|n| format!("partition {n} does not exist")).collect();
        let message = wrong_offsets(&wrong, 12);
        assert!(
            message.starts_with("5 of 12: partition 0 does not exist; partition 1"),
            "{message}"
        );
        assert!(message.ends_with("partition 2 does not exist"), "{message}");
        assert_eq!(wrong_offsets(&wrong[..1], 12), "1 of 12: partition 0 does not exist");
    }

    /// Sends no request: the bucket cannot be opened.
    #[tokio::test]
    async fn a_comparison_that_cannot_be_made_is_a_failed_finding() {
        let secret = |name: &str| SecretRef::Env(name.to_owned());
        let mut settings = NodeSettings {
            ledger: LedgerSettings::Postgres {
                url: secret("LEDGER"),
                connections: 2,
                insecure: false,
            },
            log: LogSettings::Kafka(KafkaSettings {
                brokers: "127.0.0.1:1".to_owned(),
                prefix: "throng".to_owned(),
                tls: false,
                ca_file: None,
                sasl: None,
                session_ms: 6_000,
                insecure: false,
            }),
            objects: ObjectsSettings::Bucket(BucketSettings {
                name: "throng".to_owned(),
                prefix: String::new(),
                cache_bytes: 1 << 20,
                service: ServiceSettings::Gcs { service_account: Some(secret("KEY")) },
            }),
            ..NodeSettings::default()
        };
        let env: Environment = Arc::new(|_: &str| None::<String>);
        let found = check(&settings, &env).await;
        assert_eq!(
            found.iter().map(|one| one.backend).collect::<Vec<_>>(),
            [SNAPSHOTS, CHECKPOINTS]
        );
        for finding in &found {
            assert!(!finding.ok && finding.message.contains("KEY"), "{finding:?}");
        }
        // Files of one machine are not compared.
        settings.log = LogSettings::Files;
        let found = check(&settings, &env).await;
        assert_eq!(found.iter().map(|one| one.backend).collect::<Vec<_>>(), [SNAPSHOTS]);
    }
}
