//! One dictionary segment: a write-once file of sorted user hashes and their ordinals.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `THRGDICT` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | flags; bit 0: there is an ordinals column; the others are 0 |
//! | 16 | 4 | count `n`, at least 1 |
//! | 20 | 4 | base: the lowest ordinal; the segment holds the ordinals base to base + n - 1 |
//! | 24 | 4 | user shard, 0 to 255 |
//! | 28 | 4 | 0 |
//! | 32 | 8 | XXH3 (64 bits, seed 0) of bytes 0..32 followed by bytes 40..end |
//! | 40 | 8 n | user hashes, strictly ascending, all of this shard |
//! | 40 + 8 n | 4 n | only with the column: the ordinal of each hash; else it is base + rank |

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::MembershipError;
use crate::contents::Contents;

const MAGIC: &[u8; 8] = b"THRGDICT";
const FORMAT: u32 = 1;
const HEADER: usize = 40;
const HAS_ORDINALS: u32 = 1;

/// The entries of a segment before it is written: hashes ascending, ordinals beside them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Entries {
    pub(crate) base: u32,
    pub(crate) hashes: Vec<u64>,
    pub(crate) ordinals: Vec<u32>,
}

impl Entries {
    /// Merges an older segment and newer entries: both are sorted, and no hash is in both.
    pub(crate) fn merge(older: &Segment, newer: &Self) -> Self {
        let total = older.len() + newer.hashes.len();
        let mut merged = Self {
            base: older.base,
            hashes: Vec::with_capacity(total),
            ordinals: Vec::with_capacity(total),
        };
        let mut right = 0;
        for left in 0..older.len() {
            let hash = older.hash(left);
            while right < newer.hashes.len() && newer.hashes[right] < hash {
                merged.hashes.push(newer.hashes[right]);
                merged.ordinals.push(newer.ordinals[right]);
                right += 1;
            }
            merged.hashes.push(hash);
            merged.ordinals.push(older.ordinal(left));
        }
        merged.hashes.extend_from_slice(&newer.hashes[right..]);
        merged.ordinals.extend_from_slice(&newer.ordinals[right..]);
        merged
    }

    /// The file's bytes and their checksum.
    pub(crate) fn encode(&self, shard: u8) -> (Vec<u8>, u64) {
        let plain = self.ordinals.iter().zip(self.base..).all(|(&ordinal, rank)| ordinal == rank);
        let width = if plain { 8 } else { 12 };
        let mut bytes = Vec::with_capacity(HEADER + self.hashes.len() * width);
        bytes.extend_from_slice(MAGIC);
        let count = self.hashes.len() as u32;
        let flags = if plain { 0 } else { HAS_ORDINALS };
        for number in [FORMAT, flags, count, self.base, u32::from(shard), 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 8]);
        for hash in &self.hashes {
            bytes.extend_from_slice(&hash.to_le_bytes());
        }
        if !plain {
            for ordinal in &self.ordinals {
                bytes.extend_from_slice(&ordinal.to_le_bytes());
            }
        }
        let sum = checksum(&bytes);
        bytes[32..HEADER].copy_from_slice(&sum.to_le_bytes());
        (bytes, sum)
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[HEADER..]);
    hasher.digest()
}

/// Writes a valid checksum, for the fuzz target; `false` if there are too few bytes for one.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fix_checksum(bytes: &mut [u8]) -> bool {
    if bytes.len() < HEADER {
        return false;
    }
    let sum = checksum(bytes);
    bytes[32..HEADER].copy_from_slice(&sum.to_le_bytes());
    true
}

/// An opened segment: checked, and never changed again.
#[derive(Debug)]
pub(crate) struct Segment {
    contents: Contents,
    pub(crate) file: String,
    pub(crate) base: u32,
    pub(crate) shard: u8,
    count: usize,
    ordinals: bool,
    /// `None` if the hashes are too far from uniform.
    directory: Option<Directory>,
}

/// Hashes of one bucket of a [`Directory`], on average: a cache line.
const BUCKET: usize = 8;

/// The start of each bucket of hashes with the same top bits, so that a lookup touches two or three
/// cache lines instead of ten. Two bytes per bucket: hashes are uniform, so a bucket starts near
/// the rank that its number predicts, and only the difference is stored.
#[derive(Debug)]
struct Directory {
    /// Bits of a hash below those that number its bucket.
    shift: u32,
    differences: Vec<i16>,
}

impl Directory {
    /// `None` if the hashes are so far from uniform that a difference does not fit.
    fn new(count: usize, hashes: impl Iterator<Item = u64>) -> Option<Self> {
        let bits = (count / BUCKET).max(1).next_power_of_two().trailing_zeros();
        let mut directory = Self { shift: 56 - bits, differences: Vec::new() };
        let buckets = 1_usize << bits;
        directory.differences.reserve_exact(buckets + 1);
        let mut push_start = |rank: usize| {
            let bucket = directory.differences.len();
            let difference = rank as i64 - (bucket * count / buckets) as i64;
            directory.differences.push(i16::try_from(difference).ok()?);
            Some(directory.differences.len())
        };
        let mut buckets_done = 0;
        for (rank, hash) in hashes.enumerate() {
            while buckets_done <= bucket_of(hash, 56 - bits) {
                buckets_done = push_start(rank)?;
            }
        }
        while buckets_done <= buckets {
            buckets_done = push_start(count)?;
        }
        Some(directory)
    }

