//! How a process runs: its roles, and where it keeps what.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use throng_model::{Role, UnknownRole};

use crate::SecretRef;

/// Where states are kept.
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
        /// Connections, at most; 10 unless set.
        connections: u32,
        /// Whether a password may go to another machine unencrypted.
        #[serde(default)]
        insecure: bool,
    },
}

/// Who this process is to Kafka.
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
    /// `host:port` of some brokers, with commas between them.
    pub brokers: String,
    /// Put before the names of topics and groups; `throng` unless set.
    pub prefix: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Certificates that the brokers' are signed with, absolute; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// Who this process is, if the brokers ask.
    pub sasl: Option<SaslSettings>,
    /// After how long a silent process loses its share, in milliseconds; 6,000 unless set. The
    /// brokers' `group.min.session.timeout.ms` is the least.
    pub session_ms: u32,
    /// Whether a password may go to brokers on other machines unencrypted.
    #[serde(default)]
    pub insecure: bool,
}

/// Where events and the feed go, and how work reaches workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSettings {
    /// Files of the data directory.
    #[default]
    Files,
    /// Topics of a Kafka cluster.
    Kafka(KafkaSettings),
}

/// The service that a bucket is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Amazon S3, or a server with its API.
    S3 {
        /// The server; `None` for Amazon's own.
        endpoint: Option<String>,
        /// The region; `us-east-1` unless set.
        region: String,
        /// Access key and secret key; `None` for the credentials of the machine.
        keys: Option<(SecretRef, SecretRef)>,
        /// Certificates of authorities that the server's may come from, besides the system's: a PEM
        /// file.
        ca_file: Option<PathBuf>,
        /// Whether the server may be on another machine without TLS.
        #[serde(default)]
        insecure: bool,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The JSON key of a service account; `None` for the credentials of the machine.
        service_account: Option<SecretRef>,
    },
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketSettings {
    /// Its name.
    pub name: String,
    /// Put before the names of objects, without `/` at its ends; empty unless set.
    pub prefix: String,
    /// Local copies may take so many bytes besides those in use; 10 GiB unless set.
    pub cache_bytes: u64,
    /// Where it is.
    pub service: Service,
}

/// Where snapshots, parts and checkpoints are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectsSettings {
    /// In the data directory.
    #[default]
    Directory,
    /// In a bucket, with local copies in the data directory.
    Bucket(BucketSettings),
}

/// The certificate that a node shows to callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// A PEM file of the node's certificate and those between it and its authority, absolute.
    pub cert_file: PathBuf,
    /// A PEM file of its key, absolute.
    pub key_file: PathBuf,
}

/// How many connections callers may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSettings {
    /// In total; 8,192 unless set. Less if the limit of open files leaves less.
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

/// How urgent an alert must be for a receiver to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertSeverity {
    /// Something waits for a person's decision.
    #[default]
    Warning,
    /// Something does not work.
    Critical,
}

/// A receiver of alerts: each is sent there by HTTP POST, signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// Its name in the ledger, in metrics and to people; the host of the URL unless set.
    pub name: String,
    /// Where to: `https://…`, or `http://…` on this machine. It is part of the applied spec, which
    /// operators see: no place for a secret.
    pub url: String,
    /// What requests are signed with.
    pub secret: SecretRef,
    /// The least urgent alerts that it gets; `warning` unless set.
    pub min_severity: AlertSeverity,
    /// For how long an event that it does not accept is tried again, in hours; 24 unless set.
    pub retry_hours: u32,
}

/// How the process runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Where the API and the page listen; 127.0.0.1:7077 unless set.
    pub listen: SocketAddr,
    /// A token with every right, besides those that the node and its administrators create.
    pub token: Option<SecretRef>,
    /// The keys that identifiers which platforms were given are encrypted with: 64 hexadecimal digits
    /// on each line, the newest first. Without it an embedded node has its own, in its data directory.
    #[serde(default)]
    pub identifiers_key: Option<SecretRef>,
    /// The certificate for HTTPS; `None` for plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// Whether plain HTTP may be spoken on an address that others can reach.
    #[serde(default)]
    pub insecure: bool,
    /// How many connections callers may have open.
    #[serde(default)]
    pub connections: ConnectionSettings,
    /// The URL that people and programs use: scheme, host and port, such as
    /// `https://ads.example.com`. Its host is answered, links lead there, and cookies are `Secure`
    /// if it is https.
    #[serde(default)]
    pub public_url: Option<String>,
    /// More names that requests may have in `Host`: `relay`, `relay:7077`. Without a port, every
    /// port.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// What this process does; everything unless set.
    #[serde(default = "all_roles")]
    pub roles: Vec<Role>,
    /// Where states are kept; SQLite unless set.
    #[serde(default)]
    pub ledger: LedgerSettings,
    /// Where events go; files unless set.
    #[serde(default)]
    pub log: LogSettings,
    /// Where snapshots go; the data directory unless set.
    #[serde(default)]
    pub objects: ObjectsSettings,
    /// The most that queries hold in memory before they spill, in bytes; 2 GiB unless set.
    pub memory_limit_bytes: u64,
    /// Where queries spill, absolute; `None` means below the data directory.
    pub spill_dir: Option<PathBuf>,
    /// The longest time of one query, and of the work on one refresh, in seconds; 14,400 (4 hours)
    /// unless set.
    #[serde(default = "query_timeout_secs")]
    pub query_timeout_secs: u32,
    /// Audiences built at the same time; 2 unless set.
    pub build_workers: u32,
    /// Tasks sent at the same time; 4 unless set.
    pub activation_workers: u32,
    /// Parts of the event log; 4 unless set.
    pub log_partitions: u32,
    /// How much of the event log in files is kept besides what a restart needs.
    #[serde(default)]
    pub log_retention: LogRetention,
    /// How many hours the id of an event is known, 1 to 168; 24 unless set. Older events are refused.
    #[serde(default = "dedupe_hours", skip_serializing_if = "is_dedupe_hours")]
    pub dedupe_hours: u32,
    /// With fewer bytes free on the disk of the event log, events are refused; 1 GiB, or 5 % of the
    /// disk if that is less, unless set.
    #[serde(default)]
    pub min_free_disk_bytes: Option<u64>,
    /// How often budget states go out, in milliseconds; 1,000 unless set.
    pub feed_interval_ms: u32,
    /// The largest body of a request, in bytes; 8 MiB unless set.
    pub max_request_bytes: u64,
    /// The longest time for a request, without waiting for its body, in seconds; 30 unless set.
    pub request_timeout_secs: u32,
    /// Receivers of alerts; none unless set.
    #[serde(default)]
    pub alerts: Vec<WebhookSettings>,
}

/// How much of the event log in files is kept besides what a restart needs, for reprocessing and for a
/// look at what happened. A topic in Kafka has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRetention {
    /// At most so many bytes of each partition; 1 GiB unless set.
    pub bytes: u64,
    /// At most so many hours; 72 unless set.
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
    /// Whether any number of processes can work together: nothing that counts is on this machine
    /// only.
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
            query_timeout_secs: query_timeout_secs(),
            build_workers: 2,
            activation_workers: 4,
            log_partitions: 4,
            log_retention: LogRetention::default(),
            dedupe_hours: dedupe_hours(),
            min_free_disk_bytes: None,
            feed_interval_ms: 1000,
            max_request_bytes: 8 << 20,
            request_timeout_secs: 30,
            alerts: Vec::new(),
        }
    }
}
