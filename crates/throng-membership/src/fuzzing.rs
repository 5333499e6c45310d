//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold
//! for what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the
//! seeds.

use std::path::Path;

use throng_model::{AudienceName, SHARD_COUNT, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::{SnapshotFile, SnapshotMeta, SnapshotWriter, manifest_files};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// A snapshot file, as it is and with valid checksums of header and directory. Each shard of a file
/// that is accepted can be read, and together they have the members that the header says.
pub fn snapshot_file(bytes: &[u8]) {
    open_snapshot(bytes);
    let mut fixed = bytes.to_vec();
    let Some((header, rest)) = fixed.split_first_chunk_mut::<64>() else { return };
    let mut meta_length = [0; 4];
    meta_length.copy_from_slice(&header[12..16]);
    let length = (u32::from_le_bytes(meta_length) as usize).saturating_add(SHARD_COUNT * 32);
    if let Some(checked) = rest.get(..length.next_multiple_of(8)) {
        header[40..48].copy_from_slice(&xxh3_64(checked).to_le_bytes());
    }
    let sum = xxh3_64(&header[..56]);
    header[56..].copy_from_slice(&sum.to_le_bytes());
    open_snapshot(&fixed);
}

fn open_snapshot(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("snapshot");
    std::fs::write(&path, bytes).expect("a temporary file");
    if let Ok(file) = SnapshotFile::open(&path) {
        let members: u64 = (0..=u8::MAX).map(|shard| file.shard_bitmap(shard).len()).sum();
        assert_eq!(members, file.members());
    }
}

/// A snapshot with a few members of two shards, and one without any.
pub fn snapshot_file_seeds() -> Vec<Vec<u8>> {
    let written = |members: &[(u8, u32)]| {
        let meta = SnapshotMeta {
            audience: AudienceName::new("some").expect("a name"),
            version: 3,
            model_fingerprint: "f00d".to_owned(),
            rows_read: 10,
            null_keys: 1,
            created_at: Timestamp(1_000),
            seed_check: 0,
            dictionary_len: vec![100_000; SHARD_COUNT],
        };
        let mut writer = SnapshotWriter::new(meta).expect("256 lengths");
        for shard in 0..=u8::MAX {
            let of_shard = members.iter().filter(|member| member.0 == shard);
            writer.shard(shard, of_shard.map(|member| member.1).collect()).expect("in range");
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        writer.write(dir.path(), Path::new("snapshot")).expect("a temporary file");
        std::fs::read(dir.path().join("snapshot")).expect("a temporary file")
    };
    let many: Vec<(u8, u32)> =
        (0..200).map(|n| (255, n * 7)).chain([(0, 1), (0, 70_000)]).collect();
    vec![written(&many), written(&[])]
}

/// A dictionary segment, as it is and with a valid checksum. One that is accepted answers for any
/// hash, with one of its own ordinals.
pub fn dictionary_segment(bytes: &[u8]) {
    open_segment(bytes);
    let mut fixed = bytes.to_vec();
    if crate::segment::fix_checksum(&mut fixed) {
        open_segment(&fixed);
    }
}

fn open_segment(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("segment"), bytes).expect("a temporary file");
    let Ok(segment) = crate::segment::Segment::open(dir.path(), "segment") else { return };
    let ordinals = segment.base..=segment.base + (segment.len() as u32 - 1);
    for rank in 0..segment.len().min(1_000) {
        assert!(segment.find(segment.hash(rank)).is_some_and(|found| ordinals.contains(&found)));
    }
    for low in [0, 1, u64::MAX >> 8, 0x0055_5555_5555_5555] {
        let hash = u64::from(segment.shard) << 56 | low;
        assert!(segment.find(hash).is_none_or(|found| ordinals.contains(&found)));
    }
}

/// Segments with and without the column of ordinals.
pub fn dictionary_segment_seeds() -> Vec<Vec<u8>> {
    let entries = |ordinals: Vec<u32>| crate::segment::Entries {
        base: 5,
        hashes: (0..ordinals.len() as u64).map(|n| 9 << 56 | n << 40).collect(),
        ordinals,
    };
    let plain = entries((5..45).collect());
    let mixed = entries((5..45).rev().collect());
    [plain, mixed].map(|entries| entries.encode(9).0).to_vec()
}

/// The manifest of a dictionary.
pub fn dictionary_manifest(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = manifest_files(text);
    }
}

/// A manifest of two segments.
pub fn dictionary_manifest_seeds() -> Vec<Vec<u8>> {
    let text = r#"{"format":1,"shard":7,"segments":[{"file":"dictionary/07/a","base":0,"count":5,"xxh3":"00000000000000ff"},{"file":"dictionary/07/b","base":5,"count":4294967295,"xxh3":"1"}]}"#;
    vec![text.as_bytes().to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_snapshots() {
        mutate::run(&snapshot_file_seeds(), 500, snapshot_file);
    }

    #[test]
    fn mutants_of_dictionary_segments() {
        mutate::run(&dictionary_segment_seeds(), 1_000, dictionary_segment);
        mutate::run(&dictionary_manifest_seeds(), 1_000, dictionary_manifest);
    }
}
