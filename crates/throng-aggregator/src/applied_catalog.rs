//! The ad groups of the applied spec, in the forms that the aggregator needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::FixedState;
use throng_budget::{AdGroupConfig, NameKey};
use throng_feed::Catalog;
use throng_model::{AdGroupIndex, AdGroupName, TimeZoneName};
use throng_spec::{AdGroup, Spec};

use super::catalog;

/// The ad groups of the applied spec.
#[derive(Debug)]
pub(super) struct AppliedCatalog {
    pub(super) catalog: Arc<Catalog>,
    /// Every event is looked up in it. Only names of the spec are added: the hash need not resist chosen names.
    pub(super) names: HashSet<NameKey, FixedState>,
    /// The time zone that the budget days of each ad group follow.
    pub(super) zones: HashMap<AdGroupName, TimeZoneName, FixedState>,
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
        let advertisers = spec.advertisers_of_campaigns();
        let zone = |a: &AdGroup| (a.name.clone(), catalog::zone(&advertisers, a));
        Self {
            catalog: Arc::new(catalog::for_gates(spec, indexes, version)),
            names: spec.ad_groups.iter().map(|a| a.name.as_str().as_bytes().into()).collect(),
            zones: spec.ad_groups.iter().map(zone).collect(),
            configs: (0..count).map(|n| catalog::of_partition(spec, indexes, n, count)).collect(),
        }
    }
}
