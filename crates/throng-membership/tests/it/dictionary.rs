//! Dictionaries compared with a map, after a crash, and with damaged files.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use throng_membership::{
    DICTIONARY_FOLDER, MembershipError, ShardDictionary, manifest_files, unreferenced_segments,
};
use throng_model::UserHash;

use crate::support::{sorted, user};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn ordinals_are_dense_and_never_change(
        batches in prop::collection::vec((0u64..3_000, 1u64..600, 1u64..4), 1..12),
        clustered in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut expected_ordinals: BTreeMap<UserHash, u32> = BTreeMap::new();
        let mut dictionary = ShardDictionary::default();
        let mut manifest = String::new();
        let make = |n| if clustered { UserHash(9 << 56 | n) } else { user(9, n) };
        for (from, count, step) in batches {
            let hashes = sorted((0..count).map(|n| make(from + n * step)));
            let assigned = dictionary.assign(root, &hashes).unwrap();
            let before = expected_ordinals.len();
            for hash in &hashes {
                let next = expected_ordinals.len() as u32;
                expected_ordinals.entry(*hash).or_insert(next);
            }
            prop_assert_eq!(assigned.added as usize, expected_ordinals.len() - before);
            let expected: Vec<u32> = hashes.iter().map(|h| expected_ordinals[h]).collect();
            prop_assert_eq!(&assigned.ordinals, &expected);
            prop_assert_eq!(assigned.manifest.is_some(), assigned.added > 0);
            if let Some(new) = assigned.manifest {
                manifest = new;
                dictionary = dictionary.reopen(root, &manifest).unwrap();
            }
        }
        let dictionary = ShardDictionary::open(root, &manifest).unwrap();
        prop_assert_eq!(dictionary.len() as usize, expected_ordinals.len());
        prop_assert!(dictionary.segments() <= 13, "{}", dictionary.segments());
        let mut hashes: Vec<_> = expected_ordinals.iter().collect();
        hashes.sort_by_key(|(_, ordinal)| **ordinal);
        let hashes: Vec<UserHash> = hashes.into_iter().map(|(hash, _)| *hash).collect();
        prop_assert_eq!(dictionary.hashes(), hashes);
        for n in 0..5_000 {
            prop_assert_eq!(dictionary.ordinal(make(n)), expected_ordinals.get(&make(n)).copied());
        }
        prop_assert_eq!(dictionary.ordinal(UserHash(9 << 56)), expected_ordinals.get(&UserHash(9 << 56)).copied());
        prop_assert_eq!(dictionary.ordinal(UserHash(10 << 56 | 5)), None);
        for file in unreferenced_segments(root, [manifest.as_str()]).unwrap() {
            fs::remove_file(file).unwrap();
        }
        prop_assert!(ShardDictionary::open(root, &manifest).is_ok());
    }
}

#[test]
fn a_lost_swap_and_a_crash_leave_only_unreferenced_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let empty = ShardDictionary::default();
    let winner = empty.assign(root, &sorted((0..100).map(|n| user(1, n)))).unwrap();
    let loser = empty.assign(root, &sorted((50..150).map(|n| user(1, n)))).unwrap();
    let manifest = winner.manifest.unwrap();
    // A crash in the middle of a write leaves a temporary file.
    let half = root.join(DICTIONARY_FOLDER).join("01").join(".half.dict.0.1.2.tmp");
    fs::write(&half, b"THRGDICT").unwrap();

    let dictionary = ShardDictionary::open(root, &manifest).unwrap();
    let again = dictionary.assign(root, &sorted((50..150).map(|n| user(1, n)))).unwrap();
    assert_eq!((dictionary.len(), again.added), (100, 50));

    let lost = manifest_files(&loser.manifest.unwrap()).unwrap();
    let unused = unreferenced_segments(root, [again.manifest.as_deref().unwrap()]).unwrap();
    assert!(unused.contains(&half) && unused.contains(&root.join(&lost[0])), "{unused:?}");
}

#[test]
fn every_flipped_or_missing_byte_of_a_segment_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let first =
        ShardDictionary::default().assign(root, &sorted((0..20).map(|n| user(4, n)))).unwrap();
    let first = ShardDictionary::open(root, &first.manifest.unwrap()).unwrap();
    // The second is merged with the first, so that the file has an ordinals column.
    let second = first.assign(root, &sorted((20..40).map(|n| user(4, n)))).unwrap();
    let manifest = second.manifest.unwrap();
    let files = manifest_files(&manifest).unwrap();
    assert_eq!(files.len(), 1);
    let path = root.join(&files[0]);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        for bytes in [&bad, &good[..at]] {
            fs::write(&path, bytes).unwrap();
            let result = ShardDictionary::open(root, &manifest);
            assert!(matches!(result, Err(MembershipError::Damaged { .. })), "{at}");
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(ShardDictionary::open(root, &manifest), Err(MembershipError::Io { .. })));
}

#[test]
fn invalid_manifests_and_arguments_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for text in [
        "not JSON",
        "{}",
        r#"{"format":9,"shard":0,"segments":[]}"#,
        r#"{"format":1,"shard":0,"segments":[{"file":"../x","base":0,"count":1,"xxh3":"0"}]}"#,
    ] {
        let result = ShardDictionary::open(root, text);
        assert!(matches!(result, Err(MembershipError::Manifest { .. })), "{text}");
    }
    let dictionary = ShardDictionary::default();
    for hashes in
        [vec![user(1, 1), user(1, 1)], vec![UserHash(2), UserHash(1)], vec![user(1, 1), user(2, 1)]]
    {
        let result = dictionary.assign(root, &hashes);
        assert!(matches!(result, Err(MembershipError::Misuse(_))), "{hashes:?}");
    }
    let nothing = dictionary.assign(root, &[]).unwrap();
    assert_eq!((nothing.ordinals.len(), nothing.manifest), (0, None));
}
