//! From files to a checked spec. Each file is parsed into a tree with positions, then every field
//! is read separately, so that one problem does not hide the next. An invalid field is reported and
//! replaced by a valid placeholder; the spec is returned only if there was no problem at all.

mod access;
mod alerts;
mod buckets;
mod engine;
mod fields;
mod folded;
mod hosts;
mod limits;
mod money;
mod node;
mod objects;
mod references;
mod schemas;
mod stores;
mod suggest;
mod targets;
mod templates;
mod transport;
mod tree;
mod warehouse;
mod workspaces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use throng_model::{DestinationName, WorkspaceName};

pub use buckets::load_buckets;
pub use limits::{check_limits, default_limits_file};

use crate::files::{SpecFile, SpecFiles, read_files};
use crate::{NodeSettings, Problem, Spec, SpecOrigin};
use fields::{At, Fields};
use references::Names;
use tree::{Node, Value};
use warehouse::AudienceSource;

/// More problems than this are not collected: a report that is too long helps nobody.
const MAX_PROBLEMS: usize = 500;

/// Reads a spec from disk and checks it as one that may name anything: [`read_files`], then [`check`].
///
/// # Errors
/// Every file that cannot be read; else as [`check`].
pub fn load(path: &Path) -> Result<Spec, Vec<Problem>> {
    check(read_files(path)?, SpecOrigin::Operator)
}

/// Checks the texts of a spec, as one spec. Every spec is checked here, whether it was read from
/// disk or sent. Of the file system only the existence of folders is checked; no secret is read and
/// no SQL is compared with tables. Takes memory and time in proportion to the texts.
///
/// # Errors
/// The first 500 problems, in the order of files and lines.
pub fn check(files: SpecFiles, origin: SpecOrigin) -> Result<Spec, Vec<Problem>> {
    let problems = files.problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let node = match &origin {
        SpecOrigin::Operator => NodeSettings::default(),
        SpecOrigin::Limited { running, .. } => running.as_ref().clone(),
    };
    let mut reader = Reader { folder: files.base, origin, ..Reader::default() };
    reader.spec.node = node;
    for file in files.files {
        reader.parse(file, Reader::top);
    }
    reader.check_platform_names();
    if !reader.incomplete {
        reader.add_lake_sources();
        reader.check_lake_folders();
        reader.check_references();
        reader.check_audience_sources();
    }
    reader.finish()
}

/// The state while files are read.
struct Reader {
    spec: Spec,
    problems: Vec<Problem>,
    names: Names,
    /// The absolute folder to which paths are relative.
    folder: PathBuf,
    origin: SpecOrigin,
    node_at: Option<At>,
    /// The sources that audiences name.
    audience_sources: Vec<AudienceSource>,
    /// The first schema of each workspace; `None` is the default workspace.
    schemas_at: BTreeMap<Option<WorkspaceName>, At>,
    /// The workspace whose objects are read; `None` at the top level.
    workspace: Option<WorkspaceName>,
    /// The workspaces.
    workspaces: BTreeMap<WorkspaceName, At>,
    /// The first destination of each account.
    accounts: BTreeMap<String, (DestinationName, At)>,
    /// Whether a file could not be parsed, so that references to objects in it cannot be checked.
    incomplete: bool,
}

impl Default for Reader {
    fn default() -> Self {
        let spec = Spec {
            version: 1,
            sources: Vec::new(),
            warehouses: Vec::new(),
            schemas: Vec::new(),
            audiences: Vec::new(),
            destinations: Vec::new(),
            syncs: Vec::new(),
            serving_stores: Vec::new(),
            advertisers: Vec::new(),
            campaigns: Vec::new(),
            ad_groups: Vec::new(),
            node: NodeSettings::default(),
            audience_templates: Vec::new(),
            sync_templates: Vec::new(),
        };
        Self {
            spec,
            problems: Vec::new(),
            names: Names::default(),
            folder: PathBuf::new(),
            origin: SpecOrigin::Operator,
            node_at: None,
            audience_sources: Vec::new(),
            schemas_at: BTreeMap::new(),
            workspace: None,
            workspaces: BTreeMap::new(),
            accounts: BTreeMap::new(),
            incomplete: false,
        }
    }
}

