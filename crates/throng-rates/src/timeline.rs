//! Values by number of window or interval. Nearly every event needs one of the newest, and there are nearly
//! no gaps, so the position is guessed; if the guess fails, it is found by binary search.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use throng_model::Timestamp;

/// The width of a tumbling window.
pub const WINDOW_SECS: i64 = 10;
/// The same in microseconds.
pub const WINDOW_MICROS: i64 = WINDOW_SECS * 1_000_000;

/// How long ago a window began. Saturates instead of overflowing.
#[inline]
pub fn age_of(number: i64, now: Timestamp) -> i64 {
    now.0.saturating_sub(number.saturating_mul(WINDOW_MICROS))
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline<T>(VecDeque<(i64, T)>);

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Timeline<T> {
    /// The position of a number, or the one where it has to be inserted.
    fn find(&self, number: i64) -> Result<usize, usize> {
        let Some((newest, _)) = self.0.back() else { return Err(0) };
        let last = self.0.len() - 1;
        if number > *newest {
            return Err(last + 1);
        }
        let guess = usize::try_from(newest.wrapping_sub(number)).ok();
        match guess.and_then(|back| last.checked_sub(back)) {
            Some(place) if self.0[place].0 == number => Ok(place),
            _ => self.0.binary_search_by_key(&number, |(number, _)| *number),
        }
    }

    /// The value of a number, if there is one.
    pub fn get(&self, number: i64) -> Option<&T> {
        let place = self.find(number).ok()?;
        Some(&self.0[place].1)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, number: i64) -> Option<&mut T> {
        let place = self.find(number).ok()?;
        Some(&mut self.0[place].1)
    }

    /// The lowest number.
    pub fn oldest(&self) -> Option<i64> {
        self.0.front().map(|(number, _)| *number)
    }

    /// The highest number and its value, as they are in memory.
    #[inline]
    pub fn newest(&self) -> Option<&(i64, T)> {
        self.0.back()
    }

    /// The values of a range of numbers, from the oldest to the newest.
    pub fn range(&self, numbers: Range<i64>) -> impl Iterator<Item = (i64, &T)> {
        let places = self.places(numbers);
        self.0.range(places).map(|(number, value)| (*number, value))
    }

    /// The same, to change them.
    pub fn range_mut(&mut self, numbers: Range<i64>) -> impl Iterator<Item = (i64, &mut T)> {
        let places = self.places(numbers);
        self.0.range_mut(places).map(|(number, value)| (*number, value))
    }

    /// The places of a range of numbers; none if it ends before it starts.
    fn places(&self, numbers: Range<i64>) -> Range<usize> {
        let place = |number: i64| self.0.partition_point(|(own, _)| *own < number);
        let start = place(numbers.start);
        start..place(numbers.end).max(start)
    }

    /// Removes the value of the lowest number.
    pub fn pop_oldest(&mut self) -> Option<(i64, T)> {
        self.0.pop_front()
    }

    /// Keeps the values of which it is true.
    pub fn retain(&mut self, mut keep: impl FnMut(i64, &mut T) -> bool) {
        self.0.retain_mut(|(number, value)| keep(*number, value));
    }

    /// How many numbers have a value.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no number has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values, from the oldest to the newest.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &T)> {
        self.0.iter().map(|(number, value)| (*number, value))
    }
}

impl<T> From<BTreeMap<i64, T>> for Timeline<T> {
    fn from(values: BTreeMap<i64, T>) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T: Default> Timeline<T> {
    /// The value of a number, which is the default if there was none.
    pub fn entry(&mut self, number: i64) -> &mut T {
        let place = self.find(number).unwrap_or_else(|place| {
            self.0.insert(place, (number, T::default()));
            place
        });
        &mut self.0[place].1
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{Entropy, SplitMix64};

    use super::*;

    #[test]
    fn it_is_a_map() {
        for seed in 0..256 {
            let mut random = SplitMix64::new(seed);
            let (mut ours, mut map) = (Timeline::<u32>::default(), BTreeMap::<i64, u32>::new());
            for _ in 0..random.below(200) {
                let number = random.below(80) as i64 - 20;
                *ours.entry(number) += 1;
                *map.entry(number).or_default() += 1;
            }
            for _ in 0..random.below(20) {
                assert_eq!(ours.oldest(), map.first_key_value().map(|(n, _)| *n));
                assert_eq!(ours.newest().copied(), map.last_key_value().map(|(n, it)| (*n, *it)));
                assert_eq!(ours.pop_oldest(), map.pop_first());
            }
            for number in -25..65 {
                assert_eq!(ours.get(number), map.get(&number));
                assert_eq!(ours.get_mut(number), map.get_mut(&number));
            }
            assert_eq!((ours.len(), ours.is_empty()), (map.len(), map.is_empty()));
            assert_eq!(Timeline::from(map.clone()), ours);
            let (start, end) = (random.below(100) as i64 - 30, random.below(100) as i64 - 30);
            for range in [start..end, start..start, i64::MIN..end, start..i64::MAX] {
                // A map panics if a range ends before it starts.
                let wanted = if range.is_empty() { 0..0 } else { range.clone() };
                let wanted: Vec<(i64, u32)> = map.range(wanted).map(|(n, it)| (*n, *it)).collect();
                let found: Vec<(i64, u32)> =
                    ours.range(range.clone()).map(|(n, it)| (n, *it)).collect();
                let changed: Vec<(i64, u32)> =
                    ours.range_mut(range).map(|(n, it)| (n, *it)).collect();
                assert_eq!((&found, &changed), (&wanted, &wanted));
            }
            let all: Vec<_> = ours.iter().map(|(number, n)| (number, *n)).collect();
            assert_eq!(all, map.into_iter().collect::<Vec<_>>());
        }
    }
}
