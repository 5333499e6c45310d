//! The form that people write, for the JSON schema that editors use. `throng_spec::load` does not read
//! through these types, because they would stop at the first mistake; a test keeps both in step.

mod alert;
mod destination;
mod engine;
mod lake;
mod source;
mod store;
mod template;
mod workspace;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use throng_schema::RawSchema;

pub use alert::{RawAlertReceiver, RawAlertSeverity, RawWebhook};
pub use destination::{RawDestination, RawFileFormat};
pub use engine::{RawBallista, RawEngine};
pub use lake::{RawLake, RawLakeSettings};
pub use source::{RawGcs, RawS3, RawSource};
pub use store::{RawServingStore, RawStoreAudiences, RawStoreLayout};
pub use template::{RawForEach, RawForEachSettings, RawWhenRemoved};
pub use workspace::RawWorkspace;

/// A Throng spec file. Several files of one folder are read as one spec.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSpec {
    /// The version of the spec language: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Folders and buckets with data: each file or subfolder is a table.
    #[serde(default)]
    pub sources: Vec<RawSource>,
    /// Records that are ingested: each becomes a table of the source `lake`.
    #[serde(default)]
    pub schemas: Vec<RawSchema>,
    /// Named sets of users, each defined by SQL.
    #[serde(default)]
    pub audiences: Vec<RawAudience>,
    /// Accounts on ad platforms, and folders for files.
    #[serde(default)]
    pub destinations: Vec<RawDestination>,
    /// Which audience is kept on which destination.
    #[serde(default)]
    pub syncs: Vec<RawSync>,
    /// Key-value stores of your own that get the members of audiences.
    #[serde(default)]
    pub serving_stores: Vec<RawServingStore>,
    /// Clients, each with objects of its own that no other one sees.
    #[serde(default)]
    pub workspaces: Vec<RawWorkspace>,
    /// Who pays for ad groups.
    #[serde(default)]
    pub advertisers: Vec<RawAdvertiser>,
    /// Ad groups of one advertiser that belong together.
    #[serde(default)]
    pub campaigns: Vec<RawCampaign>,
    /// What is shown, to whom, for how much. Also accepted as `line_items` or `ad_sets`.
    #[serde(default, alias = "line_items", alias = "ad_sets")]
    pub ad_groups: Vec<RawAdGroup>,
    /// How the process itself runs; in one file only.
    pub node: Option<RawNode>,
}

/// A set of users.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAudience {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// A description for people.
    pub description: Option<String>,
    /// The warehouse that runs the SQL; without it, Throng does, over folders.
    pub source: Option<String>,
    /// One SELECT over tables named `<source>.<table>`, or in the dialect of `source`.
    pub sql: String,
    /// The column with the user key; not needed if the SELECT has one column.
    pub key: Option<String>,
    /// When to refresh; without it, only on request.
    pub schedule: Option<RawSchedule>,
    /// Hours after its last refresh from which on the audience is overdue (two times of its schedule).
    #[schemars(range(min = 1, max = 8760))]
    pub max_age_hours: Option<u32>,
    /// Which snapshots are held for approval.
    pub guard: Option<RawGuard>,
    /// How many published snapshots are kept (10).
    #[schemars(range(min = 1, max = 1000))]
    pub keep_snapshots: Option<u32>,
    /// Makes one audience for every row of a query; `name` and `description` have its columns in braces, `sql` has
    /// them as `$column`.
    pub for_each: Option<RawForEach>,
}

/// When an audience is refreshed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSchedule {
    /// Minute, hour, day of month, month, day of week, such as `0 3 * * *`; required without `on`.
    pub cron: Option<String>,
    /// An IANA time zone (UTC).
    pub time_zone: Option<String>,
    /// What starts a refresh, besides `cron`.
    pub on: Option<RawScheduleEvent>,
    /// Seconds between two polls of the files, with `on: source_changed` (60).
    #[schemars(range(min = 5, max = 86400))]
    pub poll_secs: Option<u32>,
    /// A file such as `_SUCCESS` that must be newer than the files, with `on: source_changed`.
    pub success_file: Option<String>,
}

/// What starts a refresh.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawScheduleEvent {
    /// Files of the tables that the SQL reads, or the identifiers of the audience's syncs, were added, removed, replaced
    /// or written; not with `source`.
    SourceChanged,
}

/// A snapshot outside of these limits is held for approval.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawGuard {
    /// The largest loss in percent (50).
    #[schemars(range(max = 100))]
    pub max_shrink_percent: Option<u32>,
    /// The largest growth in percent (400), or `off`.
    pub max_growth_percent: Option<IntegerOrText>,
    /// Fewer members than this are suspicious (1).
    pub min_members: Option<u64>,
}

