//! Every metric of a node: its name, type, unit, labels and help. No other file contains the name
//! of a metric: other crates record with `metrics::counter!(metrics::LOOKUPS_TOTAL)`, so a name
//! cannot be misspelt and always has a help text. Tests compare the table with the sources of all
//! crates and with docs/operate/metrics.md.

pub use ::metrics::{counter, gauge, histogram};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only increases, from zero at the start of the process.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Quantiles, a sum and a count. Prometheus calls it a summary.
    Summary,
}

impl Kind {
    /// Its name in Prometheus' text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// The unit of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A duration in seconds.
    Seconds,
    /// A point in time, in seconds since 1970.
    UnixSeconds,
    /// A number of bytes.
    Bytes,
    /// 0 or 1.
    Boolean,
    /// The number of a version.
    Version,
}

impl Unit {
    /// The unit for the recorder, which has fewer.
    fn of_recorder(self) -> ::metrics::Unit {
        match self {
            Self::Count | Self::Boolean | Self::Version => ::metrics::Unit::Count,
            Self::Seconds | Self::UnixSeconds => ::metrics::Unit::Seconds,
            Self::Bytes => ::metrics::Unit::Bytes,
        }
    }

    /// Its name in the documentation.
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::UnixSeconds => "seconds since 1970",
            Self::Bytes => "bytes",
            Self::Boolean => "0 or 1",
            Self::Version => "version",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, which ends in its unit if that is seconds or bytes.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: Unit,
    /// Its labels, with commas between them.
    pub labels: &'static str,
    /// Its help text.
    pub help: &'static str,
}

impl Metric {
    /// The names of its labels.
    pub fn label_names(&self) -> impl Iterator<Item = &'static str> {
        self.labels.split(", ").filter(|label| !label.is_empty())
    }
}

/// Defines a constant for the name of each metric, and the table of all of them.
macro_rules! metrics {
    ($(
        $constant:ident = $kind:ident, $unit:ident, $name:literal, $labels:literal, $help:literal;
    )+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric, by name.
        pub const METRICS: &[Metric] = &[$(
            Metric {
                name: $constant,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: $labels,
                help: $help,
            },
        )+];
    };
}

