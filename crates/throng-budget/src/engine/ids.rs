//! A set of 80-bit ids of two generations, in lines of memory: an id lies in the line that its value as
//! a number says, or, if that one is full, in the next that has room. A look-up so reads one line in
//! nearly all cases, whichever generation the id is of, and an insertion writes where it has just read.
//! As ids lie in the order of their numbers, a table that grows, or forgets a generation, is read and
//! written from one end to the other. Tables of millions are far larger than the caches; what costs
//! time is waiting for memory, and who knows early which ids he will ask for need not wait
//! ([`IdSet::prefetch`]).

use super::memory::{LINE, Lines, prefetch};

/// Ids of one line: ten bytes each.
const SLOTS: usize = 6;
/// Where a line keeps the low parts of its ids, their number, and a bit for each that is young.
const LOW: usize = SLOTS * 8;
const TAKEN: usize = LOW + SLOTS * 2;
const YOUNG: usize = TAKEN + 1;
/// A table has room for so many ids of so many slots: three of four.
const ROOM: (usize, usize) = (SLOTS * 3, 4);
/// Lines of the smallest table.
const LEAST: usize = 256;
/// A table that is too small becomes so many times larger. Most of what growing costs is that the
/// system has to clear the new memory.
const GROWTH: usize = 8;

/// 80 evenly distributed bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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

/// The ids of one line: high parts, low parts, how many, which are young.
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
fn is_young(line: &Line, number: usize) -> bool {
    line[YOUNG] >> number & 1 == 1
}

#[inline]
fn add(line: &mut Line, id: Id, young: bool) {
    let number = taken(line);
    line[number * 8..][..8].copy_from_slice(&id.high.to_ne_bytes());
    line[LOW + number * 2..][..2].copy_from_slice(&id.low.to_ne_bytes());
    line[TAKEN] = number as u8 + 1;
    line[YOUNG] |= u8::from(young) << number;
}

#[derive(Debug, Clone)]
pub(super) struct IdSet {
    lines: Lines,
    /// Ids of both generations, and of the young one.
    len: usize,
    young: usize,
    /// So many ids of one generation are expected at most.
    most: usize,
}

