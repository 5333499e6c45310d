//! Lookups compared with sets of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;
use throng_membership::{
    MembershipError, MembershipIndex, ShardDictionary, SnapshotFile, SnapshotWriter,
};
use throng_model::{AudienceName, HashSeed, UserHash, UserKey};

use crate::support::{SEED, meta};

type Snapshots = Vec<(AudienceName, Arc<SnapshotFile>)>;

fn hash(n: u32) -> UserHash {
    UserKey::integer(i128::from(n)).hash(SEED)
}

fn build(
    root: &Path,
    audiences: &BTreeMap<&str, BTreeSet<u32>>,
) -> (Vec<Option<ShardDictionary>>, Snapshots) {
    let mut by_shard: Vec<BTreeSet<UserHash>> = vec![BTreeSet::new(); 256];
    for &n in audiences.values().flatten() {
        by_shard[usize::from(hash(n).shard())].insert(hash(n));
    }
    let dictionaries: Vec<Option<ShardDictionary>> = by_shard
        .into_iter()
        .map(|hashes| {
            let hashes: Vec<UserHash> = hashes.into_iter().collect();
            let manifest = ShardDictionary::default().assign(root, &hashes).unwrap().manifest?;
            Some(ShardDictionary::open(root, &manifest).unwrap())
        })
        .collect();
    let lens = dictionaries.iter().map(|d| d.as_ref().map_or(0, ShardDictionary::len)).collect();
    let meta = meta("any", lens);
    let snapshots = audiences.iter().map(|(name, members)| {
        let mut bitmaps = vec![RoaringBitmap::new(); 256];
        for &n in members {
            let shard = usize::from(hash(n).shard());
            let ordinal = dictionaries[shard].as_ref().unwrap().ordinal(hash(n)).unwrap();
            bitmaps[shard].insert(ordinal);
        }
        let mut writer = SnapshotWriter::new(meta.clone()).unwrap();
        for (shard, bitmap) in (0..=u8::MAX).zip(bitmaps) {
            writer.shard(shard, bitmap).unwrap();
        }
        writer.write(root, Path::new(name)).unwrap();
        let file = SnapshotFile::open(&root.join(name)).unwrap();
        (AudienceName::new(*name).unwrap(), Arc::new(file))
    });
    let snapshots = snapshots.collect();
    (dictionaries, snapshots)
}

#[test]
fn every_user_has_the_right_audiences() {
    let folder = tempfile::tempdir().unwrap();
    let audiences = BTreeMap::from([
        ("even", (0..6_000).step_by(2).collect::<BTreeSet<u32>>()),
        ("few", BTreeSet::from([3, 4])),
        ("none", BTreeSet::new()),
        ("thirds", (0..6_000).step_by(3).collect()),
    ]);
    let (dictionaries, snapshots) = build(folder.path(), &audiences);
    let index = MembershipIndex::new(SEED, dictionaries, snapshots).unwrap();
    let users: Vec<UserHash> = (0..7_000).map(hash).collect();
    let batch = index.batch(&users);
    for (n, found) in (0u32..).zip(&batch) {
        let expected: Vec<&str> =
            audiences.iter().filter(|a| a.1.contains(&n)).map(|a| *a.0).collect();
        let one: Vec<&str> = index.audiences_of(hash(n)).iter().map(|a| a.as_str()).collect();
        let many: Vec<&str> = found.iter().map(|&id| index.name(id).unwrap().as_str()).collect();
        assert_eq!((&one, &many), (&expected, &expected), "user {n}");
        for (name, members) in &audiences {
            let name = AudienceName::new(*name).unwrap();
            assert_eq!(index.contains(hash(n), &name), members.contains(&n));
        }
    }
    assert_eq!(index.users(), 4_000);
    let members: Vec<u64> = index.snapshots().map(|(_, file)| file.members()).collect();
    assert_eq!(members, [3_000, 2, 0, 2_000]);
    assert_eq!(MembershipIndex::empty(SEED).audiences_of(hash(1)).len(), 0);
}

#[test]
fn snapshots_of_another_deployment_or_a_newer_dictionary_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let audiences = BTreeMap::from([("some", BTreeSet::from([1, 2, 3]))]);
    let (dictionaries, snapshots) = build(folder.path(), &audiences);
    let other = MembershipIndex::new(HashSeed(7), dictionaries.clone(), snapshots.clone());
    assert!(matches!(other, Err(MembershipError::OtherSeed { .. })));
    let old = MembershipIndex::new(SEED, Vec::new(), snapshots.clone());
    assert!(matches!(old, Err(MembershipError::DictionaryTooOld { .. })));
    let twice = [snapshots.clone(), snapshots].concat();
    assert!(MembershipIndex::new(SEED, dictionaries, twice).is_err());
}

/// A gate in another process opens the bytes that another index has open.
#[test]
fn an_index_of_copied_bytes_is_the_same_index() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let audiences = BTreeMap::from([("a", (0..300).collect()), ("b", (200..900).collect())]);
    let (dictionaries, snapshots) = build(here.path(), &audiences);
    let copied_dictionaries = dictionaries.iter().map(|dictionary| {
        let dictionary = dictionary.as_ref()?;
        for file in dictionary.files() {
            let path = there.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, dictionary.file_bytes(file).unwrap()).unwrap();
        }
        assert!(dictionary.file_bytes("dictionary/none").is_none());
        Some(ShardDictionary::open(there.path(), &dictionary.manifest()).unwrap())
    });
    let copied_dictionaries = copied_dictionaries.collect();
    let copied_snapshots = snapshots.iter().map(|(name, file)| {
        let path = there.path().join(name.as_str());
        std::fs::write(&path, file.file_bytes()).unwrap();
        let copy = SnapshotFile::open_as(&path, &file.identity()).unwrap();
        (name.clone(), Arc::new(copy))
    });
    let copied_snapshots = copied_snapshots.collect();
    let original = MembershipIndex::new(SEED, dictionaries, snapshots).unwrap();
    let copy = MembershipIndex::new(SEED, copied_dictionaries, copied_snapshots).unwrap();
    assert_eq!(copy.fingerprint(), original.fingerprint());
    for n in 0..1_000 {
        assert_eq!(copy.audiences_of(hash(n)), original.audiences_of(hash(n)), "{n}");
    }
    let fingerprint = original.fingerprint().to_owned();
    let missing = original.with_missing(vec![AudienceName::new("c").unwrap()]);
    assert_ne!(missing.fingerprint(), fingerprint);
    assert_ne!(MembershipIndex::empty(SEED).fingerprint(), fingerprint);
    let other_seed = MembershipIndex::empty(HashSeed(1));
    assert_ne!(other_seed.fingerprint(), MembershipIndex::empty(SEED).fingerprint());
}
