//! Spend of budget days on its way to the ledger.

use std::collections::{BTreeMap, HashMap};

use throng_model::{AdGroupName, BudgetDay, Clock as _, Micros, Timestamp};
use throng_store::BudgetDayRow;

use super::Budgets;

/// Days that are remembered: a few more than are reported, whatever the time zone.
const REMEMBERED_DAYS: i64 = 12;

/// Rows to write.
#[derive(Debug, Default)]
pub(super) struct DayRows {
    /// The current day of each ad group.
    pub(super) today: Vec<BudgetDayRow>,
    /// Earlier days whose spend differs from what was last written to the ledger: their budgets stay as
    /// they are.
    pub(super) earlier: Vec<BudgetDayRow>,
}

/// The earlier days that this process has written. Not what the ledger holds: after a start every day is
/// written once.
#[derive(Debug, Default)]
pub(super) struct WrittenDays(BTreeMap<(BudgetDay, AdGroupName), Micros>);

impl WrittenDays {
    /// Whether the day has to be written; from then on it counts as written.
    pub(super) fn changes(&mut self, name: &AdGroupName, day: BudgetDay, actual: Micros) -> bool {
        // Before the write is known to succeed. If it fails, `clear` has to be called: otherwise
        // the ledger would not get this figure.
        self.0.insert((day, name.clone()), actual) != Some(actual)
    }

    /// Forgets all days, so that everything is written again: the last write failed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets days that are no longer reported.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        let today = now.0.div_euclid(86_400_000_000);
        let oldest = BudgetDay(today.saturating_sub(REMEMBERED_DAYS) as i32);
        self.0.retain(|(day, _), _| *day >= oldest);
    }
}

impl Budgets {
    /// The spend of the last days of the partitions that this process leads, for the ledger: today's,
    /// and that of earlier days that changed since it was written.
    pub(super) fn budget_days(&self, written: &mut WrittenDays) -> DayRows {
        let (applied, now) = (self.applied.load(), self.clock.now());
        let mut rows = DayRows::default();
        for partition in self.led.load_full().iter() {
            let mut earlier: HashMap<AdGroupName, Vec<(BudgetDay, Micros)>> =
                partition.days(now).into_iter().collect();
            for state in partition.states(now) {
                // A replica has the previous ad groups for a moment while a spec is applied. A
                // removed one has no budget to write.
                let Some(zone) = applied.zones.get(&state.name) else { continue };
                let today = BudgetDay::of(now, &zone.rules());
                let (budget, actual) = (state.budget, state.actual);
                let row = |day, actual| BudgetDayRow {
                    ad_group: state.name.clone(),
                    day,
                    budget,
                    actual,
                };
                // At every call, without a comparison: the budget can change while the spend does
                // not.
                rows.today.push(row(today, actual));
                let spent = earlier.remove(&state.name).unwrap_or_default();
                for (day, actual) in spent.into_iter().filter(|(day, _)| *day != today) {
                    if written.changes(&state.name, day, actual) {
                        rows.earlier.push(row(day, actual));
                    }
                }
            }
        }
        written.forget_old(now);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_when_it_changes() {
        let mut written = WrittenDays::default();
        let name: AdGroupName = "red".parse().unwrap();
        let mut changes = |actual| written.changes(&name, BudgetDay(20_000), Micros(actual));
        assert_eq!([changes(1), changes(1), changes(2)], [true, false, true]);
        written.forget_old(Timestamp(20_020 * 86_400_000_000));
        assert!(written.changes(&name, BudgetDay(20_000), Micros(2)));
        written.clear();
        assert!(written.changes(&name, BudgetDay(20_000), Micros(2)));
    }
}
