//! Actual spend by slices of absolute time, so that the spend of a day of any time zone is a sum.

use std::collections::BTreeMap;
use std::ops::Range;

use throng_model::{Amount, MoneyError, Timestamp};
use throng_rates::Timeline;

use super::memory::prefetch_value;

/// The width of a slice: every time zone's offset is a multiple of it.
pub const SLICE_SECS: i64 = 15 * 60;
pub(super) const SLICE_MICROS: i64 = SLICE_SECS * 1_000_000;
pub(super) const SLICES_PER_DAY: i64 = 24 * 3600 / SLICE_SECS;
/// Slices with spend that are kept, those of nine days at least; if there are more, the oldest are folded into
/// one total. Events are at most seven days late, and days of different zones start up to 26 hours apart.
/// Not by age: one event of a clock that is far ahead would fold the spend of today.
const KEPT_SLICES: usize = (9 * 24 * 3600 / SLICE_SECS) as usize;
/// The number of the first slice file of spend that no slice file has.
pub(super) const NO_FILE: u64 = u64::MAX;

/// The spend of one slice.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Slice {
    micros: i64,
    nanos: u16,
    /// The file of its day has this amount, so that a checkpoint need not have it.
    in_file: bool,
}

impl Slice {
    fn new(amount: Amount, in_file: bool) -> Self {
        Self { micros: amount.micros, nanos: amount.nanos, in_file }
    }

    fn amount(self) -> Amount {
        Amount { micros: self.micros, nanos: self.nanos }
    }
}

/// How many slices of a day have spend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SliceCount {
    /// Those that a file has as they are.
    pub(super) in_file: u64,
    /// Those that no file has, or has with another amount.
    pub(super) outside: u64,
}

impl std::ops::AddAssign for SliceCount {
    fn add_assign(&mut self, other: Self) {
        self.in_file += other.in_file;
        self.outside += other.outside;
    }
}

/// The spend of one ad group. Memory: some 24 bytes for each quarter of an hour with spend.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Spend {
    /// By number of the slice; those without spend are left out.
    slices: Timeline<Slice>,
    /// The sum of slices before the kept ones.
    folded: Amount,
    /// The sum of all spend: as long as this fits, every part of it does.
    total: Amount,
    /// The sum of the budget day that was asked for last, kept up to date.
    day: Option<Day>,
    /// That of the day of the last outcome, if it is another one.
    outcome_day: Option<Day>,
    /// Slice files with a lower number have none of its spend, but may have that of an earlier ad group of this name.
    first_file: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Day {
    start: i64,
    end: i64,
    sum: Amount,
}

pub(super) fn slice_of(at: Timestamp) -> i64 {
    at.0.div_euclid(SLICE_MICROS)
}

impl Spend {
    /// No spend yet. Slice files with a number below `first_file` have none of it.
    pub(super) fn since_file(first_file: u64) -> Self {
        Self { first_file, ..Self::default() }
    }

    /// Whether another amount fits.
    pub(super) fn fits(&self, amount: Amount) -> bool {
        self.total.plus(amount).is_some()
    }

    /// Loads the newest slice into the processor's caches, for an event that is applied soon.
    #[inline]
    pub(super) fn prefetch_newest(&self) {
        self.slices.newest().into_iter().for_each(prefetch_value);
    }

    /// Adds to the slice of a moment.
    pub(super) fn add(&mut self, at: Timestamp, amount: Amount) -> Result<(), MoneyError> {
        self.total = self.total.plus(amount).ok_or(MoneyError::Overflow)?;
        let number = slice_of(at);
        let slice = self.slices.entry(number);
        let mut sum = slice.amount();
        sum.add_part(amount);
        *slice = Slice::new(sum, false);
        for day in [&mut self.day, &mut self.outcome_day].into_iter().flatten() {
            if (day.start..day.end).contains(&number) {
                day.sum.add_part(amount);
            }
        }
        self.fold();
        Ok(())
    }

    /// Spend from one slice up to another, to the nearest micro.
    pub(super) fn between(&self, start: i64, end: i64) -> i64 {
        self.sum(start, end).rounded()
    }

    fn sum(&self, start: i64, end: i64) -> Amount {
        let mut sum = Amount::default();
        if start < end {
            self.slices.range(start..end).for_each(|(_, slice)| sum.add_part(slice.amount()));
        }
        sum
    }

    /// As [`between`](Self::between), cached for repeated calls with the same slices.
    pub(super) fn of_day(&mut self, start: i64, end: i64) -> i64 {
        match self.day {
            Some(day) if (day.start, day.end) == (start, end) => day.sum.rounded(),
            _ => {
                let sum = self.sum(start, end);
                self.day = Some(Day { start, end, sum });
                sum.rounded()
            }
        }
    }

