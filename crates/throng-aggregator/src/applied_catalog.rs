//! The ad groups of the applied spec, in the forms that the aggregator needs.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use throng_budget::AdGroupConfig;
use throng_feed::Catalog;
use throng_model::{AdGroupIndex, AdGroupName, TimeZoneName};
use throng_spec::Spec;

use super::catalog;

/// The time zones of ad groups. Every event is looked up in it, and only names of the spec are added: the hash need not
/// resist chosen names.
pub(super) type Zones = HashMap<AdGroupName, TimeZoneName, FixedState>;

/// The ad groups of the applied spec.
#[derive(Debug)]
pub(super) struct AppliedCatalog {
    pub(super) catalog: Arc<Catalog>,
    pub(super) zones: Zones,
    /// What the engine needs to know of the ad groups of each partition.
    pub(super) configs: Vec<Vec<AdGroupConfig>>,
}

impl AppliedCatalog {
    pub(super) fn of(
        spec: &Spec,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
        count: usize,
    ) -> Self {
        Self {
            catalog: Arc::new(catalog::for_gates(spec, indexes, version)),
            zones: zones(spec),
            configs: (0..count).map(|n| catalog::of_partition(spec, indexes, n, count)).collect(),
        }
    }
}

/// The time zone that the budget days of each ad group follow.
fn zones(spec: &Spec) -> Zones {
    let advertisers = spec.advertisers_of_campaigns();
    spec.ad_groups.iter().map(|a| (a.name.clone(), catalog::zone(&advertisers, a))).collect()
}
