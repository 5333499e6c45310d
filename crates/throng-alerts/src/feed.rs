//! Which gates are silent, and which partitions of the feed are stale: decided from what gates and nodes report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use throng_model::Timestamp;
use throng_store::AlertKind;

use crate::deps::{FeedReports, GateVersions};
use crate::reconcile::Cause;

/// A gate that has been silent for this long is forgotten: it was removed.
const GATE_FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// A partition of the feed is stale if its newest frame is older: twice the longest interval of frames.
const FEED_STALE_AFTER: Duration = Duration::from_secs(120);
/// The most alerts of silent gates that are open at a time. A network that fails silences all of them.
const MAX_SILENT_ALERTS: usize = 100;
/// Frames of a partition that are remembered, one of each poll.
const MAX_FRAMES: usize = 60;
/// Gates that a message names.
const NAMED_GATES: usize = 3;

/// What is remembered from poll to poll.
#[derive(Debug, Default)]
pub(crate) struct FeedWatch {
    /// The time of the first poll. Silence counts from here on: after a start gates need time to connect.
    since: Option<Timestamp>,
    partitions: BTreeMap<u32, Frames>,
    /// Gates with a version above that of the newest frame, by id and partition: the version, and when it was
    /// reported first. It is one of an earlier leader, whose versions do not compare with those of the current
    /// one, or the node is a frame behind.
    ahead: BTreeMap<(String, u32), (u64, Timestamp)>,
}

/// The newest frames of a partition, of one epoch.
#[derive(Debug, Default)]
struct Frames {
    epoch: u64,
    /// Versions and times, oldest first.
    frames: VecDeque<(u64, Timestamp)>,
    /// Whether the last two polls have seen the same frame.
    is_unchanged: bool,
}

impl Frames {
    fn newest(&self) -> Option<(u64, Timestamp)> {
        self.frames.back().copied()
    }

    /// When the first frame was published that a gate with this version lacks, as far as it is known: it may have
    /// been earlier, never later.
    fn lacked_since(&self, version: u64) -> Option<Timestamp> {
        let next = self.frames.partition_point(|(of_frame, _)| *of_frame <= version);
        self.frames.get(next).map(|(_, at)| *at)
    }
}

/// What is wrong with gates and feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FeedFindings {
    /// Gates that are silent, with the times of their last reports; those that are known from an open alert alone
    /// without one.
    pub(crate) silent: BTreeMap<String, Option<Timestamp>>,
    /// Partitions whose newest frame is too old, with its time.
    pub(crate) stale: BTreeMap<u32, Timestamp>,
    /// Gates that lack frames of a partition for too long, by partition.
    pub(crate) behind: BTreeMap<u32, BTreeSet<String>>,
}

impl FeedFindings {
    /// Partitions that are stale, for nodes or for gates.
    pub(crate) fn stale_partitions(&self) -> BTreeSet<u32> {
        self.stale.keys().chain(self.behind.keys()).copied().collect()
    }
}

impl FeedWatch {
    /// Records what one poll has read, and returns what is wrong at this moment. `open`: the open alerts, with
    /// the times at which they were raised. `silent_after`: how long a gate may go without a report.
    pub(crate) fn observe(
        &mut self,
        reports: &FeedReports,
        open: &BTreeMap<Cause, Timestamp>,
        silent_after: Duration,
        now: Timestamp,
    ) -> FeedFindings {
        let since = *self.since.get_or_insert(now);
        self.record_frames(reports);
        let mut findings = FeedFindings {
            silent: silent_gates(&reports.gates, open, silent_after, (since, now)),
            stale: self.stale_partitions(now),
            behind: BTreeMap::new(),
        };
        let mut ahead = BTreeMap::new();
        // The figures of a gate that does not report are not known.
        let reporting = |gate: &&GateVersions| now.since(gate.at) < silent_after;
        for gate in reports.gates.iter().filter(reporting) {
            for (partition, version) in &gate.versions {
                if self.lag(gate, *partition, *version, &mut ahead) > FEED_STALE_AFTER {
                    findings.behind.entry(*partition).or_default().insert(gate.id.clone());
                }
            }
        }
        self.ahead = ahead;
        findings
    }

    fn record_frames(&mut self, reports: &FeedReports) {
        for frame in &reports.frames {
            let known = self.partitions.entry(frame.partition).or_default();
            if known.epoch != frame.epoch {
                *known = Frames { epoch: frame.epoch, ..Frames::default() };
            }
            known.is_unchanged =
                known.newest().is_some_and(|(version, _)| version == frame.version);
            if !known.is_unchanged {
                known.frames.push_back((frame.version, frame.at));
                if known.frames.len() > MAX_FRAMES {
                    known.frames.pop_front();
                }
            }
        }
        self.partitions.retain(|partition, _| {
            reports.frames.iter().any(|frame| frame.partition == *partition)
        });
    }

