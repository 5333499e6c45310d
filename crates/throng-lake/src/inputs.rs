//! The state of the files that a model reads, without reading them: whether they have changed since a
//! snapshot was made, and whether they are complete.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use serde::{Deserialize, Serialize};
use throng_files::{DataFile, FileError, FileStamp, Folder, ReadOptions, of_folder};
use xxhash_rust::xxh3::Xxh3;

use crate::engine::Engine;
use crate::session::{Opened, Session, SessionSource};

/// Part of every fingerprint. A new number if the same files mean other rows or other keys than
/// before: snapshots of earlier versions are then made again.
const FORMAT: u32 = 1;

/// A query whose files are inspected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputQuery {
    /// The SQL of a model.
    pub sql: String,
    /// The name of a file that a job writes when its files are complete.
    pub success_file: Option<String>,
}

/// The files of a query as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputState {
    /// They can be read; see [`Inputs::fingerprint`](crate::Inputs::fingerprint).
    Ready(String),
    /// The success file is missing or older than a file, for this reason.
    Incomplete(String),
    /// They cannot be read, for this reason.
    Refused(String),
}

/// Whether a plan has a function whose value depends on the time, or that returns another value each
/// time.
pub(crate) fn is_time_dependent(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                let volatility = match inner {
                    Expr::ScalarFunction(call) => call.func.signature().volatility,
                    Expr::AggregateFunction(call) => call.func.signature().volatility,
                    _ => Volatility::Immutable,
                };
                found |= volatility != Volatility::Immutable;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    // A plan that cannot be visited may have such a function.
    found || visited.is_err()
}

/// Builds a fingerprint, table by table.
struct Fingerprint(Xxh3);

impl Fingerprint {
    fn new() -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&FORMAT.to_le_bytes());
        Self(hasher)
    }

    fn text(&mut self, text: &[u8]) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// Adds a table with its files. The time of change of the inode is part of it: a file that
    /// replaces another one may have its size and its modification time.
    fn add<'a>(
        &mut self,
        table: &str,
        options: &ReadOptions,
        files: impl Iterator<Item = &'a FileStamp>,
    ) -> Result<(), FileError> {
        self.text(table.as_bytes());
        // A declared type decides which values are keys.
        let ReadOptions { declared, trim, header } = options;
        self.text(format!("{declared:?} {trim} {header:?}").as_bytes());
        let mut files: Vec<&FileStamp> = files.collect();
        files.sort_unstable();
        self.0.update(&(files.len() as u64).to_le_bytes());
        for stamp in files {
            let fail = |source| FileError::Source { path: stamp.path.clone(), source };
            let metadata = std::fs::metadata(&stamp.path).map_err(fail)?;
            self.text(stamp.path.as_os_str().as_encoded_bytes());
            self.0.update(&stamp.bytes.to_le_bytes());
            self.0.update(&stamp.modified.to_le_bytes());
            self.0.update(&metadata.ctime().to_le_bytes());
            self.0.update(&metadata.ctime_nsec().to_le_bytes());
        }
        Ok(())
    }

    fn finish(self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

impl Session {
    /// The fingerprint of the tables that were opened for a query.
    ///
    /// # Errors
    /// [`FileError::Source`] if a file is missing by now.
    pub(crate) fn fingerprint(&self, opened: &Opened) -> Result<String, FileError> {
        let mut tables: Vec<_> = opened.tables.iter().collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables.dedup_by(|a, b| a.name == b.name);
        let mut fingerprint = Fingerprint::new();
        for table in tables {
            let schema = table.name.split_once('.').map_or("", |(schema, _)| schema);
            let source = self.sources().iter().find(|source| source.name == schema);
            let options = source.map(|source| source.options.clone()).unwrap_or_default();
            let files = table.layout.files.iter().map(|plan| &plan.file.stamp);
            fingerprint.add(&table.name, &options, files)?;
        }
        Ok(fingerprint.finish())
    }
}

/// The tables of sources that were listed for earlier queries of one request, by the source's number.
type Listed = HashMap<usize, Result<Folder, String>>;

impl Engine {
    /// The states of the files of some queries. Each source is listed once, and queries that are the same, as those
    /// of a template, are inspected once.
    pub(crate) fn input_states(&self, queries: &[InputQuery]) -> Vec<InputState> {
        let (mut listed, mut known) = (Listed::new(), HashMap::new());
        let states = queries.iter().map(|query| {
            let inspect = || {
                let state = self.input_state(query, &mut listed);
                state.unwrap_or_else(InputState::Refused)
            };
            known.entry(query).or_insert_with(inspect).clone()
        });
        states.collect()
    }

    fn input_state(&self, query: &InputQuery, listed: &mut Listed) -> Result<InputState, String> {
        let named =
            self.inner.named_tables(&query.sql).map_err(|e| throng_model::with_causes(&e))?;
        let named: BTreeSet<(String, usize, String)> = named.into_iter().collect();
        let mut fingerprint = Fingerprint::new();
        for (name, number, table) in &named {
            let source = self.inner.sources().get(*number).ok_or("the source is missing")?;
            let folder = listed.entry(*number).or_insert_with(|| {
                of_folder(&source.folder, &source.root).map_err(|e| throng_model::with_causes(&e))
            });
            let folder = folder.as_ref().map_err(Clone::clone)?;
            let files = match folder.tables.get(table) {
                None => return Err(format!("there is no table {name}")),
                Some(Err(error)) => return Err(throng_model::with_causes(error)),
                Some(Ok(found)) => &found.files,
            };
            if let Some(success_file) = &query.success_file
                && let Some(file) = first_incomplete(source, files, success_file)
            {
                return Ok(InputState::Incomplete(format!(
                    "no {success_file} is newer than {}",
                    file.display()
                )));
            }
            let stamps = files.iter().map(|file| &file.stamp);
            let added = fingerprint.add(name, &source.options, stamps);
            added.map_err(|e| throng_model::with_causes(&e))?;
        }
        Ok(InputState::Ready(fingerprint.finish()))
    }
}

/// The first file that has no success file of its own age or newer, in its folder or in one above it
/// within the source.
fn first_incomplete<'a>(
    source: &SessionSource,
    files: &'a [DataFile],
    success_file: &str,
) -> Option<&'a Path> {
    // By folder: tables have many files in few folders.
    let mut newest: HashMap<&Path, Option<u64>> = HashMap::new();
    let mut written = |folder: &'a Path| {
        *newest.entry(folder).or_insert_with(|| {
            let within = folder.ancestors().take_while(|above| above.starts_with(&source.folder));
            let stamps = within.filter_map(|above| FileStamp::of(&above.join(success_file)).ok());
            stamps.map(|stamp| stamp.modified).max()
        })
    };
    let mut complete =
        |file: &'a DataFile| written(file.path().parent()?).filter(|at| *at >= file.stamp.modified);
    files.iter().find(|file| complete(*file).is_none()).map(DataFile::path)
}
