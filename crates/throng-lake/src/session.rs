//! The engine with its limits, and the registration of the tables that a query names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use throng_files::{
    DataFile, FileError, FileStamp, Folder, PassedOver, ReadOptions, ScannedFiles, Table,
    check_beneath, of_folder, sql_name, unread,
};
use throng_query::limits::linked_folder;
use throng_query::model::ColumnFacts;
use throng_query::position;
use throng_query::retyped::is_retyped;
use throng_spec::Source;
use throng_tables::{
    Column, FileSchema, LakeTable, Layout, OpenTable, infer_schema, misread, shown, union,
    with_checked_integers,
};

use crate::LakeError;
use crate::part::ScanPart;
use crate::rewrites::optimizer_rules;
use crate::sql_error::sql_error;
use crate::volatility::calls_time;

/// Memory that a sort reserves for its merge: with the default of 10 MiB, sorts of wide rows that
/// spilled ran out of memory in the merge.
const SORT_RESERVATION: usize = 512 << 20;
/// Files whose schemas are cached.
const MAX_CACHED_SCHEMAS: usize = 200_000;

/// The schemas of files, by source and by path, size and time of change of the file.
type SchemaCache = HashMap<(usize, FileStamp), Arc<FileSchema>>;

/// `source.table`, the source's number, and the table's name, each once and in order.
pub(crate) type NamedTables = BTreeSet<(String, usize, String)>;

/// What the queries of one engine may use.
#[derive(Debug, Clone)]
pub(crate) struct EngineLimits {
    /// Memory that operators which can spill use together.
    pub(crate) memory_bytes: u64,
    /// Where queries spill; `None`: a query that would have to spill fails.
    pub(crate) spill_dir: Option<PathBuf>,
    /// Partitions of one query.
    pub(crate) threads: usize,
}

/// The sources, and what all queries share.
#[derive(Debug)]
pub(crate) struct Session {
    sources: Vec<SessionSource>,
    runtime: Arc<RuntimeEnv>,
    config: SessionConfig,
    /// Inferring the schema of a CSV or JSON file means reading all of it.
    schemas: Mutex<SchemaCache>,
}

/// A source as the session reads it.
#[derive(Debug)]
pub(crate) struct SessionSource {
    /// Its name in SQL.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// The folder that it must be in.
    root: PathBuf,
    /// The folder that its links must stay in: the root, or in a workspace its own folder.
    links: PathBuf,
    pub(crate) options: ReadOptions,
}

impl SessionSource {
    fn new(source: &Source) -> Self {
        let folder = source.path.clone();
        Self {
            name: sql_name(source.name.local()),
            root: source.root.clone().unwrap_or_else(|| folder.clone()),
            links: linked_folder(source).cloned().unwrap_or_else(|| folder.clone()),
            folder,
            options: ReadOptions {
                declared: source.columns.clone(),
                trim: source.trim,
                header: source.header,
                copied: source.bucket.is_some(),
            },
        }
    }

    /// Its tables.
    ///
    /// # Errors
    /// Those of [`of_folder`].
    pub(crate) fn read(&self) -> Result<Folder, FileError> {
        self.check(&self.folder)?;
        of_folder(&self.folder, &self.links)
    }

    /// Refuses a file or folder that is not beneath the root, or that a link leads out of the source to.
    fn check(&self, path: &Path) -> Result<(), FileError> {
        check_beneath(path, &self.root)?;
        match self.links == self.root {
            true => Ok(()),
            false => check_beneath(path, &self.links),
        }
    }
}

/// A context with the tables of a query.
pub(crate) struct Opened {
    pub(crate) context: SessionContext,
    pub(crate) tables: Vec<OpenTable>,
    scanned: ScannedFiles,
}

impl Opened {
    /// Refuses files that changed since they were opened.
    ///
    /// # Errors
    /// [`FileError::Changed`], or [`FileError::Source`] if a file is missing.
    pub(crate) fn compare_files(&self) -> Result<(), FileError> {
        self.scanned.compare()
    }

    /// An error of a query over these files. If it is of what they contain, and one has changed since it was opened, that
    /// is the error: another try reads something else.
    pub(crate) fn unless_changed(&self, error: LakeError) -> LakeError {
        match error.is_of_content() {
            true => self.compare_files().err().map_or(error, LakeError::from),
            false => error,
        }
    }
}

