//! A set of 80-bit ids: a hash table with linear probing whose buckets are cache lines. An id is in the line
//! that its value selects, or, if that one is full, in the next line with room. So a lookup reads one line in
//! nearly all cases, and an insertion writes where it has just read. As ids are in the order of their values,
//! a table that grows is read and written sequentially. Tables of millions of ids are far larger than the
//! caches; most of the time is spent waiting for memory, which [`IdSet::prefetch`] avoids where the ids are
//! known early.

use super::memory::{LINE, Lines, prefetch};

/// Ids of one line: ten bytes each.
const SLOTS: usize = 6;
/// Offsets in a line: of the low parts of its ids, and of their number.
const LOW: usize = SLOTS * 8;
const LEN: usize = LOW + SLOTS * 2;
/// The highest load of a table: ids per slots of all lines, three of four.
const ROOM: (usize, usize) = (SLOTS * 3, 4);
/// Lines of the smallest table.
const MIN_LINES: usize = 256;
/// By how much a table that is too small grows. Most of the cost is that the system has to clear the new memory.
const GROWTH: usize = 8;

/// 80 evenly distributed bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    high: u64,
    low: u16,
}

impl Id {
    /// Bytes of an id in a checkpoint.
    pub(super) const WIDTH: usize = 10;

    /// The id of the highest 80 bits of a hash.
    #[inline]
    pub(super) fn of_hash(hash: u128) -> Self {
        Self { high: (hash >> 64) as u64, low: (hash >> 48) as u16 }
    }

    /// The id with these high 64 and low 16 bits.
    #[inline]
    pub(super) fn of_parts(high: u64, low: u16) -> Self {
        Self { high, low }
    }

    /// Its high 64 bits.
    #[inline]
    pub(super) fn high(self) -> u64 {
        self.high
    }

    /// Its low 16 bits.
    #[inline]
    pub(super) fn low(self) -> u16 {
        self.low
    }

    pub(super) fn to_bytes(self) -> [u8; Self::WIDTH] {
        let mut bytes = [0; Self::WIDTH];
        bytes[..8].copy_from_slice(&self.high.to_le_bytes());
        bytes[8..].copy_from_slice(&self.low.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; Self::WIDTH]) -> Self {
        let [a, b, c, d, e, f, g, h, low @ ..] = *bytes;
        let high = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Self { high, low: u16::from_le_bytes(low) }
    }
}

/// One line: high parts of the ids, low parts, and how many there are.
type Line = [u8; LINE];

#[inline]
fn len_of(line: &Line) -> usize {
    // Never more; this spares the compiler the bounds checks.
    usize::from(line[LEN]).min(SLOTS)
}

#[inline]
fn slot(line: &Line, number: usize) -> Id {
    let (highs, _) = line.as_chunks::<8>();
    let (lows, _) = line[LOW..].as_chunks::<2>();
    Id { high: u64::from_ne_bytes(highs[number]), low: u16::from_ne_bytes(lows[number]) }
}

#[inline]
fn holds(line: &Line, id: Id) -> bool {
    // All slots, without a branch: the branch could not be predicted, and a misprediction costs more.
    let len = len_of(line);
    (0..SLOTS).fold(false, |found, number| found | ((number < len) & (slot(line, number) == id)))
}

#[inline]
fn add(line: &mut Line, id: Id) {
    let number = len_of(line);
    line[number * 8..][..8].copy_from_slice(&id.high.to_ne_bytes());
    line[LOW + number * 2..][..2].copy_from_slice(&id.low.to_ne_bytes());
    line[LEN] = number as u8 + 1;
}

#[derive(Debug, Clone)]
pub(super) struct IdSet {
    lines: Lines,
    len: usize,
    /// How many ids are expected at most.
    expected: usize,
}

/// Adds an id that is not there to a table with an empty slot.
#[inline]
fn put(lines: &mut [Line], id: Id) {
    if let Found::Room(line) = IdSet::find(lines, id) {
        add(&mut lines[line], id);
    }
}

/// The result of a search.
enum Found {
    /// The id is there.
    Id,
    /// It is not there, and this line has room for it.
    Room(usize),
}

impl IdSet {
    /// An empty set for an expected number of ids. It may get more.
    pub(super) fn with_expected(expected: usize) -> Self {
        Self { lines: Lines::default(), len: 0, expected }
    }

    /// Lines that so many ids need.
    fn lines_for(ids: usize) -> usize {
        (ids * ROOM.1).div_ceil(ROOM.0).max(MIN_LINES)
    }

    /// Lines of the next larger table: no more than the expected ids need, unless there are more.
    fn larger(&self, lines: usize) -> usize {
        let grown = (GROWTH * lines).max(MIN_LINES);
        let enough = Self::lines_for(self.expected);
        // Also one that would have more than half of them: nearly as much memory would be cleared twice.
        if lines < enough && grown > enough / 2 { enough } else { grown }
    }