impl Reader {
    fn problem(&mut self, at: &At, message: impl Into<String>, help: Option<String>) {
        if self.is_full() {
            return;
        }
        self.problems.push(Problem {
            file: at.file.to_path_buf(),
            line: at.line,
            column: at.column,
            path: at.path.clone(),
            message: message.into(),
            help,
        });
    }

    /// Whether the maximum number of problems is reached.
    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// The spec, or all problems in order.
    fn finish(self) -> Result<Spec, Vec<Problem>> {
        let Self { spec, mut problems, .. } = self;
        if problems.is_empty() {
            return Ok(spec);
        }
        problems.sort_by(|a, b| {
            (&a.file, a.line, a.column, &a.path).cmp(&(&b.file, b.line, b.column, &b.path))
        });
        // A problem behind a YAML alias is found at each use, and is one problem.
        problems.dedup_by(|b, a| {
            (&a.file, a.line, a.column, &a.message) == (&b.file, b.line, b.column, &b.message)
        });
        Err(problems)
    }

    /// Parses a file and passes its fields to `read`.
    fn parse(&mut self, file: SpecFile, read: impl FnOnce(&mut Self, Fields<'_>)) {
        let SpecFile { path, text } = file;
        let start = At { file: path.into(), line: 0, column: 0, path: String::new() };
        match tree::parse(&text) {
            Ok(node @ Node { value: Value::Null, .. }) => {
                let help = "begin with `version: 1`".to_owned();
                self.problem(&start.at(&node), "the file is empty", Some(help));
            }
            Ok(node) => {
                let at = start.at(&node);
                if let Some(top) = Fields::open(self, &node, at) {
                    read(self, top);
                }
            }
            Err(error) => {
                self.incomplete = true;
                let at = At { line: error.line, column: error.column, ..start };
                self.problem(&at, error.message, error.help);
            }
        }
    }

    /// The fields of a spec file.
    fn top(&mut self, mut top: Fields<'_>) {
        self.version(&mut top);
        self.workspace_objects(&mut top);
        self.each(&mut top, "workspaces", Self::workspace);
        self.each(&mut top, "advertisers", Self::advertiser);
        self.each(&mut top, "campaigns", Self::campaign);
        for section in ["ad_groups", "line_items", "ad_sets"] {
            self.each(&mut top, section, Self::ad_group);
        }
        if let Some((node, at)) = top.get("node") {
            self.node(node, at);
        }
        top.done(self);
    }

    /// The objects that a workspace has.
    fn workspace_objects(&mut self, fields: &mut Fields<'_>) {
        self.each(fields, "sources", Self::source);
        self.each(fields, "schemas", Self::schema);
        self.each(fields, "audiences", Self::audience);
        self.each(fields, "destinations", Self::destination);
        self.each(fields, "syncs", Self::sync);
        self.each(fields, "serving_stores", Self::serving_store);
    }

    fn version(&mut self, top: &mut Fields<'_>) {
        let help = || Some("write `version: 1`".to_owned());
        match top.get("version") {
            Some((Node { value: Value::Number(text), .. }, _)) if text == "1" => {}
            Some((_, at)) => {
                self.problem(&at, "this is not a version of the spec that Throng knows", help());
            }
            None => self.problem(&top.at.clone(), "missing field `version`", help()),
        }
    }

    fn each(
        &mut self,
        top: &mut Fields<'_>,
        section: &'static str,
        mut read: impl FnMut(&mut Self, Fields<'_>),
    ) {
        let Some((node, at)) = top.get(section) else { return };
        let Value::List(items) = &node.value else {
            let help = format!("write `{section}:` and below it one `- name: …` per object");
            let message = format!("expected a list, found {}", node.value.kind());
            return self.problem(&at, message, Some(help));
        };
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index, item);
            if let Some(fields) = Fields::open(self, item, at) {
                read(self, fields);
            }
        }
    }
}