metrics! {
    ACCEPT_ERRORS_TOTAL = Counter, Count, "throng_accept_errors_total", "",
        "Connections that could not be accepted because file handles or memory ran out.";
    ALERT_DELIVERIES_TOTAL = Counter, Count, "throng_alert_deliveries_total", "receiver, outcome",
        "Deliveries of alert events that ended: delivered, expired or refused.";
    ALERT_DELIVERY_FAILURES_TOTAL = Counter, Count, "throng_alert_delivery_failures_total", "receiver",
        "Requests that a receiver of alerts did not accept; they are retried.";
    ALERT_EVENTS_PENDING = Gauge, Count, "throng_alert_events_pending", "receiver",
        "Alert events that are not delivered to a receiver yet.";
    ALERTS_OPEN = Gauge, Count, "throng_alerts_open", "kind",
        "Open alerts.";
    AUDIENCE_AGE_SECONDS_MAX = Gauge, Seconds, "throng_audience_age_seconds_max", "",
        "Age of the oldest snapshot that is served, of the audiences of the applied spec.";
    AUDIENCE_LAST_SUCCESS_TIMESTAMP_SECONDS = Gauge, UnixSeconds, "throng_audience_last_success_timestamp_seconds", "audience",
        "When this node completed a refresh of an audience last, published or unchanged, in seconds since 1970.";
    AUDIENCE_MEMBERS = Gauge, Count, "throng_audience_members", "audience",
        "Members of the snapshot of an audience that this node published last.";
    AUDIENCES_OVERDUE = Gauge, Count, "throng_audiences_overdue", "",
        "Audiences that are overdue, also those without an alert of their own; at the schedule leader.";
    BATCHES_OPEN = Gauge, Count, "throng_batches_open", "",
        "Batches of open tasks that are not finished.";
    BATCHES_TOTAL = Counter, Count, "throng_batches_total", "",
        "Batches of users that this node finished with a destination.";
    CHECKPOINT_FAILURES_TOTAL = Counter, Count, "throng_checkpoint_failures_total", "",
        "Checkpoints of partitions that were not written.";
    CHECKPOINT_LAST_SUCCESS_TIMESTAMP_SECONDS = Gauge, UnixSeconds, "throng_checkpoint_last_success_timestamp_seconds", "partition",
        "When this node wrote the checkpoint of a partition last, in seconds since 1970.";
    CLOCK_STEP_PENDING = Gauge, Boolean, "throng_clock_step_pending", "",
        "1 while this node waits to confirm a forward step of the machine's clock, else 0.";
    CONNECTIONS = Gauge, Count, "throng_connections", "",
        "Open connections to this node.";
    CONNECTIONS_CLOSED_TOTAL = Counter, Count, "throng_connections_closed_total", "reason",
        "Connections that this node closed because of a limit.";
    CONNECTIONS_REFUSED_TOTAL = Counter, Count, "throng_connections_refused_total", "reason",
        "Connections that this node refused because of a limit.";
    DISK_FREE_BYTES = Gauge, Bytes, "throng_disk_free_bytes", "",
        "Free space of the data directory's file system, for this user.";
    DISK_SIZE_BYTES = Gauge, Bytes, "throng_disk_size_bytes", "",
        "Size of the data directory's file system.";
    EVENTS_ACCEPTED_TOTAL = Counter, Count, "throng_events_accepted_total", "",
        "Events that this node accepted.";
    EVENTS_APPLIED_DUPLICATE_TOTAL = Counter, Count, "throng_events_applied_duplicate_total", "",
        "Events of the log that were already counted.";
    EVENTS_APPLIED_INSERTED_AT_IGNORED_TOTAL = Counter, Count, "throng_events_applied_inserted_at_ignored_total", "",
        "Events of the log whose `inserted_at` was out of bounds and was ignored.";
    EVENTS_APPLIED_NOT_JOINED_TOTAL = Counter, Count, "throng_events_applied_not_joined_total", "",
        "Billed events of the log that name an insertion which is no longer open.";
    EVENTS_APPLIED_NOT_LEARNED_TOTAL = Counter, Count, "throng_events_applied_not_learned_total", "",
        "Insertions and outcomes of the log from which no rates and delays are learned, because most insertions of their time came late, or none had come in time before.";
    EVENTS_APPLIED_REJECTED_TOTAL = Counter, Count, "throng_events_applied_rejected_total", "",
        "Events of the log that do not count: their ad group is unknown, they are in another partition than that of their ad group, or their time is invalid.";
    EVENTS_APPLIED_REPEATED_TOTAL = Counter, Count, "throng_events_applied_repeated_total", "",
        "Impressions and clicks of the log whose insertion already has one.";
    EVENTS_APPLIED_TOTAL = Counter, Count, "throng_events_applied_total", "",
        "Events of the log that were counted.";
    EVENTS_DUPLICATE_TOTAL = Counter, Count, "throng_events_duplicate_total", "",
        "Events that were sent to this node again.";
    EVENTS_INSERTED_AT_IGNORED_TOTAL = Counter, Count, "throng_events_inserted_at_ignored_total", "",
        "Events that this node accepted and whose `inserted_at` was out of bounds and was ignored.";
    EVENTS_QUARANTINED_TOTAL = Counter, Count, "throng_events_quarantined_total", "",
        "Records of the log that could not be applied and were quarantined.";
    EVENTS_REJECTED_TOTAL = Counter, Count, "throng_events_rejected_total", "",
        "Events that this node refused.";
    EVENTS_REPEATED_TOTAL = Counter, Count, "throng_events_repeated_total", "",
        "Impressions and clicks sent to this node whose insertion already has one under another id.";
    FEED_AGE_SECONDS = Summary, Seconds, "throng_feed_age_seconds", "",
        "Age of feed frames when they are applied here.";
    FEED_CONNECTIONS = Gauge, Count, "throng_feed_connections", "",
        "Connections of gates to this node's feed.";
    FEED_FRAME_BYTES_TOTAL = Counter, Bytes, "throng_feed_frame_bytes_total", "",
        "Bytes of feed frames that were sent to gates, each counted once.";
    FEED_LAGGED_TOTAL = Counter, Count, "throng_feed_lagged_total", "",
        "Gates that lagged behind the feed and were sent keyframes.";
    FEED_STALE_PARTITIONS = Gauge, Count, "throng_feed_stale_partitions", "",
        "Partitions whose newest frame is more than two minutes old, at a node or at gates; at the schedule leader, with node.budget_alerts.";
    FEED_UPDATES_TOTAL = Counter, Count, "throng_feed_updates_total", "",
        "Budget states in feed frames that were sent to gates, each counted once.";
    GATE_APPLIED_VERSION = Gauge, Version, "throng_gate_applied_version", "gate, partition",
        "The version of the feed that a gate has applied.";
    GATE_REPORT_AGE_SECONDS = Gauge, Seconds, "throng_gate_report_age_seconds", "gate",
        "Time since a gate reported to this node.";
    GATE_REPORT_AGE_SECONDS_MAX = Gauge, Seconds, "throng_gate_report_age_seconds_max", "",
        "Time since the report of the gate that has not reported for longest.";
    GATES = Gauge, Count, "throng_gates", "",
        "Gates that report to this node.";
    GATES_SILENT = Gauge, Count, "throng_gates_silent", "",
        "Gates that have not reported for node.gate_silent_minutes, at most 100; at the schedule leader, with node.budget_alerts.";
    HEALTH_PROBLEMS = Gauge, Count, "throng_health_problems", "class",
        "Open problems of this node, by class.";
    HTTP_REQUEST_SECONDS = Summary, Seconds, "throng_http_request_seconds", "route, status",
        "Duration of HTTP requests.";
    HTTP_REQUESTS_TOTAL = Counter, Count, "throng_http_requests_total", "route, status",
        "HTTP requests.";
    IDENTIFIER_SCANS_TOTAL = Counter, Count, "throng_identifier_scans_total", "",
        "Identifier queries that this node ran to plan sync runs, each for all syncs with the same query that needed it.";
    INSERTIONS_FOLDED_TOTAL = Counter, Count, "throng_insertions_folded_total", "",
        "Insertions that are no longer open because a partition had too many.";
    LEDGER_READABLE = Gauge, Boolean, "throng_ledger_readable", "",
        "1 if the ledger could be read for this scrape, else 0; metrics that are read from it are missing then.";
    LOG_BYTES = Gauge, Bytes, "throng_log_bytes", "",
        "Size of the event log in the data directory.";
    LOOKUPS_TOTAL = Counter, Count, "throng_lookups_total", "",
        "Users that were looked up.";
    OPEN_INSERTIONS = Gauge, Count, "throng_open_insertions", "partition",
        "Insertions that an outcome may still settle, at the last checkpoint that this node wrote.";
    PARTITION_RESTARTS_TOTAL = Counter, Count, "throng_partition_restarts_total", "",
        "Partition tasks that exited unexpectedly and were restarted.";
    QUERY_FAILURES_TOTAL = Counter, Count, "throng_query_failures_total", "class",
        "Failed tries of refreshes: sql, memory, engine, source, ledger, objects, files, crash or other.";
    QUEUE_DEPTH = Gauge, Count, "throng_queue_depth", "queue",
        "Work that waits: refreshes, tasks and checks (at most 1,000 checks are counted).";
    REFRESH_PARTS_HELPED_TOTAL = Counter, Count, "throng_refresh_parts_helped_total", "",
        "Parts that this node built for refreshes of other nodes.";
    REFRESH_ROWS_TOTAL = Counter, Count, "throng_refresh_rows_total", "",
        "Rows that refreshes read.";
    REFRESH_SECONDS = Summary, Seconds, "throng_refresh_seconds", "outcome",
        "Duration of refreshes.";
    REFRESHES = Gauge, Count, "throng_refreshes", "state",
        "Audiences of the applied spec by the state of their newest refresh; `none` if there was none.";
    REFRESHES_TOTAL = Counter, Count, "throng_refreshes_total", "outcome",
        "Refreshes that this node finished: published, unchanged, held, failed, superseded, cancelled or lost.";
    REQUESTS_REFUSED_TOTAL = Counter, Count, "throng_requests_refused_total", "reason",
        "Requests that were refused because of their host or origin: unknown_host or foreign_origin.";
    SIDECAR_CACHE_BYTES = Gauge, Bytes, "throng_sidecar_cache_bytes", "",
        "Size of the dictionaries and snapshots in the cache of a sidecar.";
    SIDECAR_CATALOG_VERSION = Gauge, Version, "throng_sidecar_catalog_version", "",
        "The version of the catalog of a sidecar.";
    SIDECAR_DECISIONS_TOTAL = Counter, Count, "throng_sidecar_decisions_total", "",
        "Requests for a decision that a sidecar answered.";
    SIDECAR_FEED_AGE_SECONDS = Gauge, Seconds, "throng_sidecar_feed_age_seconds", "",
        "Age of the last feed frame of the partition that is furthest behind, in a sidecar.";
    SIDECAR_FEED_CONNECTED = Gauge, Boolean, "throng_sidecar_feed_connected", "",
        "1 while a sidecar is connected to the feed, else 0.";
    SIDECAR_FRAMES_TOTAL = Counter, Count, "throng_sidecar_frames_total", "",
        "Feed frames that a sidecar applied.";
    SIDECAR_READY = Gauge, Boolean, "throng_sidecar_ready", "",
        "1 while a sidecar decides, else 0.";
    SIDECAR_SNAPSHOT_VERSION = Gauge, Version, "throng_sidecar_snapshot_version", "audience",
        "The version of the snapshot of an audience in a sidecar.";
    SIDECAR_SYNC_AGE_SECONDS = Gauge, Seconds, "throng_sidecar_sync_age_seconds", "",
        "Time since a sidecar had all dictionaries and snapshots that its node serves.";
    SIDECAR_SYNC_FAILURES_TOTAL = Counter, Count, "throng_sidecar_sync_failures_total", "part",
        "Failed attempts of a sidecar to follow its node: feed, membership or report; clock: frames by which its clock is behind.";
    SNAPSHOT_FAULTS = Gauge, Count, "throng_snapshot_faults", "",
        "Snapshots and dictionaries that are damaged or differ from what the ledger names.";
    STANDBY_FRAMES_TOTAL = Counter, Count, "throng_standby_frames_total", "",
        "Feed frames that this node published as a standby while the leader was silent.";
    STANDBY_PARTITIONS = Gauge, Count, "throng_standby_partitions", "",
        "Partitions for which this node is the standby.";
    SYNC_RUNS = Gauge, Count, "throng_sync_runs", "state",
        "Syncs by the state of their newest run, if that is not completed: active, held or failed.";
    SYNC_RUNS_TOTAL = Counter, Count, "throng_sync_runs_total", "outcome",
        "Sync runs that this node finished: completed or failed.";
    TASKS = Gauge, Count, "throng_tasks", "state",
        "Tasks of activation: queued, running, done, failed or held.";
    TLS_CERTIFICATE_EXPIRES_SECONDS = Gauge, UnixSeconds, "throng_tls_certificate_expires_seconds", "",
        "When the certificate of `node.tls`, or the first of its chain, expires, in seconds since 1970.";
    WRONG_TOKENS_TOTAL = Counter, Count, "throng_wrong_tokens_total", "answer",
        "Requests with a wrong token: refused or slowed.";
}

