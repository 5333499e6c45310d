//! The bitmaps of several audiences, in one local file for each user shard.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use throng_model::UserHash;
use xxhash_rust::xxh3::xxh3_64;

use super::bits::bitmap;
use super::error::RefreshError;
use super::files::write_file;

/// The bitmaps of all members in one user shard.
#[derive(Default)]
pub(super) struct ShardBitmaps {
    /// `None` if no member has a user in the shard.
    file: Option<(File, PathBuf)>,
    dictionary_len: u32,
    /// The bitmap of each member.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    offset: u64,
    /// 0 if the member has no user in the shard.
    length: u32,
    checksum: u64,
}

/// Writes the bitmaps of some members, whose users are among `all`; `ordinals` has those of all.
pub(super) fn write_bitmaps(
    path: &Path,
    members: &[Vec<UserHash>],
    all: &[UserHash],
    ordinals: &[u32],
    dictionary_len: u32,
) -> Result<ShardBitmaps, RefreshError> {
    let (mut out, mut entries) = (Vec::new(), Vec::with_capacity(members.len()));
    for hashes in members {
        if hashes.is_empty() {
            entries.push(Entry::default());
            continue;
        }
        // Both are ascending: the next user is after the one before.
        let mut from = 0;
        let mut found = Vec::with_capacity(hashes.len());
        for hash in hashes {
            from += all[from..].partition_point(|other| other.0 < hash.0);
            found.extend(ordinals.get(from));
        }
        let bytes = bitmap(found, dictionary_len).bytes;
        entries.push(Entry {
            offset: out.len() as u64,
            // A bitmap of 2^32 ordinals takes 512 MiB.
            length: bytes.len() as u32,
            checksum: xxh3_64(&bytes),
        });
        out.extend(bytes);
    }
    write_file(path, &out)?;
    let file = File::open(path).map_err(RefreshError::io("read", path))?;
    Ok(ShardBitmaps { file: Some((file, path.to_owned())), dictionary_len, entries })
}

/// The bitmaps of all members.
pub(super) struct SharedBits {
    /// In the order of user shards.
    shards: Vec<ShardBitmaps>,
}

impl SharedBits {
    /// The bitmaps of all shards, in their order.
    pub(super) fn new(shards: Vec<ShardBitmaps>) -> Self {
        Self { shards }
    }

    /// Dictionary length and bitmap of each shard, of one member.
    pub(super) fn read(&self, member: usize) -> Result<Vec<(u32, Vec<u8>)>, RefreshError> {
        self.shards.iter().map(|shard| shard.read(member)).collect()
    }
}

impl ShardBitmaps {
    fn read(&self, member: usize) -> Result<(u32, Vec<u8>), RefreshError> {
        let entry = self.entries.get(member).copied().unwrap_or_default();
        let Some((file, path)) = self.file.as_ref().filter(|_| entry.length > 0) else {
            return Ok((0, Vec::new()));
        };
        let mut bytes = vec![0; entry.length as usize];
        file.read_exact_at(&mut bytes, entry.offset).map_err(RefreshError::io("read", path))?;
        if xxh3_64(&bytes) != entry.checksum {
            let problem = "the checksum of a bitmap is wrong".to_owned();
            return Err(RefreshError::Damaged { path: path.clone(), problem });
        }
        Ok((self.dictionary_len, bytes))
    }
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;

    use super::*;

    #[test]
    fn bitmaps_are_read_as_written_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared.bits");
        let hashes = |all: &[u64]| all.iter().copied().map(UserHash).collect::<Vec<_>>();
        let members = [hashes(&[1, 5]), Vec::new(), hashes(&[5, 9])];
        let all = hashes(&[1, 5, 9]);
        let shard = write_bitmaps(&path, &members, &all, &[30, 10, 20], 31).unwrap();
        let bits = SharedBits::new(vec![shard, ShardBitmaps::default()]);
        let ordinals = |member| {
            let shards = bits.read(member).unwrap();
            assert_eq!(shards[1], (0, Vec::new()));
            match shards[0].1.as_slice() {
                [] => Vec::new(),
                bytes => RoaringBitmap::deserialize_from(bytes).unwrap().iter().collect::<Vec<_>>(),
            }
        };
        assert_eq!([ordinals(0), ordinals(1), ordinals(2)], [vec![10, 30], vec![], vec![10, 20]]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(bits.read(0).is_err());
    }
}
