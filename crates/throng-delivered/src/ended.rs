//! What a run has changed in the delivered state of its sync.

use throng_store::{Batch, BatchOutcome, BatchState, Operation, sum_reasons};

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
    fn result_of(&self, operation: Operation, rank: u64) -> RowResult {
        let contains_row = |b: &&Batch| {
            b.operation == operation && (b.first_rank..b.first_rank + b.rows).contains(&rank)
        };
        let Some(batch) = self.batches.iter().find(contains_row) else { return RowResult::Pending };
        RowResult::of(batch, rank - batch.first_rank)
    }

    /// Whether the run has replaced the whole list: rows of earlier runs are no longer there.
    pub(crate) fn has_replaced(&self) -> bool {
        self.plan.meta.put == Operation::Replace && self.completed
    }

    /// Applies the run to the state of a shard. A row counts as certain only if its batch has an outcome
    /// (and, in a replace session, if the session was closed): a row whose response was lost may be on the
    /// platform, and so may one of a batch of which refused rows have no name, or of which rows are not confirmed. If it
    /// were dropped from the state, nobody would ever remove it; if it counted as certain, nobody would send it again.
    ///
    /// Returns whether the run may have added a row.
    pub(crate) fn apply(&self, shard: u8, state: &mut ShardState) -> Result<bool, SealedError> {
        let mut has_added = false;
        let replaces = self.plan.meta.put == Operation::Replace;
        if self.has_replaced() {
            *state = ShardState::default();
        } else if replaces {
            state.users.values_mut().flatten().for_each(|row| row.certain = false);
        }
        for RankedEntry { operation, rank, entry } in self.plan.shard(shard)? {
            let result = self.result_of(operation, rank);
            let certain = result == RowResult::Accepted && (!replaces || self.completed);
            match (operation, entry.send, entry.removed_row) {
                (Operation::Remove, Ok(_), Some(row)) if result == RowResult::Accepted => {
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
                (_, Ok(row), _) if result != RowResult::Refused => {
                    has_added = true;
                    state.record_added(entry.ordinal, row, certain);
                }
                // A row that was delivered and is added again: a removal has named its person.
                (_, Ok(row), _) => {
                    state.update_flags(entry.ordinal, &row, |row| row.certain = false);
                }
                (_, Err(_), _) => {
                    if result != RowResult::Pending {
                        state.without_identifiers.insert(entry.ordinal);
                    }
                }
            }
        }
        Ok(has_added)
    }
}

/// What is known of a row of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowResult {
    /// Its batch has no outcome.
    Pending,
    /// The platform accepted it.
    Accepted,
    /// The platform refused it.
    Refused,
    /// The platform refused rows of its batch without naming them, or did not confirm them: it may be one of them.
    Unnamed,
}

impl RowResult {
    /// The result of the row at an index of a batch.
    fn of(batch: &Batch, index: u64) -> Self {
        let outcome = batch.outcome.as_ref().filter(|_| batch.state == BatchState::Done);
        let Some(BatchOutcome { rejected, refused, .. }) = outcome else { return Self::Pending };
        if refused.iter().any(|(from, to)| (u64::from(*from)..u64::from(*to)).contains(&index)) {
            return Self::Refused;
        }
        let named: u64 = refused.iter().map(|(from, to)| u64::from(to.saturating_sub(*from))).sum();
        if sum_reasons(rejected) > named { Self::Unnamed } else { Self::Accepted }
    }
}

#[cfg(test)]
mod tests {
    use throng_store::ReasonCounts;

    use super::*;
    use crate::planned::{PHASE_ADD, PlanEntry, PlanMeta, PlanWriter};
    use crate::row::{Cell, PreparedRow};
    use crate::sealed::{Binding, IdentifierKeys, SealedWriter};

    fn row(text: &str) -> PreparedRow {
        vec![Cell::Plain(text.into())].into()
    }

    /// The state after a run that added the users 0 to 3. The platform rejected some, and named those in `refused`.
    fn added(put: Operation, rejected: u64, refused: &[(u32, u32)]) -> ShardState {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan");
        let keys = IdentifierKeys::parse(&"0a".repeat(32)).unwrap();
        let binding = || Binding {
            purpose: "plan",
            account: "a".into(),
            sync: "s".into(),
            version: "v".into(),
        };
        let sealed = SealedWriter::create(&path, &keys, binding(), [7; 32]).unwrap();
        let mut writer = PlanWriter::new(sealed);
        let mut entries: Vec<PlanEntry> = (0..4)
            .map(|ordinal| PlanEntry {
                ordinal,
                send: Ok(row(&ordinal.to_string())),
                removed_row: None,
            })
            .collect();
        entries.push(PlanEntry { ordinal: 4, send: Err("skipped".into()), removed_row: None });
        writer.shard(PHASE_ADD, 0, &entries).unwrap();
        let columns = vec!["EXTERN_ID".to_owned()];
        let meta = PlanMeta {
            put,
            keys: columns.clone(),
            remove_keys: columns,
            rows: writer.rows(),
            identifiers: String::new(),
            tables: None,
            adopts: None,
        };
        writer.finish(&meta).unwrap();
        let outcome = BatchOutcome {
            sent: 4 - rejected,
            rejected: ReasonCounts::from([("invalid".to_owned(), rejected)]),
            refused: refused.to_vec(),
            ..BatchOutcome::default()
        };
        let batch = Batch {
            number: 0,
            operation: put,
            first_rank: 0,
            rows: 5,
            state: BatchState::Done,
            outcome: Some(outcome),
        };
        let plan = PlanFile::open(&path, &keys, binding()).unwrap();
        let mut state = ShardState::default();
        let run = EndedRun { plan, batches: vec![batch], completed: true };
        run.apply(0, &mut state).unwrap();
        state
    }

    #[test]
    fn rows_beside_refused_ones_without_a_name_are_not_certain() {
        for put in [Operation::Add, Operation::Replace] {
            for (rejected, refused, uncertain) in [
                (0, &[][..], 0),
                (2, &[(1, 2), (3, 4)][..], 0),
                (2, &[(1, 2)][..], 3),
                (1, &[][..], 4),
            ] {
                let state = added(put, rejected, refused);
                let rows: Vec<_> = state.users.values().flatten().collect();
                let named = refused.len();
                assert_eq!(rows.len(), 4 - named, "{put:?} {rejected} {refused:?}");
                let found = rows.iter().filter(|row| !row.certain).count();
                assert_eq!(found, uncertain, "{put:?} {rejected} {refused:?}");
                assert!(state.without_identifiers.contains(4));
            }
        }
    }
}
