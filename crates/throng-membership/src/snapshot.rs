//! Snapshot files: one immutable version of an audience.
//!
//! All numbers are little-endian; everything starts at a multiple of 8; gaps are zero. The same
//! description, for readers in other languages, is `docs/specs/snapshot-format.md`.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `THRGSNAP` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | length `m` of the meta JSON |
//! | 16 | 8 | length of the file |
//! | 24 | 8 | members over all shards |
//! | 32 | 8 | offset `d` of the directory: 64 + m, rounded up to 8 |
//! | 40 | 8 | XXH3 (64 bits, seed 0) of bytes 64 to d + 8192 |
//! | 48 | 8 | 0 |
//! | 56 | 8 | XXH3 of bytes 0 to 56 |
//! | 64 | m | meta: the JSON of [`SnapshotMeta`] |
//! | d | 8192 | directory: 256 entries of 32 bytes, by shard |
//! | d + 8192 | | sections in the order of shards, each followed by zeros up to a multiple of 8 |
//!
//! A directory entry is offset, length, cardinality and XXH3 of a section (8 bytes each); an empty
//! shard has no section and all four are 0. A section is a Roaring bitmap of dictionary ordinals in
//! the portable format.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, HashSeed, SHARD_COUNT, Timestamp, UserHash};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::contents::Contents;
use crate::portable::{CheckedBitmap, Layout};
use crate::{MembershipError, durable};

const MAGIC: &[u8; 8] = b"THRGSNAP";
const FORMAT: u32 = 1;
const HEADER: usize = 64;
const ENTRY: usize = 32;
const DIRECTORY: usize = SHARD_COUNT * ENTRY;

/// The metadata of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotMeta {
    /// The audience.
    pub audience: AudienceName,
    /// The version of the audience: 1, 2, 3, …
    pub version: u64,
    /// Fingerprint of the model's SQL and key column.
    pub model_fingerprint: String,
    /// Rows that were scanned: those that the model returns or counts.
    pub rows_read: u64,
    /// Those of them whose key was NULL.
    pub null_keys: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// [`seed_check`] of the deployment's hash seed: identifies snapshots of another deployment
    /// without revealing the seed.
    pub seed_check: u64,
    /// How many users each shard's dictionary had: 256 numbers. All ordinals are below them.
    pub dictionary_len: Vec<u32>,
}

/// A number that is the same for the same hash seed, and does not reveal the seed.
///
/// ```
/// use throng_membership::seed_check;
/// use throng_model::HashSeed;
///
/// assert_eq!(seed_check(HashSeed(7)), seed_check(HashSeed(7)));
/// assert_ne!(seed_check(HashSeed(7)), seed_check(HashSeed(8)));
/// ```
pub fn seed_check(seed: HashSeed) -> u64 {
    UserHash::of_canonical(b"throng: which hash seed is this?", seed).0
}

/// The result of writing a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Size of the file.
    pub bytes: u64,
    /// How many users.
    pub members: u64,
    /// The checksum of the file: see [`SnapshotIdentity::checksum`].
    pub checksum: String,
}

/// The identity of a snapshot, as it was recorded elsewhere when the file was written. A file can
/// be complete and still be another one that replaced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotIdentity {
    /// The audience.
    pub audience: AudienceName,
    /// Its version.
    pub version: u64,
    /// Fingerprint of the model that made it.
    pub model_fingerprint: String,
    /// How many users.
    pub members: u64,
    /// Size of the file.
    pub bytes: u64,
    /// XXH3 (128 bits, seed 0) of the file in 32 hexadecimal digits, as `xxh128sum` prints it.
    /// `None` for a snapshot whose checksum was not recorded: the other fields and the checksums
    /// inside of the file are compared then.
    pub checksum: Option<String>,
}

