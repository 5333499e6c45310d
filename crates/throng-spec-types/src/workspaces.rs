//! Workspaces of a spec: each has objects of its own, whose stored names begin with its name.

use std::collections::{BTreeMap, BTreeSet};

use throng_model::WorkspaceName;
use throng_schema::DEFAULT_WORKSPACE;

use crate::{Destination, InvalidSpec, ObjectKind, Source, Spec};

/// Characters of the name of a workspace, at most: with the name of an object it is the name of a folder.
pub const MAX_WORKSPACE_CHARS: usize = 64;

/// Whether a workspace may have this name. `default` is the folder of the objects of no workspace, and the lake has
/// a file that ends in `.lock`.
pub fn is_workspace_name(name: &WorkspaceName) -> bool {
    let name = name.as_str();
    name.len() <= MAX_WORKSPACE_CHARS && name != DEFAULT_WORKSPACE && !name.ends_with(".lock")
}

/// The sources of each workspace. `None` is the default workspace.
pub fn sources_by_workspace(sources: &[Source]) -> BTreeMap<Option<String>, Vec<Source>> {
    let mut found: BTreeMap<Option<String>, Vec<Source>> = BTreeMap::new();
    for source in sources {
        let workspace = source.name.workspace().map(str::to_owned);
        found.entry(workspace).or_default().push(source.clone());
    }
    found
}

/// A destination with the account of a destination of another workspace. An account has one quota and one list of
/// audiences, and is held as a whole: one workspace would see, and stop, the work of the other.
fn shared_account(destinations: &[Destination]) -> Option<&Destination> {
    let mut first: BTreeMap<String, &Destination> = BTreeMap::new();
    destinations.iter().find(|&destination| {
        let other = *first.entry(destination.account()).or_insert(destination);
        other.name.workspace() != destination.name.workspace()
    })
}

impl Spec {
    /// The workspaces that have objects, without the default one.
    pub fn workspaces(&self) -> BTreeSet<&str> {
        let of_templates = self.audience_templates.iter().filter_map(|of| of.name.workspace());
        let of_templates = of_templates
            .chain(self.sync_templates.iter().filter_map(|template| template.name.workspace()));
        let of_objects = (self.sources.iter().filter_map(|of| of.name.workspace()))
            .chain(self.warehouses.iter().filter_map(|of| of.name.workspace()))
            .chain(self.schemas.iter().filter_map(|of| of.name.workspace()))
            .chain(self.audiences.iter().filter_map(|of| of.name.workspace()))
            .chain(self.destinations.iter().filter_map(|of| of.name.workspace()))
            .chain(self.syncs.iter().filter_map(|of| of.name.workspace()))
            .chain(self.serving_stores.iter().filter_map(|of| of.name.workspace()));
        of_objects.chain(of_templates).collect()
    }

    /// Removes the SQL of other workspaces, and what refers to it.
    pub fn keep_sql_of(&mut self, workspace: &str) {
        let own = Some(workspace);
        self.audiences.retain(|audience| audience.name.workspace() == own);
        self.audience_templates.retain(|template| template.name.workspace() == own);
        self.syncs.retain(|sync| sync.name.workspace() == own);
        self.sync_templates.retain(|template| template.name.workspace() == own);
        self.serving_stores.retain(|store| store.name.workspace() == own);
        self.ad_groups.clear();
    }

    /// Checks that workspaces have names that they may have, that objects refer to objects of their own workspace,
    /// and that no two workspaces have the same account.
    pub(crate) fn check_workspaces(&self) -> Result<(), InvalidSpec> {
        use ObjectKind as Kind;
        let other = "it refers to an object of another workspace";
        let ensure = |holds: bool, kind: ObjectKind, name: &str, why: &'static str| match holds {
            true => Ok(()),
            false => Err(InvalidSpec { kind, name: name.to_owned(), why }),
        };
        for workspace in self.workspaces() {
            let is_name = WorkspaceName::new(workspace).is_ok_and(|name| is_workspace_name(&name));
            ensure(is_name, Kind::Source, workspace, "no workspace may have this name")?;
        }
        for audience in &self.audiences {
            let own = audience.name.workspace();
            let source = audience.source.as_ref().is_none_or(|name| name.workspace() == own);
            let template =
                audience.made_from.as_ref().is_none_or(|of| of.template.workspace() == own);
            ensure(source && template, Kind::Audience, audience.name.as_str(), other)?;
        }
        for sync in &self.syncs {
            let own = sync.name.workspace();
            let named = [sync.audience.workspace(), sync.destination.workspace()] == [own; 2];
            let template = sync.made_from.as_ref().is_none_or(|of| of.template.workspace() == own);
            ensure(named && template, Kind::Sync, sync.name.as_str(), other)?;
        }
        for template in &self.sync_templates {
            let own = template.name.workspace();
            let of = [template.audience.workspace(), template.destination.workspace()];
            ensure(of == [own; 2], Kind::Sync, template.name.as_str(), other)?;
        }
        for store in &self.serving_stores {
            let mut named = store.audiences.iter().flatten();
            let is_own = named.all(|name| name.workspace() == store.name.workspace());
            ensure(is_own, Kind::ServingStore, store.name.as_str(), other)?;
        }
        let shared = shared_account(&self.destinations).map(|found| found.name.as_str());
        let why = "a destination of another workspace has its account";
        shared.map_or(Ok(()), |name| ensure(false, Kind::Destination, name, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source {
            name: name.parse().unwrap(),
            path: "/data".into(),
            root: None,
            description: None,
            columns: Vec::new(),
            trim: false,
            header: None,
            bucket: None,
        }
    }

    #[test]
    fn each_source_is_one_of_its_workspace() {
        let found = sources_by_workspace(&[
            source("shop"),
            source("acme:shop"),
            source("acme:web"),
            source("globex:shop"),
        ]);
        let names: Vec<(Option<&str>, Vec<&str>)> = found
            .iter()
            .map(|(of, sources)| (of.as_deref(), sources.iter().map(|s| s.name.as_str()).collect()))
            .collect();
        assert_eq!(
            names,
            [
                (None, vec!["shop"]),
                (Some("acme"), vec!["acme:shop", "acme:web"]),
                (Some("globex"), vec!["globex:shop"])
            ]
        );
    }

    #[test]
    fn names_that_are_folders_or_files_of_the_lake_are_no_workspaces() {
        let is_name = |name: &str| is_workspace_name(&name.parse().unwrap());
        assert!(is_name("acme") && is_name("default-2") && is_name(&"x".repeat(64)));
        assert!(!is_name("default") && !is_name("default.lock") && !is_name(&"x".repeat(65)));
    }
}
