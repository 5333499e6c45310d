//! A key file holds the hashes of one scan by user shard, in the order of the scan, each followed
//! by its value where the model's rule is a sum: blocks of 64-bit words of one shard each,
//! little-endian, then an index of the blocks. Only one open block of each shard is in memory, 16
//! MiB at most.
//!
//! ```text
//! "THRKEYS1" | block … | index: (shard u8, words u32, offset u64, xxh3 u64) … |
//!            entries u64, xxh3 of the index u64, "THRKEYSE"
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use throng_model::{SHARD_COUNT, UserHash};
use throng_query::keys::SharedBatch;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::PartFileError;
use crate::temp_file::TempFile;

const MAGIC: &[u8; 8] = b"THRKEYS1";
const END_MAGIC: &[u8; 8] = b"THRKEYSE";
const INDEX_ENTRY_BYTES: usize = 1 + 4 + 8 + 8;
const FOOTER_BYTES: usize = 8 + 8 + 8;
/// Words of a block: 64 KiB. Even, so that a block ends between a value and the next hash.
const BLOCK_WORDS: usize = 8_192;

/// Writes a key file.
#[derive(Debug)]
pub struct KeyFileWriter {
    out: TempFile,
    /// Offset of the next block.
    offset: u64,
    /// The block of each shard that is not written yet.
    open: Vec<Vec<u64>>,
    /// Memory for the bytes of the block that is written.
    bytes: Vec<u8>,
    index: Vec<u8>,
    entries: u64,
}

impl KeyFileWriter {
    /// Begins the file at `path`, which gets this name when it is finished. Blocks on the disk.
    ///
    /// # Errors
    /// [`PartFileError::Io`].
    pub fn create(path: &Path) -> Result<Self, PartFileError> {
        let mut out = TempFile::create(path)?;
        out.write(MAGIC)?;
        let open = vec![Vec::new(); SHARD_COUNT];
        let (bytes, index) = (Vec::new(), Vec::new());
        Ok(Self { out, offset: MAGIC.len() as u64, open, bytes, index, entries: 0 })
    }

    /// A writer whose every write fails.
    #[cfg(test)]
    pub(crate) fn to_full_device() -> Result<Self, PartFileError> {
        let mut writer = Self::create(&std::env::temp_dir().join("full-device.keys"))?;
        writer.out.fill_device()?;
        Ok(writer)
    }

    /// The file need not reach the disk: this process reads it, and none after it.
    pub fn scratch(mut self) -> Self {
        self.out.set_scratch();
        self
    }

    /// Adds hashes, each followed by its value if there are values.
    ///
    /// # Errors
    /// [`PartFileError::Io`].
    pub fn push(
        &mut self,
        hashes: &[UserHash],
        values: Option<&[u64]>,
    ) -> Result<(), PartFileError> {
        for (place, hash) in hashes.iter().enumerate() {
            let shard = hash.shard();
            let block = &mut self.open[usize::from(shard)];
            block.push(hash.0);
            block.extend(values.and_then(|values| values.get(place)));
            if block.len() >= BLOCK_WORDS {
                self.flush(shard)?;
            }
        }
        Ok(())
    }

    /// Adds the keys of several models: hash, value if there are values, and group.
    ///
    /// # Errors
    /// [`PartFileError::Io`].
    pub fn push_shared(&mut self, batch: &SharedBatch) -> Result<(), PartFileError> {
        let keys = batch.hashes.iter().zip(&batch.groups);
        if batch.values.is_empty() {
            for (hash, group) in keys {
                self.push_words(hash.shard(), [hash.0, u64::from(*group)])?;
            }
        } else {
            for ((hash, group), value) in keys.zip(&batch.values) {
                self.push_words(hash.shard(), [hash.0, *value, u64::from(*group)])?;
            }
        }
        Ok(())
    }

    /// Adds the words of one key.
    fn push_words<const WIDTH: usize>(
        &mut self,
        shard: u8,
        words: [u64; WIDTH],
    ) -> Result<(), PartFileError> {
        let block = &mut self.open[usize::from(shard)];
        block.extend_from_slice(&words);
        // After a complete key, so that a block ends between two keys.
        if block.len() >= BLOCK_WORDS {
            self.flush(shard)?;
        }
        Ok(())
    }

