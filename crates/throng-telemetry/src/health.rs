//! The open problems of this node: its parts report and clear them by name, and `/readyz`,
//! `/v1/node/health` and the metrics show them.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use throng_model::{Clock, StorageProblem, Timestamp, with_causes};

use crate::metrics;

/// Prefix of the keys of disk problems that a part of the node reported, and not the periodic write
/// probe.
const DISK_PROBLEM: &str = "while working: ";

/// The kind of a problem. The only thing about it that a caller without a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemClass {
    /// The ledger does not respond, or refuses writes.
    Ledger,
    /// A disk of this node is full, or nearly so, or refuses writes.
    Disk,
    /// The data directory is not the one that was opened.
    DataDirectory,
    /// The event log or Kafka cannot be written or read.
    Log,
    /// A partition of the events is not aggregated here although it should be.
    Partition,
    /// A snapshot or a dictionary is damaged or missing; an older one is served, or none.
    Snapshot,
    /// The bucket cannot be reached; new objects are not downloaded.
    Objects,
    /// No query worker can run SQL.
    Query,
    /// A new TLS certificate cannot be used, and the previous one stays in use; or the one in use
    /// expires.
    Certificate,
    /// A changed configuration cannot be used; the previous one stays in use.
    Config,
    /// An alert could not be written or sent.
    Alert,
    /// The clock of this machine contradicts the event log.
    Clock,
    /// No task of an account on a platform starts here for some minutes, after a failure of the whole account.
    Account,
}

impl ProblemClass {
    /// Every class.
    pub const ALL: [Self; 13] = [
        Self::Ledger,
        Self::Disk,
        Self::DataDirectory,
        Self::Log,
        Self::Partition,
        Self::Snapshot,
        Self::Objects,
        Self::Query,
        Self::Certificate,
        Self::Config,
        Self::Alert,
        Self::Clock,
        Self::Account,
    ];

    /// Its name in answers, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Disk => "disk",
            Self::DataDirectory => "data_directory",
            Self::Log => "log",
            Self::Partition => "partition",
            Self::Snapshot => "snapshot",
            Self::Objects => "objects",
            Self::Query => "query",
            Self::Certificate => "certificate",
            Self::Config => "config",
            Self::Alert => "alert",
            Self::Clock => "clock",
            Self::Account => "account",
        }
    }

    /// The impact of a problem of this class, unless its reporter sets another one.
    ///
    /// Without its ledger, log or disk a node refuses requests, so they must go to another node:
    /// not ready. With any other problem it keeps serving what it has: degraded.
    pub fn impact(self) -> Impact {
        match self {
            Self::Ledger | Self::Disk | Self::DataDirectory | Self::Log => Impact::NotReady,
            Self::Partition
            | Self::Snapshot
            | Self::Objects
            | Self::Query
            | Self::Certificate
            | Self::Config
            | Self::Alert
            | Self::Clock
            | Self::Account => Impact::Degraded,
        }
    }
}

/// What a problem does to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// The node serves older data, or not everything. `/readyz` stays 200.
    Degraded,
    /// The node should get no requests. `/readyz` is 503.
    NotReady,
}

/// An open problem of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthProblem {
    /// Its kind.
    pub class: ProblemClass,
    /// Which one of its class: a partition's number, an audience's name, a file; empty if there can
    /// be only one.
    pub key: String,
    /// What it does to the node.
    pub impact: Impact,
    /// What happened and how to fix it, for signed-in callers. Never a value of the data or a
    /// secret.
    pub detail: String,
    /// Since when it is open.
    pub since: Timestamp,
}

/// The open problems of a node. Cheap to call from anywhere: a map behind a lock that is never held
/// across I/O.
pub struct Health {
    clock: Arc<dyn Clock>,
    open: Mutex<BTreeMap<(ProblemClass, String), HealthProblem>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("open", &self.lock().len()).finish_non_exhaustive()
    }
}