/// Puts an id that is not there into a table with an empty slot.
#[inline]
fn put(lines: &mut [Line], id: Id, young: bool) {
    if let Found::Room(line) = IdSet::find(lines, id) {
        add(&mut lines[line], id, young);
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
    /// An empty set, whose generations will have up to so many ids. More have room as well.
    pub(super) fn of_generations(most: usize) -> Self {
        Self { lines: Lines::default(), len: 0, young: 0, most }
    }

    /// Lines that so many ids need.
    fn lines_for(ids: usize) -> usize {
        (ids * ROOM.1).div_ceil(ROOM.0).max(LEAST)
    }

    /// Lines of the next larger table: no more than a generation needs, then no more than two need.
    fn larger(&self, lines: usize) -> usize {
        let grown = (GROWTH * lines).max(LEAST);
        [self.most, 2 * self.most]
            .map(Self::lines_for)
            .into_iter()
            .find(|enough| lines < *enough)
            .map_or(grown, |enough| grown.min(enough))
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

    /// Ids of the young generation.
    pub(super) fn young(&self) -> usize {
        self.young
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

    #[cfg(test)]
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

    /// Adds a young id; `false` if it was there, young or old.
    #[inline]
    pub(super) fn insert(&mut self, id: Id) -> bool {
        self.add(id, true)
    }

    /// Adds an id of the generation before; `false` if it was there, young or old.
    pub(super) fn insert_old(&mut self, id: Id) -> bool {
        self.add(id, false)
    }

    #[inline]
    fn add(&mut self, id: Id, young: bool) -> bool {
        if self.len >= self.room() {
            self.move_to(self.larger(self.lines.as_slice().len()));
        }
        let lines = self.lines.as_mut_slice();
        match Self::find(lines, id) {
            Found::Id => false,
            Found::Room(line) => {
                add(&mut lines[line], id, young);
                self.len += 1;
                self.young += usize::from(young);
                true
            }
        }
    }

    #[cold]
    fn move_to(&mut self, lines: usize) {
        let mut moved = Lines::zeroed(lines);
        let lines = moved.as_mut_slice();
        for (id, young) in self.iter() {
            put(lines, id, young);
        }
        self.lines = moved;
    }

    /// Forgets the old ids; the young ones are the old ones from now on, and the room is kept.
    ///
    /// Line by line, ids are taken out and put back where their search ends now. With fewer ids that is
    /// never behind where they were, so that only lines that are done are searched; but for ids whose
    /// search had gone past the end of the table, which wait for the end.
    #[cold]
    pub(super) fn next_generation(&mut self) {
        let lines = self.lines.as_mut_slice();
        let mut waiting = Vec::new();
        for at in 0..lines.len() {
            let line = std::mem::replace(&mut lines[at], [0; LINE]);
            for number in (0..taken(&line)).filter(|number| is_young(&line, *number)) {
                let id = slot(&line, number);
                if Self::home_of(lines, id) <= at {
                    put(lines, id, false);
                } else {
                    waiting.push(id);
                }
            }
        }
        waiting.into_iter().for_each(|id| put(lines, id, false));
        self.len = self.young;
        self.young = 0;
    }

    /// All ids, and whether each is young.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, bool)> {
        let lines = self.lines.as_slice().iter();
        lines.flat_map(|line| (0..taken(line)).map(|n| (slot(line, n), is_young(line, n))))
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
        fn it_is_a_set_of_two_generations(
            ids in prop::collection::vec((0u64..40, 0u64..4, 0u32..900), 0..5_000),
        ) {
            let (mut ours, mut young, mut old) =
                (IdSet::of_generations(1_000), HashSet::new(), HashSet::new());
            let mut all = Vec::new();
            for (low, high, end) in ids {
                let id = Id { high: (high.wrapping_sub(2) << 54) | low, low: low as u16 & 3 };
                prop_assert_eq!(ours.insert(id), !old.contains(&id) && young.insert(id));
                all.push(id);
                if end == 0 {
                    ours.next_generation();
                    old = std::mem::take(&mut young);
                }
                prop_assert_eq!(ours.young(), young.len());
            }
            for id in all {
                prop_assert_eq!(ours.contains(id), young.contains(&id) || old.contains(&id));
            }
            let stranger = Id { high: u64::MAX - 7, low: 9 };
            prop_assert!(!ours.contains(stranger));
            for (generation, is_young) in [(young, true), (old, false)] {
                let held = ours.iter().filter(|(_, young)| *young == is_young).map(|(id, _)| id);
                prop_assert_eq!(held.collect::<HashSet<_>>(), generation);
            }
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
        let mut ids = IdSet::of_generations(5_000);
        let zero = Id::default();
        assert!(ids.insert(zero) && !ids.insert(zero) && ids.contains(zero));
        for number in 1..5_000 {
            assert!(ids.insert(id(number)));
        }
        // No larger than a generation needs, then no larger than two need; more has room as well.
        assert!((5_000..5_050).contains(&ids.room()), "{}", ids.room());
        for number in 5_000..10_000 {
            assert!(ids.insert(id(number)));
        }
        assert!((10_000..10_050).contains(&ids.room()), "{}", ids.room());
        for number in 10_000..20_000 {
            assert!(ids.insert(id(number)));
        }
        assert_eq!(ids.young(), 20_000);
        assert!(ids.contains(zero) && (1..20_000).all(|n| ids.contains(id(n))));
    }

    #[test]
    fn a_generation_that_ends_makes_room_for_the_next() {
        let mut ids = IdSet::of_generations(5_000);
        for generation in 0..10 {
            for number in 0..5_000 {
                assert!(ids.insert(id(generation * 5_000 + number)));
            }
            ids.next_generation();
            for number in 0..5_000 {
                assert!(!ids.insert(id(generation * 5_000 + number)), "it is known for one more");
            }
        }
        assert!((10_000..10_050).contains(&ids.room()), "{}", ids.room());
    }
}
