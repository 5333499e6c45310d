//! Which snapshots of an audience are kept. Pure.

use std::collections::BTreeSet;

use crate::{Snapshot, SnapshotState};

/// The versions of an audience to delete. Kept are: the served one, the newest `keep` published ones, at least one, every
/// pinned one (a sync has delivered it, or a run uses it), and of the held ones the newest `keep`, at least one, that are
/// newer than the oldest of the published ones: where the source stays wrong, each refresh is held, and nothing else would
/// bound them. Rejected ones are not kept.
pub fn expired_versions(
    snapshots: &[Snapshot],
    served: Option<u64>,
    keep: u32,
    pinned: &BTreeSet<u64>,
) -> Vec<u64> {
    // The oldest version of a state that is kept. 0 if there is none: a first snapshot that is held must not expire.
    let oldest = |state: SnapshotState| {
        let of_state = snapshots.iter().filter(|s| s.state == state);
        let mut versions: Vec<u64> = of_state.map(|s| s.version).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        // At least the newest one: after a rollback an older one is served, and a person may return to
        // the newest.
        versions.truncate(keep.max(1) as usize);
        versions.last().copied().unwrap_or(0)
    };
    let (published, held) = (oldest(SnapshotState::Published), oldest(SnapshotState::Held));
    let mut expired: Vec<u64> = snapshots
        .iter()
        .filter(|s| Some(s.version) != served && !pinned.contains(&s.version))
        .filter(|s| match s.state {
            SnapshotState::Published => s.version < published,
            SnapshotState::Held => s.version < published.max(held),
            SnapshotState::Rejected => true,
        })
        .map(|s| s.version)
        .collect();
    expired.sort_unstable();
    expired
}

#[cfg(test)]
mod tests {
    use throng_model::{RefreshId, Timestamp};

    use super::*;

    fn kept(states: &[(u64, SnapshotState)]) -> Vec<Snapshot> {
        let snapshot = |(version, state): &(u64, SnapshotState)| Snapshot {
            audience: "a".parse().unwrap(),
            version: *version,
            state: *state,
            path: String::new(),
            members: 1,
            rows_read: 1,
            null_keys: 0,
            bytes: 1,
            checksum: None,
            tables: None,
            inputs: None,
            model_fingerprint: String::new(),
            refresh: RefreshId(1),
            created_at: Timestamp(0),
        };
        states.iter().map(snapshot).collect()
    }

    use SnapshotState::{Held, Published, Rejected};

    #[test]
    fn the_newest_the_served_and_the_pinned_versions_are_kept() {
        let all: Vec<_> = (1..=9).map(|v| (v, Published)).collect();
        let pinned = BTreeSet::from([3]);
        assert_eq!(expired_versions(&kept(&all), Some(1), 2, &pinned), [2, 4, 5, 6, 7]);
    }

    #[test]
    fn held_versions_are_kept_while_they_are_newer_than_a_kept_one() {
        let all = [(1, Held), (2, Published), (3, Published), (4, Rejected), (5, Held)];
        assert_eq!(expired_versions(&kept(&all), Some(3), 2, &BTreeSet::new()), [1, 4]);
        assert_eq!(expired_versions(&kept(&all), Some(3), 1, &BTreeSet::new()), [1, 2, 4]);
    }

    #[test]
    fn of_many_held_versions_the_newest_are_kept() {
        let held = |from: u64| (from..=6).map(|version| (version, Held));
        let all: Vec<_> = std::iter::once((1, Published)).chain(held(2)).collect();
        assert_eq!(expired_versions(&kept(&all), Some(1), 2, &BTreeSet::new()), [2, 3, 4]);
        // Also if nothing was ever published, and zero keeps one.
        let all: Vec<_> = held(1).collect();
        assert_eq!(expired_versions(&kept(&all), None, 4, &BTreeSet::new()), [1, 2]);
        assert_eq!(expired_versions(&kept(&all), None, 0, &BTreeSet::new()), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn nothing_is_deleted_up_to_the_limit() {
        let all = [(1, Published), (2, Published)];
        assert!(expired_versions(&kept(&all), Some(2), 10, &BTreeSet::new()).is_empty());
        // Zero keeps one.
        assert_eq!(expired_versions(&kept(&all), Some(2), 0, &BTreeSet::new()), [1]);
    }
}
