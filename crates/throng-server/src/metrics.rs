//! Every metric of a node: its name, type, labels and help. Roles count events as they happen; what
//! is stored in the ledger or on the disk is read at a scrape (`collect`). A test compares the
//! table in docs/operate/metrics.md with this one.

mod collect;
mod text;

pub(crate) use collect::Collector;
pub(crate) use text::Families;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only increases, from zero at the start of the process.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Quantiles, a sum and a count. Prometheus calls it a summary.
    Summary,
}

impl Kind {
    /// Its name in Prometheus' text format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Its name, which ends in its unit.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: Kind,
    /// Its labels, with commas between them.
    pub(crate) labels: &'static str,
    /// Its help text.
    pub(crate) help: &'static str,
}

impl Metric {
    /// The names of its labels.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &'static str> {
        self.labels.split(", ").filter(|label| !label.is_empty())
    }
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn summary(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Summary, labels, help }
}

/// Every metric, by name.
pub(crate) const METRICS: &[Metric] = &[
    counter(
        "throng_accept_errors_total",
        "",
        "Connections that could not be accepted because file handles or memory ran out.",
    ),
    counter(
        "throng_alert_deliveries_total",
        "receiver, outcome",
        "Deliveries of alert events that ended: delivered, expired or refused.",
    ),
    counter(
        "throng_alert_delivery_failures_total",
        "receiver",
        "Requests that a receiver of alerts did not accept; they are retried.",
    ),
    gauge(
        "throng_alert_events_pending",
        "receiver",
        "Alert events that are not delivered to a receiver yet.",
    ),
    gauge("throng_alerts_open", "kind", "Open alerts."),
    gauge(
        "throng_audience_age_seconds_max",
        "",
        "Age of the oldest snapshot that is served, of the audiences of the applied spec.",
    ),
    gauge(
        "throng_audience_members",
        "audience",
        "Members of the snapshot of an audience that this node published last.",
    ),
    gauge("throng_batches_open", "", "Batches of open tasks that are not finished."),
    counter(
        "throng_batches_total",
        "",
        "Batches of users that this node finished with a destination.",
    ),
    counter(
        "throng_checkpoint_failures_total",
        "",
        "Checkpoints of partitions that were not written.",
    ),
    gauge(
        "throng_checkpoint_last_success_timestamp_seconds",
        "partition",
        "When this node wrote the checkpoint of a partition last, in seconds since 1970.",
    ),
    gauge(
        "throng_clock_step_pending",
        "",
        "1 while this node waits to confirm a forward step of the machine's clock, else 0.",
    ),
    gauge("throng_connections", "", "Open connections to this node."),
    counter(
        "throng_connections_closed_total",
        "reason",
        "Connections that this node closed because of a limit.",
    ),
    counter(
        "throng_connections_refused_total",
        "reason",
        "Connections that this node refused because of a limit.",
    ),
    gauge(
        "throng_disk_free_bytes",
        "",
        "Free space of the data directory's file system, for this user.",
    ),
    gauge("throng_disk_size_bytes", "", "Size of the data directory's file system."),
    counter("throng_events_accepted_total", "", "Events that this node accepted."),
    counter(
        "throng_events_applied_duplicate_total",
        "",
        "Events of the log that were already counted.",
    ),
    counter(
        "throng_events_applied_inserted_at_ignored_total",
        "",
        "Events of the log whose `inserted_at` was out of bounds and was ignored.",
    ),
    counter(
        "throng_events_applied_rejected_total",
        "",
        "Events of the log that do not count because their ad group or their time is invalid.",
    ),
    counter(
        "throng_events_applied_repeated_total",
        "",
        "Impressions and clicks of the log whose insertion already has one.",
    ),
    counter("throng_events_applied_total", "", "Events of the log that were counted."),
    counter("throng_events_duplicate_total", "", "Events that were sent to this node again."),
    counter(
        "throng_events_inserted_at_ignored_total",
        "",
        "Events that this node accepted and whose `inserted_at` was out of bounds and was ignored.",
    ),
    counter(
        "throng_events_quarantined_total",
        "",
        "Records of the log that could not be applied and were quarantined.",
    ),
    counter("throng_events_rejected_total", "", "Events that this node refused."),
    counter(
        "throng_events_repeated_total",
        "",
        "Impressions and clicks sent to this node whose insertion already has one under another id.",
    ),
    summary("throng_feed_age_seconds", "", "Age of feed frames when they are applied here."),
    gauge("throng_feed_connections", "", "Connections of gates to this node's feed."),
    counter(
        "throng_feed_frame_bytes_total",
        "",
        "Bytes of feed frames that were sent to gates, each counted once.",
    ),
    counter(
        "throng_feed_lagged_total",
        "",
        "Gates that lagged behind the feed and were sent keyframes.",
    ),
    counter(
        "throng_feed_updates_total",
        "",
        "Budget states in feed frames that were sent to gates, each counted once.",
    ),
    gauge(
        "throng_gate_applied_version",
        "gate, partition",
        "The version of the feed that a gate has applied.",
    ),
    gauge("throng_gate_report_age_seconds", "gate", "Time since a gate reported to this node."),
    gauge(
        "throng_gate_report_age_seconds_max",
        "",
        "Time since the report of the gate that has not reported for longest.",
    ),
    gauge("throng_gates", "", "Gates that report to this node."),
    gauge("throng_health_problems", "class", "Open problems of this node, by class."),
    summary("throng_http_request_seconds", "route, status", "Duration of HTTP requests."),
    counter("throng_http_requests_total", "route, status", "HTTP requests."),
    gauge(
        "throng_ledger_readable",
        "",
        "1 if the ledger could be read for this scrape, else 0; metrics that are read from it are missing then.",
    ),
    gauge("throng_log_bytes", "", "Size of the event log in the data directory."),
    counter("throng_lookups_total", "", "Users that were looked up."),
    counter(
        "throng_partition_restarts_total",
        "",
        "Partition tasks that exited unexpectedly and were restarted.",
    ),
    counter(
        "throng_query_failures_total",
        "class",
        "Failed tries of refreshes: sql, memory, engine, source, ledger, objects, files, crash or other.",
    ),
    gauge(
        "throng_queue_depth",
        "queue",
        "Work that waits: refreshes, tasks and checks (at most 1,000 checks are counted).",
    ),
    counter(
        "throng_refresh_parts_helped_total",
        "",
        "Parts that this node built for refreshes of other nodes.",
    ),
    counter("throng_refresh_rows_total", "", "Rows that refreshes read."),
    summary("throng_refresh_seconds", "outcome", "Duration of refreshes."),
    gauge(
        "throng_refreshes",
        "state",
        "Audiences of the applied spec by the state of their newest refresh; `none` if there was none.",
    ),
    counter(
        "throng_refreshes_total",
        "outcome",
        "Refreshes that this node finished: published, held, failed, superseded or lost.",
    ),
    counter(
        "throng_requests_refused_total",
        "reason",
        "Requests that were refused because of their host or origin: unknown_host or foreign_origin.",
    ),
    gauge(
        "throng_snapshot_faults",
        "",
        "Snapshots and dictionaries that are damaged or differ from what the ledger names.",
    ),
    counter(
        "throng_standby_frames_total",
        "",
        "Feed frames that this node published as a standby while the leader was silent.",
    ),
    gauge("throng_standby_partitions", "", "Partitions for which this node is the standby."),
    gauge(
        "throng_sync_runs",
        "state",
        "Syncs by the state of their newest run, if that is not completed: active, held or failed.",
    ),
    counter(
        "throng_sync_runs_total",
        "outcome",
        "Sync runs that this node finished: completed or failed.",
    ),
    gauge("throng_tasks", "state", "Tasks of activation: queued, running, done, failed or held."),
    gauge(
        "throng_tls_certificate_expires_seconds",
        "",
        "When the certificate of `node.tls`, or the first of its chain, expires, in seconds since 1970.",
    ),
    counter(
        "throng_wrong_tokens_total",
        "answer",
        "Requests with a wrong token: refused or slowed.",
    ),
];

/// The metric with a name.
pub(crate) fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Registers the descriptions with the recorder of the process.
pub(crate) fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => ::metrics::describe_gauge!(metric.name, metric.help),
            Kind::Summary => ::metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// The names of all metrics, for checks of dashboards and alert rules that use them.
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|metric| metric.name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_sorted_unique_and_of_one_style() {
        assert!(METRICS.is_sorted_by(|a, b| a.name.replace('_', "!") < b.name.replace('_', "!")));
        for Metric { name, kind, help, .. } in METRICS {
            assert!(name.starts_with("throng_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        }
    }

    /// `THRONG_BLESS=1` writes the table again.
    #[test]
    fn the_documented_table_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/metrics.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- metrics: begin -->\n", "<!-- metrics: end -->");
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let rows: String = METRICS
            .iter()
            .map(|Metric { name, kind, labels, help }| {
                format!("| `{name}` | {} | {labels} | {help} |\n", kind.name())
            })
            .collect();
        let table = format!("| metric | type | labels | what it says |\n|---|---|---|---|\n{rows}");
        let expected = format!("{before}{begin}{table}{end}{after}");
        if std::env::var_os("THRONG_BLESS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text == expected, "docs/operate/metrics.md is not current: cargo xtask gen");
    }
}
