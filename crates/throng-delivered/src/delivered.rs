//! What was delivered for a sync: its recorded state, and the runs that ended since.

use std::path::Path;

use throng_model::SHARD_COUNT;

use crate::columns::{DeliveredColumns, RowColumns};
use crate::ended::EndedRun;
use crate::sealed::{Binding, IdentifierKeys, SealedError, SealedWriter};
use crate::state::{DeliveredState, ShardState, StateMeta, StateWriter};

/// What was delivered to the platform: the recorded state, and the runs that ended since, oldest first.
#[derive(Debug)]
pub struct Delivered {
    /// The recorded state.
    pub state: DeliveredState,
    /// The runs that ended since it was recorded.
    pub runs: Vec<EndedRun>,
}

impl Delivered {
    /// The rows of a shard.
    pub(crate) fn shard(&self, shard: u8) -> Result<ShardState, SealedError> {
        Ok(self.shard_with_columns(shard)?.0)
    }

    /// The rows of a shard and their columns. While columns change it needs the memory of two shards.
    fn shard_with_columns(&self, shard: u8) -> Result<(ShardState, RowColumns<'_>), SealedError> {
        let mut state = self.state.shard(shard)?;
        let meta = &self.state.meta;
        let mut columns = match (state.users.is_empty(), meta.has_several_columns) {
            (true, _) => RowColumns::NoRows,
            (false, true) => RowColumns::Several,
            (false, false) => RowColumns::Same(&meta.keys),
        };
        for run in &self.runs {
            let keys = run.plan.meta.keys.as_slice();
            let has_replaced = run.has_replaced();
            let is_mixed = !has_replaced && columns.is_mixed_with(keys);
            let before = is_mixed.then(|| state.clone());
            let has_added = run.apply(shard, &mut state)?;
            let has_old = match before {
                Some(before) => state.has_row_of(&before),
                None => !has_replaced && !state.users.is_empty(),
            };
            let old = if has_old { columns } else { RowColumns::NoRows };
            columns = if has_added { old.and(RowColumns::Same(keys)) } else { old };
        }
        Ok((state, columns))
    }

