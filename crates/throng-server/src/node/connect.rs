//! `throng check --connect` and `throng migrate`: tries every backend without starting a node.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use throng_ledger::{PostgresLedger, SqliteLedger};
use throng_log::check_brokers;
use throng_model::{Clock, Entropy as _, SystemClock, SystemEntropy};
use throng_objects::BucketObjects;
use throng_spec::{LedgerSettings, LogSettings, NodeSettings, ObjectsSettings};

use super::backends::{
    CHECKS, DEAD, EVENTS, FEED, KEYFRAMES, TASKS, bucket_settings, kafka_settings, ledger_url,
};
use super::{Environment, NodeError, consistency};

/// Clocks further apart than this are told: leases and budget days go by them.
const SKEW: Duration = Duration::from_secs(1);

/// What is known about one backend now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `ledger`, `log`, `objects`, `snapshots` (ledger and bucket compared), `checkpoints` (bucket
    /// and Kafka compared) or `roles`.
    pub backend: &'static str,
    /// Whether a node could work with it.
    pub ok: bool,
    /// What was found, in one line.
    pub says: String,
    /// The mend, if something is to be mended.
    pub help: Option<String>,
}

impl Finding {
    pub(super) fn good(backend: &'static str, says: impl Into<String>) -> Self {
        Self { backend, ok: true, says: says.into(), help: None }
    }

    pub(super) fn bad(backend: &'static str, error: &dyn std::error::Error, help: &str) -> Self {
        let says = throng_model::with_causes(error);
        Self { backend, ok: false, says, help: Some(help.to_owned()) }
    }
}

/// Tries every backend that the settings name, and whether they belong together. Changes nothing but a small object of its own in the
/// bucket, which it removes again. Takes up to half a minute where nobody answers.
pub async fn check_backends(settings: &NodeSettings, env: &Environment) -> Vec<Finding> {
    let (ledger, log, objects) =
        tokio::join!(ledger(settings, env), log(settings, env), objects(settings, env));
    let mut findings = vec![ledger, log, objects];
    if findings.iter().all(|finding| finding.ok) {
        findings.extend(consistency::check(settings, env).await);
    }
    if !settings.is_shared() && settings.ledger != LedgerSettings::Sqlite {
        findings.push(Finding {
            backend: "roles",
            ok: true,
            says: "one node only: not everything is shared".to_owned(),
            help: Some("for more nodes share ledger, log and objects".to_owned()),
        });
    }
    findings
}

async fn ledger(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "ledger";
    let LedgerSettings::Postgres { url, insecure, .. } = &settings.ledger else {
        return Finding::good(NAME, "SQLite, a file of the data directory");
    };
    let url = match ledger_url(env, url, *insecure) {
        Ok(url) => url,
        Err(error @ NodeError::UnencryptedLedger) => {
            return Finding::bad(NAME, &error, "add ?sslmode=verify-full to the URL");
        }
        Err(error) => return Finding::bad(NAME, &error, "set what node.ledger_url names"),
    };
    let look = match PostgresLedger::look(&url).await {
        Ok(look) => look,
        Err(error) => {
            let help = "check host, port, user and password in what node.ledger_url names, and \
                        that the server lets this machine in (pg_hba.conf)";
            return Finding::bad(NAME, &error, help);
        }
    };
    let server = format!("PostgreSQL {}", look.server);
    let now = SystemClock.now();
    let skew = now.since(look.now).max(look.now.since(now));
    if skew > SKEW {
        return Finding {
            backend: NAME,
            ok: false,
            says: format!("{server}; its clock and this machine's are {skew:.1?} apart"),
            help: Some("let both follow a time server".to_owned()),
        };
    }
    if !look.may_create && look.schema.is_none_or(|found| found < look.newest) {
        return Finding {
            backend: NAME,
            ok: false,
            says: format!("{server}; this user may not make the tables that are missing"),
            help: Some(
                "give the user CREATE on the schema (CREATEDB where the data base is missing), or \
                 run `throng migrate` as one who has it"
                    .to_owned(),
            ),
        };
    }
    match look.schema {
        None => Finding::good(NAME, format!("{server}; no tables yet, the first node makes them")),
        Some(found) if found > look.newest => Finding {
            backend: NAME,
            ok: false,
            says: format!(
                "{server}; a newer version of throng made its tables ({found}, this one knows {})",
                look.newest
            ),
            help: Some("upgrade throng here".to_owned()),
        },
        Some(found) if found < look.newest => Finding {
            backend: NAME,
            ok: true,
            says: format!("{server}; tables of version {found}, {} is the newest", look.newest),
            help: Some("`throng migrate`, or let the first new node do it".to_owned()),
        },
        Some(found) => Finding::good(NAME, format!("{server}; tables of version {found}")),
    }
}