impl Health {
    /// No problems yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        for class in ProblemClass::ALL {
            gauge(class, 0);
        }
        Self { clock, open: Mutex::default() }
    }

    /// Opens a problem with the impact of its class. A second report keeps the time and replaces
    /// the detail; only the first one is logged.
    pub fn report(&self, class: ProblemClass, key: &str, detail: impl Into<String>) {
        self.report_as(class, class.impact(), key, detail);
    }

    /// Opens a problem as [`report`](Self::report) does, with another impact than its class has.
    pub fn report_as(
        &self,
        class: ProblemClass,
        impact: Impact,
        key: &str,
        detail: impl Into<String>,
    ) {
        let detail = detail.into();
        let now = self.clock.now();
        let mut open = self.lock();
        if let Some(problem) = open.get_mut(&(class, key.to_owned())) {
            problem.impact = impact;
            problem.detail = detail;
            return;
        }
        let name = class.name();
        tracing::warn!(class = name, key, ?impact, detail, "problem opened");
        let problem = HealthProblem { class, key: key.to_owned(), impact, detail, since: now };
        open.insert((class, key.to_owned()), problem);
        gauge(class, count(&open, class));
    }

    /// Resolves a problem. Does nothing if it is not open.
    pub fn clear(&self, class: ProblemClass, key: &str) {
        let mut open = self.lock();
        if open.remove(&(class, key.to_owned())).is_some() {
            tracing::info!(class = class.name(), key, "problem resolved");
            gauge(class, count(&open, class));
        }
    }

    /// Makes these, by their keys, the open problems of a class: others of the class are resolved.
    pub fn replace(&self, class: ProblemClass, problems: BTreeMap<String, String>) {
        for open in self.problems() {
            if open.class == class && !problems.contains_key(&open.key) {
                self.clear(class, &open.key);
            }
        }
        for (key, detail) in problems {
            self.report(class, &key, detail);
        }
    }

    /// Reports an error of a part of this node if a disk is the cause: `/readyz` names the class,
    /// and the problem is cleared when a write to the data directory succeeds. The part retries by
    /// itself.
    pub fn report_storage_error(&self, part: &str, error: &(dyn Error + 'static)) {
        let Some(problem) = StorageProblem::in_causes(error) else { return };
        if !matches!(
            problem,
            StorageProblem::DiskFull | StorageProblem::ReadOnly | StorageProblem::Io
        ) {
            return;
        }
        let words = with_causes(error);
        let detail = format!("{part}: {problem} ({words}); {}", problem.hint());
        let key = format!("{DISK_PROBLEM}{part}");
        self.report_as(ProblemClass::Disk, Impact::Degraded, &key, detail);
    }

    /// Clears what [`report_storage_error`](Self::report_storage_error) reported.
    pub fn clear_storage_errors(&self) {
        for problem in self.problems() {
            if problem.class == ProblemClass::Disk && problem.key.starts_with(DISK_PROBLEM) {
                self.clear(problem.class, &problem.key);
            }
        }
    }

    /// Every open problem, by class and key.
    pub fn problems(&self) -> Vec<HealthProblem> {
        self.lock().values().cloned().collect()
    }

    /// The worst impact of the open problems; `None` if none is open.
    pub fn impact(&self) -> Option<Impact> {
        self.lock().values().map(|problem| problem.impact).max()
    }

    /// The classes of the open problems, each once.
    pub fn classes(&self) -> Vec<ProblemClass> {
        let mut classes: Vec<ProblemClass> = self.lock().keys().map(|(class, _)| *class).collect();
        classes.dedup();
        classes
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ProblemClass, String), HealthProblem>> {
        self.open.lock()
    }
}

fn count(open: &BTreeMap<(ProblemClass, String), HealthProblem>, class: ProblemClass) -> usize {
    open.keys().filter(|(of, _)| *of == class).count()
}

fn gauge(class: ProblemClass, open: usize) {
    metrics::gauge!(metrics::HEALTH_PROBLEMS, "class" => class.name()).set(open as f64);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_model::ManualClock;

    use super::*;

    #[test]
    fn problems_are_kept_by_class_and_key_until_they_are_cleared() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let health = Health::new(Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!((health.impact(), health.classes()), (None, vec![]));

        health.report(ProblemClass::Snapshot, "buyers", "damaged");
        clock.advance(Duration::from_secs(5));
        health.report(ProblemClass::Snapshot, "big", "missing");
        health.report(ProblemClass::Snapshot, "buyers", "still damaged");
        assert_eq!(health.impact(), Some(Impact::Degraded));
        assert_eq!(health.classes(), [ProblemClass::Snapshot]);
        let buyers = health.problems().into_iter().find(|p| p.key == "buyers").unwrap();
        assert_eq!((buyers.detail.as_str(), buyers.since), ("still damaged", Timestamp(0)));

        health.report(ProblemClass::Disk, "", "full");
        assert_eq!(health.impact(), Some(Impact::NotReady));
        assert_eq!(health.classes(), [ProblemClass::Disk, ProblemClass::Snapshot]);
        health.clear(ProblemClass::Disk, "");
        health.clear(ProblemClass::Snapshot, "buyers");
        health.clear(ProblemClass::Snapshot, "nobody");
        assert_eq!(health.problems().len(), 1);
        health.clear(ProblemClass::Snapshot, "big");
        assert_eq!(health.impact(), None);

        health.report_as(ProblemClass::Disk, Impact::Degraded, "", "nearly full");
        assert_eq!(health.impact(), Some(Impact::Degraded));
    }

    #[test]
    fn the_problems_of_a_class_are_replaced_and_others_stay() {
        let health = Health::new(Arc::new(ManualClock::new(Timestamp(0))));
        health.report(ProblemClass::Alert, "old", "not sent");
        let account = |name: &str| BTreeMap::from([(name.to_owned(), "suspended".to_owned())]);
        let keys = || health.problems().into_iter().map(|p| p.key).collect::<Vec<_>>();
        health.replace(ProblemClass::Account, account("old"));
        health.replace(ProblemClass::Account, account("shop"));
        assert_eq!(keys(), ["old", "shop"]);
        assert_eq!(health.classes(), [ProblemClass::Alert, ProblemClass::Account]);
        health.replace(ProblemClass::Account, BTreeMap::new());
        assert_eq!(keys(), ["old"]);
    }

    #[test]
    fn every_class_is_named_as_it_is_written() {
        for class in ProblemClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }
}