    fn flush(&mut self, shard: u8) -> Result<(), PartFileError> {
        let block = &mut self.open[usize::from(shard)];
        if block.is_empty() {
            return Ok(());
        }
        // By words and not by bytes, and without clearing memory before: this is done for every key.
        let length = 8 * block.len();
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        let bytes = &mut self.bytes[..length];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(block.iter()) {
            *to = word.to_le_bytes();
        }
        self.index.push(shard);
        self.index.extend((block.len() as u32).to_le_bytes());
        self.index.extend(self.offset.to_le_bytes());
        self.index.extend(xxh3_64(bytes).to_le_bytes());
        self.entries += 1;
        self.offset += length as u64;
        block.clear();
        self.out.write(bytes)
    }

    /// Completes the file. Blocks on the disk. Returns the checksum that identifies the file:
    /// that of the index, which has the checksums of all blocks.
    ///
    /// # Errors
    /// [`PartFileError::Io`].
    pub fn finish(mut self) -> Result<u64, PartFileError> {
        for shard in 0..=u8::MAX {
            self.flush(shard)?;
        }
        let mut tail = std::mem::take(&mut self.index);
        let checksum = xxh3_64(&tail);
        tail.extend(self.entries.to_le_bytes());
        tail.extend(checksum.to_le_bytes());
        // At the end of the file: one that was truncated does not end with it.
        tail.extend(END_MAGIC);
        self.out.write(&tail)?;
        self.out.finish()?;
        Ok(checksum)
    }
}

#[derive(Debug)]
struct Block {
    shard: u8,
    words: u32,
    offset: u64,
    checksum: u64,
}

/// A finished key file.
#[derive(Debug)]
pub struct KeyFile {
    file: File,
    path: PathBuf,
    blocks: Vec<Block>,
}

/// The little-endian number at `at`; the caller has checked the length.
fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

impl KeyFile {
    /// Opens a file and checks its index. `expected` is what [`KeyFileWriter::finish`] returned.
    ///
    /// # Errors
    /// [`PartFileError`].
    pub fn open(path: &Path, expected: Option<u64>) -> Result<Self, PartFileError> {
        let damaged = |problem: &str| PartFileError::Damaged {
            path: path.to_owned(),
            problem: problem.into(),
        };
        let io = |e| PartFileError::io("read", path)(e);
        let mut file = throng_fs::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < (MAGIC.len() + FOOTER_BYTES) as u64 {
            return Err(damaged("it is too short"));
        }
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(io)?;
        let mut footer = [0; FOOTER_BYTES];
        file.seek(SeekFrom::End(-(FOOTER_BYTES as i64))).map_err(io)?;
        file.read_exact(&mut footer).map_err(io)?;
        if magic != *MAGIC && magic[..7] == MAGIC[..7] {
            return Err(damaged(
                "another version of throng wrote it, in a format that this one does not know",
            ));
        }
        if magic != *MAGIC || footer[16..] != *END_MAGIC {
            return Err(damaged("it is not a key file"));
        }
        let entries = u64::from_le_bytes(number(&footer, 0));
        let available = length - (MAGIC.len() + FOOTER_BYTES) as u64;
        // Before the allocation: the number is from the file, and a damaged one could ask for all
        // memory.
        let size = entries.checked_mul(INDEX_ENTRY_BYTES as u64).filter(|size| *size <= available);
        let Some(size) = size else { return Err(damaged("its index does not fit")) };
        let index_start = length - FOOTER_BYTES as u64 - size;
        let mut index = vec![0; size as usize];
        file.read_exact_at(&mut index, index_start).map_err(io)?;
        let checksum = xxh3_64(&index);
        if checksum != u64::from_le_bytes(number(&footer, 8)) {
            return Err(damaged("the checksum of its index is wrong"));
        }
        if expected.is_some_and(|expected| expected != checksum) {
            return Err(damaged("it is not the output that the ledger names"));
        }
        let mut blocks = Vec::with_capacity(entries as usize);
        let mut offset = MAGIC.len() as u64;
        for entry in index.chunks_exact(INDEX_ENTRY_BYTES) {
            let block = Block {
                shard: entry[0],
                words: u32::from_le_bytes(number(entry, 1)),
                offset: u64::from_le_bytes(number(entry, 5)),
                checksum: u64::from_le_bytes(number(entry, 13)),
            };
            // Blocks follow each other without a gap. An index that named one block many times
            // would make a small file take much memory.
            if block.offset != offset {
                return Err(damaged("a block has a wrong offset"));
            }
            offset = offset.saturating_add(u64::from(block.words) * 8);
            blocks.push(block);
        }
        if offset != index_start {
            return Err(damaged("its blocks do not fill it"));
        }
        Ok(Self { file, path: path.to_owned(), blocks })
    }

