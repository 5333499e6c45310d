//! What a sidecar has and lacks: for decisions, readiness and metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use throng_api::Readiness;
use throng_gate::Gate;
use throng_gate::feed::{Frame, FrameKind};
use throng_membership::{MembershipIndex, seed_check};
use throng_model::{Clock, HashSeed, Timestamp};
use throng_telemetry::Families;
use throng_telemetry::metrics::{
    GATE_APPLIED_VERSION, SIDECAR_CACHE_BYTES, SIDECAR_CATALOG_VERSION, SIDECAR_DECISIONS_TOTAL,
    SIDECAR_FEED_AGE_SECONDS, SIDECAR_FEED_CONNECTED, SIDECAR_FRAMES_TOTAL, SIDECAR_READY,
    SIDECAR_SNAPSHOT_VERSION, SIDECAR_SYNC_AGE_SECONDS, SIDECAR_SYNC_FAILURES_TOTAL,
};

use crate::error::SyncError;
use crate::follow::FeedObserver;
use crate::membership::MembershipObserver;

/// How long after the first frame a gate waits for the frames of the other partitions. A partition without a leader
/// must not keep the ad groups of all others from being decided about.
const PARTITIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the clock may be behind the node's before it is reported. Clocks that are synchronized differ by less.
const MAX_CLOCK_BEHIND: Duration = Duration::from_secs(5);

/// What is followed.
#[derive(Debug, Clone, Copy)]
enum Part {
    Feed,
    Membership,
    Report,
    Clock,
}

impl Part {
    const ALL: [Self; 4] = [Self::Feed, Self::Membership, Self::Report, Self::Clock];

    fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Membership => "membership",
            Self::Report => "report",
            Self::Clock => "clock",
        }
    }
}

/// The state of a sidecar.
#[derive(Debug)]
pub(crate) struct Status {
    clock: Arc<dyn Clock>,
    gate: Arc<Gate>,
    id: String,
    has_catalog: AtomicBool,
    is_connected: AtomicBool,
    /// Stays set without the node: a gate that was complete continues with what it has.
    is_ready: AtomicBool,
    /// The node belongs to another deployment now: its figures are those of other ad groups.
    is_foreign: AtomicBool,
    /// The deployment that feed or catalog named last; 0 before.
    feed_deployment: AtomicU64,
    /// The time of the last delta minus [`Clock::elapsed`] when it was applied, in microseconds; `i64::MIN` before it.
    node_clock: AtomicI64,
    /// When the first frame was applied, by [`Clock::elapsed`].
    first_frame_at: Mutex<Option<Duration>>,
    /// Fixed for a deployment, and with it for the cache.
    seed: OnceLock<HashSeed>,
    membership: ArcSwapOption<MembershipIndex>,
    /// When membership was compared with the node, by [`Clock::elapsed`].
    checked_at: Mutex<Option<Duration>>,
    frames: AtomicU64,
    decisions: AtomicU64,
    failures: [AtomicU64; 4],
    /// The class of the last error of each part, while it lasts.
    problems: Mutex<[Option<&'static str>; 4]>,
}

impl Status {
    pub(crate) fn new(clock: Arc<dyn Clock>, gate: Arc<Gate>, id: String) -> Self {
        Self {
            clock,
            gate,
            id,
            has_catalog: AtomicBool::new(false),
            is_connected: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            feed_deployment: AtomicU64::new(0),
            node_clock: AtomicI64::new(i64::MIN),
            first_frame_at: Mutex::new(None),
            seed: OnceLock::new(),
            membership: ArcSwapOption::empty(),
            checked_at: Mutex::new(None),
            frames: AtomicU64::new(0),
            decisions: AtomicU64::new(0),
            failures: Default::default(),
            problems: Mutex::new([None; 4]),
        }
    }

    /// Whether decisions are complete: the gate has catalog, membership and figures.
    pub(crate) fn is_ready(&self) -> bool {
        let is_foreign = self.is_foreign.load(Ordering::Acquire) || !self.has_own_feed();
        !is_foreign && (self.is_ready.load(Ordering::Acquire) || self.becomes_ready())
    }

    fn becomes_ready(&self) -> bool {
        let Some(first_frame_at) = *self.first_frame_at.lock() else { return false };
        let waited = self.clock.elapsed().saturating_sub(first_frame_at);
        // Without its figures an ad group would be shown past its budget.
        let has_figures = self.gate.unnamed() == 0 || waited >= PARTITIONS_TIMEOUT;
        // What the cache has may be days old: users may have been excluded since.
        let has_membership = self.seed.get().is_some() && self.checked_at.lock().is_some();
        let is_ready = has_figures && has_membership && self.has_catalog.load(Ordering::Acquire);
        if is_ready && !self.is_ready.swap(true, Ordering::AcqRel) {
            tracing::info!(gate = self.id, "the gate is complete and decides");
        }
        is_ready
    }