impl Session {
    pub(crate) fn new(sources: &[Source], limits: &EngineLimits) -> Result<Self, LakeError> {
        let memory = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
        let threads = limits.threads.max(1);
        let disk = DiskManagerBuilder::default().with_mode(match &limits.spill_dir {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::Disabled,
        });
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|e| LakeError::engine("preparing the spill directory", e))?;
        let mut config = SessionConfig::new()
            .with_target_partitions(threads)
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(true);
        let options = config.options_mut();
        options.execution.sort_spill_reservation_bytes =
            SORT_RESERVATION.min(memory / (4 * threads));
        options.sql_parser.collect_spans = true;
        options.execution.parquet.coerce_int96 = Some("us".to_owned());
        let sources = sources.iter().map(SessionSource::new).collect();
        Ok(Self { sources, runtime, config, schemas: Mutex::default() })
    }

    /// The sources.
    pub(crate) fn sources(&self) -> &[SessionSource] {
        &self.sources
    }

    /// A context in which the tables that `sql` names are registered; a part limits one table to
    /// one of its files, and a sample limits the rows of each file.
    pub(crate) async fn open(
        &self,
        sql: &str,
        part: Option<&ScanPart>,
        sample: Option<usize>,
    ) -> Result<Opened, LakeError> {
        let context = self.empty_context();
        let mut tables = Vec::new();
        for reference in self.references(&context, sql)? {
            let mut layout = self.layout(sql, &reference, part).await?;
            layout.sample = sample;
            let layout = Arc::new(layout);
            let name = format!("{}.{}", reference.schema().unwrap_or_default(), reference.table());
            self.register(&context, &reference, Arc::clone(&layout))?;
            tables.push(OpenTable { name, layout });
        }
        if let Some(planned) = part.and_then(|part| part.planned_files.as_ref()) {
            planned.compare(&tables)?;
        }
        let files = tables.iter().flat_map(|table| &table.layout.files);
        let scanned = ScannedFiles::of(files.map(|plan| &plan.file.stamp))?;
        Ok(Opened { context, tables, scanned })
    }

    fn empty_context(&self) -> SessionContext {
        let session = SessionStateBuilder::new()
            .with_config(self.config.clone())
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .with_optimizer_rules(optimizer_rules());
        SessionContext::new_with_state(with_checked_integers(session).build())
    }

    /// The tables that `sql` names, in parsed form.
    fn references(
        &self,
        context: &SessionContext,
        sql: &str,
    ) -> Result<Vec<TableReference>, LakeError> {
        self.statement(context, sql).map(|(references, _)| references)
    }

    /// The tables that `sql` names, and its statement, in parsed form.
    fn statement(
        &self,
        context: &SessionContext,
        sql: &str,
    ) -> Result<(Vec<TableReference>, Statement), LakeError> {
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let wrong = |e| sql_error(sql, &e, &[]);
        let statement = state.sql_to_statement(sql, &dialect).map_err(wrong)?;
        if let Some(found) = misread(&statement) {
            return Err(LakeError::misread(sql, found));
        }
        let references = state.resolve_table_references(&statement).map_err(wrong)?;
        Ok((references, statement))
    }

    /// The tables that `sql` names, and whether it calls a function whose value depends on the time.
    pub(crate) fn named_tables(&self, sql: &str) -> Result<(NamedTables, bool), LakeError> {
        let named = |reference: &TableReference| {
            let (number, source) = self.source(sql, reference)?;
            let table = reference.table().to_owned();
            Ok::<_, LakeError>((format!("{}.{table}", source.name), number, table))
        };
        let context = self.empty_context();
        let (references, statement) = self.statement(&context, sql)?;
        let tables = references.iter().map(named).collect::<Result<_, LakeError>>()?;
        Ok((tables, calls_time(&context.state(), &statement)))
    }

    /// How a table is read: all of its files, or the one of a part, in both cases with the columns
    /// of the whole table. Otherwise a column's type, and so the keys of a part, would depend on
    /// which files are read together.
    async fn layout(
        &self,
        sql: &str,
        reference: &TableReference,
        part: Option<&ScanPart>,
    ) -> Result<Layout, LakeError> {
        let (number, source) = self.source(sql, reference)?;
        let only = part.and_then(|part| part.file.as_deref());
        if let (Some(only), Some(planned)) =
            (only, part.and_then(|part| part.planned_files.as_ref()))
            && let Some(layout) = planned.layout(only, &source.options)
        {
            // Links may have changed since the part was planned.
            source.check(only)?;
            return Ok(layout);
        }
        let table = self.table(sql, reference, source)?;
        let mut layout = self.whole(number, &table).await?;
        if let Some(only) = only {
            layout.files.retain(|plan| plan.file.path() == only);
            if layout.files.is_empty() {
                // Read as an empty table, it would lose the file's users without an error.
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(FileError::Source { path: only.to_owned(), source }.into());
            }
        }
        Ok(layout)
    }

    /// All files of a table of a source.
    pub(crate) async fn whole(&self, source: usize, table: &Table) -> Result<Layout, FileError> {
        let options = self.sources.get(source).map(|s| s.options.clone()).unwrap_or_default();
        let threads = self.config.target_partitions();
        let schemas: Vec<Arc<FileSchema>> = futures::stream::iter(table.files.clone())
            .map(|file| self.file_schema(source, file, options.clone()))
            .buffered(threads)
            .try_collect()
            .await?;
        union(table, &schemas, &options)
    }

    /// The first file of a table in which a column, by itself, cannot replace the earlier one.
    pub(crate) async fn first_other(
        &self,
        table: &OpenTable,
        before: &ColumnFacts,
        is_key: bool,
    ) -> Option<PathBuf> {
        let (source, _) = table.name.split_once('.')?;
        let number = self.sources.iter().position(|s| s.name == source)?;
        for plan in &table.layout.files {
            let alone = Table { files: vec![plan.file.clone()], passed_over: Vec::new() };
            let layout = self.whole(number, &alone).await.ok()?;
            let lower = before.name.to_lowercase();
            let found = layout.columns.iter().find(|c| c.name.to_lowercase() == lower);
            let is_changed = |c: &Column| is_retyped(&shown(&c.data_type), &before.of, is_key);
            if found.is_some_and(|c| !c.empty && is_changed(c)) {
                return Some(plan.file.path().to_owned());
            }
        }
        None
    }

    /// The schema of a file, cached until the file changes.
    async fn file_schema(
        &self,
        source: usize,
        file: DataFile,
        options: ReadOptions,
    ) -> Result<Arc<FileSchema>, FileError> {
        let key = (source, file.stamp.clone());
        if let Some(cached) = self.lock_schemas().get(&key) {
            return Ok(Arc::clone(cached));
        }
        let path = file.path().to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let scanned = ScannedFiles::of([&file.stamp])?;
            let found = infer_schema(&file, &options);
            // If the file has changed while it was read, the schema must not be cached for its stamp, and a fault is one of
            // half a file.
            scanned.compare()?;
            found
        });
        let found = found.await.map_err(|_| {
            let source = std::io::Error::other("its reader failed");
            FileError::Source { path, source }
        })??;
        let found = Arc::new(found);
        let mut schemas = self.lock_schemas();
        if schemas.len() >= MAX_CACHED_SCHEMAS {
            schemas.clear();
        }
        schemas.insert(key, Arc::clone(&found));
        Ok(found)
    }

    fn lock_schemas(&self) -> parking_lot::MutexGuard<'_, SchemaCache> {
        self.schemas.lock()
    }

    fn source(
        &self,
        sql: &str,
        reference: &TableReference,
    ) -> Result<(usize, &SessionSource), LakeError> {
        let name = reference.table();
        let names: Vec<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
        let Some(schema) = reference.schema() else {
            let example = names.first().copied().unwrap_or("source");
            return Err(LakeError::Sql {
                message: format!("table {name} is named without its source"),
                position: position::of_word(sql, name),
                help: Some(format!("write <source>.{name}, for example {example}.{name}")),
            });
        };
        let found = self.sources.iter().enumerate().find(|(_, source)| source.name == schema);
        let found = found.ok_or_else(|| LakeError::Sql {
            message: format!("there is no source {schema}"),
            position: position::of_word(sql, schema),
            help: Some(match position::nearest(schema, &names) {
                Some(near) => format!("did you mean {near}?"),
                None if names.is_empty() => "declare a source".to_owned(),
                None => format!("the sources are: {}", names.join(", ")),
            }),
        })?;
        let default = &self.config.options().catalog.default_catalog;
        match reference.catalog().filter(|catalog| catalog != default) {
            Some(catalog) => Err(LakeError::Sql {
                message: format!("table {catalog}.{schema}.{name} has a name before its source"),
                position: position::of_word(sql, catalog),
                help: Some(format!(
                    "write {schema}.{name}, without a workspace, project or database"
                )),
            }),
            None => Ok(found),
        }
    }

    fn table(
        &self,
        sql: &str,
        reference: &TableReference,
        source: &SessionSource,
    ) -> Result<Table, LakeError> {
        let (name, schema) = (reference.table(), &source.name);
        let mut found = source.read()?;
        if let Some(table) = found.tables.remove(name) {
            return Ok(table?);
        }
        let there: Vec<&str> = found.tables.keys().map(String::as_str).collect();
        let help = match position::nearest(name, &there) {
            Some(near) => format!("did you mean {schema}.{near}?"),
            None if there.is_empty() => format!("{} contains no table", source.folder.display()),
            None => format!("the tables of {schema} are: {}", there.join(", ")),
        };
        // The file that has the name comes first.
        let is_other = |file: &PassedOver| {
            let below = file.path.strip_prefix(&source.folder).unwrap_or(&file.path);
            let first = below.iter().next().unwrap_or_default().to_string_lossy();
            sql_name(first.split('.').next().unwrap_or_default()) != name
        };
        found.passed_over.sort_by_key(is_other);
        let help = match unread(&found.passed_over) {
            Some(unread) => format!("{help}; {unread}"),
            None => help,
        };
        Err(LakeError::Sql {
            message: format!("there is no table {schema}.{name}"),
            position: position::of_word(sql, name),
            help: Some(help),
        })
    }

    fn register(
        &self,
        context: &SessionContext,
        reference: &TableReference,
        layout: Arc<Layout>,
    ) -> Result<(), LakeError> {
        let schema = reference.schema().unwrap_or_default();
        let catalog_name = &self.config.options().catalog.default_catalog;
        if let Some(catalog) = context.catalog(catalog_name)
            && catalog.schema(schema).is_none()
        {
            catalog
                .register_schema(schema, Arc::new(MemorySchemaProvider::new()))
                .map_err(|e| LakeError::engine("registering a source", e))?;
        }
        context
            .register_table(reference.clone(), Arc::new(LakeTable::new(layout)))
            .map_err(|e| LakeError::engine("registering a table", e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::error::ArrowError;
    use datafusion::error::DataFusionError;
    use throng_files::FileFault;

    use super::*;

    #[tokio::test]
    async fn an_error_of_a_value_is_that_of_a_file_if_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        std::fs::write(&file, "id,n\n1,x\n").unwrap();
        let (name, path) = ("shop".parse().unwrap(), dir.path().to_owned());
        let (root, description, columns, trim, header, bucket) = Default::default();
        let sources = [Source { name, path, root, description, columns, trim, header, bucket }];
        let limits = EngineLimits { memory_bytes: 64 << 20, spill_dir: None, threads: 1 };
        let session = Session::new(&sources, &limits).unwrap();
        let opened = session.open("SELECT id FROM shop.t", None, None).await.unwrap();
        let failed = |error| {
            let error = DataFusionError::ArrowError(Box::new(error), None);
            opened.unless_changed(LakeError::engine("reading", error))
        };
        let error = failed(ArrowError::DivideByZero);
        assert!(matches!(error, LakeError::Data { .. }), "{error:?}");
        std::fs::write(&file, "id,n\n1,10\n").unwrap();
        let error = failed(ArrowError::DivideByZero);
        assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
        // A row that is not one is half of one.
        let fault = FileFault::new(&file, Some(2), "it is not valid CSV");
        let error = DataFusionError::External(Box::new(fault));
        let error = opened.unless_changed(LakeError::engine("reading", error));
        assert!(matches!(error, LakeError::File(FileError::Changed { .. })), "{error:?}");
        // Whatever else fails is not said to be a change.
        let error = failed(ArrowError::IpcError("no".to_owned()));
        assert!(matches!(error, LakeError::Engine { .. }), "{error:?}");
    }
}
