//! Older ids: sorted runs that are written once, each with a Bloom filter in memory. The filter answers nearly
//! every lookup of an id that is not in the run; one that may be there is looked up in the run's file, with
//! one read.
//!
//! ```text
//!  0  8  "THRNGIDS"
//!  8  8  how many ids
//! 16     the ids, ascending, 10 bytes each, big-endian
//!        the filter: blocks of 32 bytes, one for every 16 ids or part of it
//! end-8  XXH3 of all bytes before
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;

use throng_model::{ChecksumError, append_checksum, verify_checksum};
use xxhash_rust::xxh3::xxh3_128;

use super::ids::Id;
use super::memory::prefetch_bytes;

const MAGIC: &[u8; 8] = b"THRNGIDS";
/// The start of the magic of every format; the last letter is the format's.
const FAMILY: &[u8] = b"THRNGID";
const HEAD: usize = 16;
const SUM: usize = 8;
/// Bytes of a block of the filter, and ids for each of them: 16 bits an id.
const BLOCK: usize = 32;
const IDS_PER_BLOCK: usize = 16;
/// Ids that are read on both sides of where an id is expected. Uniformly distributed ids are off by about the
/// square root of their number.
const WINDOW: usize = 2_048;
/// Ids that are out of order by more places on average are not sorted by insertion.
const MOVES_PER_ID: usize = 32;

/// Bytes that are written once and read in parts.
pub trait IdFile: Send + Sync + fmt::Debug {
    /// Reads the bytes at an offset, as many as fit into `buffer`.
    ///
    /// # Errors
    /// If they cannot be read, or are not there.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Bytes in memory.
impl IdFile for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = start.checked_add(buffer.len()).and_then(|end| self.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A sorted list of older ids, in a file that is written once, with a filter in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IdRun {
    name: String,
    count: usize,
    filter: Arc<[[u8; BLOCK]]>,
    file: Arc<dyn IdFile>,
    /// The content, until it is written.
    unsaved: Option<Arc<Vec<u8>>>,
}

fn big_endian(id: Id) -> [u8; Id::WIDTH] {
    let mut bytes = [0; Id::WIDTH];
    bytes[..8].copy_from_slice(&id.high().to_be_bytes());
    bytes[8..].copy_from_slice(&id.low().to_be_bytes());
    bytes
}

fn from_big_endian(bytes: &[u8; Id::WIDTH]) -> Id {
    let [a, b, c, d, e, f, g, h, low @ ..] = *bytes;
    Id::of_parts(u64::from_be_bytes([a, b, c, d, e, f, g, h]), u16::from_be_bytes(low))
}

/// One bit of each of the eight words of a block (split block Bloom filter, as Parquet has it).
fn mask(id: Id) -> [u32; 8] {
    const SALTS: [u32; 8] = [
        0x47b6_137b,
        0x4497_4d91,
        0x8824_ad5b,
        0xa2b7_289d,
        0x7054_95c7,
        0x2df1_424b,
        0x9efc_4947,
        0x5c6b_fb31,
    ];
    // The low bits of the high part: its high ones choose the block.
    let key = id.high() as u32;
    SALTS.map(|salt| 1 << (key.wrapping_mul(salt) >> 27))
}

fn block_of(blocks: usize, id: Id) -> usize {
    // Not by the top bits as they are: a block would have the ids of one range of the run, and clusters of
    // ids would fill some blocks.
    let spread = id.high().rotate_left(32) ^ u64::from(id.low());
    let spread = spread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(spread) * blocks as u128) >> 64) as usize
}

