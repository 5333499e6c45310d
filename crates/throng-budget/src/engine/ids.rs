//! A set of 128-bit ids in one flat array: slots are probed one after the other from where the id's
//! highest bits say, so that a look-up touches one place of memory and an insertion writes where it
//! has just read. By the highest bits ids lie in the order of their numbers: a table that grows is
//! read and written from one end to the other. Tables of millions are far larger than the caches;
//! what costs time is waiting for memory, and who touches many places in a row before he needs them
//! waits once ([`IdSet::touch`]).

/// Never an id: an empty slot.
const EMPTY: u128 = 0;
/// Slots of the smallest table.
const LEAST: usize = 1_024;

#[derive(Debug, Clone, Default)]
pub(super) struct IdSet {
    /// A power of two of them, or none; at most half are taken.
    slots: Vec<u128>,
    len: usize,
}

impl IdSet {
    pub(super) fn with_room_for(ids: usize) -> Self {
        match ids {
            0 => Self::default(),
            _ => Self { slots: vec![EMPTY; (2 * ids).next_power_of_two().max(LEAST)], len: 0 },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the search for an id begins. The table is not empty.
    #[inline]
    fn home_of(slots: &[u128], id: u128) -> usize {
        // Of `2^n` slots the highest n bits; there are at least `LEAST`.
        ((id >> 64) as u64 >> (64 - slots.len().trailing_zeros())) as usize
    }

    /// Where the id is, or where it belongs; the table has an empty slot.
    #[inline]
    fn slot_of(slots: &[u128], id: u128) -> usize {
        let mask = slots.len() - 1;
        let mut slot = Self::home_of(slots, id);
        while slots[slot] != id && slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        slot
    }

    #[inline]
    pub(super) fn contains(&self, id: u128) -> bool {
        let id = not_empty(id);
        !self.slots.is_empty() && self.slots[Self::slot_of(&self.slots, id)] == id
    }

    /// Reads what lies where the search for an id begins, and decides nothing by it: a processor
    /// goes on to the next such read without waiting for this one.
    #[inline]
    pub(super) fn touch(&self, id: u128) -> u128 {
        match self.slots.is_empty() {
            true => EMPTY,
            false => self.slots[Self::home_of(&self.slots, id)],
        }
    }

    /// `false` if it was there.
    #[inline]
    pub(super) fn insert(&mut self, id: u128) -> bool {
        if 2 * (self.len + 1) > self.slots.len() {
            self.grow();
        }
        let id = not_empty(id);
        let slot = Self::slot_of(&self.slots, id);
        let new = self.slots[slot] == EMPTY;
        self.slots[slot] = id;
        self.len += usize::from(new);
        new
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![EMPTY; (2 * self.slots.len()).max(LEAST)];
        for id in self.iter() {
            let slot = Self::slot_of(&slots, id);
            slots[slot] = id;
        }
        self.slots = slots;
    }

    /// Forgets all ids and keeps the room.
    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        self.slots.iter().copied().filter(|id| *id != EMPTY)
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
