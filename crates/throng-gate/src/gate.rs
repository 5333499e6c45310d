//! The gate: frames and membership in, decisions out.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use throng_membership::{AudienceId, Located, MembershipIndex};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Micros, Timestamp, UserHash};

use crate::feed::{FLAG_CLOSED, FLAG_REMOVED, Frame, FrameKind};
use crate::own::{Logged, OwnInsertion, OwnInsertions};
use crate::slot::{Partition, Slot, Spend};
use crate::{Catalog, CatalogEntry, Decision, Reason, WhenStale};

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Its figures are in force.
    Done {
        /// Ad groups that were told about.
        updated: usize,
        /// Entries that the catalog does not have: fetch the catalog if there are any.
        unknown: usize,
        /// The frame was made with a newer catalog than the gate's: fetch it.
        catalog_behind: bool,
    },
    /// Older than what the gate has, or the same: nothing to do.
    Ignored,
    /// A delta on something the gate does not have: ask for a keyframe.
    NeedKeyframe,
}

/// How far a gate has followed a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionVersion {
    /// The partition.
    pub partition: u32,
    /// The epoch.
    pub epoch: u64,
    /// The last version applied.
    pub version: u64,
    /// When its figures were true.
    pub at: Timestamp,
    /// The first offset of the partition's log that is not in its figures, if the frame said so.
    #[serde(default)]
    pub log_position: Option<u64>,
}

/// What a gate knows about an ad group's spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdGroupSpend {
    /// Spent in the current budget day.
    pub actual: Micros,
    /// Expected to be spent by ads already inserted.
    pub in_flight: Micros,
    /// Expected to be spent by this gate's own insertions that `in_flight` does not have yet.
    pub own: Micros,
    /// The day's budget.
    pub budget: Micros,
}

/// An ad group, ready to be decided about.
struct Target {
    entry: CatalogEntry,
    slot: Arc<Slot>,
    include_names: Arc<[AudienceName]>,
    include: Vec<AudienceId>,
    /// `None`: an audience that is not built.
    exclude: Vec<Option<AudienceId>>,
}

/// All that a decision reads; swapped whole.
struct View {
    catalog_version: u64,
    targets: Vec<Target>,
    by_name: HashMap<AdGroupName, u32, FixedState>,
    by_index: HashMap<u32, u32, FixedState>,
    membership: Option<Arc<MembershipIndex>>,
}

struct Followed {
    partition: Arc<Partition>,
    epoch: u64,
    version: u64,
    log_position: Option<u64>,
    /// False when the catalog has grown: only a keyframe tells about the new ad groups.
    complete: bool,
}

/// The check in the ad server. Share it by `Arc`: deciding takes `&self`, takes no lock and waits
/// for nobody; applying and swapping take turns among themselves.
pub struct Gate {
    stale_after: Duration,
    view: ArcSwap<View>,
    followed: Mutex<HashMap<u32, Followed, FixedState>>,
    /// The oldest of all partitions' last frames; `i64::MIN` while there is none, and where frames have
    /// positions. Counts for ad groups that no frame has named.
    oldest: AtomicI64,
    own: OwnInsertions,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("versions", &self.versions()).finish_non_exhaustive()
    }
}

impl View {
    fn new(
        catalog_version: u64,
        entries: Vec<(CatalogEntry, Arc<Slot>)>,
        membership: Option<Arc<MembershipIndex>>,
    ) -> Self {
        let id = |name: &AudienceName| membership.as_ref().and_then(|m| m.id(name));
        let targets: Vec<Target> = entries
            .into_iter()
            .map(|(entry, slot)| Target {
                include: entry.include.iter().filter_map(id).collect(),
                exclude: entry.exclude.iter().map(id).collect(),
                include_names: entry.include.as_slice().into(),
                entry,
                slot,
            })
            .collect();
        let mut by_name = HashMap::with_capacity_and_hasher(targets.len(), FixedState::default());
        let mut by_index = HashMap::with_capacity_and_hasher(targets.len(), FixedState::default());
        for (place, target) in (0u32..).zip(&targets) {
            by_name.insert(target.entry.name.clone(), place);
            by_index.insert(target.entry.index.0, place);
        }
        Self { catalog_version, targets, by_name, by_index, membership }
    }

