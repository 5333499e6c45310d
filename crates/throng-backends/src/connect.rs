//! `throng check --connect` and `throng migrate`: connects to every backend without starting a
//! node.

use std::path::Path;
use std::time::Duration;

use throng_ledger::{PostgresLedger, SqliteLedger};
use throng_log::{TopicDifferences, TopicReport, check_topics};
use throng_model::{Clock, Entropy as _, SystemClock, SystemEntropy};
use throng_objects::{BucketObjects, BucketOptions};
use throng_spec::{Environment, LedgerSettings, LogSettings, NodeSettings, ObjectsSettings, Spec};

use crate::consistency;
use crate::error::BackendError;
use crate::finding::Finding;
use crate::ingested::lake_options;
use crate::open::{
    EVENTS, FEED, TOPICS, bucket_options, kafka_options, ledger_url, unused_partitions,
};
use crate::stores::check_stores;

/// A larger difference of two clocks is reported: leases and budget days depend on them.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Connects to every backend that the settings name, and checks that they belong together. Changes
/// nothing but a small object in each bucket, which it removes again. Takes up to half a minute if a
/// backend does not respond.
pub async fn check_backends(settings: &NodeSettings, env: &Environment) -> Vec<Finding> {
    let (ledger, log, objects, lake) = tokio::join!(
        ledger(settings, env),
        log(settings, env),
        objects(settings, env),
        lake(settings, env)
    );
    let mut findings = vec![ledger, log, objects];
    if findings.iter().all(|finding| finding.ok) {
        findings.extend(consistency::check_topics(settings, env).await);
        findings.extend(consistency::check(settings, env).await);
    }
    findings.extend(lake);
    if !settings.is_shared() && settings.ledger != LedgerSettings::Sqlite {
        findings.push(Finding {
            backend: "roles",
            ok: true,
            message: "one node only: not everything is shared".to_owned(),
            help: Some("for more nodes, share ledger, log and objects".to_owned()),
        });
    }
    findings
}

/// As [`check_backends`], and reads from each serving store of the spec.
pub async fn check_spec_backends(spec: &Spec, env: &Environment) -> Vec<Finding> {
    let (mut findings, stores) =
        tokio::join!(check_backends(&spec.node, env), check_stores(&spec.serving_stores, env));
    findings.extend(stores);
    findings
}

async fn ledger(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "ledger";
    let LedgerSettings::Postgres { url, insecure, .. } = &settings.ledger else {
        return Finding::ok_with(NAME, "SQLite, a file of the data directory");
    };
    let url = match ledger_url(env, url, *insecure) {
        Ok(url) => url,
        Err(error @ BackendError::UnencryptedLedger) => {
            return Finding::failed(NAME, &error, "add ?sslmode=verify-full to the URL");
        }
        Err(error) => return Finding::failed(NAME, &error, "set what node.ledger_url names"),
    };
    let status = match PostgresLedger::inspect(&url).await {
        Ok(status) => status,
        Err(error) => {
            let help = "check host, port, user and password in what node.ledger_url names, and \
                        that the server accepts connections of this machine (pg_hba.conf)";
            return Finding::failed(NAME, &error, help);
        }
    };
    let server = format!("PostgreSQL {}", status.server);
    let now = SystemClock.now();
    let skew = now.since(status.now).max(status.now.since(now));
    if skew > MAX_CLOCK_SKEW {
        return Finding {
            backend: NAME,
            ok: false,
            message: format!("{server}; its clock and this machine's are {skew:.1?} apart"),
            help: Some("synchronize both clocks with NTP".to_owned()),
        };
    }
    if !status.may_create && status.schema.is_none_or(|found| found < status.newest) {
        return Finding {
            backend: NAME,
            ok: false,
            message: format!("{server}; this user may not create the missing tables"),
            help: Some(
                "grant the user CREATE on the schema (CREATEDB if the database does not exist), or \
                 run `throng migrate` as a user who has it"
                    .to_owned(),
            ),
        };
    }
    match status.schema {
        None => {
            Finding::ok_with(NAME, format!("{server}; no tables yet, the first node creates them"))
        }
        Some(found) if found > status.newest => Finding {
            backend: NAME,
            ok: false,
            message: format!(
                "{server}; a newer version of throng created its tables ({found}, this one knows {})",
                status.newest
            ),
            help: Some("upgrade throng here".to_owned()),
        },
        Some(found) if found < status.newest => Finding {
            backend: NAME,
            ok: true,
            message: format!(
                "{server}; tables of version {found}, {} is the newest",
                status.newest
            ),
            help: Some("run `throng migrate`, or let the first new node migrate them".to_owned()),
        },
        Some(found) => Finding::ok_with(NAME, format!("{server}; tables of version {found}")),
    }
}

