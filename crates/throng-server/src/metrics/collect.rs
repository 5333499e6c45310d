//! Metrics that are read at a scrape: from the ledger, the log and the disk. In a cluster
//! every node exposes the same values of the ledger: aggregate them with `max by`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_aggregator::{Budgets, GateReport};
use throng_model::Clock;
use throng_spec::{LogSettings, Spec};
use throng_store::{
    AlertKind, Ledger, LedgerError, RefreshState, RunState, StoredEnum as _, TaskState,
};
use throng_telemetry::Families;
use throng_telemetry::metrics::{
    ALERT_EVENTS_PENDING, ALERTS_OPEN, AUDIENCE_AGE_SECONDS_MAX, BATCHES_OPEN, DISK_FREE_BYTES,
    DISK_SIZE_BYTES, GATE_APPLIED_VERSION, GATE_REPORT_AGE_SECONDS, LEDGER_READABLE, LOG_BYTES,
    QUEUE_DEPTH, REFRESHES, SYNC_RUNS, TASKS,
};
use tokio::time::Instant;

/// A scrape within this time after another one gets the same values of the ledger: several scrapers
/// must not multiply its load.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Waiting checks are counted up to this number.
const MAX_CHECKS: u32 = 1_000;

/// What metrics are read from.
pub(crate) struct MetricSources {
    /// Audiences, runs, tasks and alerts.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The applied spec.
    pub(crate) spec: Arc<ArcSwap<Spec>>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The folder of the event log, and the disk.
    pub(crate) data_dir: PathBuf,
    /// The gates that report to this process.
    pub(crate) budgets: Arc<Budgets>,
}

/// Reads metrics at a scrape.
pub(crate) struct Collector {
    sources: MetricSources,
    /// The text of the last read, and when it was made.
    last: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl Collector {
    /// A collector without an earlier read.
    pub(crate) fn new(sources: MetricSources) -> Self {
        Self { sources, last: tokio::sync::Mutex::default() }
    }

    /// The metrics that are read at a scrape, as text.
    pub(crate) async fn text(&self) -> String {
        let from = &self.sources;
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < CACHE_TTL
        {
            return text.clone() + &collect_gates(from);
        }
        let mut families = Families::default();
        let read = collect_ledger(from, &mut families).await;
        families.one(LEDGER_READABLE, f64::from(u8::from(read.is_ok())));
        if let Err(error) = read {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to read metrics from the ledger"
            );
        }
        collect_disk(from, &mut families).await;
        let text = families.into_text();
        *last = Some((Instant::now(), text.clone()));
        text + &collect_gates(from)
    }
}

type Label = [(&'static str, String); 1];

fn label(name: &'static str, value: impl Into<String>) -> Label {
    [(name, value.into())]
}

/// Adds nothing if a part of it cannot be read.
async fn collect_ledger(from: &MetricSources, families: &mut Families) -> Result<(), LedgerError> {
    let ledger = &from.ledger;
    let alerts = ledger.open_alerts_by_kind().await?;
    let receivers = ledger.receivers().await?;
    let audiences = ledger.audiences().await?;
    let tasks = ledger.task_counts().await?;
    let incomplete_syncs = ledger.incomplete_syncs().await?;
    let checks = ledger.unchecked_tasks(MAX_CHECKS).await?.len();
    let open_batches = ledger.open_batches().await?;

    let open = |kind| alerts.iter().find(|(of, _)| *of == kind).map_or(0, |(_, n)| *n);
    families.add(
        ALERTS_OPEN,
        AlertKind::ALL.map(|kind| (label("kind", kind.name()), open(kind) as f64)),
    );
    families.add(
        ALERT_EVENTS_PENDING,
        receivers.into_iter().map(|r| (label("receiver", r.name), r.pending as f64)),
    );

    let spec = from.spec.load_full();
    let now = from.clock.now();
    let states = RefreshState::VARIANTS.iter().map(|(_, name)| *name).chain(["none"]);
    let mut refreshes: BTreeMap<&str, u64> = states.map(|state| (state, 0)).collect();
    let mut oldest = Duration::ZERO;
    let rows: HashMap<_, _> = audiences.iter().map(|row| (&row.name, row)).collect();
    for audience in &spec.audiences {
        let row = rows.get(&audience.name).copied();
        let state = row.and_then(|row| row.refresh.as_ref()).map(|refresh| refresh.state);
        *refreshes.entry(state.map_or("none", RefreshState::stored_name)).or_default() += 1;
        if let Some(current) = row.and_then(|row| row.current.as_ref()) {
            oldest = oldest.max(now.since(current.created_at));
        }
    }
    let waiting = refreshes["scheduled"] + refreshes["halted"];
    families
        .add(REFRESHES, refreshes.into_iter().map(|(state, n)| (label("state", state), n as f64)));
    families.one(AUDIENCE_AGE_SECONDS_MAX, oldest.as_secs_f64());

    let runs = [RunState::Active, RunState::Held, RunState::Failed];
    families.add(
        SYNC_RUNS,
        runs.map(|state| {
            let n = incomplete_syncs.iter().filter(|(_, of)| *of == state).count();
            (label("state", state.stored_name()), n as f64)
        }),
    );
    let queued = tasks.iter().find(|(state, _)| *state == TaskState::Queued).map_or(0, |(_, n)| *n);
    families.add(
        TASKS,
        tasks.iter().map(|(state, n)| (label("state", state.stored_name()), *n as f64)),
    );
    families.one(BATCHES_OPEN, open_batches as f64);
    families.add(
        QUEUE_DEPTH,
        [("refreshes", waiting), ("tasks", queued), ("checks", checks as u64)]
            .map(|(queue, n)| (label("queue", queue), n as f64)),
    );
    Ok(())
}

async fn collect_disk(from: &MetricSources, families: &mut Families) {
    let has_log = from.spec.load().node.log == LogSettings::Files;
    let folder = from.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        let log = has_log.then(|| bytes_below(&folder.join("log")));
        (log, rustix::fs::statvfs(&folder))
    });
    let Ok((log, disk)) = read.await else { return };
    if let Some(bytes) = log {
        families.one(LOG_BYTES, bytes as f64);
    }
    match disk {
        Ok(disk) => {
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize) as f64;
            families.one(DISK_FREE_BYTES, bytes(disk.f_bavail));
            families.one(DISK_SIZE_BYTES, bytes(disk.f_blocks));
        }
        Err(error) => tracing::warn!(%error, "failed to read the free space of the disk"),
    }
}

/// The bytes of all files below a folder. A file that is removed during the walk does not count.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_below(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .fold(0, u64::saturating_add)
}

/// The feed versions that each gate has applied, and the age of its report. Not kept in the
/// recorder, which would expose a gate forever that has gone away.
fn collect_gates(from: &MetricSources) -> String {
    let now = from.clock.now();
    let gates = from.budgets.gates();
    let mut families = Families::default();
    families.add(
        GATE_REPORT_AGE_SECONDS,
        gates.iter().map(|gate| (label("gate", gate.id.clone()), now.since(gate.at).as_secs_f64())),
    );
    families.add(GATE_APPLIED_VERSION, gates.iter().flat_map(applied_versions));
    families.into_text()
}

fn applied_versions(
    gate: &GateReport,
) -> impl Iterator<Item = ([(&'static str, String); 2], f64)> + '_ {
    gate.versions.iter().map(|(partition, version)| {
        let labels = [("gate", gate.id.clone()), ("partition", partition.to_string())];
        (labels, *version as f64)
    })
}
