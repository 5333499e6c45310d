//! The gate: frames and membership in, decisions out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use throng_feed::{Catalog, Frame, FrameKind};
use throng_membership::MembershipIndex;
use throng_model::{AdGroupIndex, AdGroupName, Micros, Timestamp, UserHash, WhenStale};

use crate::applied::{AdGroupSpend, FrameOutcome, PartitionVersion};
use crate::decision::{Decision, Reason};
use crate::followed::{Followed, Partitions, keep_unlisted, slot_of, write_frame};
use crate::own::{Logged, OwnInsertion, OwnInsertions};
use crate::slot::FeedPartition;
use crate::view::{Target, View, out_of_budget, request_hash, throttled};

/// How long after its start a node waits for a frame of every partition.
const FRAMES_TIMEOUT: Duration = Duration::from_secs(10);

/// The check in the ad server. Share it by `Arc`: deciding takes `&self`, takes no lock and never
/// waits; applying frames and replacing catalog or membership exclude each other.
// Lock order: `followed`, then the list of own insertions. `decide` takes neither.
pub struct Gate {
    stale_after: Duration,
    view: ArcSwap<View>,
    followed: Mutex<Partitions>,
    /// The oldest of all partitions' last frames, for ad groups that no frame has named; `i64::MIN` while
    /// there is none, and where frames have positions.
    // Why the oldest: nobody knows which partition such an ad group is in. In format 1 a keyframe leaves
    // out ad groups without spend, so being named by none is normal there, and the ad group is as fresh as
    // the partition that is furthest behind. With positions keyframes name all: not named is unknown.
    oldest: AtomicI64,
    /// What [`Self::has_frames_of`] has found.
    has_frames: AtomicBool,
    own: OwnInsertions,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("versions", &self.versions()).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate without a frame yet: every ad group has zero spend, and is stale. `stale_after`: how long
    /// after a frame its ad groups count as stale; ten times the feed's interval is usual.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate, Reason};
    /// # use throng_model::{AdGroupName, Timestamp};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let catalog: Catalog = serde_json::from_str(
    ///     r#"{"version": 1, "ad_groups": [{"index": 0, "name": "shoes", "daily_budget": 1000000,
    ///         "prediction": true, "include": [], "exclude": [], "when_stale": "stop"}]}"#,
    /// )?;
    /// let gate = Gate::new(catalog, Duration::from_secs(10));
    /// // It stops when its feed is stale, and no frame has come yet.
    /// let decision = gate.decide(None, &[AdGroupName::new("shoes")?], Timestamp(0));
    /// assert_eq!(decision.refused[0].1, Reason::Stale { since: None });
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(catalog: Catalog, stale_after: Duration) -> Self {
        let entries = catalog.ad_groups.into_iter().map(|e| (e, Arc::default())).collect();
        Self {
            stale_after,
            view: ArcSwap::from_pointee(View::new(catalog.version, entries, None)),
            followed: Mutex::default(),
            oldest: AtomicI64::new(i64::MIN),
            has_frames: AtomicBool::new(false),
            own: OwnInsertions::default(),
        }
    }