    /// Partitions without a new frame since the last poll whose newest one is too old. With one poll alone a feed
    /// would be stale after every start, as nothing is published while the node is down.
    fn stale_partitions(&self, now: Timestamp) -> BTreeMap<u32, Timestamp> {
        let is_old = |at: &Timestamp| now.since(*at) > FEED_STALE_AFTER;
        let unchanged = self.partitions.iter().filter(|(_, frames)| frames.is_unchanged);
        let newest =
            unchanged.filter_map(|(partition, frames)| Some((*partition, frames.newest()?.1)));
        newest.filter(|(_, at)| is_old(at)).collect()
    }

    /// For how long a gate had lacked frames of a partition when it reported, at least.
    fn lag(
        &self,
        gate: &GateVersions,
        partition: u32,
        version: u64,
        ahead: &mut BTreeMap<(String, u32), (u64, Timestamp)>,
    ) -> Duration {
        let Some(frames) = self.partitions.get(&partition) else { return Duration::ZERO };
        if frames.newest().is_some_and(|(newest, _)| version > newest) {
            let key = (gate.id.clone(), partition);
            let known = self.ahead.get(&key).filter(|(known, _)| *known == version);
            let first = known.map_or(gate.at, |(_, first)| *first);
            ahead.insert(key, (version, first));
            return gate.at.since(first);
        }
        frames.lacked_since(version).map_or(Duration::ZERO, |at| gate.at.since(at))
    }
}

/// The gates that have not reported for too long and are not forgotten, at most [`MAX_SILENT_ALERTS`]: those with an
/// open alert first.
fn silent_gates(
    gates: &[GateVersions],
    open: &BTreeMap<Cause, Timestamp>,
    silent_after: Duration,
    (since, now): (Timestamp, Timestamp),
) -> BTreeMap<String, Option<Timestamp>> {
    let reported: BTreeMap<&str, Timestamp> =
        gates.iter().map(|gate| (gate.id.as_str(), gate.at)).collect();
    let mut silent = BTreeMap::new();
    for ((kind, subject), raised_at) in open {
        let (AlertKind::GateSilent, Some(id)) = (*kind, subject.strip_prefix(GATE_PREFIX)) else {
            continue;
        };
        // A node that ends takes what it has of a gate with it; the alert stays.
        let last = reported.get(id).copied();
        let reports = last.is_some_and(|at| now.since(at) < silent_after);
        let is_forgotten = now.since(last.unwrap_or(*raised_at)) >= GATE_FORGOTTEN_AFTER;
        if !reports && !is_forgotten {
            silent.insert(id.to_owned(), last);
        }
    }
    for (id, at) in reported {
        if silent.len() >= MAX_SILENT_ALERTS {
            break;
        }
        let is_silent = now.since(at.max(since)) >= silent_after;
        if is_silent && now.since(at) < GATE_FORGOTTEN_AFTER {
            silent.insert(id.to_owned(), Some(at));
        }
    }
    silent
}

/// How the objects of alerts about gates begin.
const GATE_PREFIX: &str = "gate ";

/// The alerts that should be open, with their messages.
pub(crate) fn alerts_of(findings: &FeedFindings) -> BTreeMap<Cause, String> {
    let mut alerts = BTreeMap::new();
    for (id, at) in &findings.silent {
        let since = at.map_or_else(String::new, |at| format!(" since {at}"));
        let message = format!(
            "the gate has not reported which frames it has applied{since}: its ad server may be down, or decide by old \
             figures. `GET /v1/gates` and the page /budgets list the gates; one that is gone is forgotten after a day"
        );
        alerts.insert((AlertKind::GateSilent, format!("{GATE_PREFIX}{id}")), message);
    }
    for partition in findings.stale_partitions() {
        let mut parts = Vec::new();
        if let Some(at) = findings.stale.get(&partition) {
            parts.push(format!("no frame has been published since {at}"));
        }
        if let Some(gates) = findings.behind.get(&partition) {
            let named: Vec<&str> = gates.iter().map(String::as_str).take(NAMED_GATES).collect();
            let (count, named) = (gates.len(), named.join(", "));
            parts.push(format!(
                "gates without the frames of the last two minutes: {count}, such as {named}"
            ));
        }
        let message = format!(
            "{}. Gates decide by old figures, and budgets may be exceeded: check the aggregators, the relays and the \
             network between them and the gates",
            parts.join("; ")
        );
        alerts.insert((AlertKind::FeedStale, format!("partition {partition}")), message);
    }
    alerts
}

#[cfg(test)]
mod tests;