    /// As [`of_day`](Self::of_day), for the day of an outcome: that one is cached too.
    pub(super) fn of_outcome_day(&mut self, start: i64, end: i64) -> i64 {
        let mut cached = [self.day, self.outcome_day].into_iter().flatten();
        if let Some(day) = cached.find(|day| (day.start, day.end) == (start, end)) {
            return day.sum.rounded();
        }
        let sum = self.sum(start, end);
        self.outcome_day = Some(Day { start, end, sum });
        sum.rounded()
    }

    /// As [`of_day`](Self::of_day), without changing which day is cached.
    pub(super) fn known_day(&self, start: i64, end: i64) -> i64 {
        match self.day {
            Some(day) if (day.start, day.end) == (start, end) => day.sum.rounded(),
            _ => self.between(start, end),
        }
    }

    fn fold(&mut self) {
        while self.slices.len() > KEPT_SLICES {
            let Some((_, slice)) = self.slices.pop_oldest() else { return };
            self.folded.add_part(slice.amount());
        }
    }

    /// Slices with spend, oldest first.
    pub(super) fn slices(&self) -> impl Iterator<Item = (i64, Amount)> {
        self.slices.iter().map(|(number, slice)| (number, slice.amount()))
    }

    /// Those that no file has as they are.
    pub(super) fn outside_files(&self) -> impl Iterator<Item = (i64, Amount)> {
        let outside = self.slices.iter().filter(|(_, slice)| !slice.in_file);
        outside.map(|(number, slice)| (number, slice.amount()))
    }

    /// The sum of slices before the kept ones.
    pub(super) fn folded(&self) -> Amount {
        self.folded
    }

    /// The oldest slice. Earlier ones that are in files are also in [`folded`](Self::folded).
    pub(super) fn kept_from(&self) -> Option<i64> {
        self.slices.oldest()
    }

    /// Whether all spend from a slice on is in slices: earlier formats have folded by age what is before fewer slices.
    pub(super) fn has_all_from(&self, slice: i64) -> bool {
        let is_cut = self.folded != Amount::default() && self.slices.len() >= KEPT_SLICES;
        !is_cut || self.kept_from().is_none_or(|kept| kept <= slice)
    }

    /// The number of the first slice file that may have slices of it.
    pub(super) fn first_file(&self) -> u64 {
        self.first_file
    }

    /// Adds the numbers of its slices to those of each day.
    pub(super) fn count(&self, days: &mut BTreeMap<i64, SliceCount>) {
        let mut counts: Vec<(i64, SliceCount)> = Vec::new();
        for (number, slice) in self.slices.iter() {
            let day = number.div_euclid(SLICES_PER_DAY);
            let one = match slice.in_file {
                true => SliceCount { in_file: 1, outside: 0 },
                false => SliceCount { in_file: 0, outside: 1 },
            };
            match counts.last_mut().filter(|(last, _)| *last == day) {
                Some((_, count)) => *count += one,
                None => counts.push((day, one)),
            }
        }
        counts.into_iter().for_each(|(day, count)| *days.entry(day).or_default() += count);
    }

    /// Marks a range of slices as those that a file has, and returns them.
    pub(super) fn put_in_file(&mut self, slices: Range<i64>) -> Vec<(i64, Amount)> {
        if slices.is_empty() {
            return Vec::new();
        }
        let range = self.slices.range_mut(slices);
        range
            .map(|(number, slice)| {
                slice.in_file = true;
                (number, slice.amount())
            })
            .collect()
    }

    /// No slice file has its slices from now on, and those with a number below `first_file` have none of it.
    pub(super) fn leave_files(&mut self, first_file: u64) {
        self.detach_files();
        self.first_file = first_file;
    }

    /// Adds the spend of another one from a slice on, except amounts that do not fit.
    pub(super) fn merge(&mut self, other: &Self, from: i64) {
        for (number, amount) in other.slices().filter(|(number, _)| *number >= from) {
            // The sum of this one stays as it is.
            let _ = self.add(Timestamp(number.saturating_mul(SLICE_MICROS)), amount);
        }
    }

    /// Marks all slices as not in a file.
    pub(super) fn detach_files(&mut self) {
        self.slices.values_mut().for_each(|slice| slice.in_file = false);
    }

