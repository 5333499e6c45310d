//! Open insertions: those that an outcome may still name. Each has what it was expected to earn, which leaves
//! what is in flight when its outcome comes, and the price that it carried.
//!
//! A hash table with linear probing whose buckets are cache lines of two entries each, in the order of the
//! ids' values. An entry takes 32 bytes; the table is at most three quarters full, so that an open insertion
//! takes 43 bytes in a full table, and 85 in one that has just grown.
//!
//! What is open depends on the events and their order alone, so that every replica and every replay agree:
//!
//! * An insertion is removed when a later one is more than [`HORIZON_WINDOWS`] younger; that is looked at
//!   every [`BLOCK_WINDOWS`].
//! * If there are [`MAX_OPEN`], the oldest quarter is removed.
//!
//! What a removed insertion was expected to earn stays in its window, and leaves it by the survival curve.

use throng_model::Timestamp;
use throng_rates::{NO_PLACEMENT, OTHER_PLACEMENT, WINDOW_MICROS};

use super::ids::Id;
use super::memory::{LINE, Lines, prefetch};

/// The most open insertions of a partition.
pub(super) const MAX_OPEN: usize = 1_000_000;
/// Two hours in windows: for so long an insertion is open at least, as long as there is room.
const HORIZON_WINDOWS: i64 = 2 * 3600 * 1_000_000 / WINDOW_MICROS;
/// Ten minutes in windows.
const BLOCK_WINDOWS: i64 = 600 * 1_000_000 / WINDOW_MICROS;
/// Entries of a line.
const SLOTS: usize = 2;
/// Numbers of an entry.
const WORDS: usize = 4;
/// The highest load of a table: entries per slots of all lines, three of four.
const ROOM: (usize, usize) = (SLOTS * 3, 4);
const MIN_LINES: usize = 64;
const GROWTH: usize = 2;
/// The price of an insertion that carries no terms of its own.
const NO_PRICE: u64 = u64::MAX;
/// An expected amount below this leaves room for a placement in its number.
const MAX_PLACED: u64 = 1 << PLACEMENT_SHIFT;
const PLACEMENT_SHIFT: u32 = 48;
/// The mark of an expected amount of this size, which has no placement.
const UNPLACED: u64 = 1 << 63;

type Line = [u8; LINE];
/// High part of the id, price, expected amount with the placement (15 bits); window (32 bits), low part of the id (16), and milliseconds
/// since the window's start plus one (16), which is zero where there is no entry.
type Words = [u64; WORDS];

/// An open insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenInsertion {
    /// Its window.
    pub(super) window: i32,
    /// Milliseconds from the start of the window, below 10,000.
    pub(super) millis: u16,
    /// What it was expected to earn.
    pub(super) expected: i64,
    /// Its price in billionths, if it carries a price or a rate: not negative.
    pub(super) price_nanos: Option<i64>,
    /// Its placement. One that is expected to earn 281 million and more has none.
    pub(super) placement: u16,
}

impl OpenInsertion {
    /// `None` for a time that is far outside of the range of a sender's clock.
    pub(super) fn new(
        at: Timestamp,
        expected: i64,
        price_nanos: Option<i64>,
        placement: u16,
    ) -> Option<Self> {
        let window = i32::try_from(at.0.div_euclid(WINDOW_MICROS)).ok()?;
        let millis = (at.0.rem_euclid(WINDOW_MICROS) / 1_000) as u16;
        let is_placed = expected.max(0).cast_unsigned() < MAX_PLACED;
        let placement = if is_placed { placement } else { NO_PLACEMENT };
        Some(Self { window, millis, expected, price_nanos, placement })
    }

    /// When it was made, to the millisecond below.
    pub(super) fn at(self) -> Timestamp {
        Timestamp(i64::from(self.window) * WINDOW_MICROS + i64::from(self.millis) * 1_000)
    }

    fn words(self, id: Id) -> Words {
        let window = u64::from(self.window.cast_unsigned());
        let mark = u64::from(self.millis) + 1;
        let price = self.price_nanos.map_or(NO_PRICE, |price| price.max(0).cast_unsigned());
        let tail = (window << 32) | (u64::from(id.low()) << 16) | mark;
        let amount = self.expected.max(0).cast_unsigned();
        let expected = match amount < MAX_PLACED {
            true => amount | (u64::from(self.placement) << PLACEMENT_SHIFT),
            false => amount | UNPLACED,
        };
        [id.high(), price, expected, tail]
    }

    fn of_words([high, price, expected, tail]: Words) -> (Id, Self) {
        let (expected, placement) = match expected & UNPLACED {
            0 => (expected & (MAX_PLACED - 1), (expected >> PLACEMENT_SHIFT) as u16),
            _ => (expected & !UNPLACED, NO_PLACEMENT),
        };
        let insertion = Self {
            window: ((tail >> 32) as u32).cast_signed(),
            millis: (tail as u16).saturating_sub(1),
            expected: expected.cast_signed(),
            price_nanos: (price != NO_PRICE).then_some(price.cast_signed()),
            placement,
        };
        (Id::of_parts(high, (tail >> 16) as u16), insertion)
    }
}

