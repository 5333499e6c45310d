//! The groups of rows by the values of their columns: a hash map from tuples of values to groups. Pure.

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

/// The tuples of all groups.
#[derive(Debug)]
pub struct Tuples {
    /// Groups by the hash of their tuples.
    groups: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// The bytes of each group's tuple.
    bytes: Vec<Vec<u8>>,
}

impl Tuples {
    /// `None` if two tuples have one hash, which does not happen by chance.
    pub fn new(tuples: &[Vec<ParameterValue>]) -> Option<Self> {
        let mut groups = HashMap::default();
        let mut all = Vec::with_capacity(tuples.len());
        for (group, tuple) in tuples.iter().enumerate() {
            let mut bytes = Vec::new();
            tuple.iter().for_each(|value| append(value, &mut bytes));
            if groups.insert(xxh3_64(&bytes), group as u32).is_some() {
                return None;
            }
            all.push(bytes);
        }
        Some(Self { groups, bytes: all })
    }

    /// The group whose values have these bytes, one after another.
    pub fn group(&self, bytes: &[u8]) -> Option<u32> {
        let group = *self.groups.get(&xxh3_64(bytes))?;
        self.bytes.get(group as usize).is_some_and(|known| known == bytes).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tuples_are_found_and_others_are_not() {
        let text = |text: &str| ParameterValue::Text(text.to_owned());
        let tuples =
            [vec![text("a"), text("bc")], vec![text("ab"), text("c")], vec![text(""), text("")]];
        let found = Tuples::new(&tuples).unwrap();
        let bytes = |tuple: &[ParameterValue]| {
            let mut bytes = Vec::new();
            tuple.iter().for_each(|value| append(value, &mut bytes));
            bytes
        };
        for (group, tuple) in tuples.iter().enumerate() {
            assert_eq!(found.group(&bytes(tuple)), Some(group as u32));
        }
        assert_eq!(found.group(&bytes(&[text("a"), text("b")])), None);
        assert!(Tuples::new(&[vec![text("a")], vec![text("a")]]).is_none(), "one tuple twice");
    }
}