    fn of_name(&self, name: &AdGroupName) -> Option<&Target> {
        self.by_name.get(name).and_then(|&place| self.targets.get(place as usize))
    }

    fn of_index(&self, index: AdGroupIndex) -> Option<&Target> {
        self.by_index.get(&index.0).and_then(|&place| self.targets.get(place as usize))
    }

    /// Why this user may not see the ad group, targeting only.
    #[inline]
    fn off_target(&self, target: &Target, known: bool, user: Option<Located>) -> Option<Reason> {
        let member = |id: AudienceId| match (&self.membership, user) {
            (Some(membership), Some(user)) => membership.contains_at(user, id),
            _ => false,
        };
        if !target.entry.include.is_empty() && !target.include.iter().any(|&id| member(id)) {
            return Some(Reason::NotInAudience { audiences: Arc::clone(&target.include_names) });
        }
        for (place, id) in target.exclude.iter().enumerate() {
            match id {
                Some(id) if member(*id) => {
                    return Some(Reason::Excluded {
                        audience: target.entry.exclude[place].clone(),
                    });
                }
                None if known => {
                    let audience = target.entry.exclude[place].clone();
                    return Some(Reason::ExclusionUnknown { audience });
                }
                _ => {}
            }
        }
        None
    }
}

/// Why an ad group may not be shown for its budget's sake.
#[inline]
fn out_of_budget(entry: &CatalogEntry, spend: Spend, own: i64) -> Option<Reason> {
    let coming = Micros(spend.in_flight.0.saturating_add(own));
    let in_flight = entry.prediction.then_some(coming);
    // A sum past 2^63 is past any budget: saturating is right here.
    let projected = spend.actual.0.saturating_add(in_flight.map_or(0, |m| m.0));
    if projected >= entry.daily_budget.0 {
        let (actual, budget) = (spend.actual, entry.daily_budget);
        return Some(Reason::OutOfBudget { actual, in_flight, budget, currency: entry.currency });
    }
    // The server may know more than these figures say; where they say enough, they say it better.
    (spend.flags & FLAG_CLOSED != 0).then_some(Reason::Closed)
}

impl Gate {
    /// A gate that has heard nothing yet: every ad group stands at zero spend, and is stale.
    /// `stale_after`: how long after a frame its ad groups count as stale; some ten times the
    /// feed's interval is usual.
    pub fn new(catalog: Catalog, stale_after: Duration) -> Self {
        let entries = catalog.ad_groups.into_iter().map(|e| (e, Arc::default())).collect();
        Self {
            stale_after,
            view: ArcSwap::from_pointee(View::new(catalog.version, entries, None)),
            followed: Mutex::new(HashMap::default()),
            oldest: AtomicI64::new(i64::MIN),
            own: OwnInsertions::default(),
        }
    }

    /// Writers take turns. A panic elsewhere leaves nothing half done that a later frame does not
    /// mend, so a poisoned lock is taken all the same.
    fn writer(&self) -> MutexGuard<'_, HashMap<u32, Followed, FixedState>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps in another catalog. Ad groups of the same index and name keep their figures; if there
    /// are new ones, the next delta is answered with [`Applied::NeedKeyframe`].
    pub fn set_catalog(&self, catalog: Catalog) {
        let mut followed = self.writer();
        let old = self.view.load();
        let mut grown = false;
        let entries = catalog
            .ad_groups
            .into_iter()
            .map(|entry| {
                let known = old.of_index(entry.index).filter(|t| t.entry.name == entry.name);
                grown |= known.is_none();
                let slot = known.map_or_else(Arc::default, |t| Arc::clone(&t.slot));
                (entry, slot)
            })
            .collect();
        self.view.store(Arc::new(View::new(catalog.version, entries, old.membership.clone())));
        if grown {
            followed.values_mut().for_each(|f| f.complete = false);
        }
    }