#[inline]
fn words(line: &Line, slot: usize) -> Words {
    let (numbers, _) = line.as_chunks::<8>();
    std::array::from_fn(|place| u64::from_ne_bytes(numbers[slot * WORDS + place]))
}

#[inline]
fn set_words(line: &mut Line, slot: usize, words: Words) {
    let (numbers, _) = line.as_chunks_mut::<8>();
    for (place, word) in words.into_iter().enumerate() {
        numbers[slot * WORDS + place] = word.to_ne_bytes();
    }
}

#[inline]
fn is_empty(words: Words) -> bool {
    words[3] as u16 == 0
}

#[inline]
fn is_of(words: Words, id: Id) -> bool {
    words[0] == id.high() && (words[3] >> 16) as u16 == id.low() && !is_empty(words)
}

/// Entries of a line: its first slots.
#[inline]
fn len_of(line: &Line) -> usize {
    (0..SLOTS).take_while(|slot| !is_empty(words(line, *slot))).count()
}

/// The line where the search for an id starts: in proportion to its value.
#[inline]
fn home_of(lines: &[Line], high: u64) -> usize {
    ((u128::from(high) * lines.len() as u128) >> 64) as usize
}

#[inline]
fn after(lines: &[Line], line: usize) -> usize {
    if line + 1 == lines.len() { 0 } else { line + 1 }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct OpenInsertions {
    lines: Lines,
    len: usize,
    capacity: usize,
    /// The newest block of windows that has had an insertion.
    block: i64,
    /// Insertions that were removed because there were too many.
    evicted: u64,
}

impl Default for OpenInsertions {
    fn default() -> Self {
        Self::with_capacity(MAX_OPEN)
    }
}

impl OpenInsertions {
    /// None, and room for so many.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { lines: Lines::default(), len: 0, capacity, block: i64::MIN, evicted: 0 }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many were removed since the start of the process because there were too many.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The newest block of windows that has had an insertion.
    pub(super) fn block(&self) -> i64 {
        self.block
    }

    /// Loads the line of an id into the processor's caches, and the next one.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        let lines = self.lines.as_slice();
        if !lines.is_empty() {
            let home = home_of(lines, id.high());
            prefetch(&lines[home]);
            prefetch(&lines[after(lines, home)]);
        }
    }

    /// The line and the slot of an id.
    #[inline]
    fn find(&self, id: Id) -> Option<(usize, usize)> {
        let lines = self.lines.as_slice();
        if lines.is_empty() {
            return None;
        }
        let mut line = home_of(lines, id.high());
        loop {
            for slot in 0..SLOTS {
                let words = words(&lines[line], slot);
                if is_of(words, id) {
                    return Some((line, slot));
                }
                if is_empty(words) {
                    return None;
                }
            }
            line = after(lines, line);
        }
    }

    /// An open insertion.
    #[inline]
    pub(super) fn get(&self, id: Id) -> Option<OpenInsertion> {
        let (line, slot) = self.find(id)?;
        Some(OpenInsertion::of_words(words(&self.lines.as_slice()[line], slot)).1)
    }

    /// Adds an insertion. One that is open stays as it is.
    #[inline]
    pub(super) fn open(&mut self, id: Id, insertion: OpenInsertion) {
        let block = i64::from(insertion.window).div_euclid(BLOCK_WINDOWS);
        if block > self.block {
            self.block = block;
            self.expire();
        }
        if self.find(id).is_some() {
            return;
        }
        if self.len >= self.capacity {
            self.evict_oldest();
        }
        if self.len >= self.room() {
            let lines = self.lines.as_slice().len();
            self.move_to((lines * GROWTH).clamp(MIN_LINES, self.most_lines()), |_| true);
        }
        self.put(insertion.words(id));
    }

    /// Removes an insertion: its outcome has come.
    #[inline]
    pub(super) fn remove(&mut self, id: Id) {
        let Some((mut line, mut slot)) = self.find(id) else { return };
        let lines = self.lines.as_mut_slice();
        loop {
            let len = len_of(&lines[line]);
            let last = words(&lines[line], len - 1);
            set_words(&mut lines[line], slot, last);
            set_words(&mut lines[line], len - 1, [0; WORDS]);
            if len < SLOTS {
                break;
            }
            // A later entry that found no room here would no longer be found.
            let Some((from, place)) = displaced(lines, line) else { break };
            let moved = words(&lines[from], place);
            set_words(&mut lines[line], len - 1, moved);
            (line, slot) = (from, place);
        }
        self.len -= 1;
    }

    /// Keeps an insertion whose outcome has come, for the price of later outcomes.
    pub(super) fn keep_price(&mut self, id: Id) {
        let Some((line, slot)) = self.find(id) else { return };
        let line = &mut self.lines.as_mut_slice()[line];
        let (id, insertion) = OpenInsertion::of_words(words(line, slot));
        set_words(line, slot, OpenInsertion { expected: 0, ..insertion }.words(id));
    }

    /// Counts placements, which are ascending, as `other`.
    pub(super) fn merge_placements(&mut self, gone: &[u16]) {
        for line in self.lines.as_mut_slice() {
            for slot in 0..len_of(line) {
                let (id, insertion) = OpenInsertion::of_words(words(line, slot));
                if gone.binary_search(&insertion.placement).is_ok() {
                    let insertion = OpenInsertion { placement: OTHER_PLACEMENT, ..insertion };
                    set_words(line, slot, insertion.words(id));
                }
            }
        }
    }

    /// All open insertions, nearly in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, OpenInsertion)> {
        let lines = self.lines.as_slice().iter();
        let slots = lines.flat_map(|line| (0..SLOTS).map(|slot| words(line, slot)));
        slots.filter(|words| !is_empty(*words)).map(OpenInsertion::of_words)
    }

    /// Restores what [`iter`](Self::iter) and [`block`](Self::block) returned.
    pub(super) fn load(insertions: &[(Id, OpenInsertion)], block: i64) -> Self {
        let mut loaded = Self { block, ..Self::default() };
        loaded.move_to(loaded.lines_for(insertions.len()), |_| true);
        insertions.iter().for_each(|(id, insertion)| loaded.put(insertion.words(*id)));
        loaded
    }

    /// Lines that so many entries need.
    fn lines_for(&self, entries: usize) -> usize {
        (entries * ROOM.1).div_ceil(ROOM.0).max(MIN_LINES)
    }

    /// Lines of a full table.
    fn most_lines(&self) -> usize {
        self.lines_for(self.capacity.max(self.len + 1))
    }

    /// How many entries fit before the table grows.
    fn room(&self) -> usize {
        self.lines.as_slice().len() * ROOM.0 / ROOM.1
    }

    /// Adds an entry that is not there to a table with room.
    #[inline]
    fn put(&mut self, words: Words) {
        let lines = self.lines.as_mut_slice();
        let mut line = home_of(lines, words[0]);
        loop {
            let len = len_of(&lines[line]);
            if len < SLOTS {
                set_words(&mut lines[line], len, words);
                self.len += 1;
                return;
            }
            line = after(lines, line);
        }
    }

    /// Removes what is older than the horizon.
    #[cold]
    fn expire(&mut self) {
        let oldest = self.block.saturating_mul(BLOCK_WINDOWS).saturating_sub(HORIZON_WINDOWS);
        self.keep_from(oldest);
    }

    /// Removes the oldest quarter, or more of them if they are of one window.
    #[cold]
    fn evict_oldest(&mut self) {
        let mut windows: Vec<i32> = self.iter().map(|(_, insertion)| insertion.window).collect();
        if windows.is_empty() {
            return;
        }
        let (_, newest, _) = windows.select_nth_unstable(self.len / 4);
        let oldest = i64::from(*newest) + 1;
        let before = self.len;
        self.keep_from(oldest);
        self.evicted += (before - self.len) as u64;
    }

    fn keep_from(&mut self, oldest: i64) {
        let is_kept = |insertion: &OpenInsertion| i64::from(insertion.window) >= oldest;
        let kept = self.iter().filter(|(_, insertion)| is_kept(insertion)).count();
        if kept < self.len {
            // With room for as many again, so that it does not grow at once.
            let lines = self.lines_for(2 * kept).min(self.most_lines());
            self.move_to(lines, is_kept);
        }
    }

    #[cold]
    fn move_to(&mut self, lines: usize, is_kept: impl Fn(&OpenInsertion) -> bool) {
        let before = std::mem::take(&mut self.lines);
        self.lines = Lines::zeroed(lines);
        self.len = 0;
        for line in before.as_slice() {
            let entries = (0..len_of(line)).map(|slot| words(line, slot));
            entries.filter(|words| is_kept(&OpenInsertion::of_words(*words).1)).for_each(|words| {
                self.put(words);
            });
        }
    }
}

/// The first entry after a line that had no room in it.
fn displaced(lines: &[Line], line: usize) -> Option<(usize, usize)> {
    let distance = |from: usize, to: usize| (to + lines.len() - from) % lines.len();
    let mut next = line;
    loop {
        next = after(lines, next);
        let len = len_of(&lines[next]);
        let passes = |slot: &usize| {
            let home = home_of(lines, words(&lines[next], *slot)[0]);
            distance(home, next) >= distance(line, next)
        };
        if let Some(slot) = (0..len).find(passes) {
            return Some((next, slot));
        }
        if len < SLOTS {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