    /// Whether the feed is of the deployment of the snapshots, as far as both are known.
    fn has_own_feed(&self) -> bool {
        match (self.feed_deployment.load(Ordering::Acquire), self.seed.get()) {
            (0, _) | (_, None) => true,
            (deployment, Some(seed)) => deployment == seed_check(*seed),
        }
    }

    /// Forgets what may be of another deployment: its ad groups may have the same names, and its frames higher
    /// versions. The feed is followed from its keyframes again, because the gate cannot apply a delta now.
    fn begin_again(&self) {
        self.has_catalog.store(false, Ordering::Release);
        self.is_ready.store(false, Ordering::Release);
        self.gate.reset();
        *self.first_frame_at.lock() = None;
    }

    /// The time of decisions: that of the clock, or the node's if the clock is behind it. By a clock that is behind,
    /// a feed that has ended would seem current for as long, and insertions would be of an earlier budget day.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        match self.node_clock.load(Ordering::Acquire) {
            i64::MIN => now,
            node_clock => now.max(Timestamp(node_clock).plus(self.clock.elapsed())),
        }
    }

    /// Compares the clock with the node's. Only by deltas: the keyframes of a new connection may be old.
    fn compare_clocks(&self, frame_at: Timestamp) {
        let node_clock = frame_at.minus(self.clock.elapsed());
        self.node_clock.store(node_clock.0, Ordering::Release);
        let behind = frame_at.since(self.clock.now());
        if behind > MAX_CLOCK_BEHIND {
            self.fail(Part::Clock, &SyncError::ClockBehind { secs: behind.as_secs() });
        } else {
            self.succeed(Part::Clock);
        }
    }

    /// The seed of the hashes of users, once it is known.
    pub(crate) fn seed(&self) -> Option<HashSeed> {
        self.seed.get().copied()
    }

    pub(crate) fn count_decision(&self) {
        self.decisions.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, part: Part, error: &SyncError) {
        self.failures[part as usize].fetch_add(1, Ordering::Relaxed);
        let class = error.class();
        let before = self.problems.lock()[part as usize].replace(class);
        let (part, hint) = (part.name(), error.hint());
        // Once while it lasts: attempts follow each other in seconds.
        if before == Some(class) {
            tracing::debug!(
                part,
                class,
                error = error as &dyn std::error::Error,
                "failed to follow the node"
            );
        } else {
            tracing::warn!(
                part,
                class,
                error = error as &dyn std::error::Error,
                hint,
                "failed to follow the node"
            );
        }
    }

    fn succeed(&self, part: Part) {
        if let Some(class) = self.problems.lock()[part as usize].take() {
            tracing::info!(part = part.name(), class, "following the node again");
        }
    }

    /// For probes: classes without details.
    pub(crate) fn readiness(&self) -> Readiness {
        let ready = self.is_ready();
        let mut problems: Vec<String> = Vec::new();
        for (part, class) in Part::ALL.iter().zip(*self.problems.lock()) {
            problems.extend(class.map(|class| format!("{}: {class}", part.name())));
        }
        if ready && self.has_stale_figures() {
            problems.push("feed: stale".to_owned());
        }
        let degraded = !problems.is_empty();
        if !ready && problems.is_empty() {
            problems.push("starting".to_owned());
        }
        Readiness { ready, degraded: ready && degraded, problems }
    }

    /// Whether the last frame of a partition is so old that decisions count its figures as stale, although there may be
    /// a connection: the node may have none to its event log, or this clock may be ahead of the node's.
    fn has_stale_figures(&self) -> bool {
        let (now, stale_after) = (self.now(), self.gate.stale_after());
        self.gate.versions().iter().any(|version| now.since(version.at) > stale_after)
    }

    /// Prometheus' text. `cache_bytes`: the size of the cache.
    pub(crate) fn metrics(&self, cache_bytes: u64) -> String {
        let mut families = Families::default();
        let flag = |value: bool| f64::from(u8::from(value));
        let versions = self.gate.versions();
        families.add(
            GATE_APPLIED_VERSION,
            versions.iter().map(|version| {
                let labels =
                    [("gate", self.id.clone()), ("partition", version.partition.to_string())];
                (labels, version.version as f64)
            }),
        );
        families.one(SIDECAR_CACHE_BYTES, cache_bytes as f64);
        families.one(SIDECAR_CATALOG_VERSION, self.gate.catalog_version() as f64);
        families.one(SIDECAR_DECISIONS_TOTAL, self.decisions.load(Ordering::Relaxed) as f64);
        let now = self.now();
        if let Some(oldest) = versions.iter().map(|version| version.at).min() {
            families.one(SIDECAR_FEED_AGE_SECONDS, now.since(oldest).as_secs_f64());
        }
        families.one(SIDECAR_FEED_CONNECTED, flag(self.is_connected.load(Ordering::Relaxed)));
        families.one(SIDECAR_FRAMES_TOTAL, self.frames.load(Ordering::Relaxed) as f64);
        families.one(SIDECAR_READY, flag(self.is_ready()));
        let membership = self.membership.load_full();
        let snapshots = membership.iter().flat_map(|index| index.snapshots());
        families.add(
            SIDECAR_SNAPSHOT_VERSION,
            snapshots.map(|(audience, file)| {
                ([("audience", audience.to_string())], file.meta().version as f64)
            }),
        );
        if let Some(checked_at) = *self.checked_at.lock() {
            let age = self.clock.elapsed().saturating_sub(checked_at);
            families.one(SIDECAR_SYNC_AGE_SECONDS, age.as_secs_f64());
        }
        let failures = Part::ALL.iter().zip(&self.failures).map(|(part, count)| {
            ([("part", part.name().to_owned())], count.load(Ordering::Relaxed) as f64)
        });
        families.add(SIDECAR_SYNC_FAILURES_TOTAL, failures);
        families.into_text()
    }
}

