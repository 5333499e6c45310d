//! The newest figures of every partition, from the frames of the feed: what this node shows, and what it
//! sends to gates that are new or missed a frame.

use std::collections::{BTreeMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use throng_budget::AdGroupConfig;
use throng_feed::{FLAG_REMOVED, FeedEntry, Frame, FrameKind};
use throng_model::{AdGroupIndex, Timestamp};

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApplyOutcome {
    /// Its figures replaced what was known.
    Applied,
    /// It is newer than what is known, and has the same figures.
    Unchanged,
    /// It is older than what is known.
    Outdated,
    /// A frame before it is missing: a keyframe has to come first.
    Gap,
}

/// The figures of one partition, and the frame that they are from.
#[derive(Debug, Clone)]
struct PartitionFeed {
    epoch: u64,
    version: u64,
    at: Timestamp,
    catalog_version: u64,
    log_position: Option<u64>,
    entries: BTreeMap<u32, FeedEntry>,
}

/// The newest frame of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPosition {
    /// The partition.
    pub partition: u32,
    /// The epoch of the replica that published it.
    pub epoch: u64,
    /// Its version.
    pub version: u64,
    /// The time of its figures.
    pub at: Timestamp,
}

/// The figures of all partitions. Memory: 40 bytes an ad group.
#[derive(Debug, Default)]
pub(super) struct FeedState(Mutex<BTreeMap<u32, PartitionFeed>>);

impl ApplyOutcome {
    /// Whether the frame is the newest one.
    pub(super) fn is_newest(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged)
    }

    fn of(has_changed: bool) -> Self {
        if has_changed { Self::Applied } else { Self::Unchanged }
    }
}

impl FeedState {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<u32, PartitionFeed>> {
        // What a panic leaves half written is replaced by the next keyframe.
        self.0.lock()
    }

    /// Applies a frame by the rules of gates: the higher epoch wins, then the higher version; a delta needs
    /// its base. The same rules as theirs, so that what this node shows is what gates decide by.
    pub(super) fn apply(&self, frame: &Frame) -> ApplyOutcome {
        let mut partitions = self.partitions();
        let known = partitions.get_mut(&frame.partition);
        if let Some(known) = &known
            // Epoch before version: a leader that was replaced may have published more versions
            // than its successor, and its figures no longer count.
            && (frame.epoch, frame.version) <= (known.epoch, known.version)
        {
            return ApplyOutcome::Outdated;
        }
        let entries = frame.entries.iter().map(|entry| (entry.index.0, *entry));
        match (frame.kind, known) {
            // Not only an equal base: entries are absolute, so a delta from an older base also has
            // all changes since this version. A base of another epoch is one of other versions.
            (FrameKind::Delta { base_version }, Some(feed))
                if feed.epoch == frame.epoch && base_version <= feed.version =>
            {
                feed.version = frame.version;
                feed.at = frame.at;
                feed.catalog_version = frame.catalog_version;
                feed.log_position = frame.log_position;
                feed.entries.extend(entries);
                ApplyOutcome::of(!frame.entries.is_empty())
            }
            (FrameKind::Delta { .. }, _) => ApplyOutcome::Gap,
            (FrameKind::Keyframe, known) => {
                let entries: BTreeMap<u32, FeedEntry> = entries.collect();
                let has_changed = known.is_none_or(|known| known.entries != entries);
                let feed = PartitionFeed {
                    epoch: frame.epoch,
                    version: frame.version,
                    at: frame.at,
                    catalog_version: frame.catalog_version,
                    log_position: frame.log_position,
                    entries,
                };
                partitions.insert(frame.partition, feed);
                ApplyOutcome::of(has_changed)
            }
        }
    }

    /// The figures of a partition, as one frame.
    pub(super) fn keyframe(&self, partition: u32) -> Option<Frame> {
        self.partitions().get(&partition).map(|feed| keyframe(partition, feed))
    }

    /// The figures of all partitions, one frame each.
    pub(super) fn keyframes(&self) -> Vec<Frame> {
        self.partitions().iter().map(|(partition, feed)| keyframe(*partition, feed)).collect()
    }