fn word(block: &[u8; BLOCK], place: usize) -> u32 {
    block.as_chunks::<4>().0.get(place).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn filter_of(ids: &[Id]) -> Vec<[u8; BLOCK]> {
    let blocks = ids.len().div_ceil(IDS_PER_BLOCK).max(1);
    let mut filter = vec![[0; BLOCK]; blocks];
    for id in ids {
        let (words, _) = filter[block_of(blocks, *id)].as_chunks_mut::<4>();
        for (word, bit) in words.iter_mut().zip(mask(*id)) {
            *word = (u32::from_le_bytes(*word) | bit).to_le_bytes();
        }
    }
    filter
}

/// Sorts ids that are nearly in order, as a hash table has them: by insertion, as most of them are moved by a few
/// places only. Where that turns out to take long, as with ids in any order, they are sorted as others are.
fn sort(ids: &mut [Id]) {
    let mut moves = ids.len().saturating_mul(MOVES_PER_ID);
    for place in 1..ids.len() {
        let id = ids[place];
        let mut hole = place;
        while hole > 0 && id < ids[hole - 1] {
            ids[hole] = ids[hole - 1];
            hole -= 1;
        }
        ids[hole] = id;
        match moves.checked_sub(place - hole) {
            Some(left) => moves = left,
            None => return ids.sort_unstable(),
        }
    }
}

impl IdRun {
    /// A run of ids in any order, not written yet. Sorts them: some 100 ms per million, and a small part of that if
    /// they are nearly in order.
    pub(super) fn new(mut ids: Vec<Id>) -> Self {
        sort(&mut ids);
        let filter = filter_of(&ids);
        let mut bytes =
            Vec::with_capacity(HEAD + ids.len() * Id::WIDTH + filter.len() * BLOCK + SUM);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(ids.len() as u64).to_le_bytes());
        ids.iter().for_each(|id| bytes.extend_from_slice(&big_endian(*id)));
        filter.iter().for_each(|block| bytes.extend_from_slice(block));
        append_checksum(&mut bytes);
        let bytes = Arc::new(bytes);
        let file: Arc<dyn IdFile> = Arc::<Vec<u8>>::clone(&bytes);
        Self {
            name: name_of(&bytes),
            count: ids.len(),
            filter: filter.into(),
            file,
            unsaved: Some(bytes),
        }
    }

    /// A run of the ids of both, not written yet. Needs some 40 bytes of memory for each id meanwhile.
    ///
    /// # Errors
    /// If a file cannot be read, or is damaged.
    pub(super) fn merged(&self, other: &Self) -> io::Result<Self> {
        let mut ids = Vec::with_capacity(self.count + other.count);
        self.add_ids_to(&mut ids)?;
        other.add_ids_to(&mut ids)?;
        // Two ascending parts, which the stable sort only merges.
        ids.sort();
        ids.dedup();
        Ok(Self::new(ids))
    }

    /// Adds all its ids, ascending.
    fn add_ids_to(&self, all: &mut Vec<Id>) -> io::Result<()> {
        let end = HEAD + self.count * Id::WIDTH;
        let mut bytes = vec![0; end + self.filter.len() * BLOCK + SUM];
        self.file.read_at(0, &mut bytes)?;
        match verify_checksum(&bytes).ok().and_then(|body| body.get(HEAD..end)) {
            Some(ids) => {
                all.extend(ids.as_chunks::<{ Id::WIDTH }>().0.iter().map(from_big_endian));
                Ok(())
            }
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Reads a run's content. Lookups read from `file`, which has the same bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8], file: Arc<dyn IdFile>) -> Result<Self, &'static str> {
        let body = verify_checksum(bytes).map_err(ChecksumError::problem)?;
        let rest = body.strip_prefix(MAGIC).ok_or(match body.starts_with(FAMILY) {
            true => "another version of throng wrote it, in a format that this one does not know",
            false => "it is not a run of ids",
        })?;
        let (count, rest) = rest.split_first_chunk::<8>().ok_or("it is truncated")?;
        let count =
            usize::try_from(u64::from_le_bytes(*count)).map_err(|_| "its length is wrong")?;
        let ids = count.checked_mul(Id::WIDTH).ok_or("its length is wrong")?;
        let filter = rest.get(ids..).ok_or("it is truncated")?;
        let (blocks, odd) = filter.as_chunks::<BLOCK>();
        if !odd.is_empty() || blocks.len() != count.div_ceil(IDS_PER_BLOCK).max(1) {
            return Err("its filter has another length");
        }
        Ok(Self { name: name_of(bytes), count, filter: blocks.into(), file, unsaved: None })
    }

    /// Reads a run that is not written yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of_content(content: Vec<u8>) -> Result<Self, &'static str> {
        let bytes = Arc::new(content);
        let file: Arc<dyn IdFile> = Arc::<Vec<u8>>::clone(&bytes);
        Ok(Self { unsaved: Some(Arc::clone(&bytes)), ..Self::read(&bytes, file)? })
    }

    /// Its name: a hash of its content, so that every replica that makes the same run gives it the same name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many ids it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The content, if it is not written yet.
    pub fn unsaved(&self) -> Option<Arc<Vec<u8>>> {
        self.unsaved.clone()
    }

    /// It is written: lookups read from the file from now on.
    pub(super) fn saved(&mut self, file: Arc<dyn IdFile>) {
        self.file = file;
        self.unsaved = None;
    }

    #[inline]
    fn may_have(&self, id: Id) -> bool {
        let block = &self.filter[block_of(self.filter.len(), id)];
        mask(id).into_iter().enumerate().all(|(place, bit)| word(block, place) & bit != 0)
    }

    /// Prefetches the block of the filter that an id needs. It may begin in one line and end in the next.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        let block = &self.filter[block_of(self.filter.len(), id)];
        prefetch_bytes(block);
        block.last_chunk::<1>().into_iter().for_each(prefetch_bytes);
    }

    /// Whether it has an id.
    ///
    /// # Errors
    /// If its file cannot be read.
    #[inline]
    pub(super) fn contains(&self, id: Id) -> io::Result<bool> {
        if self.may_have(id) { self.look_up(id) } else { Ok(false) }
    }

    #[cold]
    fn look_up(&self, id: Id) -> io::Result<bool> {
        let wanted = big_endian(id);
        let guess = ((u128::from(id.high()) * self.count as u128) >> 64) as usize;
        let mut reach = WINDOW;
        loop {
            let start = guess.saturating_sub(reach);
            let end = guess.saturating_add(reach).min(self.count);
            let mut bytes = vec![0; (end - start) * Id::WIDTH];
            self.file.read_at((HEAD + start * Id::WIDTH) as u64, &mut bytes)?;
            let ids = bytes.as_chunks::<{ Id::WIDTH }>().0;
            let begins = start == 0 || ids.first().is_some_and(|first| *first <= wanted);
            let ends = end == self.count || ids.last().is_some_and(|last| *last >= wanted);
            if begins && ends {
                return Ok(ids.binary_search(&wanted).is_ok());
            }
            reach *= 8;
        }
    }
}