/// One audience kept on one destination.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSync {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// The name of an audience.
    pub audience: String,
    /// The name of a destination.
    pub destination: String,
    /// What happens to users who leave the audience (mirror).
    pub mode: Option<RawMode>,
    /// The identifiers that are sent to the platform for each user.
    pub identifiers: RawIdentifiers,
    /// A run that would remove more than this share waits for approval (50).
    #[schemars(range(max = 100))]
    pub max_removed_percent: Option<u32>,
    /// Rows per call (10,000).
    #[schemars(range(min = 1, max = 10000))]
    pub batch_rows: Option<u32>,
    /// Larger goes first (0).
    pub priority: Option<i32>,
    /// The audience's name on the platform (`throng: <audience>`).
    pub platform_name: Option<String>,
    /// What happens if the platform has an audience of this name that the sync did not create
    /// (fail).
    pub adopt: Option<RawAdopt>,
    /// What happens to the platform's audience when the sync is removed from the spec (keep).
    pub on_remove: Option<RawOnRemove>,
    /// Makes one sync for every row of a query; `name`, `audience`, `destination` and `platform_name` have its
    /// columns in braces.
    pub for_each: Option<RawForEach>,
}

/// What happens if the platform has an audience of the name that the sync did not create.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawAdopt {
    /// Nothing is sent, and an alert is raised.
    Fail,
    /// After an approval its list is replaced by the audience.
    Replace,
}

/// What happens to the platform's audience of a sync that is removed from the spec.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOnRemove {
    /// It stays as it is.
    Keep,
    /// After an approval the users that were sent to it are removed.
    Empty,
    /// After an approval it is deleted.
    Delete,
}

/// How a sync changes the audience on the platform.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawMode {
    /// Adds users who entered the audience and removes users who left it.
    Mirror,
    /// Only adds.
    Add,
    /// Sends all users each time.
    Replace,
}

/// The identifiers of a sync's users.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawIdentifiers {
    /// One SELECT of the user key and the columns.
    pub sql: String,
    /// The column with the user key.
    pub key: String,
    /// Column to platform key: EMAIL, PHONE, FN, LN, FI, CT, ST, ZIP, COUNTRY, GEN, DOBY, DOBM,
    /// DOBD, MADID or EXTERN_ID.
    pub columns: BTreeMap<String, String>,
    /// Two capital letters such as US.
    pub default_country: Option<String>,
}

/// Who pays for ad groups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAdvertiser {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// Three capital letters such as USD.
    pub currency: String,
    /// An IANA time zone; budget days begin at its midnight.
    pub time_zone: String,
}

/// Ad groups of one advertiser.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCampaign {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// The name of an advertiser.
    pub advertiser: String,
}

/// What is shown, to whom, for how much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAdGroup {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// The name of a campaign.
    pub campaign: String,
    /// What is paid for.
    pub per: RawPer,
    /// Of one impression or click, such as "0.10"; of a thousand impressions with `per: thousand`.
    pub price: Amount,
    /// The most that may be billed in a day, such as "100".
    pub daily_budget: Amount,
    /// The share of insertions that become impressions (1).
    #[schemars(range(min = 0, max = 1))]
    pub impression_rate: Option<f64>,
    /// The share of impressions that become clicks; needed when clicks are paid.
    #[schemars(range(min = 0, max = 1))]
    pub action_rate: Option<f64>,
    /// Audiences that see the ad; without it, everybody does.
    #[serde(default)]
    pub include: Vec<String>,
    /// Audiences that do not see it.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether spend in flight counts against the budget (in_flight).
    pub prediction: Option<RawPrediction>,
    /// How long an insertion may still lead to spend, in seconds (180).
    #[schemars(range(min = 10, max = 86400))]
    pub horizon_secs: Option<u32>,
    /// How the budget of a day is spent: as soon as there is traffic, or over the whole day (asap).
    pub pacing: Option<RawPacing>,
    /// What an ad server does without fresh budget states (serve).
    pub when_stale: Option<RawWhenStale>,
    /// Whether an impression or click counts once for each insertion that events name (true).
    pub once_per_insertion: Option<bool>,
}

/// What is paid for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPer {
    /// Each impression.
    Impression,
    /// Each click.
    Click,
    /// Impressions, by the thousand.
    Thousand,
}

/// Whether spend in flight counts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPrediction {
    /// It counts.
    InFlight,
    /// It does not count.
    Off,
}

/// How the budget of a day is spent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPacing {
    /// As soon as there is traffic for it.
    Asap,
    /// Over the whole day, in proportion to its traffic.
    Even,
}

/// Without fresh budget states.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawWhenStale {
    /// Serve by the last state.
    Serve,
    /// Serve nothing of the ad group.
    Stop,
}

