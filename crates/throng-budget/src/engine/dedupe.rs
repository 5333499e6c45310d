//! Which event ids have been seen: two generations of sets, so that memory is bounded.

use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

/// An id is remembered for at least this long, unless more than [`GENERATION_IDS`] others come in
/// between; events older than a day are refused at the door.
const GENERATION: Duration = Duration::from_secs(24 * 3600);
/// Ids of one generation at most: 16 bytes each, so 64 MiB in two generations per partition.
const GENERATION_IDS: usize = 2_000_000;

#[derive(Debug, Clone)]
pub(super) struct SeenIds {
    young: HashSet<u128, FixedState>,
    old: HashSet<u128, FixedState>,
    began: Timestamp,
}

impl Default for SeenIds {
    fn default() -> Self {
        let empty = || HashSet::with_hasher(FixedState::default());
        Self { young: empty(), old: empty(), began: Timestamp(0) }
    }
}

impl SeenIds {
    /// Remembers an id; `false` if it was known. Depends on the ids and the log's times alone.
    pub(super) fn insert(&mut self, id: &str, logged_at: Timestamp) -> bool {
        let id = xxh3_128(id.as_bytes());
        if self.old.contains(&id) || !self.young.insert(id) {
            return false;
        }
        if self.began == Timestamp(0) {
            self.began = logged_at;
        }
        if self.young.len() > GENERATION_IDS || logged_at.since(self.began) > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.began = logged_at;
        }
        true
    }

    pub(super) fn to_bytes(&self) -> (Vec<u8>, Vec<u8>, i64) {
        let bytes = |set: &HashSet<u128, FixedState>| {
            set.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>()
        };
        (bytes(&self.young), bytes(&self.old), self.began.0)
    }

    pub(super) fn from_bytes(young: &[u8], old: &[u8], began: i64) -> Option<Self> {
        let read = |bytes: &[u8]| {
            let (ids, rest) = bytes.as_chunks::<16>();
            rest.is_empty().then(|| ids.iter().map(|id| u128::from_le_bytes(*id)).collect())
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
        assert!(seen.insert("a", start));
        assert!(!seen.insert("a", start));
        let next_day = start.plus(GENERATION + Duration::from_secs(1));
        assert!(seen.insert("b", next_day));
        assert!(!seen.insert("a", next_day), "the old generation still knows it");
        let (young, old, began) = seen.to_bytes();
        let mut again = SeenIds::from_bytes(&young, &old, began).unwrap();
        assert!(!again.insert("a", next_day) && !again.insert("b", next_day));
    }
}
