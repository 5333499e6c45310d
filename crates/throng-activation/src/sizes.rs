//! The sizes that a platform shows for an audience, and the deliveries that they are compared with. Pure.

use throng_model::{SyncMode, Timestamp, people_text};
use throng_store::{Batch, Operation, SyncRun};

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
        people_text(self.lower, self.upper)
    }
}

/// Users delivered after the batches of a run whose result is not recorded yet, where `before` users were
/// delivered before the run.
pub fn delivered_after(before: u64, batches: &[Batch]) -> u64 {
    let sent = |wanted: Operation| {
        let matching = batches.iter().filter(|batch| batch.operation == wanted);
        matching.filter_map(|batch| batch.outcome.as_ref()).map(|outcome| outcome.sent).sum::<u64>()
    };
    if batches.iter().any(|batch| batch.operation == Operation::Replace) {
        return sent(Operation::Replace);
    }
    before.saturating_add(sent(Operation::Add)).saturating_sub(sent(Operation::Remove))
}

/// Users whom runs have removed from an audience until now, in total. `before` were removed until `at`, when the
/// size before this one was read; `runs` are the newest runs. Changed identifiers count as well: the people whom the
/// platform has matched by the old ones leave the audience. Pure.
pub fn removed_until(at: Timestamp, before: u64, runs: &[SyncRun]) -> u64 {
    let ended_since = |run: &&SyncRun| run.finished_at.is_some_and(|ended| ended >= at);
    let removing = runs.iter().filter(|run| run.mode != SyncMode::Add).filter(ended_since);
    removing.fold(before, |total, run| total.saturating_add(run.removes.max(run.users_removed)))
}

#[cfg(test)]
mod tests {
    use throng_model::SyncRunId;
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

    #[test]
    fn removals_of_ended_runs_are_counted() {
        let run = |mode, finished_at, removes, users_removed| SyncRun {
            id: SyncRunId(1),
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
            finished_at,
            reason: None,
            normalised: Default::default(),
            plan: None,
            users_removed,
        };
        let runs = [
            run(SyncMode::Mirror, None, 1, 1),
            run(SyncMode::Replace, Some(Timestamp(9)), 0, 20),
            run(SyncMode::Mirror, Some(Timestamp(5)), 300, 200),
            run(SyncMode::Add, Some(Timestamp(9)), 0, 4_000),
            run(SyncMode::Mirror, Some(Timestamp(4)), 50_000, 50_000),
        ];
        assert_eq!(removed_until(Timestamp(5), 1_000_000, &runs), 1_000_320);
    }
}
