//! A set of 128-bit ids in lines of memory: an id lies in the line that its highest bits say, or, if
//! that one is full, in the next that has room. A look-up so reads one line in nearly all cases, and
//! an insertion writes where it has just read. By the highest bits ids lie in the order of their
//! numbers: a table that grows is read and written from one end to the other. Tables of millions are
//! far larger than the caches; what costs time is waiting for memory, and who touches many lines in a
//! row before he needs them waits once ([`IdSet::touch`]).

use super::memory::{LINE, Lines};

/// Never an id: an empty slot. Lines are made of it.
const EMPTY: u128 = 0;
/// Bytes of an id.
const WIDTH: usize = 16;
/// Ids of one line.
const SLOTS: usize = LINE / WIDTH;
/// Lines of the smallest table.
const LEAST: usize = 256;
/// A table that is too small becomes so many times larger.
const GROWTH: usize = 4;

#[derive(Debug, Clone, Default)]
pub(super) struct IdSet {
    /// A power of two of them, or none; at most half of the slots are taken, the first ones of a
    /// line first.
    lines: Lines,
    len: usize,
}

/// What a search ends with.
enum Found {
    /// The id is there.
    Id,
    /// It belongs here: line and slot.
    Room(usize, usize),
}

#[inline]
fn slots(line: &[u8; LINE]) -> [u128; SLOTS] {
    let (slots, _) = line.as_chunks::<WIDTH>();
    std::array::from_fn(|slot| u128::from_ne_bytes(slots[slot]))
}

#[inline]
fn put(lines: &mut [[u8; LINE]], line: usize, slot: usize, id: u128) {
    lines[line][slot * WIDTH..][..WIDTH].copy_from_slice(&id.to_ne_bytes());
}

impl IdSet {
    /// Always of a size that one which grows would have.
    pub(super) fn with_room_for(ids: usize) -> Self {
        let mut lines = if ids == 0 { 0 } else { LEAST };
        while lines * SLOTS / 2 < ids {
            lines *= GROWTH;
        }
        Self { lines: Lines::zeroed(lines), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// As many ids as there is room for.
    pub(super) fn room(&self) -> usize {
        self.lines.as_slice().len() * SLOTS / 2
    }

    /// The line where the search for an id begins. The table is not empty.
    #[inline]
    fn home_of(lines: &[[u8; LINE]], id: u128) -> usize {
        // Of `2^n` lines the highest n bits; there are at least `LEAST`.
        ((id >> 64) as u64 >> (64 - lines.len().trailing_zeros())) as usize
    }

    /// The table has an empty slot.
    #[inline]
    fn find(lines: &[[u8; LINE]], id: u128) -> Found {
        let mut at = Self::home_of(lines, id);
        loop {
            let line = slots(&lines[at]);
            // All four at once: which of them it is cannot be guessed, and a wrong guess costs more.
            if line.iter().fold(false, |found, slot| found | (*slot == id)) {
                return Found::Id;
            }
            let taken: usize = line.iter().map(|slot| usize::from(*slot != EMPTY)).sum();
            if taken < SLOTS {
                return Found::Room(at, taken);
            }
            at = (at + 1) & (lines.len() - 1);
        }
    }

    #[inline]
    pub(super) fn contains(&self, id: u128) -> bool {
        let lines = self.lines.as_slice();
        !lines.is_empty() && matches!(Self::find(lines, not_empty(id)), Found::Id)
    }

    /// Reads what lies where the search for an id begins, and decides nothing by it: a processor
    /// goes on to the next such read without waiting for this one.
    #[inline]
    pub(super) fn touch(&self, id: u128) -> u8 {
        let lines = self.lines.as_slice();
        match lines.is_empty() {
            true => 0,
            false => lines[Self::home_of(lines, id)][0],
        }
    }

    /// `false` if it was there.
    #[inline]
    pub(super) fn insert(&mut self, id: u128) -> bool {
        if self.len >= self.room() {
            self.grow();
        }
        let id = not_empty(id);
        let lines = self.lines.as_mut_slice();
        match Self::find(lines, id) {
            Found::Id => false,
            Found::Room(line, slot) => {
                put(lines, line, slot, id);
                self.len += 1;
                true
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut grown = Lines::zeroed((GROWTH * self.lines.as_slice().len()).max(LEAST));
        let lines = grown.as_mut_slice();
        for id in self.iter() {
            if let Found::Room(line, slot) = Self::find(lines, id) {
                put(lines, line, slot, id);
            }
        }
        self.lines = grown;
    }

    /// Forgets all ids and keeps the room.
    pub(super) fn clear(&mut self) {
        self.lines.as_mut_slice().as_flattened_mut().fill(0);
        self.len = 0;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        self.lines.as_slice().iter().flat_map(slots).filter(|id| *id != EMPTY)
    }
}

/// An id that is the mark of an empty slot is taken for its neighbour.
#[inline]
fn not_empty(id: u128) -> u128 {
    if id == EMPTY { 1 } else { id }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few different high bits: long runs of slots, across the end of the array.
        #[test]
        fn it_is_a_set(ids in prop::collection::vec((1u128..40, 0u128..4), 0..3_000)) {
            let ids: Vec<u128> = ids
                .iter()
                .map(|(low, high)| (high.wrapping_sub(2) << 118) | low)
                .collect();
            let (mut ours, mut theirs) = (IdSet::default(), HashSet::new());
            for id in &ids {
                prop_assert_eq!(ours.insert(*id), theirs.insert(*id));
            }
            prop_assert_eq!(ours.len(), theirs.len());
            prop_assert!(ids.iter().all(|id| ours.contains(*id)));
            prop_assert!(!ours.contains(u128::MAX - 7));
            prop_assert_eq!(ours.iter().collect::<HashSet<_>>(), theirs);
            ours.clear();
            prop_assert!(ours.len() == 0 && ids.iter().all(|id| !ours.contains(*id)));
        }
    }

    #[test]
    fn growing_loses_nothing_and_zero_is_an_id() {
        let mut ids = IdSet::with_room_for(10);
        assert!(ids.insert(0) && !ids.insert(0) && ids.contains(0));
        for id in 0..10_000u128 {
            ids.insert((id * 0x9e37_79b9_7f4a_7c15) << 63 | 2);
        }
        assert_eq!(ids.len(), 10_001);
        assert!(ids.contains(0));
    }
}
