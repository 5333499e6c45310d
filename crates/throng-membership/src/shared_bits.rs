//! The bitmaps of several audiences, in one local file for each user shard, which only the process that writes it
//! reads: it need not reach the disk.

use std::fs::{self, File};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
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

/// Writes the bitmaps of some audiences to a file without syncing it. `audiences`: the places in `ordinals` of the users
/// of each, each once. `out` is memory that is used again for the next shard: what it has is replaced.
///
/// # Errors
/// [`MembershipError::Io`]; [`MembershipError::Misuse`] if there is no such place.
pub fn write_bitmaps(
    path: &Path,
    audiences: &[&[u32]],
    ordinals: &[u32],
    dictionary_len: u32,
    out: &mut Vec<u8>,
) -> Result<ShardBitmaps, MembershipError> {
    out.clear();
    let mut entries = Vec::with_capacity(audiences.len());
    let mut found = Vec::new();
    for places in audiences {
        if places.is_empty() {
            entries.push(Entry::default());
            continue;
        }
        found.clear();
        found.extend(places.iter().filter_map(|place| ordinals.get(*place as usize).copied()));
        if found.len() < places.len() {
            return Err(MembershipError::Misuse("a user of a shard has no ordinal".to_owned()));
        }
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
    use super::*;

    #[test]
    fn bitmaps_are_read_as_written_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared.bits");
        let members: [&[u32]; 3] = [&[0, 1], &[], &[1, 2]];
        let (ordinals, mut out) = ([30, 10, 20], vec![1; 999]);
        let refused = write_bitmaps(&path, &[&[3]], &ordinals, 31, &mut out);
        assert!(matches!(refused, Err(MembershipError::Misuse(_))), "{refused:?}");
        let shard = write_bitmaps(&path, &members, &ordinals, 31, &mut out).unwrap();
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