async fn log(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "log";
    let LogSettings::Kafka(kafka) = &settings.log else {
        return Finding::good(NAME, "files of the data directory");
    };
    let kafka = match kafka_settings(env, kafka) {
        Ok(kafka) => kafka,
        Err(error) => return Finding::bad(NAME, &error, "set what node.kafka.password names"),
    };
    let topics = [EVENTS, FEED, KEYFRAMES, TASKS, CHECKS, DEAD];
    let reports = match check_brokers(&kafka, &topics).await {
        Ok(reports) => reports,
        Err(error) => return Finding::bad(NAME, &error, "see docs/operate/kafka.md"),
    };
    let of = |there: bool| -> Vec<&str> {
        let found = reports.iter().filter(|r| r.partitions.is_some() == there);
        found.map(|r| r.topic.as_str()).collect()
    };
    let (there, missing) = (of(true), of(false));
    let says = match (there.is_empty(), missing.is_empty()) {
        (_, true) => format!("Kafka answers; topics {}", there.join(", ")),
        (true, _) => "Kafka answers; no topics yet".to_owned(),
        _ => format!("Kafka answers; topics {}, but not {}", there.join(", "), missing.join(", ")),
    };
    if let Some(refusal) = reports.iter().find_map(|report| report.refusal.as_ref()) {
        let says = format!("{says}; they cannot be made from here: {refusal}");
        let help = "create the topics, or give the user the rights of docs/operate/kafka.md";
        return Finding { backend: NAME, ok: false, says, help: Some(help.to_owned()) };
    }
    let help = (!missing.is_empty()).then(|| "the first node makes them".to_owned());
    Finding { backend: NAME, ok: true, says, help }
}

async fn objects(settings: &NodeSettings, env: &Environment) -> Finding {
    const NAME: &str = "objects";
    let ObjectsSettings::Bucket(bucket) = &settings.objects else {
        return Finding::good(NAME, "files of the data directory");
    };
    let checked = async {
        let settings = bucket_settings(env, bucket)?;
        let folder = std::env::temp_dir().join(format!("throng-check-{}", std::process::id()));
        let objects = BucketObjects::open(folder.clone(), &settings)?;
        let checked = objects.check(&format!("{:016x}", SystemEntropy.next_u64())).await;
        // It held nothing.
        let _ = std::fs::remove_dir_all(folder);
        checked.map_err(NodeError::from)
    };
    match checked.await {
        Ok(()) => Finding::good(
            NAME,
            format!("bucket {}: write, write under a condition, read, list, remove", bucket.name),
        ),
        Err(error) => {
            let help = "check name, endpoint, region and keys in node.bucket; the keys need to get, \
                        put, list and delete objects";
            let mut finding = Finding::bad(NAME, &error, help);
            if finding.says.contains("RequestTimeTooSkewed") {
                finding.help = Some("let this machine follow a time server".to_owned());
            }
            finding
        }
    }
}

/// Brings the ledger's tables up to date without starting a node. Returns what it is.
///
/// # Errors
/// [`NodeError`]: the ledger cannot be reached, or a newer version of Throng made it.
pub async fn migrate(
    settings: &NodeSettings,
    data_dir: Option<&Path>,
    env: &Environment,
) -> Result<String, NodeError> {
    match (&settings.ledger, data_dir) {
        (LedgerSettings::Postgres { url, insecure, .. }, _) => {
            let url = ledger_url(env, url, *insecure)?;
            PostgresLedger::open(&url, 2).await?;
            let look = PostgresLedger::look(&url).await?;
            Ok(format!("PostgreSQL {}, tables of version {}", look.server, look.newest))
        }
        (LedgerSettings::Sqlite, Some(dir)) => {
            let path = dir.join("ledger.db");
            std::fs::metadata(&path).map_err(NodeError::io("find the ledger", path.display()))?;
            SqliteLedger::open(&path).await?;
            Ok(format!("{} is up to date", path.display()))
        }
        (LedgerSettings::Sqlite, None) => Err(NodeError::NoDirectory),
    }
}
