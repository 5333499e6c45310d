//! From files to a checked spec. Each file is parsed into a tree with places, then every field is
//! read by hand, so that one mistake does not hide the next. A field that is wrong is reported and
//! replaced by something harmless; the spec is handed out only if there was no problem at all.

mod fields;
mod money;
mod node;
mod objects;
mod references;
mod sql;
mod suggest;
mod targets;
mod transport;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use targets::IDENTIFIER_KEYS;

use crate::{NodeSettings, Problem, Spec};
use fields::{At, Fields};
use references::Names;
use tree::{Node, Value};

/// Reads a spec: one file, or every `*.yaml` and `*.yml` of a folder (not of its subfolders) as
/// one. Reads the files, looks whether the sources' folders exist, and nothing else: no secret is
/// fetched and no SQL is compared with tables.
///
/// # Errors
/// Every problem of every file, in the order of files and lines.
pub fn load(path: &Path) -> Result<Spec, Vec<Problem>> {
    let files = files_of(path).map_err(|problem| vec![problem])?;
    let mut reader = Reader::default();
    for file in files {
        reader.read_file(file);
    }
    if !reader.incomplete {
        reader.check_references();
    }
    let Reader { spec, mut problems, .. } = reader;
    if problems.is_empty() {
        return Ok(spec);
    }
    problems.sort_by(|a, b| {
        (&a.file, a.line, a.column, &a.path).cmp(&(&b.file, b.line, b.column, &b.path))
    });
    // A mistake behind a YAML alias is met at each use, and is one mistake.
    problems.dedup_by(|b, a| {
        (&a.file, a.line, a.column, &a.message) == (&b.file, b.line, b.column, &b.message)
    });
    Err(problems)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |file: &Path, error: std::io::Error, help: &str| Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message: format!("cannot read the spec: {error}"),
        help: Some(help.to_owned()),
    };
    let is_there = "name a spec file, or a folder with *.yaml files, that exists and may be read";
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, e, is_there))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| unreadable(path, e, is_there))? {
        let file = entry.map_err(|e| unreadable(path, e, is_there))?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("yaml" | "yml")) && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let none = std::io::Error::other("there is no *.yaml and no *.yml file in this folder");
        return Err(unreadable(path, none, "put the spec there, or name another folder"));
    }
    files.sort();
    Ok(files)
}

/// What is known while files are read.
struct Reader {
    spec: Spec,
    problems: Vec<Problem>,
    names: Names,
    /// The folder of the file in hand, absolute.
    folder: PathBuf,
    node_at: Option<At>,
    /// Whether a file could not be read, so that names may be missing through no fault of others.
    incomplete: bool,
}

impl Default for Reader {
    fn default() -> Self {
        let spec = Spec {
            version: 1,
            sources: Vec::new(),
            audiences: Vec::new(),
            destinations: Vec::new(),
            syncs: Vec::new(),
            advertisers: Vec::new(),
            campaigns: Vec::new(),
            ad_groups: Vec::new(),
            node: NodeSettings::default(),
        };
        Self {
            spec,
            problems: Vec::new(),
            names: Names::default(),
            folder: PathBuf::new(),
            node_at: None,
            incomplete: false,
        }
    }
}

impl Reader {
    fn problem(&mut self, at: &At, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem {
            file: at.file.to_path_buf(),
            line: at.line,
            column: at.column,
            path: at.path.clone(),
            message: message.into(),
            help,
        });
    }

    fn read_file(&mut self, file: PathBuf) {
        let file: Arc<Path> = file.into();
        let absolute = std::path::absolute(&file).unwrap_or_else(|_| file.to_path_buf());
        self.folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let start = At { file: file.clone(), line: 0, column: 0, path: String::new() };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                self.incomplete = true;
                let help = "a spec is a text file in UTF-8 that this user may read".to_owned();
                return self.problem(&start, format!("cannot read the file: {error}"), Some(help));
            }
        };
        match tree::parse(&text) {
            Ok(node) => self.read_top(&node, start.at(&node)),
            Err(error) => {
                self.incomplete = true;
                let at = At { line: error.line, column: error.column, ..start };
                self.problem(&at, error.message, error.help);
            }
        }
    }

    fn read_top(&mut self, node: &Node, at: At) {
        if matches!(node.value, Value::Null) {
            let help = "begin with `version: 1`".to_owned();
            return self.problem(&at, "the file is empty", Some(help));
        }
        let Some(mut top) = Fields::open(self, node, at) else { return };
        self.version(&mut top);
        self.each(&mut top, "sources", Self::source);
        self.each(&mut top, "audiences", Self::audience);
        self.each(&mut top, "destinations", Self::destination);
        self.each(&mut top, "syncs", Self::sync);
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
        read: fn(&mut Self, Fields<'_>),
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
