//! Counts of rows, by field and reason. Never a value.

use std::collections::BTreeMap;

use throng_api::IngestFault;
use throng_schema::Schema;

use crate::reason::{Reason, RowFault};

/// What became of rows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    pub(crate) accepted: u64,
    /// Rows, and the first line.
    faults: BTreeMap<RowFault, (u64, u64)>,
}

impl Tally {
    pub(crate) fn accept(&mut self) {
        self.rows += 1;
        self.accepted += 1;
    }

    /// `count` rows that begin in a line.
    pub(crate) fn refuse(&mut self, fault: RowFault, line: u64, count: u64) {
        self.rows += count;
        let (rows, first) = self.faults.entry(fault).or_insert((0, line));
        *rows += count;
        *first = line.min(*first);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.accepted += other.accepted;
        for (fault, (count, line)) in other.faults {
            let (rows, first) = self.faults.entry(fault).or_insert((0, line));
            *rows += count;
            *first = line.min(*first);
        }
    }

    /// Why the first row failed, and its line, if all rows failed as a whole: there are rows, and of none a value was
    /// checked.
    pub(crate) fn unreadable(&self) -> Option<(Reason, u64)> {
        let is_unreadable =
            self.accepted == 0 && self.faults.keys().all(|fault| fault.field.is_none());
        let first = self.faults.iter().filter(|_| is_unreadable).min_by_key(|(_, (_, line))| *line);
        first.map(|(fault, (_, line))| (fault.reason, *line))
    }

    pub(crate) fn faults(&self, schema: &Schema) -> Vec<IngestFault> {
        let field = |at: usize| schema.fields.get(at).map(|field| field.name.clone());
        let faults = self.faults.iter().map(|(fault, (rows, first_line))| IngestFault {
            field: fault.field.and_then(field),
            reason: fault.reason.as_str().to_owned(),
            rows: *rows,
            first_line: *first_line,
        });
        faults.collect()
    }
}
