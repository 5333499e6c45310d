//! The only place that reads the system's randomness.

use std::hash::{BuildHasher, Hasher};

/// A source of random numbers. Passed in, so that a run can be repeated from its seed.
pub trait Entropy: Send {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;

    /// A number from 0 (inclusive) to 1 (exclusive).
    fn next_f64(&mut self) -> f64 {
        // 53 bits: every value is exactly representable.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0. The bias is below 2^-32 for bounds
    /// below 2^32.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Steele, Lea and Flood's SplitMix64 (2014): small, fast, repeatable. Not for secrets.
///
/// ```
/// use throng_model::{Entropy, SplitMix64};
///
/// let (mut one, mut other) = (SplitMix64::new(11), SplitMix64::new(11));
/// assert_eq!(one.next_u64(), other.next_u64());
/// assert!(one.below(6) < 6);
/// ```
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Randomness from the operating system, by way of the standard library's hash keys. Good for ids
/// and jitter; not for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&mut self) -> u64 {
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}
