//! What a run has changed in the delivered state of its sync.

use throng_store::{Batch, BatchState, Operation};

use crate::planned::{PlanFile, RankedEntry};
use crate::sealed::SealedError;
use crate::state::ShardState;

/// Removals of a row of which members share every identifier.
pub(crate) const SKIP_SHARED: &str = "identifiers_of_other_members";

/// A run that has ended and is not yet in the delivered state.
#[derive(Debug)]
pub struct EndedRun {
    /// Its plan.
    pub plan: PlanFile,
    /// Its batches with their outcomes.
    pub batches: Vec<Batch>,
    /// It completed. Otherwise rows without an outcome may have arrived nevertheless.
    pub completed: bool,
}

impl EndedRun {
    /// The result of a row: whether its batch has an outcome, and whether the platform refused the row.
    fn result_of(&self, operation: Operation, rank: u64) -> (bool, bool) {
        let contains_row = |b: &&Batch| {
            b.operation == operation && (b.first_rank..b.first_rank + b.rows).contains(&rank)
        };
        let Some(batch) = self.batches.iter().find(contains_row) else { return (false, false) };
        let place = rank - batch.first_rank;
        let outcome = batch.outcome.as_ref().filter(|_| batch.state == BatchState::Done);
        let refused = outcome.is_some_and(|outcome| {
            outcome.refused.iter().any(|(from, to)| (*from..*to).contains(&(place as u32)))
        });
        (outcome.is_some(), refused)
    }

    /// Applies the run to the state of a shard. A row counts as certain only if its batch has an outcome
    /// (and, in a replace session, if the session was closed): a row whose response was lost may be on the
    /// platform. If it were dropped from the state, nobody would ever remove it; if it counted as
    /// certain, nobody would send it again.
    pub(crate) fn apply(&self, shard: u8, state: &mut ShardState) -> Result<(), SealedError> {
        let replaces = self.plan.meta.put == Operation::Replace;
        if replaces && self.completed {
            *state = ShardState::default();
        } else if replaces {
            state.users.values_mut().flatten().for_each(|row| row.certain = false);
        }
        for RankedEntry { operation, rank, entry } in self.plan.shard(shard)? {
            let (done, refused) = self.result_of(operation, rank);
            let certain = done && (!replaces || self.completed);
            match (operation, entry.send, entry.removed_row) {
                (Operation::Remove, Ok(_), Some(row)) if done && !refused => {
                    state.record_removed(entry.ordinal, &row);
                }
                // Refused, or without a response. Another removal may have removed the same person.
                (Operation::Remove, Ok(_), Some(row)) => {
                    state.update_flags(entry.ordinal, &row, |row| row.certain = false);
                }
                (Operation::Remove, Err(reason), Some(row)) if reason == SKIP_SHARED => {
                    state.update_flags(entry.ordinal, &row, |row| row.shared = true);
                }
                (Operation::Remove, Err(_), Some(row)) => state.record_removed(entry.ordinal, &row),
                (Operation::Remove, ..) => {}
                (_, Ok(row), _) if !refused => state.record_added(entry.ordinal, row, certain),
                // A row that was delivered and is added again: a removal has named its person.
                (_, Ok(row), _) => {
                    state.update_flags(entry.ordinal, &row, |row| row.certain = false);
                }
                (_, Err(_), _) => {
                    if done {
                        state.without_identifiers.insert(entry.ordinal);
                    }
                }
            }
        }
        Ok(())
    }
}
