//! What a caller that is limited to a workspace sees: the objects of that workspace, as if there were no others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_model::WorkspaceName;
use throng_spec::Spec;

use crate::Operations;

/// The workspace of a qualified name, such as `acme` of `acme:autumn`; `None`: the default one.
fn workspace_of(name: &str) -> Option<&str> {
    name.split_once(':').map(|(workspace, _)| workspace)
}

/// The parts that workspaces have of the applied spec, each made once, so that a request does not read the objects of
/// all workspaces. They are kept until a request sees another spec. At most one for each workspace of a token.
#[derive(Debug, Default)]
pub struct WorkspaceSpecs(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// The spec that they are of. Kept, so that no other spec has its address.
    of: Option<Arc<Spec>>,
    by_workspace: HashMap<WorkspaceName, Arc<Spec>>,
}

impl Parts {
    fn are_of(&self, spec: &Arc<Spec>) -> bool {
        self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, spec))
    }
}

impl WorkspaceSpecs {
    fn part_of(&self, spec: &Arc<Spec>, workspace: &WorkspaceName) -> Arc<Spec> {
        let known = {
            let parts = self.0.lock();
            parts.are_of(spec).then(|| parts.by_workspace.get(workspace).cloned()).flatten()
        };
        if let Some(known) = known {
            return known;
        }
        // Without the lock: requests of other workspaces do not wait for it.
        let part = Arc::new(part_of(spec, workspace));
        let mut parts = self.0.lock();
        if !parts.are_of(spec) {
            *parts = Parts { of: Some(Arc::clone(spec)), by_workspace: HashMap::new() };
        }
        parts.by_workspace.insert(workspace.clone(), Arc::clone(&part));
        part
    }
}

impl Operations {
    /// The same for a caller that is limited to this workspace: no operation reads or changes an object of another one.
    /// `None`: the caller is not limited. `specs`: those of the process.
    #[must_use]
    pub fn limited_to(mut self, workspace: Option<&WorkspaceName>, specs: &WorkspaceSpecs) -> Self {
        if let Some(workspace) = workspace {
            self.spec = specs.part_of(&self.spec, workspace);
            self.workspace = Some(workspace.clone());
        }
        self
    }

    /// Whether the caller may know of an object of this workspace; `None`: of the default one.
    pub fn can_access(&self, workspace: Option<&str>) -> bool {
        WorkspaceName::can_access(self.workspace.as_ref(), workspace)
    }

    /// Whether the caller may know of an object of this qualified name.
    pub fn can_access_name(&self, name: &str) -> bool {
        self.can_access(workspace_of(name))
    }

    /// The qualified name that a caller means. One that is limited to a workspace may leave it out.
    pub fn qualified<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match &self.workspace {
            Some(own) if workspace_of(name).is_none() => Cow::Owned(format!("{own}:{name}")),
            _ => Cow::Borrowed(name),
        }
    }
}

/// The part of a spec that a workspace has. Advertisers, campaigns and ad groups are in none.
fn part_of(spec: &Spec, workspace: &WorkspaceName) -> Spec {
    let own = Some(workspace.as_str());
    let mut part = spec.clone();
    part.sources.retain(|source| source.name.workspace() == own);
    part.warehouses.retain(|source| source.name.workspace() == own);
    part.schemas.retain(|schema| schema.name.workspace() == own);
    part.audiences.retain(|audience| audience.name.workspace() == own);
    part.destinations.retain(|destination| destination.name.workspace() == own);
    part.syncs.retain(|sync| sync.name.workspace() == own);
    part.serving_stores.retain(|store| store.name.workspace() == own);
    part.audience_templates.clear();
    part.sync_templates.clear();
    part.advertisers.clear();
    part.campaigns.clear();
    part.ad_groups.clear();
    part
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use throng_spec::{SpecFile, SpecFiles, SpecOrigin};

    use super::*;

    /// A spec with this audience in the default workspace and in two others.
    fn spec(audience: &str) -> Arc<Spec> {
        let sources = "[{ name: shop, path: . }]";
        let audiences = format!("[{{ name: {audience}, sql: SELECT id FROM shop.orders }}]");
        let mut text =
            format!("version: 1\nsources: {sources}\naudiences: {audiences}\nworkspaces:\n");
        for workspace in ["acme", "globex"] {
            let objects = format!("sources: {sources}, audiences: {audiences}");
            text.push_str(&format!("  - {{ name: {workspace}, {objects} }}\n"));
        }
        let base = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let files = vec![SpecFile { path: base.join("throng.yaml"), text }];
        Arc::new(throng_spec::check(SpecFiles { base, files }, SpecOrigin::Operator).unwrap())
    }

    fn audiences(spec: &Spec) -> Vec<&str> {
        spec.audiences.iter().map(|audience| audience.name.as_str()).collect()
    }

    #[test]
    fn each_workspace_has_its_part_of_the_spec_that_its_request_sees() {
        let (specs, first, second) = (WorkspaceSpecs::default(), spec("buyers"), spec("leads"));
        let [acme, globex] = ["acme", "globex"].map(|name| WorkspaceName::new(name).unwrap());
        // The third is a request that has begun before the second spec was applied.
        for (spec, audience) in [(&first, "buyers"), (&second, "leads"), (&first, "buyers")] {
            for workspace in [&acme, &globex] {
                let part = specs.part_of(spec, workspace);
                assert_eq!(audiences(&part), [format!("{workspace}:{audience}")]);
                assert_eq!(*part, part_of(spec, workspace));
                assert!(Arc::ptr_eq(&part, &specs.part_of(spec, workspace)), "made once");
            }
        }
    }

    #[test]
    fn parts_of_earlier_specs_are_not_kept() {
        let (specs, first) = (WorkspaceSpecs::default(), spec("buyers"));
        let [acme, globex] = ["acme", "globex"].map(|name| WorkspaceName::new(name).unwrap());
        let part = Arc::downgrade(&specs.part_of(&first, &acme));
        assert!(part.upgrade().is_some());
        specs.part_of(&spec("leads"), &globex);
        assert!(part.upgrade().is_none());
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn the_workspace_is_what_is_before_the_colon() {
        assert_eq!(workspace_of("acme:autumn"), Some("acme"));
        assert_eq!(workspace_of("autumn"), None);
    }
}
