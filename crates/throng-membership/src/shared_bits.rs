//! The bitmaps of several audiences, in one local file for each user shard, which only the process that writes it
//! reads: it need not reach the disk.

use std::fs::{self, File};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use throng_model::UserHash;
use xxhash_rust::xxh3::xxh3_64;

use crate::MembershipError;

/// The length of a shard's dictionary, and the portable Roaring bitmap of one audience in the shard. Without users both
/// are 0 and empty.
pub type ShardBitmap = (u32, Vec<u8>);

/// The bitmaps of several audiences in one user shard.
#[derive(Debug, Default)]
pub struct ShardBitmaps {
    /// `None` if no audience has a user in the shard.
    file: Option<(File, PathBuf)>,
    dictionary_len: u32,
    /// The bitmap of each audience.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    offset: u64,
    /// 0 if the audience has no user in the shard.
    length: u32,
    checksum: u64,
}

fn io_error(doing: &'static str, path: &Path, source: Error) -> MembershipError {
    MembershipError::Io { doing, path: path.to_owned(), source }
}

/// Writes the bitmaps of some audiences to a file without syncing it. `all`: the users of a shard, who are ascending, each
/// once, and their ordinals; the users of each audience are among them. `out` is memory that is used again for the next
/// shard: what it has is replaced.
///
/// # Errors
/// [`MembershipError::Io`].
pub fn write_bitmaps(
    path: &Path,
    audiences: &[&[UserHash]],
    (all, ordinals): (&[UserHash], &[u32]),
    dictionary_len: u32,
    out: &mut Vec<u8>,
) -> Result<ShardBitmaps, MembershipError> {
    out.clear();
    let mut entries = Vec::with_capacity(audiences.len());
    let (places, mut found) = (Places::new(all), Vec::new());
    for hashes in audiences {
        if hashes.is_empty() {
            entries.push(Entry::default());
            continue;
        }
        found.clear();
        found.extend(hashes.iter().filter_map(|hash| ordinals.get(places.of(*hash)).copied()));
        let offset = out.len();
        serialize(&mut found, out);
        let bytes = &out[offset..];
        // A bitmap of 2^32 ordinals takes 512 MiB.
        let (length, checksum) = (bytes.len() as u32, xxh3_64(bytes));
        entries.push(Entry { offset: offset as u64, length, checksum });
    }
    fs::write(path, &*out).map_err(|error| io_error("write", path, error))?;
    let file = File::open(path).map_err(|error| io_error("read", path, error))?;
    Ok(ShardBitmaps { file: Some((file, path.to_owned())), dictionary_len, entries })
}

/// Appends the bitmap of some ordinals, and sorts them.
fn serialize(ordinals: &mut [u32], to: &mut Vec<u8>) {
    ordinals.sort_unstable();
    let sorted = RoaringBitmap::from_sorted_iter(ordinals.iter().copied());
    let mut bitmap = sorted.unwrap_or_else(|_| ordinals.iter().copied().collect());
    bitmap.optimize();
    bitmap.serialize_into(to).expect("a Vec takes every write");
}

/// Users of one bucket of [`Places`], on average.
const BUCKET: usize = 4;

/// The places of users among all of a shard, who are ascending. Hashes are uniform, so those with the same top bits are
/// few: a binary search among all would miss the cache at most of its steps, for every user of every audience.
struct Places<'a> {
    all: &'a [UserHash],
    /// Bits that number a bucket.
    bits: u32,
    /// The first place of each bucket, and the end of the last one.
    starts: Vec<u32>,
}

