//! Spend of budget days on its way to the ledger.

use std::collections::{BTreeMap, HashMap};

use throng_budget::{DayPrediction, DaySpend};
use throng_model::{
    AdGroupName, BudgetDay, Clock as _, Currency, Micros, OverdeliveryCauses, Timestamp,
};
use throng_store::{BudgetDayRow, PredictedSpend};

use super::Budgets;
use super::applied_catalog::AppliedCatalog;
use super::replica::PartitionReplica;

/// Days that are remembered: a few more than are reported, whatever the time zone.
const REMEMBERED_DAYS: i64 = 12;

/// Rows to write.
#[derive(Debug, Default)]
pub(super) struct DayRows {
    /// The current day of each ad group.
    pub(super) today: Vec<BudgetDayRow>,
    /// Earlier days whose figures differ from what was last written to the ledger: their budgets stay as
    /// they are.
    pub(super) earlier: Vec<BudgetDayRow>,
}

/// The days that this process has written. Not what the ledger holds: after a start every day is written once.
#[derive(Debug, Default)]
pub(super) struct WrittenDays(BTreeMap<(BudgetDay, AdGroupName, Option<Currency>), WrittenDay>);

/// Actual spend, what was predicted, and why more was spent than the budget.
type WrittenDay = (Micros, Option<PredictedSpend>, Option<OverdeliveryCauses>);

impl WrittenDays {
    /// Whether the day has to be written; from then on it counts as written.
    fn changes(&mut self, row: &BudgetDayRow) -> bool {
        // Before the write is known to succeed. If it fails, `clear` has to be called: otherwise
        // the ledger would not get this figure.
        let figures = (row.actual, row.prediction, row.causes);
        self.0.insert((row.day, row.ad_group.clone(), row.currency), figures) != Some(figures)
    }

    /// Forgets all days, so that everything is written again: the last write failed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets days that are no longer reported.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        let oldest = oldest_remembered(now);
        self.0.retain(|(day, ..), _| *day >= oldest);
    }
}

fn oldest_remembered(now: Timestamp) -> BudgetDay {
    let today = now.0.div_euclid(86_400_000_000);
    BudgetDay(today.saturating_sub(REMEMBERED_DAYS) as i32)
}

/// The last budget days of ad groups that the spec no longer has: the engine has no figures of them, and what they
/// spent after the last write would be missing in the ledger.
#[derive(Debug, Default)]
pub(super) struct RemovedDays {
    rows: Vec<BudgetDayRow>,
    /// Whether some were added since they were read.
    has_new: bool,
}

impl RemovedDays {
    /// Forgets those of ad groups that are declared in the same currency: their partitions have newer ones.
    pub(super) fn forget_declared(&mut self, applied: &AppliedCatalog) {
        let declared = applied.configs.iter().flatten().map(|it| (&it.name, it.currency));
        let declared: HashMap<&AdGroupName, Currency> = declared.collect();
        self.rows.retain(|row| declared.get(&row.ad_group).copied() != row.currency);
    }

    fn add(&mut self, rows: Vec<BudgetDayRow>) {
        self.has_new |= !rows.is_empty();
        self.rows.extend(rows);
    }

    /// All rows.
    fn read(&mut self, now: Timestamp) -> &[BudgetDayRow] {
        let oldest = oldest_remembered(now);
        self.rows.retain(|row| row.day >= oldest);
        self.has_new = false;
        &self.rows
    }
}

/// Whether the figures of a led partition count: another leader has newer ones, or they are half changed. In the
/// ledger they would replace the newer ones, which their leader does not write again.
fn has_figures(partition: &PartitionReplica) -> bool {
    !partition.is_fenced() && !partition.is_failed()
}

impl Budgets {
    /// Gives a replica its ad groups of a catalog, and keeps the budget days of those that it no longer has.
    pub(super) fn set_catalog(
        &self,
        partition: &PartitionReplica,
        applied: &AppliedCatalog,
        now: Timestamp,
    ) {
        let ad_groups = applied.configs.get(partition.number() as usize);
        let ad_groups = ad_groups.cloned().unwrap_or_default();
        let removed = partition.set_catalog(ad_groups, applied.catalog.version, now);
        if has_figures(partition) {
            self.removed_days.lock().add(removed);
        }
    }

    /// Whether ad groups were removed since budget days were read: those of their last minute are not in the ledger.
    pub(super) fn has_removed_days(&self) -> bool {
        self.removed_days.lock().has_new
    }

