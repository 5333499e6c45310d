//! Set algebra and ranks compared with ordered sets.

use std::collections::BTreeSet;

use proptest::prelude::*;
use roaring::RoaringBitmap;
use throng_membership::MemberSet;

use crate::support::snapshot;

type Model = BTreeSet<(u8, u32)>;

fn set(model: &Model) -> MemberSet {
    let shard = |shard| model.iter().filter(|m| m.0 == shard).map(|m| m.1).collect();
    MemberSet::new((0..=u8::MAX).map(shard).collect::<Vec<RoaringBitmap>>())
}

fn collect(set: &MemberSet) -> Model {
    set.iter().collect()
}

fn members() -> impl Strategy<Value = Model> {
    let shards = prop::sample::select(vec![0u8, 1, 7, 254, 255]);
    prop::collection::btree_set((shards, prop_oneof![0u32..200, 60_000u32..70_000]), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn algebra_and_ranks(a in members(), b in members(), from in 0u64..320, count in 0u64..320) {
        let (left, right) = (set(&a), set(&b));
        prop_assert_eq!(collect(&left.union(&right)), a.union(&b).copied().collect::<Model>());
        prop_assert_eq!(collect(&left.intersect(&right)), a.intersection(&b).copied().collect::<Model>());
        prop_assert_eq!(collect(&left.minus(&right)), a.difference(&b).copied().collect::<Model>());
        prop_assert_eq!(left.len(), a.len() as u64);
        let order: Vec<(u8, u32)> = a.iter().copied().collect();
        for (rank, &(shard, ordinal)) in order.iter().enumerate() {
            prop_assert_eq!(left.rank(shard, ordinal), Some(rank as u64));
        }
        for &(shard, ordinal) in b.difference(&a) {
            prop_assert_eq!(left.rank(shard, ordinal), None);
        }
        let cut: Vec<(u8, u32)> = left.by_rank(from..from + count).collect();
        let model: Vec<(u8, u32)> =
            order.into_iter().skip(from as usize).take(count as usize).collect();
        prop_assert_eq!(cut, model);
    }

    #[test]
    fn a_set_of_a_snapshot_has_its_members(members in members()) {
        let folder = tempfile::tempdir().unwrap();
        let list: Vec<(u8, u32)> = members.iter().copied().collect();
        let read = MemberSet::of_snapshot(&snapshot(folder.path(), &list));
        prop_assert_eq!(collect(&read), members.clone());
        prop_assert_eq!(read, set(&members));
    }
}
