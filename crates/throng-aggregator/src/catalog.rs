//! The ad groups of a spec, in the forms of the engine and of gates. Pure.

use std::collections::HashMap;

use throng_budget::{AdGroupConfig, BilledEvent};
use throng_feed::{Catalog, CatalogEntry};
use throng_model::{AdGroupIndex, AdGroupName, CampaignName, Currency, Micros, TimeZoneName};
use throng_spec::{AdGroup, Advertiser, Prediction, Pricing, Spec};

use super::partition_of;

fn numbered<'a>(
    spec: &'a Spec,
    indexes: &[(AdGroupName, AdGroupIndex)],
) -> impl Iterator<Item = (&'a AdGroup, AdGroupIndex)> {
    let by_name: HashMap<&AdGroupName, AdGroupIndex> =
        indexes.iter().map(|(name, index)| (name, *index)).collect();
    // The ledger numbers every ad group of the spec; one without a number cannot be in a frame.
    let numbered: Vec<_> =
        spec.ad_groups.iter().filter_map(|a| Some((a, *by_name.get(&a.name)?))).collect();
    numbered.into_iter()
}

/// The advertisers of campaigns. A checked spec has one for each.
type Advertisers<'a> = HashMap<&'a CampaignName, &'a Advertiser>;

/// The time zone of an ad group's advertiser.
pub(super) fn zone(advertisers: &Advertisers<'_>, ad_group: &AdGroup) -> TimeZoneName {
    let advertiser = advertisers.get(&ad_group.campaign);
    advertiser.map_or_else(TimeZoneName::utc, |a| a.time_zone.clone())
}

/// The currency of an ad group's advertiser.
fn currency(advertisers: &Advertisers<'_>, ad_group: &AdGroup) -> Currency {
    advertisers.get(&ad_group.campaign).map_or(Currency::NONE, |a| a.currency)
}

/// The price of one impression or click: micros, and billionths below them.
fn price(ad_group: &AdGroup) -> (Micros, u16) {
    match ad_group.pricing {
        Pricing::PerImpression | Pricing::PerClick => (ad_group.price, 0),
        // A millionth of a thousand is a billionth of one.
        Pricing::PerThousand => {
            let nanos = ad_group.price.0.rem_euclid(1_000);
            (Micros(ad_group.price.0.div_euclid(1_000)), nanos as u16)
        }
    }
}

/// The ad groups of a spec as one partition has them that has all of them, and as gates have them. They are numbered in
/// the order of the spec. For simulations: the ad groups of a deployment have the numbers of its ledger.
pub fn ad_groups_of(spec: &Spec) -> (Vec<AdGroupConfig>, Catalog) {
    let numbers = spec.ad_groups.iter().zip(0..);
    let indexes: Vec<(AdGroupName, AdGroupIndex)> =
        numbers.map(|(ad_group, number)| (ad_group.name.clone(), AdGroupIndex(number))).collect();
    (of_partition(spec, &indexes, 0, 1), for_gates(spec, &indexes, 1))
}

/// The ad groups of one partition of `count`.
pub(super) fn of_partition(
    spec: &Spec,
    indexes: &[(AdGroupName, AdGroupIndex)],
    partition: usize,
    count: usize,
) -> Vec<AdGroupConfig> {
    let advertisers = spec.advertisers_of_campaigns();
    numbered(spec, indexes)
        .filter(|(ad_group, _)| partition_of(ad_group.name.as_str(), count) == partition)
        .map(|(ad_group, index)| AdGroupConfig {
            index,
            name: ad_group.name.clone(),
            campaign: ad_group.campaign.clone(),
            billed: match ad_group.pricing.is_of_impressions() {
                true => BilledEvent::Impression,
                false => BilledEvent::Click,
            },
            price: price(ad_group).0,
            price_nanos: price(ad_group).1,
            impression_rate: ad_group.impression_rate,
            action_rate: ad_group.action_rate,
            horizon: std::time::Duration::from_secs(u64::from(ad_group.horizon_secs)),
            daily_budget: ad_group.daily_budget,
            prediction: ad_group.prediction == Prediction::InFlight,
            zone: zone(&advertisers, ad_group),
            currency: currency(&advertisers, ad_group),
            once_per_insertion: ad_group.once_per_insertion,
            pacing: ad_group.pacing,
            learns_rates: true,
        })
        .collect()
}

/// What gates need to know of all ad groups.
pub(super) fn for_gates(
    spec: &Spec,
    indexes: &[(AdGroupName, AdGroupIndex)],
    version: u64,
) -> Catalog {
    let advertisers = spec.advertisers_of_campaigns();
    let ad_groups = numbered(spec, indexes)
        .map(|(ad_group, index)| CatalogEntry {
            index,
            name: ad_group.name.clone(),
            daily_budget: ad_group.daily_budget,
            prediction: ad_group.prediction == Prediction::InFlight,
            include: ad_group.include.clone(),
            exclude: ad_group.exclude.clone(),
            currency: Some(currency(&advertisers, ad_group)),
            // At least one micro: a gate that counted 0 for its own insertions would not limit them
            // until the feed has their spend.
            expected: price(ad_group)
                .0
                .times_share(ad_group.impression_rate * ad_group.action_rate)
                .max(Micros(1)),
            when_stale: ad_group.when_stale,
        })
        .collect();
    Catalog { version, ad_groups }
}