/// The metric with a name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Registers units and descriptions with the recorder of the process.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        let (name, unit, help) = (*name, unit.of_recorder(), *help);
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, unit, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, unit, help),
            Kind::Summary => ::metrics::describe_histogram!(name, unit, help),
        }
    }
}

/// The names of all metrics, for checks of dashboards and alert rules that use them.
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|metric| metric.name)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn names_are_sorted_unique_and_of_one_style() {
        assert!(METRICS.is_sorted_by(|a, b| a.name.replace('_', "!") < b.name.replace('_', "!")));
        for Metric { name, kind, unit, help, .. } in METRICS {
            let is_time = matches!(unit, Unit::Seconds | Unit::UnixSeconds);
            assert_eq!(name.contains("_seconds"), is_time, "{name}");
            assert_eq!(name.contains("_bytes"), *unit == Unit::Bytes, "{name}");
            assert!(name.starts_with("throng_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        }
    }

    /// `THRONG_BLESS=1` writes the table again.
    #[test]
    fn the_documented_table_is_current() {
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
            .join("../../docs/operate/metrics.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- metrics: begin -->\n", "<!-- metrics: end -->");
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let rows: String = METRICS
            .iter()
            .map(|Metric { name, kind, unit, labels, help }| {
                format!("| `{name}` | {} | {} | {labels} | {help} |\n", kind.name(), unit.name())
            })
            .collect();
        let head = "| metric | type | unit | labels | help |\n|---|---|---|---|---|\n";
        let table = format!("{head}{rows}");
        let expected = format!("{before}{begin}{table}{end}{after}");
        if std::env::var_os("THRONG_BLESS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text == expected, "docs/operate/metrics.md is not current: cargo xtask gen");
    }

    /// The sources that record metrics: those of all other crates, and the health of a node.
    fn sources() -> Vec<(PathBuf, String)> {
        fn add(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    add(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    found.push((path, text));
                }
            }
        }
        let own = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
        let own = Path::new(&own);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(own.parent().unwrap()).unwrap() {
            let folder = entry.unwrap().path();
            let sources = folder.join("src");
            if folder != own && sources.is_dir() {
                add(&sources, &mut found);
            }
        }
        let health = own.join("src/health.rs");
        let text = std::fs::read_to_string(&health).unwrap();
        found.push((health, text));
        assert!(found.len() > 100, "{} sources", found.len());
        found
    }

    /// A name that is written twice can be misspelt once, and then its samples have no HELP.
    #[test]
    fn names_of_metrics_are_written_here_only() {
        for (path, text) in sources() {
            let named: Vec<&str> =
                metric_names().filter(|name| text.contains(&format!("\"{name}\""))).collect();
            assert!(named.is_empty(), "{} has {named:?}: use the constants", path.display());
        }
    }

    #[test]
    fn every_metric_is_recorded() {
        let sources = sources();
        for name in metric_names() {
            let constant = name.trim_start_matches("throng_").to_ascii_uppercase();
            let is_used = |text: &str| {
                text.match_indices(&constant).any(|(at, _)| {
                    let outside =
                        |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
                    outside(text[..at].chars().next_back())
                        && outside(text[at + constant.len()..].chars().next())
                })
            };
            assert!(sources.iter().any(|(_, text)| is_used(text)), "nothing records {name}");
        }
    }
}
