//! Snapshot files: members are read as written, and damage is an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use roaring::RoaringBitmap;
use throng_membership::{
    MembershipError, SnapshotFile, SnapshotWriter, UnwrittenSnapshot, write_snapshot,
    write_snapshots,
};

use crate::support::{meta, snapshot};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_file_has_exactly_its_members(members in prop::collection::btree_set((any::<u8>(), 0u32..1 << 20), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let list: Vec<(u8, u32)> = members.iter().copied().collect();
        let file = snapshot(folder.path(), &list);
        prop_assert_eq!(file.members(), members.len() as u64);
        let read: BTreeSet<(u8, u32)> = (0..=u8::MAX)
            .flat_map(|shard| file.shard_bitmap(shard).into_iter().map(move |o| (shard, o)))
            .collect();
        prop_assert_eq!(&read, &members);
        for &(shard, ordinal) in &list {
            prop_assert!(file.contains(shard, ordinal));
            for near in [ordinal ^ 1, ordinal ^ (1 << 16)] {
                prop_assert_eq!(file.contains(shard, near), members.contains(&(shard, near)));
            }
        }
    }
}

/// A unit test changes every byte in memory; this one some of them, through the file system.
#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = snapshot(folder.path(), &[(0, 1), (0, 70_000), (7, 3), (255, 9)]);
    assert_eq!(file.meta(), &meta("some", vec![1 << 20; 256]));
    let path = folder.path().join("some.throng");
    let good = fs::read(&path).unwrap();
    let bad_path = folder.path().join("bad.throng");
    for at in (0..good.len()).step_by(211) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        for bytes in [&bad[..], &good[..at]] {
            fs::write(&bad_path, bytes).unwrap();
            let result = SnapshotFile::open(&bad_path);
            assert!(matches!(result, Err(MembershipError::Damaged { .. })), "{at}");
        }
    }
}

#[test]
fn a_temporary_file_is_ignored_and_a_retry_replaces_a_complete_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let relative = Path::new("snapshots/a/1.throng");
    fs::create_dir_all(root.join("snapshots/a")).unwrap();
    fs::write(root.join("snapshots/a/.1.throng.00.1.0.tmp"), b"THRGSNAP").unwrap();
    let bytes = |n: u32| {
        let mut bytes = Vec::new();
        RoaringBitmap::from_iter([n]).serialize_into(&mut bytes).unwrap();
        Some(bytes)
    };
    let meta = meta("a", vec![10; 256]);
    let first = write_snapshot(root, relative, &meta, [bytes(1)]).unwrap();
    let open = SnapshotFile::open(&root.join(relative)).unwrap();
    write_snapshot(root, relative, &meta, [bytes(2)]).unwrap();
    assert!(open.contains(0, 1), "a reader that has the old file mapped keeps it");
    let again = SnapshotFile::open(&root.join(relative)).unwrap();
    assert!(again.contains(0, 2) && !again.contains(0, 1));
    assert_eq!((first.members, first.bytes), (1, again.bytes()));
}

#[test]
fn snapshots_that_are_written_together_are_the_files_of_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let shards = |n: u32| {
        let mut bytes = Vec::new();
        RoaringBitmap::from_iter(0..n).serialize_into(&mut bytes).unwrap();
        // Shard 0 has no members, shards after the second are missing.
        vec![Vec::new(), bytes]
    };
    let file = |kind: &str, n: u32| PathBuf::from(format!("snapshots/a{}/{kind}-{n}", n % 5));
    let unwritten = |n: u32| UnwrittenSnapshot {
        file: file("together", n),
        meta: meta("a", vec![40; 256]),
        shards: shards(n),
    };
    let together = write_snapshots(root, (1..40).map(unwritten).collect()).unwrap();
    for (n, together) in (1..40).zip(together) {
        let (meta, alone) = (meta("a", vec![40; 256]), file("alone", n));
        let summary = write_snapshot(root, &alone, &meta, shards(n).into_iter().map(Some)).unwrap();
        assert_eq!(summary, together);
        assert_eq!(together.members, u64::from(n));
        let read = |path| fs::read(root.join(path)).unwrap();
        assert_eq!(read(file("together", n)), read(alone));
    }
    // One that is refused fails the call.
    let mut refused = unwritten(3);
    refused.shards[1] = vec![1, 2, 3];
    let refused = write_snapshots(root, vec![unwritten(1), refused, unwritten(2)]);
    assert!(matches!(refused, Err(MembershipError::Misuse(_))), "{refused:?}");
}

#[test]
fn an_ordinal_that_is_not_in_the_dictionary_is_refused() {
    let mut writer = SnapshotWriter::new(meta("a", vec![10; 256])).unwrap();
    assert!(matches!(
        writer.shard(3, RoaringBitmap::from_iter([10])),
        Err(MembershipError::Misuse(_))
    ));
    assert!(matches!(writer.shard_bytes(3, vec![1, 2, 3]), Err(MembershipError::Misuse(_))));
    assert!(SnapshotWriter::new(meta("a", vec![10; 255])).is_err());
}