    /// The newest entry of an ad group; `None` if no frame has one.
    pub(super) fn entry(&self, partition: u32, index: AdGroupIndex) -> Option<FeedEntry> {
        let partitions = self.partitions();
        partitions.get(&partition).and_then(|feed| feed.entries.get(&index.0)).copied()
    }

    /// Those of a partition's ad groups that its leader does not have: its newest frame is from before `version` of the
    /// spec, and has no entry of them, or one of a removed ad group. Cheap once the frame is of that version.
    pub(super) fn missing<'a>(
        &self,
        partition: u32,
        version: u64,
        ad_groups: &'a [AdGroupConfig],
    ) -> HashSet<&'a str> {
        let partitions = self.partitions();
        let feed = partitions.get(&partition).filter(|feed| feed.catalog_version < version);
        let Some(feed) = feed else { return HashSet::new() };
        let is_missing = |ad_group: &&AdGroupConfig| {
            let entry = feed.entries.get(&ad_group.index.0);
            entry.is_none_or(|entry| entry.flags & FLAG_REMOVED != 0)
        };
        ad_groups.iter().filter(is_missing).map(|ad_group| ad_group.name.as_str()).collect()
    }

    /// The newest frame of each partition.
    pub(super) fn positions(&self) -> Vec<FeedPosition> {
        let position = |(partition, feed): (&u32, &PartitionFeed)| FeedPosition {
            partition: *partition,
            epoch: feed.epoch,
            version: feed.version,
            at: feed.at,
        };
        self.partitions().iter().map(position).collect()
    }
}

fn keyframe(partition: u32, feed: &PartitionFeed) -> Frame {
    Frame {
        partition,
        epoch: feed.epoch,
        version: feed.version,
        kind: FrameKind::Keyframe,
        at: feed.at,
        catalog_version: feed.catalog_version,
        log_position: feed.log_position,
        entries: feed.entries.values().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use throng_feed::PassThroughRate;
    use throng_model::Micros;

    use super::*;

    fn frame(epoch: u64, version: u64, base: Option<u64>, actual: i64) -> Frame {
        let kind =
            base.map_or(FrameKind::Keyframe, |base_version| FrameKind::Delta { base_version });
        let entry = FeedEntry {
            index: AdGroupIndex(7),
            actual: Micros(actual),
            in_flight: Micros(1),
            flags: 0,
            pass_through_rate: PassThroughRate::ALL,
        };
        let at = Timestamp(version as i64);
        Frame {
            partition: 2,
            epoch,
            version,
            kind,
            at,
            catalog_version: 1,
            log_position: None,
            entries: vec![entry],
        }
    }

    #[test]
    fn a_paused_leader_cannot_bring_old_figures_back() {
        let state = FeedState::default();
        let actual = || state.entry(2, AdGroupIndex(7)).map_or(0, |entry| entry.actual.0);
        assert_eq!(state.apply(&frame(5, 1, Some(0), 10)), ApplyOutcome::Gap, "no keyframe yet");
        assert_eq!(state.apply(&frame(5, 1, None, 10)), ApplyOutcome::Applied);
        assert_eq!(state.apply(&frame(5, 2, Some(1), 20)), ApplyOutcome::Applied);
        assert_eq!(state.apply(&frame(5, 2, Some(1), 99)), ApplyOutcome::Outdated);
        assert_eq!(state.apply(&frame(5, 4, Some(3), 40)), ApplyOutcome::Gap);
        // The next leader.
        assert_eq!(state.apply(&frame(6, 1, None, 30)), ApplyOutcome::Applied);
        // The previous one continues after a pause.
        assert_eq!(state.apply(&frame(5, 9, None, 99)), ApplyOutcome::Outdated);
        assert_eq!(state.apply(&frame(5, 10, Some(9), 99)), ApplyOutcome::Outdated);
        assert_eq!(actual(), 30);
        // The same figures, of a later time.
        assert_eq!(state.apply(&frame(6, 2, None, 30)), ApplyOutcome::Unchanged);
        assert_eq!(state.positions()[0].at, Timestamp(2));
        assert_eq!(state.keyframe(2).unwrap().entries[0].actual, Micros(30));
        assert_eq!(state.positions()[0].epoch, 6);
        assert_eq!(state.keyframe(3), None);
    }
}