    /// The columns of all delivered rows. Reads the rows only if the columns have changed since the state was recorded.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn columns(&self) -> Result<DeliveredColumns, SealedError> {
        let meta = &self.state.meta;
        let has_same = self.runs.iter().all(|run| run.plan.meta.keys == meta.keys);
        if self.runs.is_empty() || (has_same && !meta.has_several_columns) {
            let (keys, has_several) = (meta.keys.clone(), meta.has_several_columns);
            return Ok(DeliveredColumns { keys, has_several });
        }
        let mut columns = RowColumns::NoRows;
        for shard in 0..SHARD_COUNT {
            columns = columns.and(self.shard_with_columns(shard as u8)?.1);
        }
        Ok(self.named(columns))
    }

    fn named(&self, columns: RowColumns<'_>) -> DeliveredColumns {
        let newest = self.runs.last().map_or(&self.state.meta.keys, |run| &run.plan.meta.keys);
        let keys = if let RowColumns::Same(keys) = columns { keys } else { newest.as_slice() };
        DeliveredColumns { keys: keys.to_vec(), has_several: columns == RowColumns::Several }
    }

    /// Writes the state with the ended runs applied to a new file.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn write(
        &self,
        path: &Path,
        keys: &IdentifierKeys,
        binding: Binding,
        salt: [u8; 32],
    ) -> Result<StateMeta, SealedError> {
        let mut writer = StateWriter::new(SealedWriter::create(path, keys, binding, salt)?);
        let mut columns = RowColumns::NoRows;
        for shard in 0..SHARD_COUNT {
            let (state, of_shard) = self.shard_with_columns(shard as u8)?;
            columns = columns.and(of_shard);
            writer.shard(shard as u8, &state)?;
        }
        writer.finish(self.named(columns))
    }
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;
    use throng_membership::MemberSet;
    use throng_model::{SyncMode, UserHash};
    use throng_store::{Batch, BatchOutcome, BatchState, Operation};

    use super::*;
    use crate::planned::PlanFile;
    use crate::{
        Cell, Difference, DifferenceFacts, IdentifierRow, Reasons, ScanWriter, UserCounts,
        count_users, difference,
    };

    /// The outcome of a run.
    #[derive(Clone, Copy, PartialEq)]
    enum Outcome {
        Accepted,
        /// The platform refuses every removal.
        Refused,
        /// No batch was sent.
        Failed,
    }

    struct History {
        dir: tempfile::TempDir,
        delivered: Delivered,
        files: u8,
    }

    fn names(columns: &[&str]) -> Vec<String> {
        columns.iter().map(|name| (*name).to_owned()).collect()
    }

    fn secret() -> IdentifierKeys {
        IdentifierKeys::parse(&"ab".repeat(32)).unwrap()
    }

    impl History {
        fn new() -> Self {
            let delivered =
                Delivered { state: DeliveredState::empty(names(&["EMAIL"])), runs: Vec::new() };
            Self { dir: tempfile::tempdir().unwrap(), delivered, files: 0 }
        }

        fn file(&mut self, purpose: &'static str) -> (std::path::PathBuf, Binding) {
            self.files += 1;
            let version = self.files.to_string();
            let path = self.dir.path().join(&version);
            (path, Binding { purpose, account: "a".into(), sync: "s".into(), version })
        }

        /// Plans a run and records its outcome. Each user has one row; rows of other columns are other ones.
        fn run(
            &mut self,
            (mode, replace): (SyncMode, bool),
            column: &str,
            users: &[u32],
            outcome: Outcome,
        ) -> Difference {
            let mut shards = vec![RoaringBitmap::new(); SHARD_COUNT];
            let reasons = Reasons { skips: &[], notes: &[] };
            let (path, _) = self.file("scan");
            let mut scan = ScanWriter::new(reasons, 1, 1 << 20, &path, &secret(), [0; 32]);
            for user in users {
                let shard = (user % 2) as u8;
                shards[usize::from(shard)].insert(*user);
                let cell = Cell::Plain(format!("{column} of {user}").into());
                let row = Ok(vec![cell].into());
                let row = IdentifierRow { user: UserHash(0), row, notes: Vec::new() };
                scan.push(shard, *user, &row).unwrap();
            }
            let (path, bound) = self.file("plan");
            let (target, scan) = (MemberSet::new(shards), scan.finish().unwrap());
            let keys = names(&[column]);
            let facts = DifferenceFacts {
                delivered: &self.delivered,
                target: &target,
                scan: &scan,
                mode,
                replace,
                keys: &keys,
                strong: &["EMAIL", "PHONE"],
                identifiers: "",
                adopts: None,
            };
            let found = difference(&facts, &path, &secret(), bound.clone(), [1; 32]).unwrap();
            let counted = count_users(&facts).unwrap();
            assert_eq!(counted, (found.users_before, found.users_removed));
            let plan = PlanFile::open(&path, &secret(), bound).unwrap();
            let completed = outcome != Outcome::Failed;
            let batches = if completed { batches(&found, outcome) } else { Vec::new() };
            self.delivered.runs.push(EndedRun { plan, batches, completed });
            found
        }

        /// Records the runs, and reads the state again.
        fn record(&mut self) -> StateMeta {
            let (path, bound) = self.file("delivered");
            let meta = self.delivered.write(&path, &secret(), bound.clone(), [2; 32]).unwrap();
            let state = DeliveredState::open(&path, &secret(), bound).unwrap();
            assert_eq!(state.meta, meta);
            self.delivered = Delivered { state, runs: Vec::new() };
            meta
        }

        /// The columns of what was delivered: the same before and after its runs are recorded.
        fn columns(&mut self) -> (String, bool) {
            let before = self.delivered.columns().unwrap();
            let meta = self.record();
            assert_eq!(before.keys, meta.keys);
            assert_eq!(before.has_several, meta.has_several_columns);
            assert_eq!(self.delivered.columns().unwrap(), before);
            (before.keys.join(","), before.has_several)
        }
    }

    /// The batches of a run, each with an outcome: one for each operation.
    fn batches(found: &Difference, outcome: Outcome) -> Vec<Batch> {
        let [first, removes, after] = found.meta.rows;
        let of = |(operation, rows): (Operation, u64)| {
            let is_refused = operation == Operation::Remove && outcome == Outcome::Refused;
            let refused = if is_refused { vec![(0, rows as u32)] } else { Vec::new() };
            let result = BatchOutcome { refused, ..BatchOutcome::default() };
            let (state, outcome) = (BatchState::Done, Some(result));
            Batch { number: 0, operation, first_rank: 0, rows, state, outcome }
        };
        [(found.meta.put, first + after), (Operation::Remove, removes)].map(of).to_vec()
    }

    const ADD: (SyncMode, bool) = (SyncMode::Add, false);
    const MIRROR: (SyncMode, bool) = (SyncMode::Mirror, false);
    const REPLACE: (SyncMode, bool) = (SyncMode::Mirror, true);

    fn columns(name: &str, has_several: bool) -> (String, bool) {
        (name.to_owned(), has_several)
    }

    #[test]
    fn rows_of_two_column_sets_are_known_until_the_list_is_replaced() {
        let mut history = History::new();
        history.run(ADD, "EMAIL", &[1, 2], Outcome::Accepted);
        assert_eq!(history.columns(), columns("EMAIL", false));
        // Only one shard gets a row of the other columns.
        history.run(ADD, "PHONE", &[1], Outcome::Accepted);
        assert_eq!(history.columns(), columns("PHONE", true));
        history.run(ADD, "PHONE", &[1, 2], Outcome::Accepted);
        assert_eq!(history.columns(), columns("PHONE", true));
        // A session that was not closed has removed nothing.
        history.run(REPLACE, "PHONE", &[1, 2], Outcome::Failed);
        assert_eq!(history.columns(), columns("PHONE", true));
        history.run(REPLACE, "PHONE", &[1, 2], Outcome::Accepted);
        assert_eq!(history.columns(), columns("PHONE", false));
        let found = history.run(MIRROR, "PHONE", &[2], Outcome::Accepted);
        assert_eq!((found.meta.rows, found.meta.remove_keys), ([0, 1, 0], names(&["PHONE"])));
        assert_eq!(history.columns(), columns("PHONE", false));
        assert_eq!(history.delivered.state.meta.users, 1);
    }

    #[test]
    fn users_of_a_failed_run_count_as_delivered() {
        let mut history = History::new();
        history.run(MIRROR, "EMAIL", &[1, 2, 3], Outcome::Failed);
        for run in [REPLACE, MIRROR] {
            let found = history.run(run, "EMAIL", &[3, 4], Outcome::Failed);
            assert_eq!((found.users_before, found.users_removed), (3, 2));
            assert_eq!(found.users(true), UserCounts { before: 3, removed: 2 });
            assert_eq!(found.users(false), UserCounts { before: 0, removed: 0 });
            history.delivered.runs.pop();
        }
    }

    #[test]
    fn rows_of_two_runs_that_are_not_recorded_have_several_columns() {
        let mut history = History::new();
        history.run(ADD, "EMAIL", &[1], Outcome::Accepted);
        history.run(ADD, "PHONE", &[1], Outcome::Failed);
        assert_eq!(history.columns(), columns("PHONE", true), "its rows may have arrived");
    }

    #[test]
    fn refused_removals_of_earlier_columns_are_tried_again_with_their_keys() {
        let mut history = History::new();
        history.run(MIRROR, "EMAIL", &[1, 2], Outcome::Accepted);
        history.record();
        // Nobody has a row of the new columns, so that the list cannot be replaced.
        for outcome in [Outcome::Refused, Outcome::Accepted] {
            let found = history.run(MIRROR, "PHONE", &[], outcome);
            assert_eq!((found.meta.rows, found.meta.remove_keys), ([0, 2, 0], names(&["EMAIL"])));
            let left = if outcome == Outcome::Refused { "EMAIL" } else { "PHONE" };
            assert_eq!(history.columns(), columns(left, false));
        }
        assert_eq!(history.delivered.state.meta.users, 0);
        history.run(MIRROR, "PHONE", &[1], Outcome::Accepted);
        assert_eq!(history.columns(), columns("PHONE", false));
    }
}