impl<'a> Places<'a> {
    fn new(all: &'a [UserHash]) -> Self {
        let bits = (all.len() / BUCKET).max(2).next_power_of_two().trailing_zeros();
        let mut starts = vec![0; (1 << bits) + 1];
        for hash in all {
            starts[Self::bucket(bits, *hash) + 1] += 1;
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        Self { all, bits, starts }
    }

    /// The first 8 bits of a hash are those of the shard.
    fn bucket(bits: u32, hash: UserHash) -> usize {
        ((hash.0 << 8) >> (u64::BITS - bits)) as usize
    }

    fn of(&self, hash: UserHash) -> usize {
        let bucket = Self::bucket(self.bits, hash);
        let (start, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        start + self.all[start..end].partition_point(|other| *other < hash)
    }
}

/// The bitmaps of several audiences.
#[derive(Debug)]
pub struct SharedBits {
    /// In the order of user shards.
    shards: Vec<ShardBitmaps>,
}

impl SharedBits {
    /// The bitmaps of all shards, in their order.
    pub fn new(shards: Vec<ShardBitmaps>) -> Self {
        Self { shards }
    }

    /// Bytes of the bitmaps of an audience, by its place in those of [`write_bitmaps`].
    pub fn bytes(&self, audience: usize) -> u64 {
        let entries = self.shards.iter().filter_map(|shard| shard.entries.get(audience));
        entries.map(|entry| u64::from(entry.length)).sum()
    }

    /// The bitmaps of each of some audiences, by shard. Costs one read for each shard, of all that is between the first
    /// and the last audience.
    ///
    /// # Errors
    /// [`MembershipError::Io`], also if the bytes are not those that were written.
    pub fn read(&self, audiences: &[usize]) -> Result<Vec<Vec<ShardBitmap>>, MembershipError> {
        let mut read = vec![Vec::new(); audiences.len()];
        for shard in &self.shards {
            for (of_audience, bitmap) in read.iter_mut().zip(shard.read(audiences)?) {
                of_audience.push(bitmap);
            }
        }
        Ok(read)
    }
}

impl ShardBitmaps {
    fn read(&self, audiences: &[usize]) -> Result<Vec<ShardBitmap>, MembershipError> {
        let entry = |audience: &usize| self.entries.get(*audience).copied().unwrap_or_default();
        let entries: Vec<Entry> = audiences.iter().map(entry).collect();
        let found = || entries.iter().filter(|entry| entry.length > 0);
        let start = found().map(|entry| entry.offset).min();
        let end = found().map(|entry| entry.offset + u64::from(entry.length)).max();
        let (Some((file, path)), Some(start), Some(end)) = (&self.file, start, end) else {
            return Ok(vec![(0, Vec::new()); audiences.len()]);
        };
        let mut all = vec![0; (end - start) as usize];
        file.read_exact_at(&mut all, start).map_err(|error| io_error("read", path, error))?;
        let bitmap = |entry: &Entry| {
            if entry.length == 0 {
                return Ok((0, Vec::new()));
            }
            let at = (entry.offset - start) as usize;
            let bytes = all[at..at + entry.length as usize].to_vec();
            if xxh3_64(&bytes) != entry.checksum {
                // Nothing else has to be restored: another build writes another file.
                let problem = "the checksum of a bitmap is wrong";
                return Err(io_error("read", path, Error::new(ErrorKind::InvalidData, problem)));
            }
            Ok((self.dictionary_len, bytes))
        };
        entries.iter().map(bitmap).collect()
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{Entropy as _, SplitMix64};

    use super::*;

    #[test]
    fn users_are_found_also_if_their_hashes_are_not_uniform() {
        let mut random = SplitMix64::new(3);
        let uniform = |random: &mut SplitMix64| (7 << 56) | (random.next_u64() >> 8);
        let clustered = |random: &mut SplitMix64| (7 << 56) | (random.next_u64() >> 44);
        for count in [1_usize, 2, 100, 20_000] {
            let mut all: Vec<u64> = (0..count).map(|_| uniform(&mut random)).collect();
            all.extend((0..count).map(|_| clustered(&mut random)));
            all.extend([7 << 56, (8 << 56) - 1]);
            all.sort_unstable();
            all.dedup();
            let all: Vec<UserHash> = all.into_iter().map(UserHash).collect();
            let places = Places::new(&all);
            assert!(all.iter().enumerate().all(|(at, hash)| places.of(*hash) == at));
        }
    }

    #[test]
    fn bitmaps_are_read_as_written_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared.bits");
        let hashes = |all: &[u64]| all.iter().copied().map(UserHash).collect::<Vec<_>>();
        let members = [hashes(&[1, 5]), Vec::new(), hashes(&[5, 9])];
        let members: Vec<&[UserHash]> = members.iter().map(Vec::as_slice).collect();
        let all = hashes(&[1, 5, 9]);
        let (ordinals, mut out) = ([30, 10, 20], vec![1; 999]);
        let shard = write_bitmaps(&path, &members, (&all, &ordinals), 31, &mut out).unwrap();
        let bits = SharedBits::new(vec![shard, ShardBitmaps::default()]);
        let ordinals = |shards: &[ShardBitmap]| {
            assert_eq!(shards[1], (0, Vec::new()));
            match shards[0].1.as_slice() {
                [] => Vec::new(),
                bytes => RoaringBitmap::deserialize_from(bytes).unwrap().iter().collect::<Vec<_>>(),
            }
        };
        let expected: [&[u32]; 3] = [&[10, 30], &[], &[10, 20]];
        for members in [&[0, 1, 2][..], &[2], &[1], &[0, 2], &[1, 2], &[]] {
            let read = bits.read(members).unwrap();
            assert_eq!(read.len(), members.len());
            for (member, shards) in members.iter().zip(read) {
                assert_eq!(ordinals(&shards), expected[*member]);
                let bytes: usize = shards.iter().map(|(_, bitmap)| bitmap.len()).sum();
                assert_eq!(bits.bytes(*member), bytes as u64);
            }
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(bits.read(&[0]).is_err() && bits.read(&[0, 2]).is_err());
        assert!(bits.read(&[2]).is_ok(), "it is not damaged");
    }
}