    /// Removes all ids and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.lines.as_mut_slice().fill([0; LINE]);
        self.len = 0;
    }

    /// Makes room for so many ids.
    pub(super) fn reserve(&mut self, ids: usize) {
        let needed = Self::lines_for(ids);
        let mut lines = self.lines.as_slice().len();
        if ids > self.room() {
            while lines < needed {
                lines = self.larger(lines);
            }
            self.move_to(lines);
        }
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many ids fit before the table grows.
    pub(super) fn room(&self) -> usize {
        self.lines.as_slice().len() * ROOM.0 / ROOM.1
    }

    /// The line where the search for an id starts: in proportion to its value.
    #[inline]
    fn home_of(lines: &[Line], id: Id) -> usize {
        ((u128::from(id.high) * lines.len() as u128) >> 64) as usize
    }

    /// Searches for an id. The table must have an empty slot.
    #[inline]
    fn find(lines: &[Line], id: Id) -> Found {
        let mut at = Self::home_of(lines, id);
        loop {
            let line = &lines[at];
            if holds(line, id) {
                return Found::Id;
            }
            if len_of(line) < SLOTS {
                return Found::Room(at);
            }
            at = if at + 1 == lines.len() { 0 } else { at + 1 };
        }
    }

    /// Whether an id is there.
    #[inline]
    pub(super) fn contains(&self, id: Id) -> bool {
        let lines = self.lines.as_slice();
        !lines.is_empty() && matches!(Self::find(lines, id), Found::Id)
    }

    /// Prefetches the line where the search for an id starts, and the next one: in a table that is three
    /// quarters full, every fourth search continues there; with two ids in a line one in fifty does.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        let lines = self.lines.as_slice();
        if !lines.is_empty() {
            let home = Self::home_of(lines, id);
            prefetch(&lines[home]);
            if self.len > 2 * lines.len() {
                lines.get(home + 1).into_iter().for_each(prefetch);
            }
        }
    }

    /// Adds an id; `false` if it was there.
    #[inline]
    pub(super) fn insert(&mut self, id: Id) -> bool {
        if self.len >= self.room() {
            self.move_to(self.larger(self.lines.as_slice().len()));
        }
        let lines = self.lines.as_mut_slice();
        match Self::find(lines, id) {
            Found::Id => false,
            Found::Room(line) => {
                add(&mut lines[line], id);
                self.len += 1;
                true
            }
        }
    }

    #[cold]
    fn move_to(&mut self, lines: usize) {
        let mut moved = Lines::zeroed(lines);
        let lines = moved.as_mut_slice();
        for id in self.iter() {
            put(lines, id);
        }
        self.lines = moved;
    }

    /// All ids, nearly in the order of their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = Id> {
        let lines = self.lines.as_slice().iter();
        lines.flat_map(|line| (0..len_of(line)).map(|number| slot(line, number)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few different high bits: long runs of lines, across the end of the table.
        #[test]
        fn it_is_a_set(ids in prop::collection::vec((0u64..40, 0u64..4), 0..5_000)) {
            let (mut ours, mut set) = (IdSet::with_expected(1_000), HashSet::new());
            for (low, high) in ids {
                let id = Id { high: (high.wrapping_sub(2) << 54) | low, low: low as u16 & 3 };
                prop_assert_eq!(ours.insert(id), set.insert(id));
                prop_assert_eq!(ours.len(), set.len());
            }
            prop_assert!(set.iter().all(|id| ours.contains(*id)));
            let stranger = Id { high: u64::MAX - 7, low: 9 };
            prop_assert!(!ours.contains(stranger));
            prop_assert_eq!(ours.iter().collect::<HashSet<_>>(), set);
        }

        #[test]
        fn ids_survive_as_bytes(hash in any::<u128>()) {
            let id = Id::of_hash(hash);
            prop_assert_eq!(Id::from_bytes(&id.to_bytes()), id);
        }
    }

    fn id(number: u128) -> Id {
        Id::of_hash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn growing_loses_nothing_and_zero_is_an_id() {
        let mut ids = IdSet::with_expected(5_000);
        let zero = Id::default();
        assert!(ids.insert(zero) && !ids.insert(zero) && ids.contains(zero));
        for number in 1..5_000 {
            assert!(ids.insert(id(number)));
        }
        // No larger than the expected ids need; more ids fit as well.
        assert!((5_000..5_050).contains(&ids.room()), "{}", ids.room());
        for number in 5_000..10_000 {
            assert!(ids.insert(id(number)));
        }
        for number in 10_000..20_000 {
            assert!(ids.insert(id(number)));
        }
        assert_eq!(ids.len(), 20_000);
        assert!(ids.contains(zero) && (1..20_000).all(|n| ids.contains(id(n))));
    }

    #[test]
    fn the_last_table_before_the_expected_ids_is_skipped_if_it_has_more_than_half_of_their_lines() {
        for (lines, wanted) in [(2 * MIN_LINES, 2 * MIN_LINES), (15 * MIN_LINES, 15 * MIN_LINES)] {
            let ids = IdSet::with_expected(lines * ROOM.0 / ROOM.1);
            assert_eq!(IdSet::lines_for(ids.expected), lines);
            assert_eq!(ids.larger(MIN_LINES), wanted);
        }
        let ids = IdSet::with_expected(17 * MIN_LINES * ROOM.0 / ROOM.1);
        assert_eq!(ids.larger(MIN_LINES), 8 * MIN_LINES);
        assert_eq!(ids.larger(8 * MIN_LINES), 17 * MIN_LINES);
        assert_eq!(ids.larger(17 * MIN_LINES), 136 * MIN_LINES);
        assert_eq!(ids.larger(0), MIN_LINES);
    }

    #[test]
    fn a_cleared_table_has_no_id_and_keeps_its_memory() {
        let mut ids = IdSet::with_expected(5_000);
        (0..5_000).for_each(|number| _ = ids.insert(id(number)));
        let room = ids.room();
        ids.clear();
        assert_eq!((ids.len(), ids.iter().count(), ids.room()), (0, 0, room));
        assert!((0..5_000).all(|number| !ids.contains(id(number))));
        assert!((0..5_000).all(|number| ids.insert(id(number))));
        assert_eq!((ids.len(), ids.room()), (5_000, room));
    }
}