async fn log(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "log";
    let LogSettings::Kafka(kafka) = &settings.log else {
        return Finding::ok_with(NAME, "files of the data directory");
    };
    let kafka = match kafka_options(env, kafka) {
        Ok(kafka) => kafka,
        Err(error) => return Finding::failed(NAME, &error, "set what node.kafka.password names"),
    };
    let created = settings.log_partitions;
    let topics = TOPICS.map(|(name, usage, count)| (name, usage, count.unwrap_or(created)));
    let checked = match check_topics(&kafka, &topics).await {
        Ok(checked) => checked,
        Err(error) => return Finding::failed(NAME, &error, "see docs/operate/kafka.md"),
    };
    let reports: Vec<&TopicReport> = checked.iter().map(|(report, _)| report).collect();
    let topics = |exist: bool| -> Vec<&str> {
        let found = reports.iter().filter(|r| r.partitions.is_some() == exist);
        found.map(|r| r.topic.as_str()).collect()
    };
    let (existing, missing) = (topics(true), topics(false));
    let message = match (existing.is_empty(), missing.is_empty()) {
        (_, true) => format!("Kafka responds; topics {}", existing.join(", ")),
        (true, _) => "Kafka responds; no topics yet".to_owned(),
        _ => format!(
            "Kafka responds; topics {}; missing topics {}",
            existing.join(", "),
            missing.join(", ")
        ),
    };
    if let Some(refusal) = reports.iter().find_map(|report| report.refusal.as_ref()) {
        let message = format!("{message}; this user may not create them: {refusal}");
        let help = "create the topics, or grant the user the rights of docs/operate/kafka.md";
        let found = Finding { backend: NAME, ok: false, message, help: Some(help.to_owned()) };
        return with_differences(found, &checked);
    }
    let of = |name: &str| {
        let topic = kafka.named(name);
        reports.iter().find(|report| report.topic == topic)?.partitions
    };
    let missing = (!missing.is_empty()).then(|| "the first node creates them".to_owned());
    let set = settings.written_log_partitions();
    let found = partitions(set, of(EVENTS), of(FEED), message, missing);
    with_differences(found, &checked)
}

/// Adds to the finding about topics how their settings differ from those that they need. It is not ok if a node would
/// not start with them.
fn with_differences(found: Finding, checked: &[(TopicReport, TopicDifferences)]) -> Finding {
    let mut lines = vec![found.message];
    let mut help: Vec<String> = found.help.into_iter().collect();
    let mut is_refused = false;
    for (report, differences) in checked {
        let TopicDifferences { refused, warnings, help: correct } = differences;
        is_refused |= !refused.is_empty();
        lines
            .extend(refused.iter().chain(warnings).map(|text| format!("{}: {text}", report.topic)));
        help.extend((!correct.is_empty()).then(|| correct.clone()));
    }
    let help = (!help.is_empty()).then(|| help.join("; "));
    Finding { ok: found.ok && !is_refused, message: lines.join("; "), help, ..found }
}

/// The finding about topics that work, with what their numbers of partitions mean: `set` is the setting, if it is
/// written in the spec; `None` is a topic that does not exist.
fn partitions(
    set: Option<u32>,
    events: Option<u32>,
    feed: Option<u32>,
    message: String,
    help: Option<String>,
) -> Finding {
    let found = Finding { backend: "log", ok: true, message, help };
    let Some(events) = events else { return found };
    if let Some(feed) = feed.filter(|feed| *feed < events) {
        let error = BackendError::FeedPartitions { events, feed };
        return Finding::failed(found.backend, &error, "see docs/operate/kafka.md");
    }
    match unused_partitions(set, events) {
        Some(unused) => Finding { message: format!("{}; {unused}", found.message), ..found },
        None => found,
    }
}

async fn objects(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "objects";
    let ObjectsSettings::Bucket(bucket) = &settings.objects else {
        return Finding::ok_with(NAME, "files of the data directory");
    };
    let help = "check name, endpoint, region and keys in node.bucket; the keys need to get, put, \
                list and delete objects";
    bucket_finding(NAME, &bucket.name, bucket_options(env, bucket), help).await
}

/// The bucket of ingested rows, if they are in one.
async fn lake(settings: &NodeSettings, env: &Environment) -> Option<Finding> {
    let bucket = settings.lake_bucket.as_ref()?;
    let help = "check name, endpoint, region and keys in node.lake; the keys need to get, put, \
                list and delete objects";
    Some(bucket_finding("lake", &bucket.name, lake_options(bucket, env), help).await)
}

