//! Budget days of an ad group whose currency was changed. Pure.

use crate::series::DaySpend;
use crate::{BudgetDay, Currency, Micros};

/// More than the days of which figures are still computed, in any time zone.
const KEPT_DAYS: i32 = 12;

/// The currencies that the amounts of an ad group had before. Amounts are not converted: the day on which its currency is
/// changed counts in the new one, and days before it stay in the one that they had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerCurrencies(Vec<(BudgetDay, Currency)>);

impl FormerCurrencies {
    /// Those of [`all`](Self::all).
    pub fn of(all: impl IntoIterator<Item = (BudgetDay, Currency)>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Each with the day on which it was changed, oldest first. Days and not moments: by another time zone a moment may be
    /// of another day, whose spend is stored in its currency already.
    pub fn all(&self) -> &[(BudgetDay, Currency)] {
        &self.0
    }

    /// Records that the currency was changed on a day. `currency`: the one before.
    pub fn record_change(&mut self, currency: Currency, day: BudgetDay) {
        // If the clock was set back, later changes are replaced.
        let kept = day.0.saturating_sub(KEPT_DAYS)..=day.0;
        self.0.retain(|(changed_on, _)| kept.contains(&changed_on.0));
        if !self.0.contains(&(day, currency)) {
            self.0.push((day, currency));
        }
    }

    /// `today` is the current day by another time zone from now on: it counts in the current currency, as always.
    pub fn change_zone(&mut self, today: BudgetDay) {
        for (changed_on, _) in &mut self.0 {
            *changed_on = today.min(*changed_on);
        }
    }

    /// The currency of a day. `current`: that of now.
    pub fn of_day(&self, day: BudgetDay, current: Currency) -> Currency {
        let former = self.0.iter().find(|(changed_on, _)| day < *changed_on);
        former.map_or(current, |(_, currency)| *currency)
    }

    /// Days with their currencies, and without spend those in which they no longer count. `today`: the current day, by the
    /// current time zone.
    pub fn of_days(
        &self,
        days: &[(BudgetDay, Micros)],
        today: BudgetDay,
        current: Currency,
    ) -> Vec<DaySpend> {
        let counted = days.iter().map(|(day, actual)| (*day, *actual, self.of_day(*day, current)));
        let mut all: Vec<DaySpend> = counted.collect();
        for (day, _) in days {
            let replaced = self.replaced(*day, today, current).into_iter();
            all.extend(replaced.map(|currency| (*day, Micros::ZERO, currency)));
        }
        all
    }

    /// Those in which a day no longer counts: they were changed on it, or it is a day to come, which may have been the
    /// current one by another time zone.
    fn replaced(&self, day: BudgetDay, today: BudgetDay, current: Currency) -> Vec<Currency> {
        let is_replaced = |changed_on: BudgetDay| changed_on == day || changed_on.max(today) < day;
        let replaced = self.0.iter().filter(|(changed_on, _)| is_replaced(*changed_on));
        let counts_in = self.of_day(day, current);
        replaced.map(|(_, currency)| *currency).filter(|former| *former != counts_in).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_in_the_currency_that_it_had_in_the_end() {
        let [usd, eur, gbp] = ["USD", "EUR", "GBP"].map(|code| code.parse::<Currency>().unwrap());
        let mut former = FormerCurrencies::default();
        assert_eq!(former.of_day(BudgetDay(3), usd), usd);
        former.record_change(usd, BudgetDay(1));
        former.record_change(eur, BudgetDay(2));
        former.record_change(usd, BudgetDay(2));
        let days = [0, 1, 2, 3].map(|day| former.of_day(BudgetDay(day), gbp));
        assert_eq!(days, [usd, eur, gbp, gbp]);
        let replaced = |former: &FormerCurrencies, current| {
            [0, 1, 2, 3].map(|day| former.replaced(BudgetDay(day), BudgetDay(3), current))
        };
        assert_eq!(replaced(&former, gbp), [vec![], vec![usd], vec![eur, usd], vec![]]);
        // Back in the one that the day began with.
        assert_eq!(replaced(&former, usd), [vec![], vec![usd], vec![eur], vec![]]);
        // A day to come.
        assert_eq!(former.replaced(BudgetDay(4), BudgetDay(3), gbp), [usd, eur, usd]);
        // Only of days that are asked for.
        let days = [2, 3].map(|day| (BudgetDay(day), Micros(7)));
        let of_days = [(2, 7, gbp), (3, 7, gbp), (2, 0, eur), (2, 0, usd)];
        let of_days = of_days.map(|(day, actual, of)| (BudgetDay(day), Micros(actual), of));
        assert_eq!(former.of_days(&days, BudgetDay(3), gbp), of_days);
        // The clock was set back.
        former.record_change(eur, BudgetDay(1));
        assert_eq!(former.all(), [(BudgetDay(1), usd), (BudgetDay(1), eur)]);
        assert_eq!(FormerCurrencies::of(former.all().to_vec()), former);
        former.record_change(eur, BudgetDay(30));
        assert_eq!(former.all(), [(BudgetDay(30), eur)]);
    }

    #[test]
    fn the_current_day_by_another_zone_counts_in_the_current_currency() {
        let [usd, eur] = ["USD", "EUR"].map(|code| code.parse::<Currency>().unwrap());
        let mut former = FormerCurrencies::default();
        former.record_change(usd, BudgetDay(5));
        former.change_zone(BudgetDay(6));
        assert_eq!(former.all(), [(BudgetDay(5), usd)]);
        former.change_zone(BudgetDay(4));
        let days = [3, 4, 5].map(|day| former.of_day(BudgetDay(day), eur));
        assert_eq!(days, [usd, eur, eur]);
        let replaced =
            [3, 4, 5].map(|day| former.replaced(BudgetDay(day), BudgetDay(4), eur).len());
        assert_eq!(replaced, [0, 1, 1]);
    }
}