    /// Swaps in another membership index; decisions under way finish with the old one.
    pub fn set_membership(&self, membership: Arc<MembershipIndex>) {
        let _turn = self.writer();
        let old = self.view.load();
        let entries = old.targets.iter().map(|t| (t.entry.clone(), Arc::clone(&t.slot))).collect();
        self.view.store(Arc::new(View::new(old.catalog_version, entries, Some(membership))));
    }

    /// The catalog's version.
    pub fn catalog_version(&self) -> u64 {
        self.view.load().catalog_version
    }

    /// Takes in a frame. Frames may come twice and in any order.
    pub fn apply(&self, frame: &Frame) -> Applied {
        let mut followed = self.writer();
        if let Some(known) = followed.get(&frame.partition) {
            let newer = (frame.epoch, frame.version) > (known.epoch, known.version);
            // A keyframe of the same version still helps a gate whose catalog has grown.
            let completes = !known.complete
                && frame.kind == FrameKind::Keyframe
                && (frame.epoch, frame.version) == (known.epoch, known.version);
            if !newer && !completes {
                return Applied::Ignored;
            }
        }
        if let FrameKind::Delta { base_version } = frame.kind {
            // Figures are absolute: a base before ours tells us things twice, which is harmless.
            let fits = followed.get(&frame.partition).is_some_and(|known| {
                known.complete && known.epoch == frame.epoch && base_version <= known.version
            });
            if !fits {
                return Applied::NeedKeyframe;
            }
        }
        let known = followed.entry(frame.partition).or_insert_with(|| Followed {
            partition: Arc::new(Partition {
                number: frame.partition,
                heard: AtomicI64::new(frame.at.0),
            }),
            epoch: frame.epoch,
            version: frame.version,
            log_position: frame.log_position,
            complete: true,
        });
        let view = self.view.load();
        let done = write_frame(&view, known, frame);
        known.epoch = frame.epoch;
        known.version = frame.version;
        known.log_position = frame.log_position;
        known.complete |= frame.kind == FrameKind::Keyframe;
        known.partition.heard.store(frame.at.0, Ordering::Release);
        // Where frames have positions, an ad group that none of them has named is unknown.
        let heard = |f: &Followed| match f.log_position {
            Some(_) => i64::MIN,
            None => f.partition.heard.load(Ordering::Relaxed),
        };
        let oldest = followed.values().map(heard).min();
        self.oldest.store(oldest.unwrap_or(i64::MIN), Ordering::Release);
        self.own.covered_by(frame);
        done
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
                at: Timestamp(f.partition.heard.load(Ordering::Acquire)),
            })
            .collect();
        versions.sort_by_key(|v| v.partition);
        versions
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

    /// Which of the candidates may be shown to this user (`None`: nobody known) now? Closed is an
    /// ad group with `actual + in flight >= budget`, or with prediction off `actual >= budget`.
    /// Takes no lock; allocates for the result alone. About 0.1 µs a candidate.
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
        let view = self.view.load();
        let located = user.and_then(|user| view.membership.as_ref()?.locate(user));
        let mut decision =
            Decision { allowed: Vec::with_capacity(candidates.len()), refused: Vec::new() };
        for id in candidates {
            let refusal = match find(&view, id) {
                None => Some(Reason::UnknownAdGroup),
                Some(target) => self
                    .stale(target, now)
                    .or_else(|| {
                        // Before the figures: what a frame takes over must not be missed.
                        let own = target.slot.own.load(Ordering::Acquire);
                        out_of_budget(&target.entry, target.slot.read(), own)
                    })
                    .or_else(|| view.off_target(target, user.is_some(), located)),
            };
            match refusal {
                None => decision.allowed.push(id.clone()),
                Some(reason) => decision.refused.push((id.clone(), reason)),
            }
        }
        decision
    }

    /// As [`decide`](Self::decide), and counts an insertion of the first ad group that is allowed: what
    /// it is expected to earn is in flight for this gate at once, until the feed has it. Of callers at the
    /// same time none takes what another one has. Tell [`insertion_logged`](Self::insertion_logged) or
    /// [`insertion_dropped`](Self::insertion_dropped) what became of its event; without either it counts
    /// for ten minutes.
    pub fn decide_and_count(
        &self,
        user: Option<UserHash>,
        candidates: &[AdGroupName],
        now: Timestamp,
    ) -> (Decision<AdGroupName>, Option<OwnInsertion>) {
        let mut decision = self.decide(user, candidates, now);
        let view = self.view.load();
        while let Some(chosen) = decision.allowed.first() {
            let Some(target) = view.of_name(chosen) else { break };
            let amount = target.entry.expected;
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
    /// partition the first offset behind what was sent.
    pub fn insertion_logged(
        &self,
        insertion: OwnInsertion,
        positions: &[(u32, u64)],
        now: Timestamp,
    ) {
        let followed = self.writer();
        let Some(partition) = self.own.partition(&insertion) else { return };
        let position = positions.iter().find(|(number, _)| *number == partition);
        let Some((_, position)) = position else { return };
        let logged = Logged { partition, position: *position, at: now };
        let covered = followed.get(&partition).is_some_and(|known| {
            let at = Timestamp(known.partition.heard.load(Ordering::Acquire));
            logged.is_in(known.log_position, at)
        });
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
        let heard = match &*partition {
            Some(partition) => partition.heard.load(Ordering::Acquire),
            None => self.oldest.load(Ordering::Acquire),
        };
        if heard == i64::MIN {
            return Some(Reason::Stale { since: None });
        }
        let since = Timestamp(heard);
        (now.since(since) > self.stale_after).then_some(Reason::Stale { since: Some(since) })
    }
}

/// Writes a frame's figures into the slots. The caller holds the writers' lock.
fn write_frame(view: &View, known: &Followed, frame: &Frame) -> Applied {
    let (mut updated, mut unknown) = (0, 0);
    let keyframe = frame.kind == FrameKind::Keyframe;
    let mut told = vec![false; if keyframe { view.targets.len() } else { 0 }];
    for entry in &frame.entries {
        let Some(&place) = view.by_index.get(&entry.index.0) else {
            unknown += usize::from(entry.flags & FLAG_REMOVED == 0);
            continue;
        };
        let place = place as usize;
        let slot = &view.targets[place].slot;
        slot.write(Spend { actual: entry.actual, in_flight: entry.in_flight, flags: entry.flags });
        slot.unknown.store(false, Ordering::Release);
        let told_by = slot.partition.load();
        if told_by.as_ref().is_none_or(|p| !Arc::ptr_eq(p, &known.partition)) {
            slot.partition.store(Some(Arc::clone(&known.partition)));
        }
        if keyframe {
            told[place] = true;
        }
        updated += 1;
    }
    // What a keyframe leaves out is unknown; in the format without positions it stands at zero.
    for (target, _) in view.targets.iter().zip(&told).filter(|(_, told)| !**told) {
        let partition = target.slot.partition.load();
        if partition.as_ref().is_some_and(|p| Arc::ptr_eq(p, &known.partition)) {
            match frame.log_position {
                Some(_) => target.slot.unknown.store(true, Ordering::Release),
                None => target.slot.write(Spend::default()),
            }
        }
    }
    Applied::Done { updated, unknown, catalog_behind: frame.catalog_version > view.catalog_version }
}
