//! What the applied spec says about ad groups.

use std::collections::HashMap;
use std::sync::Arc;

use throng_budget::AdGroupConfig;
use throng_feed::Catalog;
use throng_model::{AdGroupIndex, AdGroupName, TimeZoneName};
use throng_spec::Spec;

use super::catalog;

/// What the applied spec says about ad groups.
pub(super) struct Known {
    pub(super) catalog: Arc<Catalog>,
    pub(super) zones: HashMap<AdGroupName, TimeZoneName>,
    /// By partition.
    pub(super) configs: Vec<Vec<AdGroupConfig>>,
}

impl Known {
    pub(super) fn of(
        spec: &Spec,
        indexes: &[(AdGroupName, AdGroupIndex)],
        version: u64,
        count: usize,
    ) -> Self {
        Self {
            catalog: Arc::new(catalog::for_gates(spec, indexes, version)),
            zones: names(spec),
            configs: (0..count).map(|n| catalog::of_partition(spec, indexes, n, count)).collect(),
        }
    }
}

/// The ad groups of a spec with the zones that their days follow.
fn names(spec: &Spec) -> HashMap<AdGroupName, TimeZoneName> {
    spec.ad_groups.iter().map(|a| (a.name.clone(), catalog::zone(spec, a))).collect()
}
