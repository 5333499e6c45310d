//! What a caller that is limited to a workspace sees: the objects of that workspace, as if there were no others.

use std::borrow::Cow;
use std::sync::Arc;

use throng_model::WorkspaceName;
use throng_spec::Spec;

use crate::Operations;

/// The workspace of a qualified name, such as `acme` of `acme:autumn`; `None`: the default one.
fn workspace_of(name: &str) -> Option<&str> {
    name.split_once(':').map(|(workspace, _)| workspace)
}

impl Operations {
    /// The same for a caller that is limited to this workspace: no operation reads or changes an object of another one.
    /// `None`: the caller is not limited.
    #[must_use]
    pub fn limited_to(mut self, workspace: Option<&WorkspaceName>) -> Self {
        if let Some(workspace) = workspace {
            self.spec = Arc::new(part_of(&self.spec, workspace));
            self.workspace = Some(workspace.clone());
        }
        self
    }

    /// Whether the caller may know of an object of this workspace; `None`: of the default one.
    pub fn sees(&self, workspace: Option<&str>) -> bool {
        self.workspace.as_ref().is_none_or(|own| workspace == Some(own.as_str()))
    }

    /// Whether the caller may know of an object of this qualified name.
    pub fn sees_name(&self, name: &str) -> bool {
        self.sees(workspace_of(name))
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
    use super::*;

    #[test]
    fn the_workspace_is_what_is_before_the_colon() {
        assert_eq!(workspace_of("acme:autumn"), Some("acme"));
        assert_eq!(workspace_of("autumn"), None);
    }
}
