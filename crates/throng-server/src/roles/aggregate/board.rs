//! The newest figures of every partition, as frames of the feed tell them: what this node shows,
//! and what it tells gates that are new or missed something.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use throng_feed::{FeedEntry, Frame, FrameKind};
use throng_model::{AdGroupIndex, Micros, Timestamp};

/// What a frame was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Its figures are on the board.
    Fresh,
    /// It is older than what is there.
    Old,
    /// Something before it is missing: a keyframe has to come first.
    Gap,
}

/// One partition.
#[derive(Debug, Clone)]
struct Shelf {
    epoch: u64,
    version: u64,
    at: Timestamp,
    catalog_version: u64,
    log_position: Option<u64>,
    entries: BTreeMap<u32, FeedEntry>,
}

/// How far the feed has come with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The partition.
    pub partition: u32,
    /// Which owner told it.
    pub epoch: u64,
    /// The newest frame.
    pub version: u64,
    /// The time of its figures.
    pub at: Timestamp,
}

/// The figures of all partitions. Memory: 40 bytes an ad group.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<u32, Shelf>>);

impl Board {
    fn shelves(&self) -> MutexGuard<'_, BTreeMap<u32, Shelf>> {
        // A shelf that a panic left half written is mended by the next keyframe.
        self.0.lock()
    }

    /// Takes a frame in, by the rules of gates: the higher epoch wins, then the higher version; a
    /// delta needs its base.
    pub(super) fn take(&self, frame: &Frame) -> Taken {
        let mut shelves = self.shelves();
        let known = shelves.get_mut(&frame.partition);
        if let Some(known) = &known
            && (frame.epoch, frame.version) <= (known.epoch, known.version)
        {
            return Taken::Old;
        }
        let entries = frame.entries.iter().map(|entry| (entry.index.0, *entry));
        match (frame.kind, known) {
            (FrameKind::Delta { base_version }, Some(shelf))
                if shelf.epoch == frame.epoch && base_version <= shelf.version =>
            {
                shelf.version = frame.version;
                shelf.at = frame.at;
                shelf.catalog_version = frame.catalog_version;
                shelf.log_position = frame.log_position;
                shelf.entries.extend(entries);
                Taken::Fresh
            }
            (FrameKind::Delta { .. }, _) => Taken::Gap,
            (FrameKind::Keyframe, _) => {
                let shelf = Shelf {
                    epoch: frame.epoch,
                    version: frame.version,
                    at: frame.at,
                    catalog_version: frame.catalog_version,
                    log_position: frame.log_position,
                    entries: entries.collect(),
                };
                shelves.insert(frame.partition, shelf);
                Taken::Fresh
            }
        }
    }

    /// All that is known of a partition, as one frame.
    pub(super) fn keyframe(&self, partition: u32) -> Option<Frame> {
        self.shelves().get(&partition).map(|shelf| keyframe(partition, shelf))
    }

    /// All that is known.
    pub(super) fn keyframes(&self) -> Vec<Frame> {
        self.shelves().iter().map(|(partition, shelf)| keyframe(*partition, shelf)).collect()
    }

    /// Actual and in-flight spend; zero if nothing was told.
    pub(super) fn figures(&self, partition: u32, index: AdGroupIndex) -> (Micros, Micros) {
        let shelves = self.shelves();
        let entry = shelves.get(&partition).and_then(|shelf| shelf.entries.get(&index.0));
        entry.map_or((Micros(0), Micros(0)), |entry| (entry.actual, entry.in_flight))
    }

    /// How far each partition has come.
    pub(super) fn told(&self) -> Vec<Told> {
        let told = |(partition, shelf): (&u32, &Shelf)| Told {
            partition: *partition,
            epoch: shelf.epoch,
            version: shelf.version,
            at: shelf.at,
        };
        self.shelves().iter().map(told).collect()
    }
}

fn keyframe(partition: u32, shelf: &Shelf) -> Frame {
    Frame {
        partition,
        epoch: shelf.epoch,
        version: shelf.version,
        kind: FrameKind::Keyframe,
        at: shelf.at,
        catalog_version: shelf.catalog_version,
        log_position: shelf.log_position,
        entries: shelf.entries.values().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(epoch: u64, version: u64, base: Option<u64>, actual: i64) -> Frame {
        let kind =
            base.map_or(FrameKind::Keyframe, |base_version| FrameKind::Delta { base_version });
        let entry = FeedEntry {
            index: AdGroupIndex(7),
            actual: Micros(actual),
            in_flight: Micros(1),
            flags: 0,
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
    fn a_paused_owner_cannot_bring_old_figures_back() {
        let board = Board::default();
        let actual = || board.figures(2, AdGroupIndex(7)).0.0;
        assert_eq!(board.take(&frame(5, 1, Some(0), 10)), Taken::Gap, "no keyframe yet");
        assert_eq!(board.take(&frame(5, 1, None, 10)), Taken::Fresh);
        assert_eq!(board.take(&frame(5, 2, Some(1), 20)), Taken::Fresh);
        assert_eq!(board.take(&frame(5, 2, Some(1), 99)), Taken::Old);
        assert_eq!(board.take(&frame(5, 4, Some(3), 40)), Taken::Gap);
        // The next owner.
        assert_eq!(board.take(&frame(6, 1, None, 30)), Taken::Fresh);
        // The old one wakes up.
        assert_eq!(board.take(&frame(5, 9, None, 99)), Taken::Old);
        assert_eq!(board.take(&frame(5, 10, Some(9), 99)), Taken::Old);
        assert_eq!(actual(), 30);
        assert_eq!(board.keyframe(2).unwrap().entries[0].actual, Micros(30));
        assert_eq!(board.told()[0].epoch, 6);
        assert_eq!(board.keyframe(3), None);
    }
}
