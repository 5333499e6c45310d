//! The settings of a process: its roles, and its backends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_model::Severity;

pub use throng_model::{Role, UnknownRole};

use crate::{SecretRef, ServiceSettings, SourceBucket};

/// Where state is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerSettings {
    /// In a file of the data directory.
    #[default]
    Sqlite,
    /// On a PostgreSQL server.
    Postgres {
        /// Its URL, which holds the password.
        url: SecretRef,
        /// The maximum number of connections; 10 unless set.
        connections: u32,
        /// Whether a password may be sent to another machine unencrypted.
        #[serde(default)]
        insecure: bool,
    },
}

/// The SASL credentials for Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaslSettings {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// Its password.
    pub password: SecretRef,
}

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The prefix of the names of topics and consumer groups; `throng` unless set.
    pub prefix: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Certificates that the brokers' are signed with, absolute; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// The credentials, if the brokers require some.
    pub sasl: Option<SaslSettings>,
    /// The session timeout of consumer groups, after which a silent process loses its assignment,
    /// in milliseconds; 6,000 unless set. The brokers' `group.min.session.timeout.ms` is the
    /// minimum.
    pub session_ms: u32,
    /// Whether a password may be sent to brokers on other machines unencrypted.
    #[serde(default)]
    pub insecure: bool,
}

/// Where events, the feed and queued work are stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSettings {
    /// Files of the data directory.
    #[default]
    Files,
    /// Topics of a Kafka cluster.
    Kafka(KafkaSettings),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketSettings {
    /// Its name.
    pub name: String,
    /// The prefix of the names of objects, without leading and trailing `/`; empty unless set.
    pub prefix: String,
    /// The most bytes of local copies, not counting those in use; 10 GiB unless set.
    pub cache_bytes: u64,
    /// Its service.
    pub service: ServiceSettings,
}

/// Where snapshots, parts and checkpoints are stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectsSettings {
    /// In the data directory.
    #[default]
    Directory,
    /// In a bucket, with local copies in the data directory.
    Bucket(BucketSettings),
}

/// What a process of a Ballista cluster proves itself with to the others: absolute paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BallistaTls {
    /// The certificate authority of the cluster.
    pub ca_file: PathBuf,
    /// The certificate of this process, signed by it, for the name `throng-ballista`.
    pub cert_file: PathBuf,
    /// The key of the certificate.
    pub key_file: PathBuf,
}

/// A Ballista cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BallistaSettings {
    /// The host of its scheduler; an IPv6 address is without brackets.
    pub host: String,
    /// The port of its scheduler.
    pub port: u16,
    /// `None` for a cluster on this machine without encryption.
    pub tls: Option<BallistaTls>,
    /// Into how many partitions a query divides its work; 16 unless set.
    pub partitions: u32,
    /// Whether its executors read the objects of sources in buckets themselves.
    #[serde(default)]
    pub buckets: bool,
}

/// Which engine runs SQL over folders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineSettings {
    /// DataFusion in query workers.
    #[default]
    Process,
    /// The same; models that are not divided into parts run on a Ballista cluster.
    Ballista(BallistaSettings),
}

impl EngineSettings {
    fn is_process(&self) -> bool {
        *self == Self::Process
    }
}

/// The certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// The absolute path of a PEM file with the node's certificate and the intermediate
    /// certificates.
    pub cert_file: PathBuf,
    /// The absolute path of a PEM file with its key.
    pub key_file: PathBuf,
}

/// How many connections clients may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSettings {
    /// In total; 8,192 unless set. Lower if the limit of open files requires it.
    pub total: u32,
    /// From one IPv4 address or one /64 network of IPv6, except this machine's own; 2,048 unless
    /// set.
    pub per_address: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self { total: 8192, per_address: 2048 }
    }
}

