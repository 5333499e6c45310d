//! The output of a shards part: bitmaps of some user shards.
//!
//! ```text
//! "THRBITS1" | per shard: dictionary_len u32, length u32, bitmap | xxh3 of the bytes before u64
//! ```

use std::path::Path;

use roaring::RoaringBitmap;
use throng_model::{append_checksum, verify_checksum};

use crate::error::PartFileError;
use crate::temp_file::write_file;

const MAGIC: &[u8; 8] = b"THRBITS1";

/// The members of one user shard.
#[derive(Debug, Default, PartialEq)]
pub struct ShardBits {
    /// How many users the shard's dictionary had.
    pub dictionary_len: u32,
    /// Not written: the bitmap has it.
    pub members: u64,
    /// A portable Roaring bitmap; empty if the shard has no member.
    pub bytes: Vec<u8>,
}

/// The bitmap of some ordinals.
pub fn bitmap(mut ordinals: Vec<u32>, dictionary_len: u32) -> ShardBits {
    ordinals.sort_unstable();
    let mut bitmap = RoaringBitmap::from_iter(ordinals);
    bitmap.optimize();
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).expect("a Vec takes every write");
    ShardBits { dictionary_len, members: bitmap.len(), bytes }
}

/// Writes the shards of a part, in their order. Returns the checksum that identifies the file. Blocks on the disk.
///
/// # Errors
/// [`PartFileError::Io`].
pub fn write(path: &Path, shards: &[ShardBits]) -> Result<u64, PartFileError> {
    let mut out = MAGIC.to_vec();
    for shard in shards {
        out.extend(shard.dictionary_len.to_le_bytes());
        // A bitmap of 2^32 ordinals takes 512 MiB.
        out.extend((shard.bytes.len() as u32).to_le_bytes());
        out.extend(&shard.bytes);
    }
    let checksum = append_checksum(&mut out);
    write_file(path, &out)?;
    Ok(checksum)
}

/// Reads `(dictionary_len, bitmap)` of each shard of a part. `expected` is what [`write()`] returned. Blocks on the disk.
///
/// # Errors
/// [`PartFileError`].
pub fn read(path: &Path, expected: Option<u64>) -> Result<Vec<(u32, Vec<u8>)>, PartFileError> {
    let damaged =
        |problem: &str| PartFileError::Damaged { path: path.to_owned(), problem: problem.into() };
    let all = throng_fs::read(path).map_err(PartFileError::io("read", path))?;
    // Before any length is read: a damaged one would only be noticed where the rest does not fit.
    let body = verify_checksum(&all).map_err(|error| damaged(error.problem()))?;
    // A valid file can be that of another try, or of another part: its users would be members of a
    // snapshot to which they do not belong.
    if expected.is_some_and(|expected| !all.ends_with(&expected.to_le_bytes())) {
        return Err(damaged("it is not the output that the ledger names"));
    }
    let Some(mut rest) = body.strip_prefix(MAGIC) else {
        return Err(damaged(match body.starts_with(&MAGIC[..7]) {
            true => "another version of throng wrote it, in a format that this one does not know",
            false => "it is not a file of bitmaps",
        }));
    };
    let mut shards = Vec::new();
    while !rest.is_empty() {
        let split = rest.split_first_chunk::<4>().and_then(|(dictionary_len, rest)| {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (bitmap, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((u32::from_le_bytes(*dictionary_len), bitmap, rest))
        });
        let Some((dictionary_len, bitmap, left)) = split else {
            return Err(damaged("a bitmap is truncated"));
        };
        shards.push((dictionary_len, bitmap.to_vec()));
        rest = left;
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_version_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shards-1.bits");
        write(&path, &[ShardBits::default()]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 8);
        bytes[7] = b'2';
        append_checksum(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains("another version of throng"), "{error}");
    }

    #[test]
    fn bitmaps_are_read_as_written_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shards-1.bits");
        let shards = [
            ShardBits { dictionary_len: 7, members: 1, bytes: vec![1, 2, 3] },
            ShardBits::default(),
        ];
        let checksum = write(&path, &shards).unwrap();
        assert_eq!(read(&path, Some(checksum)).unwrap(), [(7, vec![1, 2, 3]), (0, vec![])]);
        assert_eq!(read(&path, None).unwrap().len(), 2);
        assert!(read(&path, Some(checksum ^ 1)).is_err(), "complete, but another file");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            std::fs::write(&path, &bad).unwrap();
            assert!(read(&path, None).is_err(), "byte {at}");
        }
    }
}
