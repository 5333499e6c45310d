//! Deterministic mutants of byte strings, for tests that run fuzz targets without a fuzzer. Each crate with
//! targets includes this file in its `fuzzing` module.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Boundary values of lengths and numbers.
const BOUNDARY_VALUES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Calls `target` with every seed, with every short prefix of it, and with `count` mutants.
///
/// # Panics
/// If the target panics: the message has the bytes, for a test case.
pub(crate) fn run(seeds: &[Vec<u8>], count: u64, target: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "a target without seeds tests nothing");
    for seed in seeds {
        run_target(&target, seed);
        for length in 0..seed.len().min(128) {
            run_target(&target, &seed[..length]);
        }
    }
    for number in 0..count {
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, seeds, &mut random);
        }
        run_target(&target, &bytes);
    }
}

fn run_target(target: &impl Fn(&[u8]), bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!("the target panics on these {} bytes: {bytes:?}", bytes.len());
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let length = 1 + random.below(16);
    let end = bytes.len().min(at + length);
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => bytes.drain(at..end).for_each(drop),
        2 => {
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copy));
        }
        3 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            drop(bytes.splice(at.., other[from..].iter().copied()));
        }
        4 => {
            let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            drop(bytes.splice(at..at, noise));
        }
        5 => {
            // In both byte orders, over two, four or eight bytes.
            let value = BOUNDARY_VALUES[random.below(BOUNDARY_VALUES.len())];
            let mut number = value.to_le_bytes().to_vec();
            number.truncate([2, 4, 8][random.below(3)]);
            if random.below(2) == 0 {
                number.reverse();
            }
            for (byte, new) in bytes[at..].iter_mut().zip(number) {
                *byte = new;
            }
        }
        6 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