    #[inline]
    fn start(&self, bucket: usize, count: usize) -> usize {
        let difference = self.differences[bucket];
        ((bucket * count) >> (56 - self.shift)).saturating_add_signed(isize::from(difference))
    }
}

/// The bucket of a hash, by the bits below the shard's.
#[inline]
fn bucket_of(hash: u64, shift: u32) -> usize {
    ((hash & ((1 << 56) - 1)) >> shift) as usize
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut buffer = [0; 4];
    buffer.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(buffer)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut buffer = [0; 8];
    buffer.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(buffer)
}

impl Segment {
    /// Opens and checks a file: reads all of it once (about 0.2 ms per MiB).
    pub(crate) fn open(root: &Path, file: &str) -> Result<Self, MembershipError> {
        let path = root.join(file);
        let contents = Contents::open(&path)?;
        let bad = |problem: &str| MembershipError::Damaged {
            path: PathBuf::from(&path),
            problem: problem.to_owned(),
        };
        let bytes = contents.bytes();
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(bad("it is not a dictionary segment"));
        }
        let (format, flags, count) = (u32_at(bytes, 8), u32_at(bytes, 12), u32_at(bytes, 16));
        if format != FORMAT {
            return Err(bad(&format!("its format version {format} is not supported")));
        }
        let ordinals = flags == HAS_ORDINALS;
        let width: u64 = if ordinals { 12 } else { 8 };
        if bytes.len() as u64 != HEADER as u64 + u64::from(count) * width {
            return Err(bad("its length does not match its count"));
        }
        if checksum(bytes) != u64_at(bytes, 32) {
            return Err(bad("its checksum does not match"));
        }
        let shard =
            u8::try_from(u32_at(bytes, 24)).map_err(|_| bad("its shard is not 0 to 255"))?;
        let mut segment = Self {
            base: u32_at(bytes, 20),
            shard,
            count: count as usize,
            ordinals,
            file: file.to_owned(),
            directory: None,
            contents,
        };
        segment.check_contents(flags).map_err(bad)?;
        let hashes = (0..segment.count).map(|rank| segment.hash(rank));
        segment.directory = Directory::new(segment.count, hashes);
        Ok(segment)
    }

    fn check_contents(&self, flags: u32) -> Result<(), &'static str> {
        if flags > HAS_ORDINALS || u32_at(self.contents.bytes(), 28) != 0 || self.count == 0 {
            return Err("its header is not valid");
        }
        let Some(end) = self.base.checked_add(self.count as u32) else {
            return Err("its ordinals exceed 2^32");
        };
        let mut previous = None;
        for rank in 0..self.count {
            let hash = self.hash(rank);
            if previous.is_some_and(|p| p >= hash) || (hash >> 56) as u8 != self.shard {
                return Err("its hashes are not ascending within the shard");
            }
            previous = Some(hash);
        }
        let inside = |rank| (self.base..end).contains(&self.ordinal(rank));
        if self.ordinals && !(0..self.count).all(inside) {
            return Err("its ordinals are out of range");
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The bytes of the file.
    pub(crate) fn share(&self) -> bytes::Bytes {
        self.contents.share()
    }

    /// Why the file on the disk is not the one that was opened, if so.
    pub(crate) fn changed_on_disk(&self) -> Option<MembershipError> {
        self.contents.changed_on_disk()
    }

    /// The checksum in the header.
    pub(crate) fn sum(&self) -> u64 {
        u64_at(self.contents.bytes(), 32)
    }

    #[inline]
    pub(crate) fn hash(&self, rank: usize) -> u64 {
        u64_at(self.contents.bytes(), HEADER + rank * 8)
    }

    #[inline]
    pub(crate) fn ordinal(&self, rank: usize) -> u32 {
        if self.ordinals {
            u32_at(self.contents.bytes(), HEADER + self.count * 8 + rank * 4)
        } else {
            self.base + rank as u32
        }
    }

    /// The ordinal of a hash of this shard.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let (low, high) = match &self.directory {
            Some(directory) => {
                let bucket = bucket_of(hash, directory.shift);
                (directory.start(bucket, self.count), directory.start(bucket + 1, self.count))
            }
            None => self.narrow(hash),
        };
        // Counting the smaller hashes of a bucket has no branch that could be mispredicted.
        let rank = low + (low..high).filter(|&rank| self.hash(rank) < hash).count();
        (rank < high && self.hash(rank) == hash).then(|| self.ordinal(rank))
    }

    /// The range of a few ranks in which the hash would be: binary search down to the size of a
    /// bucket.
    #[cold]
    fn narrow(&self, hash: u64) -> (usize, usize) {
        let (mut low, mut high) = (0, self.count);
        while high - low > BUCKET {
            let middle = low.midpoint(high);
            if self.hash(middle) <= hash { low = middle } else { high = middle }
        }
        (low, high)
    }
}
