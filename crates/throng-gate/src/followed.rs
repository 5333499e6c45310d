//! The partitions of the feed, as far as a gate has applied them, and how their frames get to the slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use throng_feed::{FLAG_REMOVED, FeedEntry, Frame, FrameKind};
use throng_model::AdGroupIndex;

use crate::applied::FrameOutcome;
use crate::slot::{FeedPartition, Slot, Spend};
use crate::view::View;

/// A partition of the feed, as far as the gate has applied it.
pub(crate) struct Followed {
    pub(crate) partition: Arc<FeedPartition>,
    pub(crate) epoch: u64,
    pub(crate) version: u64,
    pub(crate) log_position: Option<u64>,
    /// False when the catalog has grown. Why: a delta only names what changed, so an ad group that is new
    /// here would stay at zero, and be shown past its budget, until its next change.
    pub(crate) complete: bool,
    /// Of ad groups that its frames name and the catalog does not have, by their indexes.
    // Why kept: frames and catalog come by separate requests. An ad group that is added again has spend, and
    // with an empty slot it would be shown past its budget until the keyframe after the catalog.
    pub(crate) unlisted: HashMap<u32, Arc<Slot>, FixedState>,
}

/// By their numbers.
pub(crate) type Partitions = HashMap<u32, Followed, FixedState>;

/// The slot of an ad group that the catalog did not have: with the figures that frames have of it, if they do.
pub(crate) fn slot_of(partitions: &Partitions, index: AdGroupIndex) -> Arc<Slot> {
    let slots = partitions.values().filter_map(|f| Some((f, f.unlisted.get(&index.0)?)));
    // Those of the last frame, if the ad group is in another partition than before.
    let newest = slots.max_by_key(|(f, _)| f.partition.last_frame_at.load(Ordering::Relaxed));
    newest.map_or_else(Arc::default, |(_, slot)| Arc::clone(slot))
}

/// Keeps the slots of ad groups that the catalog has lost, in case that it gets them again, and drops those of ad
/// groups that it has now.
pub(crate) fn keep_unlisted(partitions: &mut Partitions, old: &View, new: &View) {
    for target in &old.targets {
        let index = target.entry.index.0;
        let partition = target.slot.partition.load();
        let number = partition.as_ref().map(|partition| partition.number);
        if let Some(followed) = number.and_then(|number| partitions.get_mut(&number)) {
            followed.unlisted.insert(index, Arc::clone(&target.slot));
        }
    }
    for followed in partitions.values_mut() {
        followed.unlisted.retain(|index, _| !new.by_index.contains_key(index));
    }
}

/// Writes a frame's figures into the slots. The caller holds the writers' lock.
pub(crate) fn write_frame(view: &View, known: &mut Followed, frame: &Frame) -> FrameOutcome {
    let (mut updated, mut unknown) = (0, 0);
    let keyframe = frame.kind == FrameKind::Keyframe;
    let mut named = vec![false; if keyframe { view.targets.len() } else { 0 }];
    // A keyframe names all: what is left of these is of ad groups that no longer exist.
    let mut before = match keyframe {
        true => std::mem::take(&mut known.unlisted),
        false => HashMap::default(),
    };
    for entry in &frame.entries {
        let slot: &Arc<Slot> = match view.by_index.get(&entry.index.0) {
            Some(&place) => {
                let place = place as usize;
                if keyframe {
                    named[place] = true;
                }
                updated += 1;
                &view.targets[place].slot
            }
            None => {
                // A removed one is not missing from the catalog: fetching it again would not bring it.
                unknown += usize::from(entry.flags & FLAG_REMOVED == 0);
                let earlier = || before.remove(&entry.index.0).unwrap_or_default();
                known.unlisted.entry(entry.index.0).or_insert_with(earlier)
            }
        };
        write_entry(slot, &known.partition, entry);
    }
    // What a keyframe leaves out is unknown; in the format without positions its figures are zero. Why only
    // slots of this partition: another one's keyframe says nothing about them.
    for (target, _) in view.targets.iter().zip(&named).filter(|(_, named)| !**named) {
        let partition = target.slot.partition.load();
        if partition.as_ref().is_some_and(|p| Arc::ptr_eq(p, &known.partition)) {
            match frame.log_position {
                Some(_) => target.slot.unknown.store(true, Ordering::Release),
                None => target.slot.write(Spend::default()),
            }
        }
    }
    FrameOutcome::Applied {
        updated,
        unknown,
        catalog_behind: frame.catalog_version > view.catalog_version,
    }
}

fn write_entry(slot: &Slot, partition: &Arc<FeedPartition>, entry: &FeedEntry) {
    let FeedEntry { actual, in_flight, flags, pass_through_rate, .. } = *entry;
    slot.write(Spend { actual, in_flight, flags, pass_through_rate });
    slot.unknown.store(false, Ordering::Release);
    // Why compared first: a swap costs far more than a load, and writes to a count that all slots of the
    // partition share; nearly always it is the same partition as before.
    let named_by = slot.partition.load();
    if named_by.as_ref().is_none_or(|p| !Arc::ptr_eq(p, partition)) {
        slot.partition.store(Some(Arc::clone(partition)));
    }
}