/// An amount of money with at most six digits after the point, as text or as a number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Amount {
    /// Such as "0.10".
    Text(String),
    /// Such as 0.10.
    Number(f64),
}

/// A number, or a word.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum IntegerOrText {
    /// The number.
    Integer(u32),
    /// The word.
    Text(String),
}

/// Where state is stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLedger {
    /// A file in the data directory.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

/// One kind of work of a process.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRole {
    /// Answers over HTTP: events, decisions, specs, the page.
    Api,
    /// Fires schedules and puts work on the queues.
    Schedule,
    /// Builds audiences.
    Build,
    /// Sends to ad platforms, and checks what was sent.
    Activate,
    /// Aggregates spend, for its assigned partitions of the event log.
    Aggregate,
    /// Streams budget states to gates.
    Relay,
    /// Answers lookups.
    Lookup,
}

/// Where events, the feed and queued work are stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLog {
    /// Files in the data directory.
    Files,
    /// Topics of a Kafka cluster.
    Kafka,
}

/// The SASL mechanism for Kafka.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum RawMechanism {
    /// The password in plain text; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// A Kafka cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawKafka {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The prefix of the names of topics and consumer groups (throng).
    pub prefix: Option<String>,
    /// Whether connections are encrypted (false).
    pub tls: Option<bool>,
    /// Certificates that the brokers' are signed with, PEM, relative to the spec file (the
    /// system's).
    pub ca_file: Option<String>,
    /// The SASL mechanism (SCRAM-SHA-512).
    pub sasl_mechanism: Option<RawMechanism>,
    /// The user.
    pub username: Option<String>,
    /// `env:NAME` or `file:PATH` of the password.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub password: Option<String>,
    /// The session timeout of consumer groups, after which a silent process loses its assignment,
    /// in milliseconds (6,000).
    #[schemars(range(min = 1000, max = 300000))]
    pub session_ms: Option<u32>,
    /// Allows SASL PLAIN to send the password to other machines without TLS (false).
    pub insecure: Option<bool>,
}

/// Where snapshots, parts and checkpoints are stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawObjects {
    /// The data directory.
    Directory,
    /// A bucket on Amazon S3 or a server with its API.
    S3,
    /// A bucket on Google Cloud Storage.
    Gcs,
}

/// A bucket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBucket {
    /// Its name.
    pub name: String,
    /// The prefix of the names of objects.
    pub prefix: Option<String>,
    /// The S3 server, `http://host:port` (Amazon's own).
    #[schemars(regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// Allows an `http://` endpoint on another machine (false).
    pub insecure: Option<bool>,
    /// A PEM file of certificate authorities for the S3 server's certificate, besides the system's.
    pub ca_file: Option<String>,
    /// The S3 region (us-east-1).
    pub region: Option<String>,
    /// `env:NAME` or `file:PATH` of the S3 access key (the credentials of the machine).
    #[schemars(regex(pattern = "^(env|file):"))]
    pub access_key: Option<String>,
    /// `env:NAME` or `file:PATH` of the S3 secret key.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub secret_key: Option<String>,
    /// `env:NAME` or `file:PATH` of a GCS service account's JSON key (the credentials of the
    /// machine).
    #[schemars(regex(pattern = "^(env|file):"))]
    pub service_account: Option<String>,
    /// The most bytes of local copies, not counting those in use (10 GiB).
    pub cache_bytes: Option<u64>,
}

/// The certificate for HTTPS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// A PEM file of the node's certificate and the intermediate certificates, relative to the spec
    /// file. Read again when it changes, and on SIGHUP.
    pub cert_file: String,
    /// A PEM file of its key, relative to the spec file.
    pub key_file: String,
}

/// How many connections clients may have open.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConnections {
    /// In total; lower if the limit of open files requires it (8,192).
    #[schemars(range(min = 16, max = 1000000))]
    pub total: Option<u32>,
    /// From one IPv4 address or one /64 network of IPv6, except this machine's own (2,048).
    #[schemars(range(min = 1, max = 1000000))]
    pub per_address: Option<u32>,
}