impl FeedObserver for Status {
    fn is_of(&self, deployment: u64) -> bool {
        self.feed_deployment.store(deployment, Ordering::Release);
        self.has_own_feed()
    }

    fn catalog_read(&self) {
        self.has_catalog.store(true, Ordering::Release);
    }

    fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
    }

    fn applied(&self, frame: &Frame) {
        if matches!(frame.kind, FrameKind::Delta { .. }) {
            self.compare_clocks(frame.at);
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.first_frame_at.lock().get_or_insert_with(|| self.clock.elapsed());
        self.succeed(Part::Feed);
        self.is_ready();
    }

    fn failed(&self, error: &SyncError) {
        self.is_connected.store(false, Ordering::Relaxed);
        if matches!(error, SyncError::OtherFeed { .. }) {
            // Its frames were applied, if it was not known then which deployment is the own one.
            self.begin_again();
        }
        self.fail(Part::Feed, error);
    }

    fn reported(&self) {
        self.succeed(Part::Report);
    }

    fn not_reported(&self, error: &SyncError) {
        self.fail(Part::Report, error);
    }
}

impl MembershipObserver for Status {
    fn loaded(&self, index: &Arc<MembershipIndex>) {
        self.gate.set_membership(Arc::clone(index));
        self.membership.store(Some(Arc::clone(index)));
        // After the index: a decision that hashes a user finds the membership.
        self.seed.get_or_init(|| index.seed());
        let (audiences, missing) = (index.names().len(), index.missing().len());
        tracing::info!(audiences, missing, users = index.users(), "membership loaded");
        self.is_ready();
    }

    fn current(&self) {
        *self.checked_at.lock() = Some(self.clock.elapsed());
        if self.is_foreign.load(Ordering::Acquire) {
            self.begin_again();
            tracing::info!(
                gate = self.id,
                "the node is of this deployment again, reading its figures"
            );
            self.is_foreign.store(false, Ordering::Release);
        }
        self.succeed(Part::Membership);
    }

    fn failed(&self, error: &SyncError) {
        if matches!(error, SyncError::OtherDeployment { .. }) {
            self.is_foreign.store(true, Ordering::Release);
        }
        self.fail(Part::Membership, error);
    }
}

#[cfg(test)]
mod tests {
    use throng_gate::feed::FrameKind;
    use throng_gate::{Catalog, FrameOutcome};
    use throng_model::{ManualClock, Timestamp};

    use super::*;

    fn keyframe(version: u64) -> Frame {
        Frame {
            partition: 0,
            epoch: 1,
            version,
            kind: FrameKind::Keyframe,
            at: Timestamp(0),
            catalog_version: 0,
            log_position: Some(0),
            entries: Vec::new(),
        }
    }

