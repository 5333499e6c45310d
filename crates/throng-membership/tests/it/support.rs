//! Helpers of these tests.

use throng_membership::{SnapshotFile, SnapshotMeta, SnapshotWriter, seed_check};
use throng_model::{AudienceName, HashSeed, Timestamp, UserHash};

pub(crate) const SEED: HashSeed = HashSeed(42);

/// User number `n` of a shard; the hashes are distributed over the shard.
pub(crate) fn user(shard: u8, n: u64) -> UserHash {
    let low = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8;
    UserHash(u64::from(shard) << 56 | low)
}

pub(crate) fn sorted(users: impl IntoIterator<Item = UserHash>) -> Vec<UserHash> {
    let mut users: Vec<UserHash> = users.into_iter().collect();
    users.sort();
    users.dedup();
    users
}

pub(crate) fn meta(audience: &str, dictionary_len: Vec<u32>) -> SnapshotMeta {
    SnapshotMeta {
        audience: AudienceName::new(audience).unwrap(),
        version: 3,
        model_fingerprint: "f00d".to_owned(),
        rows_read: 10,
        null_keys: 1,
        created_at: Timestamp(1_000),
        seed_check: seed_check(SEED),
        dictionary_len,
    }
}

/// A snapshot file with these members.
pub(crate) fn snapshot(folder: &std::path::Path, members: &[(u8, u32)]) -> SnapshotFile {
    let mut writer = SnapshotWriter::new(meta("some", vec![1 << 20; 256])).unwrap();
    for shard in 0..=u8::MAX {
        let ordinals = members.iter().filter(|m| m.0 == shard).map(|m| m.1);
        writer.shard(shard, ordinals.collect()).unwrap();
    }
    let path = std::path::Path::new("some.throng");
    writer.write(folder, path).unwrap();
    SnapshotFile::open(&folder.join(path)).unwrap()
}