/// How the process runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNode {
    /// Address and port (127.0.0.1:7077).
    pub listen: Option<String>,
    /// `env:NAME` or `file:PATH` of a token with every right, besides the node's own.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub token: Option<String>,
    /// `env:NAME` or `file:PATH` of the keys that identifiers are encrypted with.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub identifiers_key: Option<String>,
    /// The URL that people and programs use, such as `https://ads.example.com`.
    #[schemars(regex(pattern = "^https?://[^/]+$"))]
    pub public_url: Option<String>,
    /// More host names that the node answers to, such as relay or relay:7077.
    pub allowed_hosts: Option<Vec<String>>,
    /// The certificate for HTTPS (plain HTTP).
    pub tls: Option<RawTls>,
    /// Allows plain HTTP on an address that others can reach (false).
    pub insecure: Option<bool>,
    /// How many connections clients may have open.
    pub connections: Option<RawConnections>,
    /// The roles of this process (all).
    pub roles: Option<Vec<RawRole>>,
    /// Where state is stored (sqlite).
    pub ledger: Option<RawLedger>,
    /// `env:NAME` or `file:PATH` of `postgres://user:password@host:port/database`; needed with
    /// `ledger: postgres`.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub ledger_url: Option<String>,
    /// Connections to the ledger, at most (10).
    #[schemars(range(min = 2, max = 1000))]
    pub ledger_connections: Option<u32>,
    /// Allows a password to be sent to a PostgreSQL server on another machine without TLS (false).
    pub ledger_insecure: Option<bool>,
    /// Where events go (files).
    pub log: Option<RawLog>,
    /// The cluster of `log: kafka`.
    pub kafka: Option<RawKafka>,
    /// Where snapshots go (directory).
    pub objects: Option<RawObjects>,
    /// The bucket of `objects: s3` or `gcs`.
    pub bucket: Option<RawBucket>,
    /// The most that queries hold in memory before they spill, in bytes (2 GiB).
    #[schemars(range(min = 67108864))]
    pub memory_limit_bytes: Option<u64>,
    /// Where queries spill, relative to the spec file.
    pub spill_dir: Option<String>,
    /// The folder or the bucket of ingested rows; needed with `schemas`.
    pub lake: Option<RawLake>,
    /// Which engine runs SQL over folders (process).
    pub engine: Option<RawEngine>,
    /// The cluster of `engine: ballista`.
    pub ballista: Option<RawBallista>,
    /// The longest time of one query, and of the work on one refresh, in seconds (14,400).
    #[schemars(range(min = 1, max = 604800))]
    pub query_timeout_secs: Option<u32>,
    /// Audiences over folders and buckets that are built at the same time (2).
    #[schemars(range(min = 1, max = 256))]
    pub build_workers: Option<u32>,
    /// Audiences whose SQL a warehouse runs that are built at the same time, besides those of `build_workers` (4).
    #[schemars(range(min = 1, max = 256))]
    pub warehouse_workers: Option<u32>,
    /// Tasks sent at the same time (4).
    #[schemars(range(min = 1, max = 256))]
    pub activation_workers: Option<u32>,
    /// Partitions of the event log (4).
    #[schemars(range(min = 1, max = 256))]
    pub log_partitions: Option<u32>,
    /// Bytes of each partition of an event log in files that are kept besides what a restart needs
    /// (1 GiB).
    #[schemars(range(min = 67108864, max = 1_125_899_906_842_624_u64))]
    pub log_retention_bytes: Option<u64>,
    /// Hours for which they are kept at most (72).
    #[schemars(range(min = 1, max = 8784))]
    pub log_retention_hours: Option<u32>,
    /// How many hours the id of an event is remembered: a repetition within that time is detected,
    /// and older events are refused (24).
    #[schemars(range(min = 1, max = 168))]
    pub dedupe_hours: Option<u32>,
    /// With fewer bytes free on the disk of the event log, events are refused (1 GiB, or 5 % of the
    /// disk if that is less).
    #[schemars(range(max = 1_125_899_906_842_624_u64))]
    pub min_free_disk_bytes: Option<u64>,
    /// How often budget states are published, in milliseconds (1,000).
    #[schemars(range(min = 50, max = 60000))]
    pub feed_interval_ms: Option<u32>,
    /// The largest body of a request, in bytes (8 MiB).
    #[schemars(range(min = 1024, max = 1073741824))]
    pub max_request_bytes: Option<u64>,
    /// The longest time for a request, without waiting for its body, in seconds (30).
    #[schemars(range(min = 1, max = 3600))]
    pub request_timeout_secs: Option<u32>,
    /// Receivers of alerts (none).
    #[schemars(length(max = 20))]
    pub alerts: Option<Vec<RawAlertReceiver>>,
    /// Whether budgets raise alerts: at 80 % and 100 % of one, and at overdelivery of more than 1 %; and
    /// silent gates and a stale feed (false).
    pub budget_alerts: Option<bool>,
    /// With `budget_alerts`: after how many minutes without a report a gate is silent (5).
    #[schemars(range(min = 1, max = 30))]
    pub gate_silent_minutes: Option<u32>,
}

/// The JSON schema of a spec file, for editors. It says what fields there are; `throng_spec::load`
/// checks more.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RawSpec).to_value()
}
