//! The configuration of an ad group.

use std::time::Duration;

use throng_model::{
    AdGroupIndex, AdGroupName, CampaignName, Currency, Micros, Pacing, TimeZoneName,
};

use crate::BilledEvent;

/// What the engine needs to know of an ad group.
#[derive(Debug, Clone, PartialEq)]
pub struct AdGroupConfig {
    /// Its number in the feed.
    pub index: AdGroupIndex,
    /// Its name.
    pub name: AdGroupName,
    /// Its campaign: ad groups of the same one learn rates from each other.
    pub campaign: CampaignName,
    /// The event that is billed.
    pub billed: BilledEvent,
    /// The price of one.
    pub price: Micros,
    /// Billionths of the currency's unit to add to it, 0 to 999: prices per thousand have them.
    pub price_nanos: u16,
    /// Share of insertions that are seen, 0 to 1.
    pub impression_rate: f64,
    /// Share of impressions that lead to the billed event, 0 to 1; 1 if impressions are billed.
    pub action_rate: f64,
    /// Until delays are learned, outcomes are expected within this time.
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
    /// How the budget of a day is spent.
    pub pacing: Pacing,
    /// Whether rates are learned from outcomes; else the declared ones are exact.
    pub learns_rates: bool,
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
        // An insertion that earns less than half a micro is in flight too.
        let micros = (price.0 as f64 + f64::from(nanos) / 1_000.0) * rate;
        Micros((micros.round() as i64).max(i64::from(rate > 0.0)))
    }
}