    /// One writer at a time: slots allow one, and a frame must not be written to a view that is
    /// being replaced. A panic releases the lock: figures are absolute, so the next
    /// keyframe replaces what it has left half written.
    fn writer(&self) -> MutexGuard<'_, Partitions> {
        self.followed.lock()
    }

    /// Replaces the catalog. Ad groups of the same index and name keep their figures; those that are new have
    /// what frames have said of them, and the next delta is answered with [`FrameOutcome::NeedKeyframe`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate};
    /// let gate = Gate::new(Catalog { version: 1, ad_groups: Vec::new() }, Duration::from_secs(10));
    /// gate.set_catalog(Catalog { version: 2, ad_groups: Vec::new() });
    /// assert_eq!(gate.catalog_version(), 2);
    /// ```
    pub fn set_catalog(&self, catalog: Catalog) {
        let mut followed = self.writer();
        let old = self.view.load();
        let mut grown = false;
        let entries = catalog
            .ad_groups
            .into_iter()
            .map(|entry| {
                // Why the name too: an index is never given twice in a cluster, but a gate that is connected
                // to another cluster would give an ad group the spend of a different one.
                let known = old.of_index(entry.index).filter(|t| t.entry.name == entry.name);
                grown |= known.is_none();
                let slot =
                    known.map_or_else(|| slot_of(&followed, entry.index), |t| Arc::clone(&t.slot));
                (entry, slot)
            })
            .collect();
        let view = View::new(catalog.version, entries, old.membership.clone());
        keep_unlisted(&mut followed, &old, &view);
        self.view.store(Arc::new(view));
        if grown {
            followed.values_mut().for_each(|f| f.complete = false);
        }
    }

    /// Forgets the catalog and all figures; the membership stays. For a gate that was connected to another
    /// cluster: figures of the same ad groups, and higher versions of frames, would stay for good.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate};
    /// let gate = Gate::new(Catalog { version: 7, ad_groups: Vec::new() }, Duration::from_secs(10));
    /// gate.reset();
    /// assert_eq!((gate.catalog_version(), gate.versions().len()), (0, 0));
    /// ```
    pub fn reset(&self) {
        let mut followed = self.writer();
        followed.clear();
        let membership = self.view.load().membership.clone();
        self.view.store(Arc::new(View::new(0, Vec::new(), membership)));
        self.oldest.store(i64::MIN, Ordering::Release);
        self.has_frames.store(false, Ordering::Release);
    }

    /// Replaces the membership index; decisions under way finish with the old one.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use throng_gate::{Catalog, Gate};
    /// # use throng_membership::MembershipIndex;
    /// # use throng_model::{AdGroupName, HashSeed, Timestamp, UserKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let catalog: Catalog = serde_json::from_str(
    /// #     r#"{"version": 1, "ad_groups": [{"index": 0, "name": "shoes", "daily_budget": 1000000,
    /// #         "prediction": true, "include": ["buyers"], "exclude": []}]}"#,
    /// # )?;
    /// # let gate = Gate::new(catalog, Duration::from_secs(10));
    /// // `shoes` is for the audience `buyers`, which has no snapshot in this index.
    /// let index = MembershipIndex::empty(HashSeed(7));
    /// let user = UserKey::text("user-1").hash(index.seed());
    /// gate.set_membership(Arc::new(index));
    /// let decision = gate.decide(Some(user), &[AdGroupName::new("shoes")?], Timestamp(0));
    /// assert_eq!(decision.refused[0].1.code(), "inclusion_unknown");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_membership(&self, membership: Arc<MembershipIndex>) {
        let _writer = self.writer();
        let old = self.view.load();
        let entries = old.targets.iter().map(|t| (t.entry.clone(), Arc::clone(&t.slot))).collect();
        self.view.store(Arc::new(View::new(old.catalog_version, entries, Some(membership))));
    }

    /// The catalog's version.
    pub fn catalog_version(&self) -> u64 {
        self.view.load().catalog_version
    }

    /// Applies a frame. Frames may come twice and in any order.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use throng_gate::feed::{Frame, FrameKind};
    /// use throng_gate::{Catalog, FrameOutcome, Gate};
    /// use throng_model::Timestamp;
    ///
    /// let gate = Gate::new(Catalog::default(), Duration::from_secs(10));
    /// let frame = |version, kind| Frame {
    ///     partition: 0,
    ///     epoch: 1,
    ///     version,
    ///     kind,
    ///     at: Timestamp(0),
    ///     catalog_version: 0,
    ///     log_position: Some(0),
    ///     entries: Vec::new(),
    /// };
    /// let delta = frame(6, FrameKind::Delta { base_version: 5 });
    /// assert_eq!(gate.apply(&delta), FrameOutcome::NeedKeyframe);
    /// assert!(matches!(gate.apply(&frame(5, FrameKind::Keyframe)), FrameOutcome::Applied { .. }));
    /// assert!(matches!(gate.apply(&delta), FrameOutcome::Applied { .. }));
    /// assert_eq!(gate.apply(&delta), FrameOutcome::Ignored);
    /// assert_eq!(gate.versions()[0].version, 6);
    /// ```
    pub fn apply(&self, frame: &Frame) -> FrameOutcome {
        let mut followed = self.writer();
        if let Some(known) = followed.get(&frame.partition) {
            let newer = (frame.epoch, frame.version) > (known.epoch, known.version);
            // A keyframe of the same version still helps a gate whose catalog has grown.
            let completes = !known.complete
                && frame.kind == FrameKind::Keyframe
                && (frame.epoch, frame.version) == (known.epoch, known.version);
            if !newer && !completes {
                return FrameOutcome::Ignored;
            }
        }
        if let FrameKind::Delta { base_version } = frame.kind {
            // Figures are absolute, so a base before ours repeats what is known, which does no harm. A base
            // after ours leaves a gap: what changed only in between would keep its old figures.
            let fits = followed.get(&frame.partition).is_some_and(|known| {
                known.complete && known.epoch == frame.epoch && base_version <= known.version
            });
            if !fits {
                return FrameOutcome::NeedKeyframe;
            }
        }
        let known = followed.entry(frame.partition).or_insert_with(|| Followed {
            partition: Arc::new(FeedPartition {
                number: frame.partition,
                last_frame_at: AtomicI64::new(frame.at.0),
            }),
            epoch: frame.epoch,
            version: frame.version,
            log_position: frame.log_position,
            complete: true,
            unlisted: HashMap::default(),
        });
        let view = self.view.load();
        let done = write_frame(&view, known, frame);
        known.epoch = frame.epoch;
        known.version = frame.version;
        known.log_position = frame.log_position;
        known.complete |= frame.kind == FrameKind::Keyframe;
        // Release, after the figures: who finds the partition fresh finds the figures that make it so.
        known.partition.last_frame_at.store(frame.at.0, Ordering::Release);
        // Where frames have positions, an ad group that none of them has named is unknown.
        let last_frame_at = |f: &Followed| match f.log_position {
            Some(_) => i64::MIN,
            None => f.partition.last_frame_at.load(Ordering::Relaxed),
        };
        let oldest = followed.values().map(last_frame_at).min();
        self.oldest.store(oldest.unwrap_or(i64::MIN), Ordering::Release);
        // Last: see `OwnInsertions::covered_by`.
        self.own.covered_by(frame);
        done
    }

    /// The age of the last frame of a partition from which its ad groups are stale.
    pub fn stale_after(&self) -> Duration {
        self.stale_after
    }

    /// How far the gate has followed each partition, by partition.
    pub fn versions(&self) -> Vec<PartitionVersion> {
        let mut versions: Vec<PartitionVersion> = self
            .writer()
            .values()
            .map(|f| PartitionVersion {
                partition: f.partition.number,
                epoch: f.epoch,
                version: f.version,
                log_position: f.log_position,
                at: Timestamp(f.partition.last_frame_at.load(Ordering::Acquire)),
            })
            .collect();
        versions.sort_by_key(|v| v.partition);
        versions
    }

    /// Whether a frame of each of so many partitions has been applied. Until then ad groups may read as unspent because
    /// their spend is not known. Cheap once it is so.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate};
    /// let gate = Gate::new(Catalog::default(), Duration::from_secs(10));
    /// assert!(!gate.has_frames_of(1));
    /// ```
    pub fn has_frames_of(&self, partitions: u32) -> bool {
        if self.has_frames.load(Ordering::Acquire) {
            return true;
        }
        let followed = self.writer();
        let has_frames = followed.len() >= partitions as usize;
        // Under the lock: after a reset it must not be stored.
        self.has_frames.store(has_frames, Ordering::Release);
        has_frames
    }

    /// Whether a node that has started must wait for its frames, as [`Self::has_frames_of`] tells: without them every budget
    /// would look unspent. It waits for 10 seconds at most, because a partition without a leader may have none.
    pub fn awaits_frames(&self, partitions: u32, started_at: Timestamp, now: Timestamp) -> bool {
        let is_starting = (started_at..started_at.plus(FRAMES_TIMEOUT)).contains(&now);
        is_starting && !self.has_frames_of(partitions)
    }

    /// How many ad groups of the catalog no frame has named yet: their spend reads as zero.
    pub fn unnamed(&self) -> usize {
        self.view.load().unnamed()
    }

    /// What the gate knows about an ad group's spend; `None` if the catalog does not have it.
    pub fn spend(&self, ad_group: &AdGroupName) -> Option<AdGroupSpend> {
        let view = self.view.load();
        let target = view.of_name(ad_group)?;
        let spend = target.slot.read();
        Some(AdGroupSpend {
            actual: spend.actual,
            in_flight: spend.in_flight,
            own: Micros(target.slot.own.load(Ordering::Acquire)),
            budget: target.entry.daily_budget,
        })
    }

    /// Which of the candidates may be shown to this user (`None`: an unknown user) now. An ad group is
    /// closed if `actual + in flight >= budget`, with prediction off if `actual >= budget`. One with a
    /// pass-through rate is shown at that share of requests, chosen by a hash of the user and the minute, or of `now` for
    /// an unknown user. `now` is compared with the times of frames, which are the node's: an ad group that stops
    /// when stale is refused as stale, or as [`Reason::ClockBehind`] if `now` is far before the last frame.
    /// Takes no lock; allocates for the result alone. About 0.1 µs a candidate.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate};
    /// # use throng_model::{AdGroupName, Timestamp};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let catalog: Catalog = serde_json::from_str(
    /// #     r#"{"version": 1, "ad_groups": [{"index": 0, "name": "shoes", "daily_budget": 1000000,
    /// #         "prediction": true, "include": [], "exclude": []}]}"#,
    /// # )?;
    /// # let gate = Gate::new(catalog, Duration::from_secs(10));
    /// let candidates = [AdGroupName::new("hats")?, AdGroupName::new("shoes")?];
    /// let decision = gate.decide(None, &candidates, Timestamp(0));
    /// assert_eq!(decision.allowed, [AdGroupName::new("shoes")?]);
    /// let (refused, reason) = &decision.refused[0];
    /// assert_eq!((refused.as_str(), reason.code()), ("hats", "unknown_ad_group"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn decide(
        &self,
        user: Option<UserHash>,
        candidates: &[AdGroupName],
        now: Timestamp,
    ) -> Decision<AdGroupName> {
        self.decide_by(user, candidates, now, |view, name| view.of_name(name))
    }

    /// As [`decide`](Self::decide), for callers that keep the catalog's indexes.
    pub fn decide_indexes(
        &self,
        user: Option<UserHash>,
        candidates: &[AdGroupIndex],
        now: Timestamp,
    ) -> Decision<AdGroupIndex> {
        self.decide_by(user, candidates, now, |view, &index| view.of_index(index))
    }

    fn decide_by<Id: Clone>(
        &self,
        user: Option<UserHash>,
        candidates: &[Id],
        now: Timestamp,
        find: impl for<'v> Fn(&'v View, &Id) -> Option<&'v Target>,
    ) -> Decision<Id> {
        self.decide_in(&self.view.load(), user, candidates, now, find)
    }

    fn decide_in<Id: Clone>(
        &self,
        view: &View,
        user: Option<UserHash>,
        candidates: &[Id],
        now: Timestamp,
        find: impl for<'v> Fn(&'v View, &Id) -> Option<&'v Target>,
    ) -> Decision<Id> {
        let located = user.and_then(|user| view.membership.as_ref()?.locate(user));
        let request = request_hash(user, now);
        let mut decision =
            Decision { allowed: Vec::with_capacity(candidates.len()), refused: Vec::new() };
        for id in candidates {
            let refusal = match find(view, id) {
                None => Some(Reason::UnknownAdGroup),
                Some(target) => self.stale(target, now).or_else(|| {
                    // Before the figures. `apply` writes figures first and then subtracts what they
                    // have; read in the opposite order, an insertion is seen in one of the two at
                    // least. Seen in both it refuses a little early, for one decision; in neither, it
                    // would be shown past the budget. Acquire: the figures are not read before it.
                    let own = target.slot.own.load(Ordering::Acquire);
                    let spend = target.slot.read();
                    out_of_budget(&target.entry, spend, own)
                        .or_else(|| view.off_target(target, user.is_some(), located))
                        .or_else(|| throttled(&target.entry, spend.pass_through_rate, request))
                }),
            };
            match refusal {
                None => decision.allowed.push(id.clone()),
                Some(reason) => decision.refused.push((id.clone(), reason)),
            }
        }
        decision
    }

    /// As [`decide`](Self::decide), and counts an insertion of the first ad group that is allowed: what
    /// it is expected to earn is in flight for this gate at once, until the feed has it. Callers at the
    /// same time never get the same money. Call [`insertion_logged`](Self::insertion_logged) or
    /// [`insertion_dropped`](Self::insertion_dropped) when it is known what became of the event; without
    /// either it counts for ten minutes.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::{Catalog, Gate};
    /// # use throng_model::{AdGroupName, Timestamp};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A budget of 1.00; one insertion is expected to earn 0.60.
    /// let catalog: Catalog = serde_json::from_str(
    ///     r#"{"version": 1, "ad_groups": [{"index": 0, "name": "shoes", "daily_budget": 1000000,
    ///         "prediction": true, "include": [], "exclude": [], "expected": 600000}]}"#,
    /// )?;
    /// let gate = Gate::new(catalog, Duration::from_secs(10));
    /// let (shoes, now) = ([AdGroupName::new("shoes")?], Timestamp(0));
    /// let (_, first) = gate.decide_and_count(None, &shoes, now);
    /// let (_, second) = gate.decide_and_count(None, &shoes, now);
    /// let (decision, third) = gate.decide_and_count(None, &shoes, now);
    /// // 0.60 is below the budget and 1.20 is not.
    /// assert_eq!([first.is_some(), second.is_some(), third.is_some()], [true, true, false]);
    /// assert_eq!(decision.refused[0].1.code(), "out_of_budget");
    /// # Ok(())
    /// # }
    /// ```
    pub fn decide_and_count(
        &self,
        user: Option<UserHash>,
        candidates: &[AdGroupName],
        now: Timestamp,
    ) -> (Decision<AdGroupName>, Option<OwnInsertion>) {
        // One view for both: an ad group that the catalog has lost between them would be shown and not counted.
        let view = self.view.load();
        let mut decision =
            self.decide_in(&view, user, candidates, now, |view, name| view.of_name(name));
        while let Some(chosen) = decision.allowed.first() {
            let Some(target) = view.of_name(chosen) else { break };
            let amount = target.entry.expected;
            // Added first, then checked with what was there before: of two threads at the same moment the
            // second one sees the amount of the first. Checked first and added then, both would see room
            // for one and use it twice. An amount that is subtracted again below may refuse another
            // thread in between, which is safe for the budget.
            let before = target.slot.own.fetch_add(amount.0, Ordering::AcqRel);
            match out_of_budget(&target.entry, target.slot.read(), before) {
                None => {
                    let insertion = self.own.add(&target.slot, amount, now);
                    return (decision, Some(insertion));
                }
                Some(reason) => {
                    target.slot.own.fetch_sub(amount.0, Ordering::AcqRel);
                    decision.refused.push((decision.allowed.remove(0), reason));
                }
            }
        }
        (decision, None)
    }

    /// Counts an insertion that the caller has decided on: as
    /// [`decide_and_count`](Self::decide_and_count), whatever the budget says. `None` if the catalog does
    /// not have the ad group.
    pub fn count_insertion(&self, ad_group: &AdGroupName, now: Timestamp) -> Option<OwnInsertion> {
        let view = self.view.load();
        let target = view.of_name(ad_group)?;
        target.slot.own.fetch_add(target.entry.expected.0, Ordering::AcqRel);
        Some(self.own.add(&target.slot, target.entry.expected, now))
    }

    /// The event of an insertion is in the log. `positions`: `positions` of the answer to its event, by
    /// partition the first offset after what was sent.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use throng_gate::feed::{FeedEntry, Frame, FrameKind, PassThroughRate};
    /// # use throng_gate::{Catalog, Gate};
    /// # use throng_model::{AdGroupIndex, AdGroupName, Micros, Timestamp};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let catalog: Catalog = serde_json::from_str(
    /// #     r#"{"version": 1, "ad_groups": [{"index": 0, "name": "shoes", "daily_budget": 1000000,
    /// #         "prediction": true, "include": [], "exclude": [], "expected": 600000}]}"#,
    /// # )?;
    /// # let gate = Gate::new(catalog, Duration::from_secs(10));
    /// # let (shoes, now) = (AdGroupName::new("shoes")?, Timestamp(0));
    /// # let keyframe = |version, position, in_flight| Frame {
    /// #     partition: 0,
    /// #     epoch: 1,
    /// #     version,
    /// #     kind: FrameKind::Keyframe,
    /// #     at: now,
    /// #     catalog_version: 1,
    /// #     log_position: Some(position),
    /// #     entries: vec![FeedEntry {
    /// #         index: AdGroupIndex(0),
    /// #         actual: Micros(0),
    /// #         in_flight: Micros(in_flight),
    /// #         flags: 0,
    /// #         pass_through_rate: PassThroughRate::ALL,
    /// #     }],
    /// # };
    /// gate.apply(&keyframe(1, 40, 0));
    /// let counted = gate.count_insertion(&shoes, now).ok_or("not in the catalog")?;
    /// // The answer of `POST /v1/events`: the event is before offset 42 of partition 0.
    /// gate.insertion_logged(counted, &[(0, 42)], now);
    /// let own_and_in_flight = || gate.spend(&shoes).map(|s| (s.own.0, s.in_flight.0));
    /// assert_eq!(own_and_in_flight(), Some((600_000, 0)));
    /// // A frame that has the log up to there has the insertion.
    /// gate.apply(&keyframe(2, 42, 600_000));
    /// assert_eq!(own_and_in_flight(), Some((0, 600_000)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn insertion_logged(
        &self,
        insertion: OwnInsertion,
        positions: &[(u32, u64)],
        now: Timestamp,
    ) {
        // Held to the end: a frame that is applied between the read of the position and the change of the
        // list would find the insertion not logged yet, and it would count twice until the next frame.
        let followed = self.writer();
        let named_by = self.own.partition(&insertion);
        // An ad group that no frame has named yet is in the partition of its event. Without it the insertion would
        // count for ten minutes, beside the figures of the frames that have it.
        let logged = match (named_by, positions) {
            (Some(partition), _) => positions.iter().find(|(number, _)| *number == partition),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let Some(&(partition, position)) = logged else { return };
        // With a clock that is behind the node's, each frame without a position would seem to have it.
        let frame_at = followed
            .get(&partition)
            .map_or(now, |known| Timestamp(known.partition.last_frame_at.load(Ordering::Acquire)));
        let logged = Logged { partition, position, at: now.max(frame_at) };
        // A frame that does not name the ad group has not written its figures here, however far its log is.
        let written = followed.get(&partition).filter(|_| named_by.is_some());
        let covered = written.is_some_and(|known| logged.is_in(known.log_position, frame_at));
        if covered {
            self.own.release(insertion);
        } else {
            self.own.logged(insertion, logged);
        }
    }

    /// The insertion was not made after all, or its event was refused.
    pub fn insertion_dropped(&self, insertion: OwnInsertion) {
        self.own.release(insertion);
    }

    #[inline]
    fn stale(&self, target: &Target, now: Timestamp) -> Option<Reason> {
        if target.entry.when_stale == WhenStale::Serve {
            return None;
        }
        if target.slot.unknown.load(Ordering::Acquire) {
            return Some(Reason::Stale { since: None });
        }
        let partition = target.slot.partition.load();
        let last_frame_at = match &*partition {
            Some(partition) => partition.last_frame_at.load(Ordering::Acquire),
            None => self.oldest.load(Ordering::Acquire),
        };
        if last_frame_at == i64::MIN {
            return Some(Reason::Stale { since: None });
        }
        let since = Timestamp(last_frame_at);
        // A clock that is this far behind cannot tell how old the frame is: the feed may have ended long ago.
        if since.since(now) > self.stale_after {
            return Some(Reason::ClockBehind { frame_at: since });
        }
        (now.since(since) > self.stale_after).then_some(Reason::Stale { since: Some(since) })
    }
}