    /// The spend of the last days of the partitions that this process leads, for the ledger: today's,
    /// and that of earlier days that changed since it was written.
    pub(super) fn budget_days(&self, written: &mut WrittenDays) -> DayRows {
        let (applied, now) = (self.applied.load(), self.clock.now());
        let mut rows = DayRows::default();
        // Those of a partition with a backlog are older than those that the previous leader has written.
        let is_written = |led: &PartitionReplica| has_figures(led) && !led.has_backlog();
        for partition in self.led.load_full().iter().filter(|led| is_written(led)) {
            // First: of spend that is added meanwhile the cause is not known until the next call.
            let causes: HashMap<AdGroupName, Vec<(BudgetDay, OverdeliveryCauses)>> =
                partition.overdelivery_causes(now).into_iter().collect();
            let mut earlier: HashMap<AdGroupName, Vec<DaySpend>> =
                partition.days(now).into_iter().collect();
            let mut predicted = predicted_days(partition.predictions(now));
            for state in partition.states(now) {
                // A replica has removed ad groups for a moment while a spec is applied: they have no budget to write.
                let Some(zone) = applied.zones.get(&state.name) else { continue };
                let today = BudgetDay::of(now, &zone.rules());
                let (budget, actual, current) = (state.budget, state.actual, state.currency);
                let mut of_days = predicted.remove(&state.name).unwrap_or_default();
                // What days to come have was written by another time zone, and is of other days now.
                for ahead in [1, 2] {
                    of_days.entry(BudgetDay(today.0.saturating_add(ahead))).or_default();
                }
                let mut days = earlier.remove(&state.name).unwrap_or_default();
                // Of an ad group that has never spent anything there are predictions alone.
                if days.is_empty() {
                    days.extend(of_days.keys().map(|day| (*day, Micros::ZERO, current)));
                }
                days.retain(|(day, _, currency)| (*day, *currency) != (today, current));
                let of_causes = causes.get(&state.name).map(Vec::as_slice).unwrap_or_default();
                let causes_of = |day: BudgetDay| {
                    let known = of_causes.iter().find(|(of_day, _)| *of_day == day);
                    Some(known.map(|(_, causes)| *causes).unwrap_or_default())
                };
                let mut row = |day, actual, currency| BudgetDayRow {
                    ad_group: state.name.clone(),
                    day,
                    budget,
                    actual,
                    prediction: of_days.remove(&day),
                    currency: Some(currency),
                    causes: causes_of(day),
                };
                // At every call, without a comparison: the budget can change while the spend does not.
                let of_today = row(today, actual, current);
                // By another time zone it may become a day to come: what it has then is to be written.
                written.changes(&of_today);
                rows.today.push(of_today);
                let days = days.into_iter().map(|(day, actual, of)| row(day, actual, of));
                rows.earlier.extend(days.filter(|row| written.changes(row)));
            }
        }
        let mut removed = self.removed_days.lock();
        rows.earlier.extend(removed.read(now).iter().filter(|row| written.changes(row)).cloned());
        drop(removed);
        written.forget_old(now);
        rows
    }
}

/// Predictions by ad group and day.
fn predicted_days(
    predictions: Vec<(AdGroupName, Vec<DayPrediction>)>,
) -> HashMap<AdGroupName, BTreeMap<BudgetDay, PredictedSpend>> {
    let of_day = |day: DayPrediction| {
        (day.day, PredictedSpend { predicted: day.predicted, earned: day.earned })
    };
    let of_ad_group = |(name, days): (AdGroupName, Vec<DayPrediction>)| {
        (name, days.into_iter().map(of_day).collect())
    };
    predictions.into_iter().map(of_ad_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_when_it_changes() {
        let mut written = WrittenDays::default();
        let row = |actual, earned: Option<i64>| BudgetDayRow {
            ad_group: "red".parse().unwrap(),
            day: BudgetDay(20_000),
            budget: Micros(9),
            actual: Micros(actual),
            prediction: earned
                .map(|earned| PredictedSpend { predicted: Micros(5), earned: Micros(earned) }),
            currency: None,
            causes: None,
        };
        let mut changes = |actual, earned| written.changes(&row(actual, earned));
        assert_eq!([changes(1, None), changes(1, None), changes(2, None)], [true, false, true]);
        assert_eq!([changes(2, Some(1)), changes(2, Some(1))], [true, false]);
        assert!(changes(2, Some(2)));
        let causes = OverdeliveryCauses { burst: Micros(1), ..OverdeliveryCauses::default() };
        let with_causes = BudgetDayRow { causes: Some(causes), ..row(2, Some(2)) };
        assert_eq!([written.changes(&with_causes), written.changes(&with_causes)], [true, false]);
        let in_euros = BudgetDayRow { currency: Some("EUR".parse().unwrap()), ..with_causes };
        assert_eq!([written.changes(&in_euros), written.changes(&in_euros)], [true, false]);
        written.forget_old(Timestamp(20_020 * 86_400_000_000));
        assert!(written.changes(&row(2, Some(2))));
        written.clear();
        assert!(written.changes(&row(2, Some(2))));
    }
}