    /// Restores what was saved: the slices of files, and those [outside of them](Self::outside_files), which
    /// replace them. `None` if the sum does not fit.
    pub(super) fn load(
        in_files: impl Iterator<Item = (i64, Amount)>,
        outside: impl Iterator<Item = (i64, Amount)>,
        folded: Amount,
        first_file: u64,
    ) -> Option<Self> {
        let mut outside_files: BTreeMap<i64, Amount> = BTreeMap::new();
        for (number, amount) in outside {
            let sum = outside_files.entry(number).or_default();
            *sum = sum.plus(amount)?;
        }
        let in_files = in_files.map(|(number, amount)| (number, Slice::new(amount, true)));
        let mut slices: BTreeMap<i64, Slice> = in_files.collect();
        slices.extend(outside_files.into_iter().map(|(number, a)| (number, Slice::new(a, false))));
        let total = slices.values().try_fold(folded, |total, slice| total.plus(slice.amount()))?;
        let slices = slices.into();
        Some(Self { slices, folded, total, day: None, outcome_day: None, first_file })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(micros: i64) -> Amount {
        Amount { micros, nanos: 0 }
    }

    proptest! {
        #[test]
        fn sums_are_those_of_a_list(
            events in prop::collection::vec((-2_000i64..2_000, 1i64..1_000_000), 0..100),
            later in -3_000i64..3_000, days in prop::collection::vec((-2_000i64..2_000, 0i64..200), 5),
        ) {
            let at = |minutes: i64| Timestamp(minutes * 60_000_000);
            let mut spend = Spend::default();
            for (place, (minute, amount)) in events.iter().enumerate() {
                let nanos = |nanos: i64| Amount { micros: nanos / 1_000, nanos: (nanos % 1_000) as u16 };
                spend.add(at(*minute), nanos(*amount)).unwrap();
                let (start, width) = days[place % days.len()];
                let nanos: i64 = events[..=place].iter()
                    .filter(|(m, _)| (start..start + width).contains(&m.div_euclid(15)))
                    .map(|(_, a)| a).sum();
                let sum = (nanos + 500).div_euclid(1_000);
                prop_assert_eq!(spend.of_day(start, start + width), sum);
                prop_assert_eq!(spend.known_day(start, start + width), sum);
                prop_assert_eq!(spend.of_outcome_day(start, start + width), sum);
                let (other, width) = days[(place + 1) % days.len()];
                let known = spend.known_day(other, other + width);
                prop_assert_eq!(spend.of_outcome_day(other, other + width), known);
            }
            let all: i64 = events.iter().map(|(_, a)| a).sum();
            let later = at(later + 9 * 24 * 60);
            spend.add(later, of(1)).unwrap();
            let nanos = |amount: Amount| amount.micros * 1_000 + i64::from(amount.nanos);
            let kept: i64 = spend.slices().map(|(_, amount)| nanos(amount)).sum();
            prop_assert_eq!(kept + nanos(spend.folded()), all + 1_000);
            prop_assert!(spend.slices().count() <= KEPT_SLICES);
            // Some of it in files, and changed after that.
            let middle = spend.kept_from().unwrap_or(0) + 96;
            let in_file = spend.put_in_file(i64::MIN..middle);
            spend.add(at(events.first().map_or(0, |(minute, _)| *minute)), of(3)).unwrap();
            let kept_from = spend.kept_from().unwrap();
            let in_file = in_file.into_iter().filter(|(number, _)| *number >= kept_from);
            let again = Spend::load(in_file, spend.outside_files(), spend.folded(), 0).unwrap();
            prop_assert_eq!(&again.slices, &spend.slices);
            prop_assert_eq!((again.folded, again.total), (spend.folded, spend.total));
        }
    }

    #[test]
    fn one_event_of_a_clock_that_is_far_ahead_folds_nothing() {
        let mut spend = Spend::default();
        spend.add(Timestamp(0), of(7)).unwrap();
        spend.add(Timestamp(400 * 86_400_000_000), of(1)).unwrap();
        assert_eq!((spend.between(0, 1), spend.folded()), (7, of(0)));
        for slice in 1..2 * KEPT_SLICES as i64 {
            spend.add(Timestamp(slice * SLICE_MICROS), of(1)).unwrap();
        }
        assert_eq!(spend.slices().count(), KEPT_SLICES);
        assert_eq!(spend.folded().micros, 7 + KEPT_SLICES as i64);
    }

    #[test]
    fn a_sum_that_does_not_fit_changes_nothing() {
        let mut spend = Spend::default();
        spend.add(Timestamp(0), of(i64::MAX - 1)).unwrap();
        assert!(!spend.fits(of(2)) && spend.fits(of(1)));
        assert!(spend.add(Timestamp(1), of(2)).is_err());
        assert_eq!(spend.between(-1, 2), i64::MAX - 1);
        let none = std::iter::empty();
        let slices = [(0, of(1)), (1, of(i64::MAX))].into_iter();
        assert!(Spend::load(none.clone(), slices.clone(), of(0), 0).is_none());
        assert!(Spend::load(slices, none, of(0), 0).is_none());
    }
}