fn file_checksum(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Collects the shards of a snapshot, then writes the file. Keeps the serialized bitmaps in memory:
/// at most one bit per known user.
#[derive(Debug)]
pub struct SnapshotWriter {
    meta: SnapshotMeta,
    sections: Vec<(Vec<u8>, u64)>,
}

impl SnapshotWriter {
    /// A snapshot without members.
    ///
    /// # Errors
    /// [`MembershipError::Misuse`] if `dictionary_len` does not have 256 entries.
    pub fn new(meta: SnapshotMeta) -> Result<Self, MembershipError> {
        if meta.dictionary_len.len() != SHARD_COUNT {
            return Err(MembershipError::Misuse(format!(
                "a snapshot needs 256 dictionary lengths, not {}",
                meta.dictionary_len.len()
            )));
        }
        Ok(Self { meta, sections: vec![(Vec::new(), 0); SHARD_COUNT] })
    }

    /// Sets the members of a shard, in the smallest of Roaring's forms.
    ///
    /// # Errors
    /// As [`shard_bytes`](Self::shard_bytes).
    pub fn shard(&mut self, shard: u8, mut members: RoaringBitmap) -> Result<(), MembershipError> {
        members.optimize();
        let mut bytes = Vec::with_capacity(members.serialized_size());
        if !members.is_empty() {
            members.serialize_into(&mut bytes).map_err(|e| {
                MembershipError::Misuse(format!("shard {shard} cannot be serialized: {e}"))
            })?;
        }
        self.shard_bytes(shard, bytes)
    }

    /// Sets the members of a shard from a bitmap in the portable Roaring format; no bytes mean no
    /// members.
    ///
    /// # Errors
    /// [`MembershipError::Misuse`] if the bytes are not such a bitmap, or contain an ordinal that
    /// the dictionary does not have.
    pub fn shard_bytes(&mut self, shard: u8, bytes: Vec<u8>) -> Result<(), MembershipError> {
        let index = usize::from(shard);
        if bytes.is_empty() {
            self.sections[index] = (bytes, 0);
            return Ok(());
        }
        let misuse = |problem: &str| {
            MembershipError::Misuse(format!(
                "the bitmap of shard {shard} cannot be used: {problem}"
            ))
        };
        let CheckedBitmap { members, greatest, .. } = Layout::check(&bytes).map_err(misuse)?;
        if greatest.is_some_and(|g| g >= self.meta.dictionary_len[index]) {
            return Err(misuse("it contains an ordinal that the dictionary does not have"));
        }
        self.sections[index] = if members == 0 { (Vec::new(), 0) } else { (bytes, members) };
        Ok(())
    }

    /// Writes the file: complete and durable when this returns, or absent.
    ///
    /// # Errors
    /// [`MembershipError::Io`].
    pub fn write(self, root: &Path, relative: &Path) -> Result<SnapshotSummary, MembershipError> {
        let (bytes, summary) = self.finish();
        durable::write(&root.join(relative), &bytes)?;
        Ok(summary)
    }

    fn finish(&self) -> (Vec<u8>, SnapshotSummary) {
        let members = self.sections.iter().map(|s| s.1).sum();
        let bytes = self.encode(members);
        let checksum = file_checksum(&bytes);
        let summary = SnapshotSummary { bytes: bytes.len() as u64, members, checksum };
        (bytes, summary)
    }

    fn encode(&self, members: u64) -> Vec<u8> {
        let meta = serde_json::to_vec(&self.meta)
            .expect("a struct of names, texts and numbers is always JSON");
        let directory_at = (HEADER + meta.len()).next_multiple_of(8);
        let sections_at = directory_at + DIRECTORY;
        let body: usize = self.sections.iter().map(|s| s.0.len().next_multiple_of(8)).sum();
        let mut bytes = Vec::with_capacity(sections_at + body);
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(&meta);
        bytes.resize(sections_at, 0);
        for (shard, (section, cardinality)) in self.sections.iter().enumerate() {
            if section.is_empty() {
                continue;
            }
            let entry = [bytes.len() as u64, section.len() as u64, *cardinality, xxh3_64(section)];
            for (field, number) in entry.iter().enumerate() {
                let at = directory_at + shard * ENTRY + field * 8;
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(section);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let length = bytes.len() as u64;
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(meta.len() as u32).to_le_bytes());
        let sum = xxh3_64(&bytes[HEADER..sections_at]);
        for (at, number) in [(16, length), (24, members), (32, directory_at as u64), (40, sum)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = xxh3_64(&bytes[..56]);
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// Writes a snapshot from serialized bitmaps by shard (`None` or missing: no members).
///
/// # Errors
/// As the methods of [`SnapshotWriter`].
pub fn write_snapshot(
    root: &Path,
    relative: &Path,
    meta: &SnapshotMeta,
    shards: impl IntoIterator<Item = Option<Vec<u8>>>,
) -> Result<SnapshotSummary, MembershipError> {
    writer_of(meta.clone(), shards)?.write(root, relative)
}

fn writer_of(
    meta: SnapshotMeta,
    shards: impl IntoIterator<Item = Option<Vec<u8>>>,
) -> Result<SnapshotWriter, MembershipError> {
    let mut writer = SnapshotWriter::new(meta)?;
    for (shard, bytes) in (0..=u8::MAX).zip(shards) {
        writer.shard_bytes(shard, bytes.unwrap_or_default())?;
    }
    Ok(writer)
}

/// A snapshot that is written with others.
#[derive(Debug)]
pub struct UnwrittenSnapshot {
    /// The file, relative to the folder of all.
    pub file: PathBuf,
    /// The metadata.
    pub meta: SnapshotMeta,
    /// The serialized bitmaps by shard; empty or missing: no members.
    pub shards: Vec<Vec<u8>>,
}

/// Writes snapshots as [`write_snapshot`] does, several at a time, and syncs each folder once. All are complete and
/// durable when this returns. After an error some may be, and none should be used.
///
/// # Errors
/// As the methods of [`SnapshotWriter`]: the first error.
pub fn write_snapshots(
    root: &Path,
    snapshots: Vec<UnwrittenSnapshot>,
) -> Result<Vec<SnapshotSummary>, MembershipError> {
    durable::write_all(snapshots, |UnwrittenSnapshot { file, meta, shards }| {
        let writer = writer_of(meta, shards.into_iter().map(Some))?;
        let (bytes, summary) = writer.finish();
        Ok((root.join(file), bytes, summary))
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Section {
    start: usize,
    length: usize,
    layout: Layout,
}

/// An open snapshot: every byte is checked, and it never changes.
#[derive(Debug)]
pub struct SnapshotFile {
    contents: Contents,
    meta: SnapshotMeta,
    members: u64,
    sections: Vec<Section>,
    /// As in [`SnapshotIdentity`], compared when it was opened.
    checksum: Option<String>,
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let mut buffer = [0; 8];
    buffer.copy_from_slice(bytes.get(at..at.checked_add(8)?)?);
    Some(u64::from_le_bytes(buffer))
}

impl SnapshotFile {
    /// Opens and checks a snapshot: reads all of it once.
    ///
    /// # Errors
    /// [`MembershipError::Io`], or [`MembershipError::Damaged`] if any bit differs from what was
    /// written.
    pub fn open(path: &Path) -> Result<Self, MembershipError> {
        let contents = Contents::open(path)?;
        let checked = check(contents.bytes());
        let (meta, members, sections) = checked
            .map_err(|problem| MembershipError::Damaged { path: path.to_owned(), problem })?;
        Ok(Self { contents, meta, members, sections, checksum: None })
    }

    /// As [`open`](Self::open), and checks that it is the expected snapshot. Reads all of it twice
    /// if the checksum is known.
    ///
    /// # Errors
    /// As [`open`](Self::open); also [`MembershipError::Damaged`] if it is another snapshot.
    pub fn open_as(path: &Path, identity: &SnapshotIdentity) -> Result<Self, MembershipError> {
        let file = Self::open(path)?;
        match file.difference(identity) {
            None => Ok(Self { checksum: identity.checksum.clone(), ..file }),
            Some(difference) => {
                let problem = format!("it is not the snapshot that the ledger names: {difference}");
                Err(MembershipError::Damaged { path: path.to_owned(), problem })
            }
        }
    }

    /// The first difference from the expected snapshot.
    fn difference(&self, identity: &SnapshotIdentity) -> Option<String> {
        let SnapshotIdentity { audience, version, model_fingerprint, members, bytes, checksum } =
            identity;
        let meta = &self.meta;
        if (&meta.audience, meta.version) != (audience, *version) {
            return Some(format!(
                "it contains version {} of audience `{}` instead of version {version} of `{audience}`",
                meta.version, meta.audience
            ));
        }
        if self.members != *members {
            return Some(format!("it has {} members instead of {members}", self.members));
        }
        if self.bytes() != *bytes {
            return Some(format!("it has {} bytes instead of {bytes}", self.bytes()));
        }
        if meta.model_fingerprint != *model_fingerprint {
            return Some("it was made by another model".to_owned());
        }
        let differs = |sum: &String| file_checksum(self.contents.bytes()) != *sum;
        checksum.as_ref().filter(|sum| differs(sum)).map(|_| "its checksum differs".to_owned())
    }

    /// Why the file on the disk is not the one that was opened, if so: it is missing, or has
    /// another length. Costs one `stat`; the bytes are not read.
    pub fn changed_on_disk(&self) -> Option<MembershipError> {
        self.contents.changed_on_disk()
    }

    /// Its metadata.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// How many users.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.contents.bytes().len() as u64
    }

    /// What identifies this snapshot. The checksum is that of [`open_as`](Self::open_as), if it was opened
    /// so and the checksum was known.
    pub fn identity(&self) -> SnapshotIdentity {
        SnapshotIdentity {
            audience: self.meta.audience.clone(),
            version: self.meta.version,
            model_fingerprint: self.meta.model_fingerprint.clone(),
            members: self.members,
            bytes: self.bytes(),
            checksum: self.checksum.clone(),
        }
    }

    /// The bytes of the file, which stay the same while the file is replaced or removed.
    pub fn file_bytes(&self) -> Bytes {
        self.contents.share()
    }

    /// The portable Roaring bytes of a shard; empty if it has no members.
    #[inline]
    fn shard_bytes(&self, shard: u8) -> &[u8] {
        let section = &self.sections[usize::from(shard)];
        self.contents.bytes().get(section.start..section.start + section.length).unwrap_or_default()
    }

    /// Whether a user is a member. Reads the bitmap in place: no allocation, no lock.
    #[inline]
    pub fn contains(&self, shard: u8, ordinal: u32) -> bool {
        self.sections[usize::from(shard)].layout.contains(self.shard_bytes(shard), ordinal)
    }

    /// The members of a shard, copied.
    pub fn shard_bitmap(&self, shard: u8) -> RoaringBitmap {
        let bytes = self.shard_bytes(shard);
        if bytes.is_empty() {
            return RoaringBitmap::new();
        }
        RoaringBitmap::deserialize_from(bytes).expect("`open` has checked every byte of it")
    }
}

type Checked = (SnapshotMeta, u64, Vec<Section>);

fn check(bytes: &[u8]) -> Result<Checked, String> {
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err("it is not a snapshot".to_owned());
    }
    let number = |at| u64_at(bytes, at).unwrap_or(0);
    if number(56) != xxh3_64(&bytes[..56]) {
        return Err("the checksum of its header does not match".to_owned());
    }
    let (format, meta_length) = (number(8) as u32, (number(8) >> 32) as usize);
    if format != FORMAT {
        return Err(format!("its format version {format} is not supported"));
    }
    let directory_at = (HEADER + meta_length).next_multiple_of(8);
    let sections_at = directory_at + DIRECTORY;
    if number(16) != bytes.len() as u64
        || number(32) != directory_at as u64
        || number(48) != 0
        || bytes.len() < sections_at
    {
        return Err("its length does not match its header".to_owned());
    }
    if number(40) != xxh3_64(&bytes[HEADER..sections_at]) {
        return Err("the checksum of its directory does not match".to_owned());
    }
    let meta: SnapshotMeta = serde_json::from_slice(&bytes[HEADER..HEADER + meta_length])
        .map_err(|e| format!("its meta cannot be read: {e}"))?;
    if meta.dictionary_len.len() != SHARD_COUNT {
        return Err("its meta does not have 256 dictionary lengths".to_owned());
    }
    let mut sections = Vec::with_capacity(SHARD_COUNT);
    let (mut at, mut members) = (sections_at, 0);
    for shard in 0..SHARD_COUNT {
        let entry = directory_at + shard * ENTRY;
        let fields = [number(entry), number(entry + 8), number(entry + 16), number(entry + 24)];
        if fields == [0; 4] {
            sections.push(Section::default());
            continue;
        }
        let section = check_section(bytes, at, fields, meta.dictionary_len[shard])
            .map_err(|problem| format!("shard {shard}: {problem}"))?;
        at = (section.start + section.length).next_multiple_of(8);
        if bytes
            .get(section.start + section.length..at)
            .is_none_or(|gap| gap.iter().any(|&b| b != 0))
        {
            return Err(format!("shard {shard}: it is not followed by zeros"));
        }
        members += fields[2];
        sections.push(section);
    }
    if at != bytes.len() || members != number(24) {
        return Err("its counts do not match".to_owned());
    }
    Ok((meta, members, sections))
}

fn check_section(
    bytes: &[u8],
    at: usize,
    [offset, length, cardinality, sum]: [u64; 4],
    dictionary_len: u32,
) -> Result<Section, &'static str> {
    let length = usize::try_from(length).map_err(|_| "its length is invalid")?;
    let end = at.checked_add(length).ok_or("its length is invalid")?;
    let body = bytes.get(at..end).ok_or("it is truncated")?;
    if offset != at as u64 {
        return Err("it has a wrong offset");
    }
    if xxh3_64(body) != sum {
        return Err("its checksum does not match");
    }
    let CheckedBitmap { layout, members, greatest } = Layout::check(body)?;
    if members != cardinality || members == 0 {
        return Err("its count is wrong");
    }
    if greatest.is_some_and(|g| g >= dictionary_len) {
        return Err("it contains an ordinal that the dictionary does not have");
    }
    Ok(Section { start: at, length, layout })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_or_missing_byte_is_an_error() {
        let meta = SnapshotMeta {
            audience: AudienceName::new("some").unwrap(),
            version: 1,
            model_fingerprint: "f00d".to_owned(),
            rows_read: 4,
            null_keys: 0,
            created_at: Timestamp(0),
            seed_check: 0,
            dictionary_len: vec![100_000; SHARD_COUNT],
        };
        let mut writer = SnapshotWriter::new(meta).unwrap();
        writer.shard(0, [1, 70_000].into_iter().collect()).unwrap();
        writer.shard(255, (0..5_000).collect()).unwrap();
        let good = writer.encode(5_002);
        assert!(check(&good).is_ok());
        let mut bad = good.clone();
        for at in 0..good.len() {
            bad[at] ^= 1 << (at % 8);
            assert!(check(&bad).is_err(), "bit {} of byte {at}", at % 8);
            bad[at] = good[at];
            assert!(check(&good[..at]).is_err(), "cut at {at}");
        }
        // A newer format version is not damage.
        bad[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let sum = xxh3_64(&bad[..56]).to_le_bytes();
        bad[56..64].copy_from_slice(&sum);
        let refused = check(&bad).err().unwrap();
        assert_eq!(refused, "its format version 2 is not supported");
    }
}
