//! Checkpoints of other formats.

use xxhash_rust::xxh3::xxh3_128;

use super::super::dedupe::legacy_id_of;
use super::*;

fn insert(engine: &mut Engine, id: &str) -> bool {
    engine.seen.insert(legacy_id_of(id.as_bytes()), Timestamp(2), Timestamp(2))
}

/// The next format keeps magic, the number of its format and the checksum; everything else may
/// have another type.
#[test]
fn a_state_of_a_newer_version_is_refused_by_its_format() {
    #[derive(Clone, PartialEq, Message)]
    struct Next {
        #[prost(uint32, tag = "1")]
        format: u32,
        #[prost(string, tag = "2")]
        partition: String,
    }
    let next = Next { format: FORMAT + 1, partition: "three".to_owned() };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(next.encode_to_vec());
    append_checksum(&mut bytes);
    let newer = InvalidCheckpoint::Newer(FORMAT + 1);
    assert_eq!(Engine::named_files(&bytes).err(), Some(newer.clone()));
    let restored = Engine::restore_figures(&bytes, 3, Vec::new(), Timestamp(1), &HashMap::new());
    assert_eq!(restored.err(), Some(newer));
}

#[test]
fn ids_of_the_first_format_are_remembered() {
    let ids = |names: &[&str]| -> Vec<u8> {
        names.iter().flat_map(|name| xxh3_128(name.as_bytes()).to_le_bytes()).collect()
    };
    let none = Some(save_pooled(&Pooled::default()));
    let message = wire::Checkpoint {
        format: LONG_IDS,
        partition: 3,
        next_offset: 9,
        recent_ids: ids(&["a", "b"]),
        old_ids: ids(&["c"]),
        generation_began: 1,
        impressions: none.clone(),
        clicks: none,
        ..wire::Checkpoint::default()
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(message.encode_to_vec());
    append_checksum(&mut bytes);
    let (mut engine, offset) =
        Engine::restore(&bytes, 3, 1, 1, Vec::new(), Timestamp(1), &CheckpointFiles::default())
            .unwrap();
    assert_eq!(offset, LogPosition::from(9));
    let new = ["a", "b", "c", "d"].map(|id| insert(&mut engine, id));
    assert_eq!(new, [false, false, false, true]);
    // Written again, they have the newest format.
    let (mut engine, _) = Engine::restore(
        &engine.checkpoint(10),
        3,
        1,
        1,
        Vec::new(),
        Timestamp(1),
        &CheckpointFiles::default(),
    )
    .unwrap();
    assert!(["a", "c", "d"].iter().all(|id| !insert(&mut engine, id)));
}