/// A receiver of alerts, which are sent there by signed HTTP POST requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// Its name in the ledger, in metrics and in messages; the host of the URL unless set.
    pub name: String,
    /// Its URL: `https://…`, or `http://…` on this machine. It is part of the applied spec, which
    /// operators can read, so it must not contain a secret.
    pub url: String,
    /// The secret that requests are signed with.
    pub secret: SecretRef,
    /// The lowest severity of alerts that it receives; `warning` unless set.
    pub min_severity: Severity,
    /// How long an event that it does not accept is retried, in hours; 24 unless set.
    pub retry_hours: u32,
}

/// The settings of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Where the API and the page listen; 127.0.0.1:7077 unless set.
    pub listen: SocketAddr,
    /// A token with every right, besides those that the node and its administrators create.
    pub token: Option<SecretRef>,
    /// The keys with which identifiers that were sent to platforms are encrypted: 64 hexadecimal
    /// digits per line, the newest first. Without it an embedded node has its own key, in its data
    /// directory.
    #[serde(default)]
    pub identifiers_key: Option<SecretRef>,
    /// The certificate for HTTPS; `None` for plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// Whether plain HTTP is allowed on an address that others can reach.
    #[serde(default)]
    pub insecure: bool,
    /// How many connections clients may have open.
    #[serde(default)]
    pub connections: ConnectionSettings,
    /// The URL that people and programs use: scheme, host and port, such as
    /// `https://ads.example.com`. Requests for its host are accepted, links lead there, and cookies
    /// are `Secure` if it is https.
    #[serde(default)]
    pub public_url: Option<String>,
    /// More hosts that requests may have in `Host`: `relay`, `relay:7077`. Without a port, any
    /// port.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// The roles of this process; all unless set.
    #[serde(default = "all_roles")]
    pub roles: Vec<Role>,
    /// Where state is stored; SQLite unless set.
    #[serde(default)]
    pub ledger: LedgerSettings,
    /// Where events are stored; files unless set.
    #[serde(default)]
    pub log: LogSettings,
    /// Where snapshots are stored; the data directory unless set.
    #[serde(default)]
    pub objects: ObjectsSettings,
    /// The most that queries hold in memory before they spill, in bytes; 2 GiB unless set.
    pub memory_limit_bytes: u64,
    /// Where queries spill, absolute; `None` means below the data directory.
    pub spill_dir: Option<PathBuf>,
    /// The folder of ingested rows, absolute, or the URL of [`NodeSettings::lake_bucket`]; `None` means that the node
    /// ingests nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake: Option<PathBuf>,
    /// The bucket of ingested rows, if they are not in a folder. Each workspace has a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake_bucket: Option<SourceBucket>,
    /// Which engine runs SQL over folders; DataFusion in query workers unless set.
    #[serde(default, skip_serializing_if = "EngineSettings::is_process")]
    pub engine: EngineSettings,
    /// The longest time of one query, and of the work on one refresh, in seconds; 14,400 (4 hours)
    /// unless set.
    #[serde(default = "query_timeout_secs")]
    pub query_timeout_secs: u32,
    /// Audiences over folders and buckets that are built at the same time; 2 unless set.
    pub build_workers: u32,
    /// Audiences whose SQL a warehouse runs that are built at the same time, besides those of `build_workers`; 4 unless
    /// set. Most of their time they wait for the warehouse.
    #[serde(default = "warehouse_workers", skip_serializing_if = "is_warehouse_workers")]
    pub warehouse_workers: u32,
    /// Tasks sent at the same time; 4 unless set.
    pub activation_workers: u32,
    /// Partitions of the event log; 4 unless set.
    pub log_partitions: u32,
    /// Whether somebody has set them.
    #[serde(skip)]
    pub log_partitions_are_written: IsWritten,
    /// How much of the event log in files is retained besides what a restart needs.
    #[serde(default)]
    pub log_retention: LogRetention,
    /// How many hours the id of an event is remembered, 1 to 168; 24 unless set. Older events are
    /// refused.
    #[serde(default = "dedupe_hours", skip_serializing_if = "is_dedupe_hours")]
    pub dedupe_hours: u32,
    /// With fewer bytes free on the disk of the event log, events are refused; 1 GiB, or 5 % of the
    /// disk if that is less, unless set.
    #[serde(default)]
    pub min_free_disk_bytes: Option<u64>,
    /// How often budget states are published, in milliseconds; 1,000 unless set.
    pub feed_interval_ms: u32,
    /// The largest body of a request, in bytes; 8 MiB unless set.
    pub max_request_bytes: u64,
    /// The longest time for a request, without waiting for its body, in seconds; 30 unless set.
    pub request_timeout_secs: u32,
    /// Receivers of alerts; none unless set.
    #[serde(default)]
    pub alerts: Vec<WebhookSettings>,
    /// Whether budgets raise alerts: at 80 % and 100 % of one, and at overdelivery; and silent gates and a stale feed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub budget_alerts: bool,
    /// After how many minutes without a report a gate is silent, 1 to 30; 5 unless set.
    #[serde(default = "gate_silent_minutes", skip_serializing_if = "is_gate_silent_minutes")]
    pub gate_silent_minutes: u32,
}

