//! The sizes that a platform shows for an audience, and the deliveries that they are compared with. Pure.

use throng_model::{SyncMode, SyncRunId, Timestamp, people_text};
use throng_store::{Batch, Operation, SizeRecord, SyncRun};

/// The size of an audience at one time, and what was delivered then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizePoint {
    /// When the size was read.
    pub at: Timestamp,
    /// Users delivered to the platform at that time.
    pub delivered: u64,
    /// At least this many people, if the platform shows it.
    pub lower: Option<u64>,
    /// At most this many people, if the platform shows it.
    pub upper: Option<u64>,
    /// The platform was still processing an upload.
    pub settling: bool,
    /// Users whom runs have removed until then, in total; `None` if they were not counted.
    pub removed: Option<u64>,
}

impl SizePoint {
    /// The platform answered with a size.
    pub(crate) fn has_size(&self) -> bool {
        self.lower.is_some() || self.upper.is_some()
    }

    /// The size as text.
    pub(crate) fn shown(&self) -> String {
        people_text(self.lower, self.upper, |number| number.to_string())
    }
}

/// Users delivered after the batches of a run whose result is not recorded yet, where `before` users were
/// delivered before the run.
pub(crate) fn delivered_after(before: u64, batches: &[Batch]) -> u64 {
    let sent = |wanted: Operation| {
        let matching = batches.iter().filter(|batch| batch.operation == wanted);
        matching.filter_map(|batch| batch.outcome.as_ref()).map(|outcome| outcome.sent).sum::<u64>()
    };
    if batches.iter().any(|batch| batch.operation == Operation::Replace) {
        return sent(Operation::Replace);
    }
    before.saturating_add(sent(Operation::Add)).saturating_sub(sent(Operation::Remove))
}

/// Users whom runs have removed from an audience until now, in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovalCount {
    /// The users.
    pub(crate) users: u64,
    /// The newest run that is counted, if there is one: the next count continues after it.
    pub(crate) run: Option<SyncRunId>,
}

/// Counts the users whom runs have removed from an audience. The count continues that of the newest of the audience's
/// `sizes` that has one; if none has, it begins after the newest, and if there is none, now. `runs` are the newest
/// runs of the sync. Its runs end in the order of their ids, because only one of them is open at a time. Changed
/// identifiers count as well: the people whom the platform has matched by the old ones leave the audience. Pure.
pub(crate) fn removed_until(
    sizes: &[SizeRecord],
    platform_id: &str,
    runs: &[SyncRun],
) -> RemovalCount {
    let of_audience = sizes.iter().rev().filter(|size| size.platform_id == platform_id);
    let of_audience: Vec<&SizeRecord> = of_audience.collect();
    let counted = of_audience.iter().find_map(|size| Some((*size, size.removed?)));
    let start = counted.or(of_audience.first().map(|size| (*size, 0)));
    let ended = runs.iter().filter(|run| run.finished_at.is_some());
    let newest = ended.clone().map(|run| run.id).max();
    let Some((size, before)) = start else { return RemovalCount { users: 0, run: newest } };
    let is_later = |run: &&SyncRun| match size.removed_run {
        Some(counted) => run.id > counted,
        None => run.finished_at.is_some_and(|ended| ended >= size.at),
    };
    let removing = ended.filter(is_later).filter(|run| run.mode != SyncMode::Add);
    let users = removing
        .fold(before, |total, run| total.saturating_add(run.removes.max(run.users_removed)));
    RemovalCount { users, run: newest.max(size.removed_run) }
}

#[cfg(test)]
mod tests {
    use throng_store::{BatchOutcome, BatchState, RunState};

    use super::*;

