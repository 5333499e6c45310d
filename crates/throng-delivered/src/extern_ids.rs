//! `EXTERN_ID`s that several members have: the platform holds one row for all of them, the newest.

use std::collections::BTreeSet;

use throng_membership::MemberSet;
use throng_model::SHARD_COUNT;

use crate::row::Cell;
use crate::scan::Scan;
use crate::sealed::SealedError;

/// The note of an added row whose `EXTERN_ID` other members have too.
pub(crate) const OF_SEVERAL_USERS: &str = "EXTERN_ID.of_several_users";

/// `EXTERN_ID`s in memory, at most about as many: 32 MiB.
const MAX_SAMPLED: u64 = 4 << 20;

/// The `EXTERN_ID`s that several members have; of a large audience those of a sample.
#[derive(Debug, Default)]
pub(crate) struct SharedExternIds {
    /// Their digests, in ascending order.
    shared: Vec<u64>,
    /// One of 2^shift digests is sampled.
    shift: u32,
}

impl SharedExternIds {
    /// Reads the scan once, shard by shard. `at`: the cell of the `EXTERN_ID`.
    ///
    /// # Errors
    /// [`SealedError`].
    pub(crate) fn find(scan: &Scan, target: &MemberSet, at: usize) -> Result<Self, SealedError> {
        let mut found = Self::default();
        while target.len() >> found.shift > MAX_SAMPLED {
            found.shift += 1;
        }
        let mut digests = Vec::new();
        for shard in 0..SHARD_COUNT {
            let shard = shard as u8;
            for rows in scan.shard(shard, target.shard(shard))?.into_values() {
                let rows = rows.iter().filter_map(|(row, _)| row.as_ref().ok());
                // Further rows of one user with the same one are left out, and counted as such.
                let of_user: BTreeSet<u64> =
                    rows.filter_map(|row| found.sampled(row.get(at)?)).collect();
                digests.extend(of_user);
            }
        }
        digests.sort_unstable();
        let several = digests.chunk_by(|a, b| a == b).filter(|same| same.len() > 1);
        found.shared = several.filter_map(|same| same.first().copied()).collect();
        Ok(found)
    }

    /// How many rows a row with this `EXTERN_ID` counts for: none if no other member has it.
    pub(crate) fn rows(&self, extern_id: &Cell) -> u64 {
        let is_shared = |digest: u64| self.shared.binary_search(&digest).is_ok();
        match self.shared.is_empty() {
            true => 0,
            false => {
                self.sampled(extern_id).filter(|id| is_shared(*id)).map_or(0, |_| 1 << self.shift)
            }
        }
    }

