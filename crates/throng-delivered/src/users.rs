//! The users of a run, and their ranks in it.

use throng_membership::MemberSet;
use throng_model::SyncMode;
use throng_store::Operation;

/// Users before and after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserCounts {
    /// Users on the platform before the run.
    pub before: u64,
    /// Those of them who are not on it after the run.
    pub removed: u64,
}

/// The users that a run adds, removes or sends in a replace session, each with a rank: the position in
/// (shard, ordinal) order. Computed from immutable snapshots, so it is the same after a crash.
///
/// Memory: at most one bit for each known user and direction.
#[derive(Debug, Clone)]
pub struct RunUsers {
    adds: MemberSet,
    removes: MemberSet,
    replaces: bool,
}

impl RunUsers {
    /// Computes the users of a run. `held` are the snapshots that the platform may hold, in whole or in
    /// part: the delivered one, and the targets of runs that failed since. A user in all of `held` is on
    /// the platform for certain; a user in any of them may be.
    ///
    /// Replacing a list by an empty one removes everybody, because platforms accept no empty upload.
    pub fn compute(mode: SyncMode, target: &MemberSet, held: &[MemberSet]) -> Self {
        let nobody = MemberSet::new(Vec::new());
        let Some((first, rest)) = held.split_first() else {
            return Self {
                adds: target.clone(),
                removes: nobody,
                replaces: mode == SyncMode::Replace && !target.is_empty(),
            };
        };
        let replaces = mode == SyncMode::Replace && !target.is_empty();
        let certain = rest.iter().fold(first.clone(), |all, set| all.intersect(set));
        let possible = rest.iter().fold(first.clone(), |all, set| all.union(set));
        Self {
            adds: if replaces { target.clone() } else { target.minus(&certain) },
            removes: if replaces || mode == SyncMode::Add {
                nobody
            } else {
                possible.minus(target)
            },
            replaces,
        }
    }

    /// The operation that adds users: `Add`, or `Replace` in a replace session.
    pub fn add_operation(&self) -> Operation {
        if self.replaces { Operation::Replace } else { Operation::Add }
    }

    /// Users to add.
    pub fn adds(&self) -> u64 {
        self.adds.len()
    }

    /// Users to remove.
    pub fn removes(&self) -> u64 {
        self.removes.len()
    }

    /// The user's operation and rank, if the run sends the user.
    pub fn rank(&self, shard: u8, ordinal: u32) -> Option<(Operation, u64)> {
        if let Some(rank) = self.adds.rank(shard, ordinal) {
            return Some((self.add_operation(), rank));
        }
        self.removes.rank(shard, ordinal).map(|rank| (Operation::Remove, rank))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roaring::RoaringBitmap;

    use super::*;

    fn set(values: &[u32]) -> MemberSet {
        let mut shards = vec![RoaringBitmap::new(); 256];
        for value in values {
            shards[(value % 256) as usize].insert(*value);
        }
        MemberSet::new(shards)
    }

    #[test]
    fn a_mirror_adds_and_removes_the_difference() {
        let users = RunUsers::compute(SyncMode::Mirror, &set(&[1, 2, 259]), &[set(&[2, 4])]);
        assert_eq!((users.adds(), users.removes()), (2, 1));
        assert_eq!(users.rank(1, 1), Some((Operation::Add, 0)));
        assert_eq!(users.rank(3, 259), Some((Operation::Add, 1)));
        assert_eq!(users.rank(4, 4), Some((Operation::Remove, 0)));
        assert_eq!(users.rank(2, 2), None);
    }

    #[test]
    fn the_possible_effects_of_a_failed_run_are_corrected() {
        // 1 was delivered; a failed run to {2} may have removed 1 and added 2.
        let users = RunUsers::compute(SyncMode::Mirror, &set(&[1]), &[set(&[1]), set(&[2])]);
        assert_eq!(users.rank(1, 1), Some((Operation::Add, 0)));
        assert_eq!(users.rank(2, 2), Some((Operation::Remove, 0)));
    }

    #[test]
    fn replacing_by_an_empty_list_removes_everybody() {
        let users = RunUsers::compute(SyncMode::Replace, &set(&[]), &[set(&[1, 2])]);
        assert_eq!((users.adds(), users.removes()), (0, 2));
        let users = RunUsers::compute(SyncMode::Replace, &set(&[1, 3]), &[set(&[1, 2])]);
        assert_eq!((users.adds(), users.removes()), (2, 0));
        assert_eq!(users.rank(3, 3), Some((Operation::Replace, 1)));
    }

    proptest! {
        #[test]
        fn ranks_are_dense_and_the_mirror_ends_at_the_target(
            old in proptest::collection::btree_set(0u32..2_000, 0..200),
            new in proptest::collection::btree_set(0u32..2_000, 0..200),
        ) {
            let (o, n): (Vec<u32>, Vec<u32>) = (old.iter().copied().collect(), new.iter().copied().collect());
            let users = RunUsers::compute(SyncMode::Mirror, &set(&n), &[set(&o)]);
            let mut held = old;
            let (mut adds, mut removes) = (vec![], vec![]);
            for v in 0u32..2_000 {
                match users.rank((v % 256) as u8, v) {
                    Some((Operation::Remove, rank)) => { held.remove(&v); removes.push(rank) }
                    Some((_, rank)) => { held.insert(v); adds.push(rank) }
                    None => {}
                }
            }
            adds.sort_unstable();
            removes.sort_unstable();
            prop_assert_eq!(held, new);
            prop_assert_eq!(adds, (0..users.adds()).collect::<Vec<_>>());
            prop_assert_eq!(removes, (0..users.removes()).collect::<Vec<_>>());
        }
    }
}
