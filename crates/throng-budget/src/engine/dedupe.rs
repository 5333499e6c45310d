//! Which event ids have been seen: two generations of sets, so that memory is bounded.

use std::time::Duration;

use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::ids::{Id, IdSet};

/// An id is remembered for at least this long, unless more than [`GENERATION_IDS`] others come in
/// between; events older than a day are refused at the door.
const GENERATION: Duration = Duration::from_secs(24 * 3600);
/// Ids of one generation at most: 14 bytes of room each, so 57 MB in two generations per partition.
const GENERATION_IDS: usize = 2_000_000;

/// The 80 bits that stand for an event's id. Whether a new event has those of one of the 4 million
/// that are remembered is a matter of 1 in 3·10¹⁷: once in 200,000 years at 50,000 events a second.
#[inline]
pub(super) fn id_of(id: &[u8]) -> Id {
    Id::of_hash(xxh3_128(id))
}

#[derive(Debug, Clone)]
pub(super) struct SeenIds {
    young: IdSet,
    old: IdSet,
    began: Timestamp,
}

impl Default for SeenIds {
    fn default() -> Self {
        // One more than a generation has: it ends with the first that is too many.
        let none = IdSet::growing_to(GENERATION_IDS + 1);
        Self { young: none.clone(), old: none, began: Timestamp(0) }
    }
}

impl SeenIds {
    /// Remembers an id; `false` if it was known. Depends on the ids and the log's times alone.
    #[inline]
    pub(super) fn insert(&mut self, id: Id, logged_at: Timestamp) -> bool {
        if self.old.contains(id) || !self.young.insert(id) {
            return false;
        }
        if self.began == Timestamp(0) {
            self.began = logged_at;
        }
        if self.young.len() > GENERATION_IDS || logged_at.since(self.began) > GENERATION {
            std::mem::swap(&mut self.old, &mut self.young);
            // Its room is kept: making it anew would cost more than filling it.
            self.young.clear();
            // The first time there is none: as many will come again.
            self.young.reserve(self.old.len());
            self.began = logged_at;
        }
        true
    }

    /// Has what is known of an id brought into the caches, for a later [`SeenIds::insert`]. The tables
    /// are far larger than those.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.old.prefetch(id);
        self.young.prefetch(id);
    }

    pub(super) fn to_bytes(&self) -> (Vec<u8>, Vec<u8>, i64) {
        let bytes = |ids: &IdSet| {
            let mut bytes = Vec::with_capacity(ids.len() * Id::WIDTH);
            ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_bytes()));
            bytes
        };
        (bytes(&self.young), bytes(&self.old), self.began.0)
    }

    pub(super) fn from_bytes(young: &[u8], old: &[u8], began: i64) -> Option<Self> {
        let mut seen = Self { began: Timestamp(began), ..Self::default() };
        for (set, bytes) in [(&mut seen.young, young), (&mut seen.old, old)] {
            let (ids, rest) = bytes.as_chunks::<{ Id::WIDTH }>();
            if !rest.is_empty() {
                return None;
            }
            set.reserve(ids.len());
            for id in ids {
                set.insert(Id::from_bytes(id));
            }
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outlive_one_generation() {
        let mut seen = SeenIds::default();
        let start = Timestamp(1);
        assert!(seen.insert(id_of(b"a"), start));
        assert!(!seen.insert(id_of(b"a"), start));
        let next_day = start.plus(GENERATION + Duration::from_secs(1));
        assert!(seen.insert(id_of(b"b"), next_day));
        assert!(!seen.insert(id_of(b"a"), next_day), "the old generation still knows it");
        let (young, old, began) = seen.to_bytes();
        let mut again = SeenIds::from_bytes(&young, &old, began).unwrap();
        assert!(!again.insert(id_of(b"a"), next_day));
        assert!(!again.insert(id_of(b"b"), next_day));
    }
}
