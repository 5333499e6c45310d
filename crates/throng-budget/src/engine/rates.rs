//! Rates over all ad groups of a partition: they are learned from each other, by campaign and by placement.

use std::collections::HashMap;

use throng_model::{AdGroupName, CampaignName, Timestamp};
use throng_rates::{NO_PLACEMENT, learn};

use crate::{BilledEvent, EventRef};

use super::Engine;
use super::account::AdGroupRates;

impl Engine {
    /// Numbers the campaigns, in the order of their ad groups.
    pub(super) fn number_campaigns(&mut self) {
        let mut numbers: HashMap<CampaignName, u32> = HashMap::new();
        for account in &mut self.accounts {
            let next = numbers.len() as u32;
            account.campaign = *numbers.entry(account.config.campaign.clone()).or_insert(next);
        }
    }

    /// Computes the curves, and the rates by what is due by them.
    pub(super) fn learn(&mut self, now: Timestamp) {
        let impressions = self.pooled_impressions.curve(now);
        let clicks = self.pooled_clicks.curve(now);
        let mut observed = Vec::with_capacity(self.accounts.len());
        for account in &mut self.accounts {
            let (curve, pooled) = match account.config.billed {
                BilledEvent::Impression => (impressions.as_deref(), &self.pooled_impressions),
                BilledEvent::Click => (clicks.as_deref(), &self.pooled_clicks),
            };
            account.learn_delays(curve);
            observed.push(account.observed(now, pooled));
        }
        for (account, rates) in self.accounts.iter_mut().zip(learn(&observed)) {
            account.set_rates(rates);
        }
    }

    /// The number of an insertion's placement. Which numbers there are depends on the insertions that count alone.
    pub(super) fn placement_of(&mut self, event: &EventRef<'_>) -> u16 {
        let name = event.placement.as_bytes();
        if name.is_empty() {
            return NO_PLACEMENT;
        }
        let gone = self.placements.make_room(event.at);
        if !gone.is_empty() {
            self.accounts.iter_mut().for_each(|account| account.merge_placements(&gone));
            self.open.merge_placements(&gone);
        }
        self.placements.number(name)
    }

    /// The declared and the learned rates of an ad group.
    pub fn rates(&self, ad_group: &AdGroupName) -> Option<AdGroupRates> {
        let account = self.account(ad_group)?;
        Some(account.rate_figures(|placement| self.placements.name(placement)))
    }
}