/// Whether a node can work with a bucket.
async fn bucket_finding(
    backend: &'static str,
    name: &str,
    options: Result<BucketOptions, BackendError>,
    help: &str,
) -> Finding {
    let checked = async {
        let folder = format!("throng-check-{backend}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let options = options?;
        let objects = BucketObjects::open(folder.clone(), &options)?;
        let checked = objects.check(&format!("{:016x}", SystemEntropy.next_u64())).await;
        // A folder of local copies, which is empty.
        let _ = std::fs::remove_dir_all(folder);
        checked.map_err(BackendError::from)
    };
    match checked.await {
        Ok(()) => Finding::ok_with(
            backend,
            format!("bucket {name}: write, conditional write, read, list, remove"),
        ),
        Err(error) => {
            let mut finding = Finding::failed(backend, &error, help);
            if finding.message.contains("RequestTimeTooSkewed") {
                finding.help = Some("synchronize the clock of this machine with NTP".to_owned());
            }
            finding
        }
    }
}

/// Migrates the ledger's tables without starting a node. Returns a description of the ledger.
///
/// # Errors
/// [`BackendError`]: the ledger cannot be reached, or a newer version of Throng created it.
pub async fn migrate(
    settings: &NodeSettings,
    data_dir: Option<&Path>,
    env: &Environment,
) -> Result<String, BackendError> {
    match (&settings.ledger, data_dir) {
        (LedgerSettings::Postgres { url, insecure, .. }, _) => {
            let url = ledger_url(env, url, *insecure)?;
            PostgresLedger::open(&url, 2).await?;
            let status = PostgresLedger::inspect(&url).await?;
            Ok(format!("PostgreSQL {}, tables of version {}", status.server, status.newest))
        }
        (LedgerSettings::Sqlite, Some(dir)) => {
            let path = dir.join("ledger.db");
            std::fs::metadata(&path)
                .map_err(BackendError::io("find the ledger", path.display()))?;
            SqliteLedger::open(&path).await?;
            Ok(format!("{} is up to date", path.display()))
        }
        (LedgerSettings::Sqlite, None) => Err(BackendError::NoDirectory),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throng_spec::{SecretRef, ServiceSettings, SourceBucket};

    use super::*;

    #[tokio::test]
    async fn the_bucket_of_ingested_rows_is_checked() {
        let env: Environment = Arc::new(|_: &str| None::<String>);
        assert!(lake(&NodeSettings::default(), &env).await.is_none());
        let service =
            ServiceSettings::Gcs { service_account: Some(SecretRef::Env("ABSENT".to_owned())) };
        let (name, prefix) = ("b".to_owned(), String::new());
        let lake_bucket = Some(SourceBucket { name, prefix, max_bytes: 1, service });
        let settings = NodeSettings { lake_bucket, ..NodeSettings::default() };
        let found = check_backends(&settings, &env).await;
        let lake = found.iter().find(|finding| finding.backend == "lake").unwrap();
        assert!(!lake.ok && lake.message.contains("node.lake.gcs.service_account"), "{lake:?}");
        assert!(lake.help.as_ref().is_some_and(|help| help.contains("node.lake")), "{lake:?}");
    }

    #[test]
    fn settings_of_topics_are_found_with_what_corrects_them() {
        let topic = |name: &str, refused: &[&str], warnings: &[&str], help: &str| {
            let owned = |texts: &[&str]| -> Vec<String> {
                texts.iter().map(|&text| text.to_owned()).collect()
            };
            let report = TopicReport { topic: name.to_owned(), partitions: Some(1), refusal: None };
            let (refused, warnings) = (owned(refused), owned(warnings));
            (report, TopicDifferences { refused, warnings, help: help.to_owned() })
        };
        let works = || Finding::ok_with("log", "Kafka responds");
        let same = with_differences(works(), &[topic("t.events", &[], &[], "")]);
        assert_eq!(same, works());
        let warned = topic("t.feed", &[], &["retention.ms is 1"], "run `b`");
        let found = with_differences(works(), std::slice::from_ref(&warned));
        assert!(found.ok, "{found:?}");
        assert_eq!(found.message, "Kafka responds; t.feed: retention.ms is 1");
        let refused = topic("t.events", &["cleanup.policy is x"], &["more"], "run `a`");
        let found = with_differences(works(), &[refused, warned]);
        assert!(!found.ok, "{found:?}");
        let text = "t.events: cleanup.policy is x; t.events: more; t.feed: retention.ms is 1";
        assert_eq!(found.message, format!("Kafka responds; {text}"));
        assert_eq!(found.help.as_deref(), Some("run `a`; run `b`"));
    }

    #[test]
    fn a_number_of_partitions_without_effect_is_found() {
        let of = |set, events, feed| partitions(set, events, feed, "topics".to_owned(), None);
        for (events, feed) in
            [(None, None), (Some(4), None), (Some(4), Some(4)), (Some(4), Some(9))]
        {
            let found = of(Some(4), events, feed);
            assert!(found.ok && found.message == "topics", "{found:?}");
        }
        let default = of(None, Some(12), Some(12));
        assert!(default.ok && default.message == "topics", "nobody has set it: {default:?}");
        let unused = of(Some(8), Some(12), Some(12));
        assert!(unused.ok, "{unused:?}");
        let text = "node.log_partitions is 8 and has no effect: the event log was created with 12 partitions";
        assert!(unused.message.contains(text), "{unused:?}");
        let feed = of(Some(4), Some(4), Some(2));
        assert!(!feed.ok && feed.message.contains("4 partitions"), "{feed:?}");
        assert!(feed.message.contains("the feed has 2"), "{feed:?}");
    }
}
