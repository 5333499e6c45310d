//! Which event ids have been seen: two generations of sets, so that memory is bounded.

use std::time::Duration;

use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::ids::IdSet;

/// An id is remembered for at least this long, unless more than [`GENERATION_IDS`] others come in
/// between; events older than a day are refused at the door.
const GENERATION: Duration = Duration::from_secs(24 * 3600);
/// Ids of one generation at most: 32 bytes of room each, so 128 MiB in two generations per partition.
const GENERATION_IDS: usize = 2_000_000;

/// 128 bits that stand for an id. Two of the 4 million ids that are remembered at a time have the
/// same with a chance of 1 in 10²⁵.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IdHash(u128);

impl IdHash {
    #[inline]
    pub(super) fn of(id: &str) -> Self {
        Self(xxh3_128(id.as_bytes()))
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct SeenIds {
    young: IdSet,
    old: IdSet,
    began: Timestamp,
}

impl SeenIds {
    /// Remembers an id; `false` if it was known. Depends on the ids and the log's times alone.
    #[inline]
    pub(super) fn insert(&mut self, id: IdHash, logged_at: Timestamp) -> bool {
        if self.old.contains(id.0) || !self.young.insert(id.0) {
            return false;
        }
        if self.began == Timestamp(0) {
            self.began = logged_at;
        }
        if self.young.len() > GENERATION_IDS || logged_at.since(self.began) > GENERATION {
            std::mem::swap(&mut self.old, &mut self.young);
            // Its room is kept: making it anew would cost more than filling it.
            self.young.clear();
            if self.young.room() == 0 {
                // The first time: as many will come again.
                self.young = IdSet::with_room_for(self.old.room());
            }
            self.began = logged_at;
        }
        true
    }

    /// Brings the places of ids into the caches. The tables are far larger than those; where no read
    /// waits for the one before, the processor waits for all of them at once.
    pub(super) fn warm(&self, ids: impl Iterator<Item = IdHash>) {
        let read = ids.fold(0, |all, id| all ^ self.old.touch(id.0) ^ self.young.touch(id.0));
        std::hint::black_box(read);
    }

    pub(super) fn to_bytes(&self) -> (Vec<u8>, Vec<u8>, i64) {
        let bytes = |ids: &IdSet| {
            let mut bytes = Vec::with_capacity(ids.len() * size_of::<u128>());
            ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
            bytes
        };
        (bytes(&self.young), bytes(&self.old), self.began.0)
    }

    pub(super) fn from_bytes(young: &[u8], old: &[u8], began: i64) -> Option<Self> {
        let read = |bytes: &[u8]| {
            let (ids, rest) = bytes.as_chunks::<16>();
            let mut set = IdSet::with_room_for(ids.len());
            for id in ids {
                set.insert(u128::from_le_bytes(*id));
            }
            rest.is_empty().then_some(set)
        };
        Some(Self { young: read(young)?, old: read(old)?, began: Timestamp(began) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outlive_one_generation() {
        let mut seen = SeenIds::default();
        let start = Timestamp(1);
        assert!(seen.insert(IdHash::of("a"), start));
        assert!(!seen.insert(IdHash::of("a"), start));
        let next_day = start.plus(GENERATION + Duration::from_secs(1));
        assert!(seen.insert(IdHash::of("b"), next_day));
        assert!(!seen.insert(IdHash::of("a"), next_day), "the old generation still knows it");
        let (young, old, began) = seen.to_bytes();
        let mut again = SeenIds::from_bytes(&young, &old, began).unwrap();
        assert!(!again.insert(IdHash::of("a"), next_day));
        assert!(!again.insert(IdHash::of("b"), next_day));
    }
}
