//! What the engine must know of an ad group.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupIndex, AdGroupName, Currency, Micros, TimeZoneName};

/// What is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pricing {
    /// Every impression.
    PerImpression,
    /// Every click.
    PerClick,
}

/// Standard deviations of what is in flight that are kept back.
const CAUTION: f64 = 0.5;

/// An ad group as the engine sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdGroupConfig {
    /// Its number in the feed.
    pub index: AdGroupIndex,
    /// Its name.
    pub name: AdGroupName,
    /// What is paid for.
    pub pricing: Pricing,
    /// The price of one.
    pub price: Micros,
    /// And billionths of the currency's unit, 0 to 999: prices by the thousand have them.
    pub price_nanos: u16,
    /// Share of insertions that are seen, 0 to 1.
    pub impression_rate: f64,
    /// Share of impressions that lead to what is paid for, 0 to 1; 1 per impression.
    pub action_rate: f64,
    /// Until delays are learned, an outcome is expected within this time.
    pub horizon: Duration,
    /// What it may spend a day.
    pub daily_budget: Micros,
    /// Whether spend in flight counts against the budget.
    pub prediction: bool,
    /// The advertiser's currency: that of the price, the budget and the spend.
    pub currency: Currency,
    /// The advertiser's time zone: where budget days begin.
    pub zone: TimeZoneName,
    /// Whether only the first impression and the first click of an insertion count, where they name it.
    pub once_per_insertion: bool,
}

impl AdGroupConfig {
    /// What one insertion will earn on average, to the nearest micro.
    pub fn expected(&self) -> Micros {
        self.expected_of(self.price, self.price_nanos)
    }

    /// What one insertion at another price will earn on average.
    pub(crate) fn expected_of(&self, price: Micros, nanos: u16) -> Micros {
        let rate = (self.impression_rate * self.action_rate).clamp(0.0, 1.0);
        if nanos == 0 {
            return price.times_share(rate);
        }
        // An insertion of less than half a micro is in flight too.
        let micros = (price.0 as f64 + f64::from(nanos) / 1_000.0) * rate;
        Micros((micros.round() as i64).max(i64::from(rate > 0.0)))
    }

    /// How far what is in flight may come out above its expectation before caution is needed: half
    /// a standard deviation. Each insertion earns the price or nothing, so the variance of their sum
    /// is `price × in flight × (1 − rate)`. Small for cheap impressions, large for dear clicks.
    pub fn caution(&self, in_flight: Micros) -> Micros {
        let rate = (self.impression_rate * self.action_rate).clamp(0.0, 1.0);
        let variance = self.price.0 as f64 * in_flight.0.max(0) as f64 * (1.0 - rate);
        Micros((CAUTION * variance.max(0.0).sqrt()) as i64)
    }

    /// Whether actual and in-flight spend leave room for another ad. In-flight spend is taken with
    /// [`caution`](Self::caution), because a mean is exceeded every other time.
    pub fn is_open(&self, actual: Micros, in_flight: Micros) -> bool {
        let coming =
            if self.prediction { in_flight.0.saturating_add(self.caution(in_flight).0) } else { 0 };
        actual.0.saturating_add(coming) < self.daily_budget.0
    }
}