/// Whether a setting is in the text of the spec. Known to the process that has read the text only: it is not stored, and
/// makes no difference between settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct IsWritten(pub bool);

impl PartialEq for IsWritten {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// How much of the event log in files is retained besides what a restart needs, for reprocessing
/// and for analysis. A topic in Kafka has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRetention {
    /// The most bytes of each partition; 1 GiB unless set.
    pub bytes: u64,
    /// The most hours; 72 unless set.
    pub hours: u32,
}

impl Default for LogRetention {
    fn default() -> Self {
        Self { bytes: 1 << 30, hours: 72 }
    }
}

fn query_timeout_secs() -> u32 {
    14_400
}

fn all_roles() -> Vec<Role> {
    Role::ALL.to_vec()
}

impl NodeSettings {
    /// The partitions of the event log that the spec asks for; `None` if it says nothing, or was not read by this process.
    pub fn written_log_partitions(&self) -> Option<u32> {
        self.log_partitions_are_written.0.then_some(self.log_partitions)
    }

    /// Whether several processes can work together: no backend is local to this machine.
    pub fn is_shared(&self) -> bool {
        self.ledger != LedgerSettings::Sqlite
            && self.log != LogSettings::Files
            && self.objects != ObjectsSettings::Directory
    }
}

fn dedupe_hours() -> u32 {
    24
}

fn is_dedupe_hours(hours: &u32) -> bool {
    *hours == dedupe_hours()
}

fn warehouse_workers() -> u32 {
    4
}

fn is_warehouse_workers(workers: &u32) -> bool {
    *workers == warehouse_workers()
}

fn gate_silent_minutes() -> u32 {
    5
}

fn is_gate_silent_minutes(minutes: &u32) -> bool {
    *minutes == gate_silent_minutes()
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7077)),
            token: None,
            identifiers_key: None,
            tls: None,
            insecure: false,
            connections: ConnectionSettings::default(),
            public_url: None,
            allowed_hosts: Vec::new(),
            roles: all_roles(),
            ledger: LedgerSettings::Sqlite,
            log: LogSettings::Files,
            objects: ObjectsSettings::Directory,
            memory_limit_bytes: 2 << 30,
            spill_dir: None,
            lake: None,
            lake_bucket: None,
            engine: EngineSettings::Process,
            query_timeout_secs: query_timeout_secs(),
            build_workers: 2,
            warehouse_workers: warehouse_workers(),
            activation_workers: 4,
            log_partitions: 4,
            log_partitions_are_written: IsWritten(false),
            log_retention: LogRetention::default(),
            dedupe_hours: dedupe_hours(),
            min_free_disk_bytes: None,
            feed_interval_ms: 1000,
            max_request_bytes: 8 << 20,
            request_timeout_secs: 30,
            alerts: Vec::new(),
            budget_alerts: false,
            gate_silent_minutes: gate_silent_minutes(),
        }
    }
}
