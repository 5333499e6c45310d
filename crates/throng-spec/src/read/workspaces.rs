//! Workspaces: their objects are those of the top level, with the name of the workspace in front of theirs.

use throng_model::{SourceName, WorkspaceName};
use throng_schema::workspace_folder;
use throng_spec_types::{MAX_WORKSPACE_CHARS, is_workspace_name};

use super::Reader;
use super::fields::{At, Fields};
use crate::limits::without_dots;
use crate::{BucketUrl, Destination, ObjectKind, Source, SourceBucket};

/// Sections of the top level that no workspace has.
const OF_DEPLOYMENT: [&str; 6] =
    ["advertisers", "campaigns", "ad_groups", "line_items", "ad_sets", "node"];

impl Reader {
    /// One workspace with its objects.
    pub(super) fn workspace(&mut self, mut fields: Fields<'_>) {
        let name = self.workspace_name(&mut fields);
        self.workspace = Some(name);
        self.workspace_objects(&mut fields);
        self.workspace = None;
        for section in OF_DEPLOYMENT {
            // Only if it is there: what is looked for is suggested for unknown fields.
            if !fields.entries().iter().any(|entry| entry.key == section) {
                continue;
            }
            if let Some((_, at)) = fields.get(section) {
                let help = format!("move `{section}` to the top level of the file");
                let message = format!("`{section}` belongs to no workspace");
                self.problem(&at, message, Some(help));
            }
        }
        fields.done(self);
    }

    /// The required name of a workspace. After a problem another name, so that its objects are checked and none of
    /// them is taken for one of another workspace.
    fn workspace_name(&mut self, fields: &mut Fields<'_>) -> WorkspaceName {
        let (line, column) = (fields.at.line, fields.at.column);
        let found = fields.required(self, "name");
        let found = found.and_then(|(node, at)| {
            let name: WorkspaceName = self.name_at(node, &at)?;
            self.admit_workspace(&name, at).then_some(name)
        });
        let unnamed = || WorkspaceName::new(format!("unnamed-{line}-{column}"));
        found.or_else(|| unnamed().ok()).unwrap_or_else(super::references::placeholder_name)
    }

    fn admit_workspace(&mut self, name: &WorkspaceName, at: At) -> bool {
        if !is_workspace_name(name) {
            let help = format!(
                "use at most {MAX_WORKSPACE_CHARS} characters, and neither `default` nor a name that ends in `.lock`: \
                 objects of the top level are in the default workspace"
            );
            self.problem(&at, format!("no workspace may be named `{name}`"), Some(help));
            return false;
        }
        match self.workspaces.get(name).cloned() {
            Some(first) => {
                let message = format!("there are two workspaces named `{name}`");
                let help = format!(
                    "the first is at {}:{}: put their objects into one, or rename one",
                    first.file.display(),
                    first.line
                );
                self.problem(&at, message, Some(help));
                false
            }
            None => {
                self.workspaces.insert(name.clone(), at);
                true
            }
        }
    }

    /// Checks that no source of a workspace reads the ingested rows of another one, after all files were read. The
    /// folder of a source may not contain the lake either: a folder in it is a table.
    pub(super) fn check_lake_folders(&mut self) {
        let lake = self.spec.node.lake.as_deref().filter(|_| !self.workspaces.is_empty());
        let Some(lake) = lake.map(without_dots) else { return };
        let reads_others = |source: &&Source| {
            let path = without_dots(&source.path);
            let own = lake.join(workspace_folder(source.name.workspace()));
            (path.starts_with(&lake) || lake.starts_with(&path)) && !path.starts_with(own)
        };
        // Of the endpoint nothing is known: one server has several names. Google Cloud Storage also has the API of S3.
        let bucket = self.spec.node.lake_bucket.as_ref().map(SourceBucket::url);
        let reads_others_objects = |source: &&Source, lake: &BucketUrl| {
            let Some(url) = source.bucket.as_ref().map(SourceBucket::url) else { return false };
            let url = BucketUrl { is_gcs: lake.is_gcs, ..url };
            let own = lake.in_folder(workspace_folder(source.name.workspace()));
            (lake.contains(&url) || url.contains(lake)) && !own.contains(&url)
        };
        let found = self.spec.sources.iter().filter(|source| match &bucket {
            Some(lake) => reads_others_objects(source, lake),
            None => reads_others(source),
        });
        let found: Vec<SourceName> = found.map(|source| source.name.clone()).collect();
        for name in found {
            let Some(at) = self.names.place(ObjectKind::Source, name.as_str()) else { continue };
            let message = format!("the source `{name}` has ingested rows of other workspaces");
            let help = "name one that is not in `node.lake` and does not contain it: ingested rows are the source \
                        `lake` of their workspace";
            self.problem(&at, message, Some(help.to_owned()));
        }
    }

    /// Checks that no destination of another workspace has the account. An account has one quota and one list of
    /// audiences, and is held as a whole: one workspace would see, and stop, the work of the other.
    pub(super) fn check_account(&mut self, destination: &Destination, at: &At) {
        let account = destination.account();
        let first =
            self.accounts.entry(account).or_insert_with(|| (destination.name.clone(), at.clone()));
        let (other, first) = first.clone();
        if other.workspace() == destination.name.workspace() {
            return;
        }
        let message = format!(
            "the destinations `{other}` and `{}` are of two workspaces and have one account",
            destination.name
        );
        let help = format!(
            "the first is at {}:{}: give each workspace an account, or a folder, of its own",
            first.file.display(),
            first.line
        );
        self.problem(at, message, Some(help));
    }
}
