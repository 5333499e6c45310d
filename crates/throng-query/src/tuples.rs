//! The groups of rows by the values of their columns: a hash map from tuples of values to the groups that have them,
//! which differ in ranges of numbers. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use throng_spec::ParameterValue;
use xxhash_rust::xxh3::xxh3_64;

/// Appends the bytes of a text, as [`append`] does.
pub fn append_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Appends the bytes of a value: two values of one kind have the same bytes only if they are equal, and none is the
/// beginning of another.
pub fn append(value: &ParameterValue, bytes: &mut Vec<u8>) {
    match value {
        ParameterValue::Text(text) | ParameterValue::Date(text) => append_text(text, bytes),
        ParameterValue::Integer(number) => bytes.extend(number.to_le_bytes()),
        ParameterValue::Boolean(value) => bytes.push(u8::from(*value)),
        ParameterValue::Decimal { unscaled, .. } => {
            bytes.extend(i128::from(*unscaled).to_le_bytes());
        }
    }
}

/// The keys of the map are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A range of whole numbers, of which both ends are a part. It is empty if `low` is above `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumberRange {
    /// The lowest number.
    pub low: i128,
    /// The highest number.
    pub high: i128,
}

impl NumberRange {
    /// All numbers.
    pub const ALL: Self = Self { low: i128::MIN, high: i128::MAX };

    /// The numbers of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    /// Whether a number is a part of it.
    pub fn has(self, number: i128) -> bool {
        self.low <= number && number <= self.high
    }

    fn is_empty(self) -> bool {
        self.low > self.high
    }

    /// The smallest range that has the numbers of both, none of which is empty.
    fn hull(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// Which rows are those of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuple {
    /// The values that columns are equal to.
    pub values: Vec<ParameterValue>,
    /// The ranges that have the numbers of other columns: those of one column for all tuples.
    pub ranges: Vec<NumberRange>,
}

/// A group, by the ranges of its tuple.
#[derive(Debug)]
struct Ranged {
    group: u32,
    /// The range of the first number.
    first: NumberRange,
    /// The highest end of `first` among this group and those before it.
    highest: i128,
    /// The ranges of the other numbers.
    rest: Vec<NumberRange>,
}

/// The groups whose tuples have the same values.
#[derive(Debug)]
struct Alike {
    /// The bytes of the values.
    bytes: Vec<u8>,
    /// Ascending by the range of the first number.
    groups: Vec<Ranged>,
}

/// The tuples of all groups.
#[derive(Debug)]
pub struct Tuples {
    /// Where the groups with these values are, by the hash of the values.
    places: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    alike: Vec<Alike>,
    hull: Vec<NumberRange>,
}

impl Tuples {
    /// `None` if the values of two tuples have one hash, which does not happen by chance.
    pub fn new(tuples: &[Tuple]) -> Option<Self> {
        let mut found = Self { places: HashMap::default(), alike: Vec::new(), hull: Vec::new() };
        for (group, tuple) in tuples.iter().enumerate() {
            // No row is in it.
            if tuple.ranges.iter().any(|range| range.is_empty()) {
                continue;
            }
            let mut ranges = tuple.ranges.iter().copied();
            let first = ranges.next().unwrap_or(NumberRange::ALL);
            let ranged =
                Ranged { group: group as u32, first, highest: first.high, rest: ranges.collect() };
            found.alike_of(tuple)?.groups.push(ranged);
            if found.hull.is_empty() {
                found.hull.clone_from(&tuple.ranges);
            }
            for (hull, range) in found.hull.iter_mut().zip(&tuple.ranges) {
                *hull = hull.hull(*range);
            }
        }
        for Alike { groups, .. } in &mut found.alike {
            groups.sort_unstable_by_key(|ranged| (ranged.first, ranged.group));
            let mut highest = i128::MIN;
            for ranged in groups {
                highest = highest.max(ranged.first.high);
                ranged.highest = highest;
            }
        }
        Some(found)
    }

    fn alike_of(&mut self, tuple: &Tuple) -> Option<&mut Alike> {
        let mut bytes = Vec::new();
        tuple.values.iter().for_each(|value| append(value, &mut bytes));
        let place = *self.places.entry(xxh3_64(&bytes)).or_insert(self.alike.len() as u32) as usize;
        if place == self.alike.len() {
            self.alike.push(Alike { bytes: bytes.clone(), groups: Vec::new() });
        }
        self.alike.get_mut(place).filter(|alike| alike.bytes == bytes)
    }

    /// For each number of a row: the smallest range that has those of all rows that are in a group. Empty if tuples
    /// have no ranges, or if no row is in a group.
    pub fn hull(&self) -> &[NumberRange] {
        &self.hull
    }