    #[test]
    fn deliveries_that_are_not_recorded_yet_are_counted_from_batches() {
        let batch = |operation, sent| Batch {
            number: 0,
            operation,
            first_rank: 0,
            rows: sent,
            state: BatchState::Done,
            outcome: Some(BatchOutcome { sent, ..BatchOutcome::default() }),
        };
        let mirror = [batch(Operation::Add, 30), batch(Operation::Remove, 10)];
        assert_eq!(delivered_after(100, &mirror), 120);
        assert_eq!(delivered_after(0, &mirror[1..]), 0);
        assert_eq!(delivered_after(100, &[batch(Operation::Replace, 7)]), 7);
        assert_eq!(delivered_after(100, &[]), 100);
    }

    fn run(id: i64, mode: SyncMode, finished_at: Option<i64>, removed: (u64, u64)) -> SyncRun {
        let (removes, users_removed) = removed;
        SyncRun {
            id: SyncRunId(id),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode,
            from_version: None,
            to_version: 1,
            state: RunState::Completed,
            adds: 0,
            removes,
            read: removes,
            sent: removes,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: 0,
            created_at: Timestamp(0),
            finished_at: finished_at.map(Timestamp),
            reason: None,
            normalised: Default::default(),
            plan: None,
            users_removed,
        }
    }

    fn size(at: i64, removed: Option<u64>, removed_run: Option<i64>) -> SizeRecord {
        SizeRecord {
            sync: "s".parse().unwrap(),
            account: "meta/12".to_owned(),
            platform_id: "77".to_owned(),
            at: Timestamp(at),
            lower: None,
            upper: None,
            delivered: 0,
            settling: false,
            removed,
            removed_run: removed_run.map(SyncRunId),
        }
    }

    fn count(users: u64, run: i64) -> RemovalCount {
        RemovalCount { users, run: Some(SyncRunId(run)) }
    }

    /// The newest runs first.
    fn runs() -> [SyncRun; 5] {
        [
            run(5, SyncMode::Mirror, None, (1, 1)),
            run(4, SyncMode::Add, Some(9), (0, 4_000)),
            run(3, SyncMode::Replace, Some(9), (0, 20)),
            run(2, SyncMode::Mirror, Some(5), (300, 200)),
            run(1, SyncMode::Mirror, Some(4), (50_000, 50_000)),
        ]
    }

    #[test]
    fn removals_of_ended_runs_are_counted_once() {
        let counted = |counted_run| {
            let sizes = [size(2, Some(7), None), size(5, Some(1_000_000), counted_run)];
            removed_until(&sizes, "77", &runs())
        };
        assert_eq!(counted(Some(1)), count(1_000_320, 4));
        // It ended at the time of the size, and its end was recorded before or after that.
        assert_eq!(counted(Some(2)), count(1_000_020, 4));
        assert_eq!(counted(Some(4)), count(1_000_000, 4));
        assert_eq!(counted(Some(9)), count(1_000_000, 9), "no run is counted again");
        assert_eq!(counted(None), count(1_000_320, 4), "by time");
        // A run that ended before the size was read, and was not among the ended ones yet.
        let late = [size(8, Some(100), Some(1))];
        assert_eq!(removed_until(&late, "77", &runs()), count(420, 4));
        let open = &runs()[..1];
        assert_eq!(removed_until(&late, "77", open), count(100, 1));
    }

    #[test]
    fn a_count_begins_with_the_first_size_or_after_the_newest_without_one() {
        assert_eq!(removed_until(&[], "77", &runs()), count(0, 4));
        assert_eq!(removed_until(&[], "77", &[]), RemovalCount { users: 0, run: None });
        // Sizes that an earlier version read.
        let uncounted = [size(1, None, None), size(5, None, None)];
        assert_eq!(removed_until(&uncounted, "77", &runs()), count(320, 4));
        // A node of an earlier version read one in between.
        let mixed = [size(4, Some(100), Some(2)), size(9, None, None)];
        assert_eq!(removed_until(&mixed, "77", &runs()), count(120, 4));
        // Those of another audience do not count.
        assert_eq!(removed_until(&mixed, "78", &runs()), count(0, 4));
    }
}
