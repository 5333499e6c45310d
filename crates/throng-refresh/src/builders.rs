//! The kinds of builders of a process, and what they share about the spec and about templates.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_model::{AudienceName, Timestamp};
use throng_spec::{NodeSettings, Spec};
use throng_store::ClaimFilter;
use tokio::sync::MutexGuard;

use super::declared;

/// Which refreshes a builder claims. Those of a warehouse wait for its job most of their time, and must not keep
/// refreshes over folders waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuilderKind {
    /// Those over folders and buckets.
    Lake,
    /// Those whose SQL a warehouse runs.
    Warehouse,
}

impl BuilderKind {
    /// The kind of builder that claims the refreshes of an audience.
    pub(super) fn of(spec: &Spec, audience: &AudienceName) -> Self {
        match declared(spec, audience).is_some_and(|audience| audience.source.is_some()) {
            true => Self::Warehouse,
            false => Self::Lake,
        }
    }

    /// How many of this kind a process has.
    pub(super) fn count(self, node: &NodeSettings) -> u32 {
        let count = match self {
            Self::Lake => node.build_workers,
            Self::Warehouse => node.warehouse_workers,
        };
        count.max(1)
    }

    /// What it claims, given the audiences whose SQL a warehouse runs; `None`: nothing.
    pub(super) fn filter(self, of_warehouses: &[AudienceName]) -> Option<ClaimFilter<'_>> {
        match (self, of_warehouses) {
            (Self::Lake, []) => Some(ClaimFilter::All),
            (Self::Lake, _) => Some(ClaimFilter::Except(of_warehouses)),
            (Self::Warehouse, []) => None,
            (Self::Warehouse, _) => Some(ClaimFilter::Only(of_warehouses)),
        }
    }
}

/// The audiences of a spec whose SQL a warehouse runs.
#[derive(Debug)]
struct OfWarehouses {
    spec: Arc<Spec>,
    audiences: Arc<[AudienceName]>,
}

/// Shared by the builders of a process.
#[derive(Debug, Default)]
pub(crate) struct Builders {
    of_warehouses: Mutex<Option<OfWarehouses>>,
    /// Held while refreshes are claimed. Without it two builders would divide a template, and each would scan.
    claiming: tokio::sync::Mutex<()>,
    /// Models without their parameters that are built alone until a time.
    alone: Mutex<HashMap<String, Timestamp>>,
}

impl Builders {
    /// The audiences of the applied spec whose SQL a warehouse runs. Builders ask at every poll, and a spec may have
    /// 100,000 audiences, so they are found once for each spec.
    pub(super) fn of_warehouses(&self, spec: Arc<Spec>) -> Arc<[AudienceName]> {
        let mut found = self.of_warehouses.lock();
        if let Some(found) = found.as_ref().filter(|found| Arc::ptr_eq(&found.spec, &spec)) {
            return Arc::clone(&found.audiences);
        }
        let of_warehouses = spec.audiences.iter().filter(|audience| audience.source.is_some());
        let audiences: Arc<[AudienceName]> =
            of_warehouses.map(|audience| audience.name.clone()).collect();
        *found = Some(OfWarehouses { spec, audiences: Arc::clone(&audiences) });
        audiences
    }

    /// Lets one builder claim at a time.
    pub(super) async fn claiming(&self) -> MutexGuard<'_, ()> {
        self.claiming.lock().await
    }

    /// Whether the audiences of a template are built alone.
    pub(super) fn is_alone(&self, model: &str, now: Timestamp) -> bool {
        self.alone.lock().get(model).is_some_and(|until| now < *until)
    }

    /// Builds the audiences of a template alone until a time.
    pub(super) fn build_alone(&self, model: String, until: Timestamp) {
        self.alone.lock().insert(model, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Rig;

    #[tokio::test]
    async fn builders_claim_what_the_present_spec_gives_to_their_kind() {
        let rig = Rig::new(&["a", "b"]).await;
        let of_files = rig.ctx.spec.load_full();
        let mut spec = Spec::clone(&of_files);
        spec.audiences[1].source = Some("app".parse().unwrap());
        let mixed = Arc::new(spec);
        let (a, b): (AudienceName, AudienceName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let builders = Builders::default();

        let none = builders.of_warehouses(Arc::clone(&of_files));
        assert_eq!(BuilderKind::Lake.filter(&none), Some(ClaimFilter::All));
        assert_eq!(BuilderKind::Warehouse.filter(&none), None);
        assert_eq!(BuilderKind::of(&of_files, &b), BuilderKind::Lake);

        let one = builders.of_warehouses(Arc::clone(&mixed));
        let expected = [b.clone()];
        assert_eq!(BuilderKind::Lake.filter(&one), Some(ClaimFilter::Except(&expected)));
        assert_eq!(BuilderKind::Warehouse.filter(&one), Some(ClaimFilter::Only(&expected)));
        assert_eq!(BuilderKind::of(&mixed, &a), BuilderKind::Lake);
        assert_eq!(BuilderKind::of(&mixed, &b), BuilderKind::Warehouse);
        // One that the spec does not have fails without a job.
        let unknown = "c".parse().unwrap();
        assert_eq!(BuilderKind::of(&mixed, &unknown), BuilderKind::Lake);

        assert!(Arc::ptr_eq(&one, &builders.of_warehouses(mixed)), "found once for each spec");
        assert!(builders.of_warehouses(of_files).is_empty());
    }
}