    /// Appends the groups of a row: those whose values have these bytes, one after another, and whose ranges have the
    /// numbers. Of the groups with the same values it tests those whose first range begins at or below the first
    /// number, from the last one back to where all end below it: of thresholds in one direction, at most one group
    /// more than it appends.
    pub fn append_groups(&self, bytes: &[u8], numbers: &[i128], to: &mut Vec<u32>) {
        let place = self.places.get(&xxh3_64(bytes));
        let alike = place.and_then(|place| self.alike.get(*place as usize));
        let Some(Alike { groups, .. }) = alike.filter(|alike| alike.bytes == bytes) else { return };
        let Some((first, rest)) = numbers.split_first() else {
            to.extend(groups.iter().map(|ranged| ranged.group));
            return;
        };
        // No later group begins below the number. Backwards, the highest ends descend.
        let end = groups.partition_point(|ranged| ranged.first.low <= *first);
        for ranged in groups.iter().take(end).rev().take_while(|ranged| ranged.highest >= *first) {
            let mut others = ranged.rest.iter().zip(rest);
            if ranged.first.high >= *first && others.all(|(range, number)| range.has(*number)) {
                to.push(ranged.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{Entropy as _, SplitMix64};

    use super::*;

    fn text(text: &str) -> ParameterValue {
        ParameterValue::Text(text.to_owned())
    }

    fn bytes(values: &[ParameterValue]) -> Vec<u8> {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| append(value, &mut bytes));
        bytes
    }

    fn groups(tuples: &Tuples, values: &[ParameterValue], numbers: &[i128]) -> Vec<u32> {
        let mut found = Vec::new();
        tuples.append_groups(&bytes(values), numbers, &mut found);
        found.sort_unstable();
        found
    }

    #[test]
    fn equal_tuples_are_found_and_others_are_not() {
        let values =
            [vec![text("a"), text("bc")], vec![text("ab"), text("c")], vec![text(""), text("")]];
        let tuple = |values: &Vec<ParameterValue>| Tuple { values: values.clone(), ranges: vec![] };
        let tuples: Vec<Tuple> = values.iter().map(tuple).collect();
        let found = Tuples::new(&tuples).unwrap();
        for (group, values) in values.iter().enumerate() {
            assert_eq!(groups(&found, values, &[]), [group as u32]);
        }
        assert_eq!(groups(&found, &[text("a"), text("b")], &[]), [] as [u32; 0]);
        assert!(found.hull().is_empty());
        let twice = Tuples::new(&[tuples[0].clone(), tuples[0].clone()]).unwrap();
        assert_eq!(groups(&twice, &values[0], &[]), [0, 1]);
    }

    #[test]
    fn the_ends_of_a_range_are_a_part_of_it() {
        let tuple = |low, high| Tuple { values: vec![], ranges: vec![NumberRange { low, high }] };
        let (lowest, highest) = (i128::MIN, i128::MAX);
        let tuples = [tuple(3, 5), tuple(5, highest), tuple(lowest, 3), tuple(9, 8), tuple(3, 5)];
        let found = Tuples::new(&tuples).unwrap();
        assert_eq!(groups(&found, &[], &[2]), [2]);
        assert_eq!(groups(&found, &[], &[3]), [0, 2, 4]);
        assert_eq!(groups(&found, &[], &[4]), [0, 4]);
        assert_eq!(groups(&found, &[], &[5]), [0, 1, 4]);
        assert_eq!(groups(&found, &[], &[9]), [1]);
        assert_eq!(found.hull(), [NumberRange::ALL]);
        let found = Tuples::new(&[tuple(3, 5), tuple(-2, 1), tuple(90, 8)]).unwrap();
        assert_eq!(found.hull(), [NumberRange { low: -2, high: 5 }]);
        let none = Tuples::new(&[tuple(9, 8)]).unwrap();
        assert_eq!(groups(&none, &[], &[9]), [] as [u32; 0]);
        assert!(none.hull().is_empty());
    }

    #[test]
    fn a_row_is_in_the_groups_whose_ranges_have_its_numbers() {
        let mut random = SplitMix64::new(3);
        // Both ends, the lower one, the upper one.
        for (has_low, has_high) in [(true, true), (true, false), (false, true)] {
            for columns in 1..=3 {
                let tuple = |_: u32| {
                    let values = vec![ParameterValue::Integer(random.below(4) as i64)];
                    let range = |_| {
                        let (low, high) = (random.below(20), random.below(20));
                        let low = if has_low { i128::from(low) } else { i128::MIN };
                        NumberRange { low, high: if has_high { high.into() } else { i128::MAX } }
                    };
                    Tuple { values, ranges: (0..columns).map(range).collect() }
                };
                let tuples: Vec<Tuple> = (0..200).map(tuple).collect();
                let found = Tuples::new(&tuples).unwrap();
                let mut members = 0;
                for _ in 0..500 {
                    let values = [ParameterValue::Integer(random.below(5) as i64)];
                    let numbers: Vec<i128> =
                        (0..columns).map(|_| i128::from(random.below(22)) - 1).collect();
                    let is_in = |tuple: &Tuple| {
                        let mut ranges = tuple.ranges.iter().zip(&numbers);
                        tuple.values == values && ranges.all(|(range, number)| range.has(*number))
                    };
                    let expected: Vec<u32> =
                        (0..200).filter(|group| is_in(&tuples[*group as usize])).collect();
                    assert_eq!(groups(&found, &values, &numbers), expected, "{numbers:?}");
                    members += expected.len();
                    let mut hull = found.hull().iter().zip(&numbers);
                    assert!(expected.is_empty() || hull.all(|(hull, number)| hull.has(*number)));
                }
                assert!(members > 20, "{has_low} {has_high} {columns}");
            }
        }
    }
}