    /// The digest of an `EXTERN_ID` that is in the sample.
    fn sampled(&self, extern_id: &Cell) -> Option<u64> {
        let Cell::Plain(text) = extern_id else { return None };
        let sha256 = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let digest = u64::from_le_bytes(*sha256.as_ref().first_chunk()?);
        (digest & ((1 << self.shift) - 1) == 0).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{SyncMode, UserHash};
    use throng_store::{Batch, BatchOutcome, BatchState, Operation, ReasonCounts};

    use super::*;
    use crate::difference::{Difference, DifferenceFacts, difference};
    use crate::row::{IdentifierRow, PreparedRow, Reasons};
    use crate::scan::ScanWriter;
    use crate::{
        Binding, Delivered, DeliveredState, EndedRun, IdentifierKeys, PlanEntry, PlanFile,
    };

    fn row(ordinal: u32) -> PreparedRow {
        // The users 3 and 4 have one EXTERN_ID.
        let extern_id = if ordinal < 5 { "x".to_owned() } else { format!("x{ordinal}") };
        vec![Cell::Plain(extern_id.into()), Cell::Plain(format!("e{ordinal}").into())].into()
    }

    /// Plans a run from what the plan `before` has added to an empty list to these users.
    fn planned(
        dir: &std::path::Path,
        before: Option<&PlanFile>,
        users: &[u32],
    ) -> (Difference, PlanFile) {
        let columns = ["EXTERN_ID".to_owned(), "EMAIL".to_owned()];
        let keys = IdentifierKeys::parse(&"ab".repeat(32)).unwrap();
        let reasons = Reasons { skips: &[], notes: &[] };
        let mut scan = ScanWriter::new(reasons, 2, 1 << 20, &dir.join("scan"), &keys, [0; 32]);
        for ordinal in [3, 4, 7] {
            let row = IdentifierRow { user: UserHash(0), row: Ok(row(ordinal)), notes: Vec::new() };
            scan.push(0, ordinal, &row).unwrap();
        }
        let mut shards = vec![roaring::RoaringBitmap::new(); SHARD_COUNT];
        shards[0].extend(users.iter().copied());
        let runs = before.map(|plan| {
            let rows = plan.meta.rows[0];
            let outcome = BatchOutcome { sent: rows, ..BatchOutcome::default() };
            let batch = Batch {
                number: 0,
                operation: Operation::Add,
                first_rank: 0,
                rows,
                state: BatchState::Done,
                outcome: Some(outcome),
            };
            let plan = PlanFile::open(&dir.join("first"), &keys, binding()).unwrap();
            EndedRun { plan, batches: vec![batch], completed: true }
        });
        let delivered = Delivered {
            state: DeliveredState::empty(columns.to_vec()),
            runs: runs.into_iter().collect(),
        };
        let facts = DifferenceFacts {
            delivered: &delivered,
            target: &MemberSet::new(shards),
            scan: &scan.finish().unwrap(),
            mode: SyncMode::Mirror,
            replace: false,
            keys: &columns,
            strong: &["EXTERN_ID", "EMAIL"],
            identifiers: "",
            adopts: None,
        };
        let path = dir.join(if before.is_some() { "second" } else { "first" });
        let found = difference(&facts, &path, &keys, binding(), [7; 32]).unwrap();
        (found, PlanFile::open(&path, &keys, binding()).unwrap())
    }

    fn binding() -> Binding {
        let text = || "a".to_owned();
        Binding { purpose: "plan", account: text(), sync: text(), version: text() }
    }

    fn entries(plan: &PlanFile) -> Vec<(Operation, PlanEntry)> {
        let mut entries = plan.shard(0).unwrap();
        entries.sort_by_key(|entry| (entry.operation == Operation::Add, entry.rank));
        entries.into_iter().map(|ranked| (ranked.operation, ranked.entry)).collect()
    }

    #[test]
    fn users_with_one_extern_id_are_counted_and_it_is_removed_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (first, plan) = planned(dir.path(), None, &[3, 4, 7]);
        assert_eq!(first.meta.rows, [3, 0, 0]);
        assert_eq!(first.normalised, ReasonCounts::from([(OF_SEVERAL_USERS.to_owned(), 2)]));

        // One of them leaves: the removal names the EXTERN_ID, and the row of the other follows it.
        let (one, left) = planned(dir.path(), Some(&plan), &[3, 7]);
        assert_eq!((one.meta.rows, one.users_removed), ([0, 1, 1], 1));
        assert_eq!(one.normalised, ReasonCounts::new());
        let left = entries(&left);
        let [(Operation::Remove, removed), (Operation::Add, added)] = &left[..] else {
            panic!("other operations");
        };
        assert!(removed.ordinal == 4 && removed.send == Ok(row(4)));
        assert!(added.ordinal == 3 && added.send == Ok(row(3)));

        // Both leave: nothing is added again.
        let (both, left) = planned(dir.path(), Some(&plan), &[7]);
        assert_eq!((both.meta.rows, both.users_removed), ([0, 2, 0], 2));
        let sent: Vec<_> = entries(&left).into_iter().map(|(_, entry)| entry.send).collect();
        assert!(sent == [Ok(row(3)), Ok(row(4))]);
    }

    #[test]
    fn a_sampled_row_counts_for_those_that_are_not_in_the_sample() {
        let mut ids = SharedExternIds { shared: Vec::new(), shift: 2 };
        let cells = (0..400).map(|n| Cell::Plain(n.to_string().into()));
        let cells: Vec<Cell> = cells.collect();
        let sampled: Vec<u64> = cells.iter().filter_map(|cell| ids.sampled(cell)).collect();
        assert!((50..150).contains(&sampled.len()), "{}", sampled.len());
        ids.shared = sampled.clone();
        ids.shared.sort_unstable();
        let counted: u64 = cells.iter().map(|cell| ids.rows(cell)).sum();
        assert_eq!(counted, 4 * sampled.len() as u64);
        assert_eq!(ids.rows(&Cell::Empty), 0);
        assert_eq!(SharedExternIds::default().rows(&cells[0]), 0);
    }
}
