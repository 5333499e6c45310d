//! A set of 80-bit ids in lines of memory: an id lies in the line that its value as a number says, or, if
//! that one is full, in the next that has room. A look-up so reads one line in nearly all cases, and an
//! insertion writes where it has just read. As ids lie in the order of their numbers, a table that grows is
//! read and written from one end to the other. Tables of millions are far larger than the caches; what costs
//! time is waiting for memory, and who knows early which ids he will ask for need not wait
//! ([`IdSet::prefetch`]).

use super::memory::{LINE, Lines, prefetch};

/// Ids of one line: ten bytes each.
const SLOTS: usize = 6;
/// Where a line keeps the low parts of its ids, and their number.
const LOW: usize = SLOTS * 8;
const TAKEN: usize = LOW + SLOTS * 2;
/// A table has room for so many ids of so many slots: three of four.
const ROOM: (usize, usize) = (SLOTS * 3, 4);
/// Lines of the smallest table.
const LEAST: usize = 256;
/// A table that is too small becomes so many times larger. Most of what growing costs is that the
/// system has to clear the new memory.
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

    /// The highest 80 bits of a hash.
    #[inline]
    pub(super) fn of_hash(hash: u128) -> Self {
        Self { high: (hash >> 64) as u64, low: (hash >> 48) as u16 }
    }

    /// The id with these first 64 and other 16 bits.
    #[inline]
    pub(super) fn of_parts(high: u64, low: u16) -> Self {
        Self { high, low }
    }

    /// Its first 64 bits.
    #[inline]
    pub(super) fn high(self) -> u64 {
        self.high
    }

    /// The other 16.
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

/// The ids of one line: high parts, low parts, how many.
type Line = [u8; LINE];

#[inline]
fn taken(line: &Line) -> usize {
    // Never more; the compiler need not look where a slot lies.
    usize::from(line[TAKEN]).min(SLOTS)
}

#[inline]
fn slot(line: &Line, number: usize) -> Id {
    let (highs, _) = line.as_chunks::<8>();
    let (lows, _) = line[LOW..].as_chunks::<2>();
    Id { high: u64::from_ne_bytes(highs[number]), low: u16::from_ne_bytes(lows[number]) }
}

#[inline]
fn holds(line: &Line, id: Id) -> bool {
    // All of them at once: which one it is cannot be guessed, and a wrong guess costs more.
    let taken = taken(line);
    (0..SLOTS).fold(false, |found, number| found | ((number < taken) & (slot(line, number) == id)))
}

#[inline]
fn add(line: &mut Line, id: Id) {
    let number = taken(line);
    line[number * 8..][..8].copy_from_slice(&id.high.to_ne_bytes());
    line[LOW + number * 2..][..2].copy_from_slice(&id.low.to_ne_bytes());
    line[TAKEN] = number as u8 + 1;
}

#[derive(Debug, Clone)]
pub(super) struct IdSet {
    lines: Lines,
    len: usize,
    /// So many ids are expected at most.
    most: usize,
}

/// Puts an id that is not there into a table with an empty slot.
#[inline]
fn put(lines: &mut [Line], id: Id) {
    if let Found::Room(line) = IdSet::find(lines, id) {
        add(&mut lines[line], id);
    }
}

/// What a search ends with.
enum Found {
    /// The id is there.
    Id,
    /// It belongs into this line.
    Room(usize),
}

impl IdSet {
    /// An empty set that will have up to so many ids. More have room as well.
    pub(super) fn of_most(most: usize) -> Self {
        Self { lines: Lines::default(), len: 0, most }
    }

    /// Lines that so many ids need.
    fn lines_for(ids: usize) -> usize {
        (ids * ROOM.1).div_ceil(ROOM.0).max(LEAST)
    }

    /// Lines of the next larger table: no more than the most ids need, unless there are more.
    fn larger(&self, lines: usize) -> usize {
        let grown = (GROWTH * lines).max(LEAST);
        let enough = Self::lines_for(self.most);
        if lines < enough { grown.min(enough) } else { grown }
    }

    /// Makes room for so many at once.
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

    /// As many ids as there is room for.
    pub(super) fn room(&self) -> usize {
        self.lines.as_slice().len() * ROOM.0 / ROOM.1
    }

    /// The line where the search for an id begins: the same part of all lines as the id is of all
    /// numbers.
    #[inline]
    fn home_of(lines: &[Line], id: Id) -> usize {
        ((u128::from(id.high) * lines.len() as u128) >> 64) as usize
    }

    /// The table has an empty slot.
    #[inline]
    fn find(lines: &[Line], id: Id) -> Found {
        let mut at = Self::home_of(lines, id);
        loop {
            let line = &lines[at];
            if holds(line, id) {
                return Found::Id;
            }
            if taken(line) < SLOTS {
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

    /// Has the line brought where the search for an id begins, and the next: in a table that is three
    /// quarters full, every fourth search goes on there.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        let lines = self.lines.as_slice();
        if !lines.is_empty() {
            let home = Self::home_of(lines, id);
            prefetch(&lines[home]);
            lines.get(home + 1).into_iter().for_each(prefetch);
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

    /// All ids, nearly in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = Id> {
        let lines = self.lines.as_slice().iter();
        lines.flat_map(|line| (0..taken(line)).map(|number| slot(line, number)))
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
            let (mut ours, mut set) = (IdSet::of_most(1_000), HashSet::new());
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
        let mut ids = IdSet::of_most(5_000);
        let zero = Id::default();
        assert!(ids.insert(zero) && !ids.insert(zero) && ids.contains(zero));
        for number in 1..5_000 {
            assert!(ids.insert(id(number)));
        }
        // No larger than the most need; more has room as well.
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
}
