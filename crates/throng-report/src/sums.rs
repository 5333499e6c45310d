//! Sums of budget days.

use throng_api::BudgetReportLine;
use throng_model::{AdGroupName, AdvertiserName, BudgetDay, Currency, Micros, MoneyError};
use throng_store::BudgetDayRow;

use crate::causes::CauseSums;

/// What a line is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub(crate) day: Option<BudgetDay>,
    pub(crate) advertiser: Option<AdvertiserName>,
    pub(crate) ad_group: Option<AdGroupName>,
    pub(crate) currency: Option<Currency>,
}

/// Sums of the amounts of one currency. Of 128 bits: no number of rows overflows them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    budget: i128,
    actual: i128,
    billable: i128,
    given_away: i128,
    left_over: i128,
    causes: CauseSums,
    /// Predicted and earned, of the days that have both.
    prediction: Option<(i128, i128)>,
    has_open_day: bool,
}

impl Sums {
    pub(crate) fn of(row: &BudgetDayRow, is_over: bool) -> Self {
        let mut sums = Self::default();
        sums.add(row, is_over);
        sums
    }

    /// Adds a day of an ad group. What one has left over does not cover what another one has given away.
    pub(crate) fn add(&mut self, row: &BudgetDayRow, is_over: bool) {
        let (budget, actual) = (i128::from(row.budget.0), i128::from(row.actual.0));
        self.budget += budget;
        self.actual += actual;
        self.billable += actual.min(budget);
        let given_away = (actual - budget).max(0);
        self.given_away += given_away;
        self.causes.add(row, given_away);
        self.left_over += (budget - actual).max(0);
        if let Some(of_row) = row.prediction {
            let (predicted, earned) = self.prediction.unwrap_or_default();
            let of_row = (i128::from(of_row.predicted.0), i128::from(of_row.earned.0));
            self.prediction = Some((predicted + of_row.0, earned + of_row.1));
        }
        self.has_open_day |= !is_over;
    }

    /// The line of these sums. Budgets that together are larger than the largest amount, and what is left over of them, are
    /// the largest amount: who declares it as a budget declares none, and still wants to know what was spent.
    pub(crate) fn line(&self, subject: Subject) -> Result<BudgetReportLine, MoneyError> {
        let micros = |sum: i128| i64::try_from(sum).map(Micros).map_err(|_| MoneyError::Overflow);
        let capped = |sum: i128| Micros(i64::try_from(sum).unwrap_or(i64::MAX));
        let prediction = self.prediction;
        Ok(BudgetReportLine {
            day: subject.day.map(|day| day.to_string()),
            is_over: !self.has_open_day,
            advertiser: subject.advertiser,
            ad_group: subject.ad_group,
            currency: subject.currency,
            budget_micros: capped(self.budget),
            actual_micros: micros(self.actual)?,
            billable_micros: micros(self.billable)?,
            given_away_micros: micros(self.given_away)?,
            given_away_by_cause: self.causes.micros()?,
            left_over_micros: capped(self.left_over),
            predicted_micros: prediction.map(|(predicted, _)| micros(predicted)).transpose()?,
            earned_micros: prediction.map(|(_, earned)| micros(earned)).transpose()?,
            prediction_error_percent: prediction
                .filter(|(predicted, _)| *predicted > 0)
                .map(|(predicted, earned)| (earned - predicted) as f64 / predicted as f64 * 100.0),
        })
    }
}
