//! Which event ids have been seen: in two generations, so that memory is bounded.

use std::time::Duration;

use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::ids::{Id, IdSet};

/// An id is remembered for at least this long, unless more than [`GENERATION_IDS`] others come in
/// between; events older than a day are refused at the door.
const GENERATION: Duration = Duration::from_secs(24 * 3600);
/// Ids of one generation at most: 14 bytes of room each, so 57 MB for two generations of a partition.
const GENERATION_IDS: usize = 2_000_000;

/// The 80 bits that stand for an event's id. Whether a new event has those of one of the 4 million
/// that are remembered is a matter of 1 in 3·10¹⁷: once in 200,000 years at 50,000 events a second.
#[inline]
pub(super) fn id_of(id: &[u8]) -> Id {
    Id::of_hash(xxh3_128(id))
}

#[derive(Debug, Clone)]
pub(super) struct SeenIds {
    ids: IdSet,
    began: Timestamp,
}

impl Default for SeenIds {
    fn default() -> Self {
        // One more than a generation has: it ends with the first that is too many.
        Self { ids: IdSet::of_generations(GENERATION_IDS + 1), began: Timestamp(0) }
    }
}

impl SeenIds {
    /// Remembers an id; `false` if it was known. Depends on the ids and the log's times alone.
    #[inline]
    pub(super) fn insert(&mut self, id: Id, logged_at: Timestamp) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        if self.began == Timestamp(0) {
            self.began = logged_at;
        }
        if self.ids.young() > GENERATION_IDS || logged_at.since(self.began) > GENERATION {
            self.ids.next_generation();
            self.began = logged_at;
        }
        true
    }

    /// Has what is known of an id brought into the caches, for a later [`SeenIds::insert`]. The tables
    /// are far larger than those.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.ids.prefetch(id);
    }

    /// The young ids, the old ones, and when the young generation began.
    pub(super) fn to_bytes(&self) -> (Vec<u8>, Vec<u8>, i64) {
        let mut young = Vec::with_capacity(self.ids.young() * Id::WIDTH);
        let mut old = Vec::new();
        for (id, is_young) in self.ids.iter() {
            let bytes = if is_young { &mut young } else { &mut old };
            bytes.extend_from_slice(&id.to_bytes());
        }
        (young, old, self.began.0)
    }

    pub(super) fn from_bytes(young: &[u8], old: &[u8], began: i64) -> Option<Self> {
        let (young, rest_of_young) = young.as_chunks::<{ Id::WIDTH }>();
        let (old, rest_of_old) = old.as_chunks::<{ Id::WIDTH }>();
        if !rest_of_young.is_empty() || !rest_of_old.is_empty() {
            return None;
        }
        let mut seen = Self { began: Timestamp(began), ..Self::default() };
        seen.ids.reserve(young.len() + old.len());
        for id in old {
            seen.ids.insert_old(Id::from_bytes(id));
        }
        for id in young {
            seen.ids.insert(Id::from_bytes(id));
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
