//! Names of ad groups as keys of hash tables, found by the bytes of an event. Pure.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Names of up to so many bytes are in the key itself.
const SHORT_BYTES: usize = 30;

/// The bytes of a name. Most names are in the key itself: every event is looked up, and a comparison with a name elsewhere
/// would wait for memory a second time.
#[derive(Debug, Clone)]
pub struct NameKey(Stored);

#[derive(Debug, Clone)]
enum Stored {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<[u8]>),
}

impl NameKey {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Stored::Short { length, bytes } => {
                bytes.get(..usize::from(*length)).unwrap_or_default()
            }
            Stored::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for NameKey {
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        if name.len() > SHORT_BYTES {
            return Self(Stored::Long(name.into()));
        }
        bytes[..name.len()].copy_from_slice(name);
        Self(Stored::Short { length: name.len() as u8, bytes })
    }
}

impl Borrow<[u8]> for NameKey {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for NameKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for NameKey {}

impl Hash for NameKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As of the bytes, by which it is looked up.
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_of_every_length_are_found_by_their_bytes() {
        let name = |length: usize| vec![b'a'; length];
        let lengths = 0..=2 * SHORT_BYTES;
        let keys: HashMap<NameKey, usize> =
            lengths.clone().map(|length| (name(length).as_slice().into(), length)).collect();
        assert_eq!(keys.len(), 2 * SHORT_BYTES + 1);
        for length in lengths {
            assert_eq!(keys.get(name(length).as_slice()), Some(&length));
            let other = [name(length), b"b".to_vec()].concat();
            assert_eq!(keys.get(other.as_slice()), None);
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_part_of_a_name() {
        let keys = [b"a".as_slice(), b"a\0", b""].map(NameKey::from);
        assert!(keys[0] != keys[1] && keys[2] != NameKey::from(b"\0".as_slice()));
        assert_eq!(keys[1], NameKey::from(b"a\0".as_slice()));
    }
}
