//! Budget days of an ad group whose currency was changed. Pure.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::{BudgetDay, Currency, Timestamp};

/// Longer than the days of which figures are still computed, in any time zone.
const KEPT: Duration = Duration::from_secs(12 * 24 * 3_600);

/// The currencies that the amounts of an ad group had before. Amounts are not converted: the day on which its currency is
/// changed counts in the new one, and days before it stay in the one that they had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerCurrencies(Vec<(Timestamp, Currency)>);

impl FormerCurrencies {
    /// Those of [`all`](Self::all).
    pub fn of(all: impl IntoIterator<Item = (Timestamp, Currency)>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Each with the moment until which it counted, oldest first.
    pub fn all(&self) -> &[(Timestamp, Currency)] {
        &self.0
    }

    /// The currency is another one from a moment on.
    pub fn leave(&mut self, currency: Currency, at: Timestamp) {
        // If the clock was set back, later changes are replaced.
        self.0.retain(|(until, _)| *until < at && at.since(*until) <= KEPT);
        self.0.push((at, currency));
    }

    /// The currency of a day. `current`: that of now.
    pub fn of_day(&self, day: BudgetDay, zone: &TimeZone, current: Currency) -> Currency {
        if self.0.is_empty() {
            return current;
        }
        let end = day.end(zone);
        self.0.iter().find(|(until, _)| end <= *until).map_or(current, |(_, currency)| *currency)
    }

    /// Days on which the currency was changed, each with the one in which it no longer counts.
    pub fn replaced(&self, zone: &TimeZone, current: Currency) -> Vec<(BudgetDay, Currency)> {
        let days = self.0.iter().map(|(until, currency)| (BudgetDay::of(*until, zone), *currency));
        days.filter(|(day, currency)| self.of_day(*day, zone, current) != *currency).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_in_the_currency_that_it_had_in_the_end() {
        let [usd, eur, gbp] = ["USD", "EUR", "GBP"].map(|code| code.parse::<Currency>().unwrap());
        let hour = |hours: i64| Timestamp(hours * 3_600_000_000);
        let mut former = FormerCurrencies::default();
        let zone = TimeZone::UTC;
        assert_eq!(former.of_day(BudgetDay(3), &zone, usd), usd);
        former.leave(usd, hour(30));
        former.leave(eur, hour(50));
        former.leave(usd, hour(52));
        let days = [0, 1, 2, 3].map(|day| former.of_day(BudgetDay(day), &zone, gbp));
        assert_eq!(days, [usd, eur, gbp, gbp]);
        let replaced = [(1, usd), (2, eur), (2, usd)].map(|(day, of)| (BudgetDay(day), of));
        assert_eq!(former.replaced(&zone, gbp), replaced);
        // Back in the one that the day began with.
        assert_eq!(former.replaced(&zone, usd)[..], replaced[..2]);
        // The clock was set back.
        former.leave(eur, hour(40));
        assert_eq!(former.all(), [(hour(30), usd), (hour(40), eur)]);
        assert_eq!(FormerCurrencies::of(former.all().to_vec()), former);
        former.leave(eur, hour(30 * 24));
        assert_eq!(former.all().len(), 1);
    }
}
