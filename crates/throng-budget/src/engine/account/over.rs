//! What an ad group has spent past its budgets.

use throng_model::{BudgetDay, MoneyError, OverdeliveryCauses, Timestamp};

use crate::engine::causes::Paid;
use crate::engine::spend::{SLICE_MICROS, slice_of};

use super::{Account, Outcome};

impl Account {
    /// Adds the price of an outcome to the spend, and what of it is past the budget to its cause.
    pub(super) fn add_spend(&mut self, outcome: &Outcome) -> Result<(), MoneyError> {
        let Outcome { at, inserted_at, logged_at, price, insertion_price, .. } = *outcome;
        let (day, start, end) = self.day_of_outcome(at);
        let before = self.spend.of_outcome_day(start, end);
        self.spend.add(at, price)?;
        let after = self.spend.of_outcome_day(start, end);
        // The budget of a day that is over stays as it was.
        let is_over = self.day.is_some_and(|(today, ..)| day < today);
        let earlier = self.causes.budget_of(day).filter(|_| is_over);
        let budget = earlier.unwrap_or(self.config.daily_budget.0);
        let above = insertion_price.map(|made| price.rounded().saturating_sub(made.rounded()));
        let paid = Paid {
            day,
            day_end: Timestamp(end.saturating_mul(SLICE_MICROS)),
            at,
            logged_at,
            inserted_at,
            before,
            after,
            above_price: above,
        };
        self.causes.count(&paid, budget);
        Ok(())
    }

    /// The budget day of an outcome, with its slices. Most are of the current day, and after midnight of the one
    /// before.
    fn day_of_outcome(&mut self, at: Timestamp) -> (BudgetDay, i64, i64) {
        let number = slice_of(at);
        let has = |day: &(BudgetDay, i64, i64)| (day.1..day.2).contains(&number);
        if let Some(day) = self.day.filter(has).or_else(|| self.outcome_day.filter(has)) {
            return day;
        }
        let day = self.day_at(at);
        self.outcome_day = Some(day);
        day
    }

    /// What was spent above the budgets of the last days, by cause.
    pub(in crate::engine) fn overdelivery_causes(
        &self,
        now: Timestamp,
    ) -> Vec<(BudgetDay, OverdeliveryCauses)> {
        let (today, ..) = self.day_at(now);
        self.causes.of_days((today, self.config.daily_budget.0)).collect()
    }
}
