//! Budget days on their way to the ledger.

use std::collections::BTreeMap;

use throng_model::{AdGroupName, BudgetDay, Micros, Timestamp};
use throng_store::BudgetDayRow;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Days {
    /// The days of now.
    pub(super) today: Vec<BudgetDayRow>,
    /// Earlier days whose spend differs from what was last written to the ledger: their budgets stay as they are.
    pub(super) past: Vec<BudgetDayRow>,
}

/// The earlier days that this process has written. Not what the ledger holds: after a start every day is
/// written once.
#[derive(Debug, Default)]
pub(super) struct StoredDays(BTreeMap<(BudgetDay, AdGroupName), Micros>);

impl StoredDays {
    /// Whether the day has to be written; it counts as written then.
    pub(super) fn changes(&mut self, name: &AdGroupName, day: BudgetDay, actual: Micros) -> bool {
        self.0.insert((day, name.clone()), actual) != Some(actual)
    }

    /// Has everything written again: the last write failed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets days that are no longer reported.
    pub(super) fn forget_before(&mut self, now: Timestamp) {
        let oldest = BudgetDay((now.0.div_euclid(86_400_000_000)).saturating_sub(12) as i32);
        self.0.retain(|(day, _), _| *day >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_told_when_it_changes() {
        let mut stored = StoredDays::default();
        let name: AdGroupName = "red".parse().unwrap();
        let mut changes = |actual| stored.changes(&name, BudgetDay(20_000), Micros(actual));
        assert_eq!([changes(1), changes(1), changes(2)], [true, false, true]);
        stored.forget_before(Timestamp(20_020 * 86_400_000_000));
        assert!(stored.changes(&name, BudgetDay(20_000), Micros(2)));
        stored.clear();
        assert!(stored.changes(&name, BudgetDay(20_000), Micros(2)));
    }
}
