//! User keys and their hashes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The number of user shards. Fixed: the top eight bits of a user's hash select the shard.
pub const SHARD_COUNT: usize = 256;

/// The seed of a cluster's user hashes. Fixed when its ledger is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashSeed(pub u64);

/// A user's key in its canonical form, which is always text:
/// strings as they are (leading zeros kept), integers in decimal, UUIDs in lower case with hyphens,
/// binary keys in lower-case hexadecimal. So `42` the integer and `"42"` the string are one user.
///
/// A key can be a personal identifier, so `Debug` masks it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserKey(String);

impl UserKey {
    /// The key of a text column.
    pub fn text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key of an integer column.
    pub fn integer(number: i128) -> Self {
        Self(number.to_string())
    }

    /// The key of a binary column.
    pub fn binary(bytes: &[u8]) -> Self {
        Self(crate::to_hex(bytes))
    }

    /// The key of a UUID column.
    pub fn uuid(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes).hyphenated().to_string())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash under a cluster's seed.
    ///
    /// ```
    /// use throng_model::{HashSeed, UserKey};
    ///
    /// let seed = HashSeed(7);
    /// // A column of integers and a column of texts name the same user.
    /// assert_eq!(UserKey::integer(42).hash(seed), UserKey::text("42").hash(seed));
    /// // Leading zeros are part of a text.
    /// assert_ne!(UserKey::text("042").hash(seed), UserKey::text("42").hash(seed));
    /// ```
    pub fn hash(&self, seed: HashSeed) -> UserHash {
        UserHash::of_canonical(self.0.as_bytes(), seed)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(…)")
    }
}

/// The 64-bit hash of a user: XXH3 of the canonical key, with the cluster's seed. Among 200 million
/// users the probability that any two have the same hash is about one in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserHash(pub u64);

impl UserHash {
    /// Hashes the canonical bytes of a key. About 3 ns for short keys.
    pub fn of_canonical(bytes: &[u8], seed: HashSeed) -> Self {
        Self(xxh3_64_with_seed(bytes, seed.0))
    }

    /// The user shard, 0 to 255.
    pub fn shard(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_keys_share_one_canonical_form() {
        let seed = HashSeed(7);
        assert_eq!(UserKey::integer(42).hash(seed), UserKey::text("42").hash(seed));
        assert_ne!(UserKey::text("042").hash(seed), UserKey::text("42").hash(seed));
        assert_ne!(UserKey::text("42").hash(seed), UserKey::text("42").hash(HashSeed(8)));
        assert_eq!(UserKey::binary(&[0, 255]).as_str(), "00ff");
    }

    #[test]
    fn keys_are_masked_in_debug_output() {
        assert!(!format!("{:?}", UserKey::text("ann@example.com")).contains("ann"));
    }
}