    #[test]
    fn figures_of_another_deployment_do_not_outlast_it() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let gate = Arc::new(Gate::new(Catalog::default(), Duration::from_secs(10)));
        let status = Status::new(clock, Arc::clone(&gate), "gate-1".to_owned());
        let follow = |version| {
            status.catalog_read();
            let outcome = gate.apply(&keyframe(version));
            status.applied(&keyframe(version));
            outcome
        };
        follow(5);
        assert!(!status.is_ready(), "no membership");
        MembershipObserver::loaded(&status, &Arc::new(MembershipIndex::empty(HashSeed(7))));
        assert!(!status.is_ready(), "that of the cache was not compared with the node");
        status.current();
        assert!(status.is_ready());
        let folder = std::path::PathBuf::from("cache");
        MembershipObserver::failed(&status, &SyncError::OtherDeployment { folder });
        follow(900);
        assert!(!status.is_ready());
        status.current();
        assert!(!status.is_ready(), "the figures are still those of the other deployment");
        assert!(matches!(follow(6), FrameOutcome::Applied { .. }));
        assert!(status.is_ready());
    }

    fn delta(version: u64, at: Timestamp) -> Frame {
        let kind = FrameKind::Delta { base_version: version - 1 };
        Frame { kind, at, ..keyframe(version) }
    }

    #[test]
    fn the_time_of_decisions_is_the_nodes_if_the_clock_is_behind_it() {
        let start = Timestamp(1_790_000_000_000_000);
        let (hour, seconds) = (Duration::from_secs(3_600), Duration::from_secs);
        let clock = Arc::new(ManualClock::new(start));
        let gate = Arc::new(Gate::new(Catalog::default(), seconds(10)));
        let status = Status::new(Arc::clone(&clock) as _, gate, "gate-1".to_owned());
        let problems = || status.readiness().problems;
        status.applied(&delta(5, start.plus(hour)));
        assert_eq!(status.now(), start.plus(hour));
        assert_eq!(problems(), ["clock: clock_behind"]);
        let metrics = status.metrics(0);
        let counted = "throng_sidecar_sync_failures_total{part=\"clock\"} 1";
        assert!(metrics.lines().any(|line| line == counted), "{metrics}");
        // The feed ends: it becomes stale in the time that it takes with a synchronized clock, also over
        // connections that bring old keyframes.
        clock.advance(seconds(30));
        status.applied(&Frame { at: start.plus(hour), ..keyframe(5) });
        assert_eq!(status.now(), start.plus(hour).plus(seconds(30)));
        clock.step(start.plus(hour).plus(seconds(31)));
        status.applied(&delta(6, start.plus(hour).plus(seconds(30))));
        assert_eq!(status.now(), start.plus(hour).plus(seconds(31)), "the clock was set");
        assert_eq!(problems(), ["starting"]);
    }

    #[test]
    fn old_figures_are_a_problem_also_with_a_connection() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let gate = Arc::new(Gate::new(Catalog::default(), Duration::from_secs(10)));
        let status = Status::new(Arc::clone(&clock) as _, Arc::clone(&gate), "gate-1".to_owned());
        status.catalog_read();
        gate.apply(&keyframe(5));
        status.applied(&keyframe(5));
        MembershipObserver::loaded(&status, &Arc::new(MembershipIndex::empty(HashSeed(7))));
        status.current();
        let problems = || {
            let Readiness { ready, degraded, problems } = status.readiness();
            (ready, degraded, problems.join(", "))
        };
        clock.advance(Duration::from_secs(10));
        assert_eq!(problems(), (true, false, String::new()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(problems(), (true, true, "feed: stale".to_owned()));
        let newer = delta(6, Timestamp(0).plus(Duration::from_secs(11)));
        gate.apply(&newer);
        status.applied(&newer);
        assert_eq!(problems(), (true, false, String::new()));
    }

    #[test]
    fn the_feed_of_another_deployment_is_not_decided_by() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let gate = Arc::new(Gate::new(Catalog::default(), Duration::from_secs(10)));
        let status = Status::new(clock, Arc::clone(&gate), "gate-1".to_owned());
        let (own, other) = (seed_check(HashSeed(7)), seed_check(HashSeed(8)));
        let follow = |version| {
            status.catalog_read();
            gate.apply(&keyframe(version));
            status.applied(&keyframe(version));
        };
        assert!(status.is_of(other), "it is not known yet which deployment is the own one");
        follow(900);
        MembershipObserver::loaded(&status, &Arc::new(MembershipIndex::empty(HashSeed(7))));
        status.current();
        assert!(!status.is_ready());
        assert!(!status.is_of(other));
        let url = "http://relay".to_owned();
        FeedObserver::failed(&status, &SyncError::OtherFeed { url });
        assert_eq!(status.readiness().problems, ["feed: other_feed"]);
        assert!(status.is_of(own));
        assert!(!status.is_ready(), "there are no figures of the own deployment");
        follow(6);
        assert!(status.is_ready());
        assert_eq!(gate.versions()[0].version, 6);
    }
}