    /// Appends the words of a user shard to `into`: with duplicates, in no order.
    ///
    /// # Errors
    /// [`PartFileError`].
    pub fn read(&self, shard: u8, into: &mut Vec<u64>) -> Result<(), PartFileError> {
        let mut bytes = Vec::new();
        for block in self.blocks.iter().filter(|block| block.shard == shard) {
            bytes.resize(block.words as usize * 8, 0);
            self.file
                .read_exact_at(&mut bytes, block.offset)
                .map_err(PartFileError::io("read", &self.path))?;
            if xxh3_64(&bytes) != block.checksum {
                let problem = "the checksum of a block is wrong".to_owned();
                return Err(PartFileError::Damaged { path: self.path.clone(), problem });
            }
            into.extend(bytes.chunks_exact(8).map(|b| u64::from_le_bytes(number(b, 0))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use throng_model::{Entropy, SplitMix64};

    use super::*;

    #[test]
    fn hashes_are_read_by_shard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan-0.keys");
        let mut random = SplitMix64::new(1);
        // One shard gets several blocks.
        let mut all: Vec<UserHash> =
            (0..BLOCK_WORDS * 2).map(|_| UserHash(random.next_u64() >> 8)).collect();
        all.extend((0..1_000).map(|_| UserHash(random.next_u64())));
        let mut writer = KeyFileWriter::create(&path).unwrap();
        all.chunks(999).for_each(|chunk| writer.push(chunk, None).unwrap());
        assert!(!path.exists());
        let checksum = writer.finish().unwrap();
        assert!(KeyFile::open(&path, Some(checksum ^ 1)).is_err(), "complete, but another file");
        let file = KeyFile::open(&path, Some(checksum)).unwrap();
        let mut read = Vec::new();
        for shard in 0..=u8::MAX {
            let begin = read.len();
            file.read(shard, &mut read).unwrap();
            assert!(read[begin..].iter().all(|hash| UserHash(*hash).shard() == shard));
        }
        let mut all: Vec<u64> = all.into_iter().map(|hash| hash.0).collect();
        all.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, all);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_version_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan-0.keys");
        let mut writer = KeyFileWriter::create(&path).unwrap();
        writer.push(&[UserHash(1)], None).unwrap();
        writer.finish().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = b'2';
        fs::write(&path, &bytes).unwrap();
        let error = KeyFile::open(&path, None).err().unwrap().to_string();
        assert!(error.contains("another version of throng"), "{error}");
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = KeyFileWriter::create(&dir.path().join("scan-0.keys")).unwrap();
        writer.push(&[UserHash(1)], None).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_synced_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |mut writer: KeyFileWriter| {
            writer.push(&[UserHash(1), UserHash(u64::MAX)], Some(&[2, 3])).unwrap();
            writer.finish().unwrap()
        };
        let durable = write(KeyFileWriter::create(&path("durable")).unwrap());
        let scratch = write(KeyFileWriter::create(&path("scratch")).unwrap().scratch());
        assert_eq!(durable, scratch);
        assert_eq!(fs::read(path("durable")).unwrap(), fs::read(path("scratch")).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan-0.keys");
        let mut writer = KeyFileWriter::create(&path).unwrap();
        writer.push(&[UserHash(1), UserHash(2), UserHash(u64::MAX)], None).unwrap();
        writer.finish().unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let read = KeyFile::open(&path, None).and_then(|file| {
                let mut hashes = Vec::new();
                (0..=u8::MAX).try_for_each(|shard| file.read(shard, &mut hashes))
            });
            assert!(read.is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(KeyFile::open(&path, None).is_err(), "cut to {length}");
        }
    }
}
