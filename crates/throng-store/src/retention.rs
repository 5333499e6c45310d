//! Which snapshots of an audience are kept. Pure.

use std::collections::BTreeSet;

use crate::{Snapshot, SnapshotState};

/// The versions of an audience to delete. Kept are: the served one, the newest `keep` published ones, at least one, every
/// pinned one (a sync has delivered it, or a run uses it), and held ones that are newer than the oldest of the newest
/// `keep`. Rejected ones are not kept.
pub fn expired_versions(
    snapshots: &[Snapshot],
    served: Option<u64>,
    keep: u32,
    pinned: &BTreeSet<u64>,
) -> Vec<u64> {
    let mut published: Vec<u64> = snapshots
        .iter()
        .filter(|s| s.state == SnapshotState::Published)
        .map(|s| s.version)
        .collect();
    published.sort_unstable_by(|a, b| b.cmp(a));
    // At least the newest one: after a rollback an older one is served, and a person may return to
    // the newest.
    published.truncate(keep.max(1) as usize);
    // 0 if nothing is published: a first snapshot that is held must not expire.
    let oldest = published.last().copied().unwrap_or(0);
    let mut expired: Vec<u64> = snapshots
        .iter()
        .filter(|s| Some(s.version) != served && !pinned.contains(&s.version))
        .filter(|s| match s.state {
            SnapshotState::Published | SnapshotState::Held => s.version < oldest,
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
    fn nothing_is_deleted_up_to_the_limit() {
        let all = [(1, Published), (2, Published)];
        assert!(expired_versions(&kept(&all), Some(2), 10, &BTreeSet::new()).is_empty());
        // Zero keeps one.
        assert_eq!(expired_versions(&kept(&all), Some(2), 0, &BTreeSet::new()), [1]);
    }
}