/// For the fuzz target of id files.
#[cfg(any(test, feature = "fuzzing"))]
impl IdRun {
    /// A file of so many ids.
    pub(crate) fn example_file(count: u64) -> Vec<u8> {
        let id = |n: u64| Id::of_parts(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n as u16);
        Self::new((0..count).map(id).collect()).unsaved.map_or(Vec::new(), |bytes| bytes.to_vec())
    }

    /// Looks up ids over the whole range, through the filter and without it.
    pub(crate) fn look_up_some(&self) {
        for n in 0..16u64 {
            let id = Id::of_parts(n.wrapping_mul(0x1234_5678_9abc_def1), n as u16);
            let _ = (self.contains(id), self.look_up(id));
        }
    }
}

fn name_of(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> Id {
        Id::of_hash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn a_run_has_its_ids_and_few_lookups_reach_its_file() {
        let run = IdRun::new((0..100_000).map(id).collect());
        let bytes = run.unsaved().unwrap();
        let again = IdRun::read(&bytes, Arc::<Vec<u8>>::clone(&bytes)).unwrap();
        assert_eq!((again.name(), again.len()), (run.name(), 100_000));
        for run in [&run, &again] {
            assert!((0..100_000).step_by(7).all(|n| run.contains(id(n)).unwrap()));
            let others = 100_000..200_000;
            assert!(others.clone().step_by(7).all(|n| !run.contains(id(n)).unwrap()));
            let passed = others.filter(|n| run.may_have(id(*n))).count();
            assert!(passed < 500, "{passed} of 100,000");
        }
    }

    #[test]
    fn a_merged_run_has_the_ids_of_both_once() {
        let of = |numbers: std::ops::Range<u128>| IdRun::new(numbers.map(id).collect());
        let (a, b) = (of(0..3_000), of(2_000..9_000));
        let merged = a.merged(&b).unwrap();
        assert_eq!(merged.len(), 9_000);
        assert!((0..9_000).all(|n| merged.contains(id(n)).unwrap()));
        assert_eq!(
            merged.name(),
            of(0..9_000).name(),
            "the same as if it had been one run from the start"
        );
        assert_eq!(of(0..0).merged(&of(0..0)).unwrap().len(), 0);
        let mut bad = a.unsaved().unwrap().to_vec();
        bad[HEAD + 7] ^= 1;
        let mut damaged = a.clone();
        damaged.saved(Arc::new(bad));
        assert!(damaged.merged(&b).is_err() && b.merged(&damaged).is_err());
    }

    #[test]
    fn damage_is_detected() {
        let run = IdRun::new((0..40).map(id).collect());
        let whole = run.unsaved().unwrap();
        for at in 0..whole.len() {
            let file = || Arc::<Vec<u8>>::clone(&whole) as Arc<dyn IdFile>;
            assert!(IdRun::read(&whole[..at], file()).is_err(), "cut at {at}");
            let mut bad = whole.to_vec();
            bad[at] ^= 4;
            assert!(IdRun::read(&bad, file()).is_err(), "changed at {at}");
        }
        let mut gone = run.clone();
        gone.saved(Arc::new(Vec::new()));
        assert!(gone.contains(id(3)).is_err(), "a file that cannot be read is an error");
    }

    #[test]
    fn a_run_of_another_version_is_not_called_damaged() {
        let run = IdRun::new((0..40).map(id).collect());
        let mut bytes = run.unsaved().unwrap().to_vec();
        bytes.truncate(bytes.len() - SUM);
        bytes[7] = b'2';
        append_checksum(&mut bytes);
        let error = IdRun::read(&bytes, Arc::new(bytes.clone())).unwrap_err();
        assert!(error.contains("another version of throng"), "{error}");
    }

    proptest! {
        /// In order, nearly in order with some from the end at the start, and in no order.
        #[test]
        fn ids_are_sorted_whatever_their_order(
            numbers in prop::collection::vec(0u64..5_000, 0..3_000), width in 1usize..3_000, wrapped in 0usize..40,
        ) {
            let mut ids: Vec<Id> = numbers.iter().map(|n| Id::of_parts(n >> 2, *n as u16 & 3)).collect();
            ids.sort_unstable();
            let sorted = ids.clone();
            ids.chunks_mut(width).for_each(<[Id]>::reverse);
            ids.rotate_right(wrapped.min(sorted.len()));
            sort(&mut ids);
            prop_assert_eq!(ids, sorted);
        }

        /// Also where the ids are clustered in one range.
        #[test]
        fn it_is_a_set(numbers in prop::collection::hash_set(0u64..9_000, 0..6_000), shift in 0u32..50) {
            let of = |n: u64| Id::of_hash(u128::from(n << shift) << 64);
            let ids: HashSet<u64> = numbers;
            let run = IdRun::new(ids.iter().map(|n| of(*n)).collect());
            for n in 0..9_000 {
                prop_assert_eq!(run.contains(of(n)).unwrap(), ids.contains(&n));
            }
        }
    }
}
