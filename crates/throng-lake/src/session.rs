//! The engine with its limits, and the registration of the tables that a query names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use throng_spec::Source;

use crate::engine::EngineLimits;
use crate::misread::refuse_misread;
use crate::rewrites::optimizer_rules;
use crate::tables::{Format, Table, of_folder, sql_name};
use crate::{LakeError, position};

/// Rows that a schema is inferred from.
const INFER_ROWS: usize = 100_000;
/// What a sort keeps for its merge: with the 10 MiB of the default, sorts of wide rows that spill ran
/// out of memory while they merged.
const SORT_RESERVATION: usize = 512 << 20;

type Schemas = HashMap<(PathBuf, u64, Option<SystemTime>), SchemaRef>;

#[derive(Debug)]
pub(crate) struct Session {
    /// SQL name and folder of each source, and what the folder must not lead out of.
    sources: Vec<(String, PathBuf, PathBuf)>,
    runtime: Arc<RuntimeEnv>,
    config: SessionConfig,
    /// Schemas of tables, by path, size and time of change: finding one out can mean reading all of
    /// a table.
    schemas: Mutex<Schemas>,
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
        Ok(Self {
            sources: sources
                .iter()
                .map(|s| {
                    let root = s.root.as_ref().unwrap_or(&s.path);
                    (sql_name(s.name.as_str()), s.path.clone(), root.clone())
                })
                .collect(),
            runtime,
            config,
            schemas: Mutex::default(),
        })
    }

    /// A context in which the tables that `sql` names are registered; `only` limits one table to one
    /// of its files.
    pub(crate) async fn context(
        &self,
        sql: &str,
        only: Option<&Path>,
    ) -> Result<SessionContext, LakeError> {
        let context = self.empty_context();
        for reference in self.references(&context, sql)? {
            self.register(&context, sql, &reference, only).await?;
        }
        Ok(context)
    }

    fn empty_context(&self) -> SessionContext {
        let state = SessionStateBuilder::new()
            .with_config(self.config.clone())
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .with_optimizer_rules(optimizer_rules())
            .build();
        SessionContext::new_with_state(state)
    }

    /// The tables that `sql` names, in parsed form.
    fn references(
        &self,
        context: &SessionContext,
        sql: &str,
    ) -> Result<Vec<TableReference>, LakeError> {
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(|e| sql_error(sql, &e))?;
        refuse_misread(sql, &statement)?;
        state.resolve_table_references(&statement).map_err(|e| sql_error(sql, &e))
    }

    /// The files behind each table that `sql` names.
    pub(crate) fn files(&self, sql: &str) -> Result<Vec<Table>, LakeError> {
        let context = self.empty_context();
        self.references(&context, sql)?.iter().map(|r| self.table(sql, r).map(|(_, t)| t)).collect()
    }

    fn table(&self, sql: &str, reference: &TableReference) -> Result<(String, Table), LakeError> {
        let name = reference.table();
        let wrong = |message: String, help: String| LakeError::Sql {
            message,
            position: position::of_word(sql, name),
            help: Some(help),
        };
        let names: Vec<&str> = self.sources.iter().map(|(name, ..)| name.as_str()).collect();
        let Some(schema) = reference.schema() else {
            let example = names.first().copied().unwrap_or("source");
            return Err(wrong(
                format!("table {name} is named without its source"),
                format!("write <source>.{name}, for example {example}.{name}"),
            ));
        };
        let found = self.sources.iter().find(|(source, ..)| source == schema);
        let Some((_, folder, root)) = found else {
            let meant = position::nearest(schema, &names);
            return Err(LakeError::Sql {
                message: format!("there is no source {schema}"),
                position: position::of_word(sql, schema),
                help: Some(match meant {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("the sources are: {}", names.join(", ")),
                }),
            });
        };
        let mut tables = of_folder(folder, root)?;
        match tables.remove(name) {
            Some(table) => Ok((schema.to_owned(), table?)),
            None => {
                let there: Vec<&str> = tables.keys().map(String::as_str).collect();
                let help = match position::nearest(name, &there) {
                    Some(meant) => format!("did you mean {schema}.{meant}?"),
                    None if there.is_empty() => format!("{} holds no table", folder.display()),
                    None => format!("the tables of {schema} are: {}", there.join(", ")),
                };
                Err(wrong(format!("there is no table {schema}.{name}"), help))
            }
        }
    }

    async fn register(
        &self,
        context: &SessionContext,
        sql: &str,
        reference: &TableReference,
        only: Option<&Path>,
    ) -> Result<(), LakeError> {
        let (schema_name, table) = self.table(sql, reference)?;
        let files = match only {
            None => table.files.clone(),
            Some(only) if table.files.iter().any(|file| file == only) => vec![only.to_owned()],
            Some(only) => {
                // Read as an empty table it would silently lose the file's users.
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(LakeError::Source { path: only.to_owned(), source });
            }
        };
        let catalog_name = &self.config.options().catalog.default_catalog;
        if let Some(catalog) = context.catalog(catalog_name)
            && catalog.schema(&schema_name).is_none()
        {
            catalog
                .register_schema(&schema_name, Arc::new(MemorySchemaProvider::new()))
                .map_err(|e| LakeError::engine("naming a source", e))?;
        }
        let view = self.read(context, &table, &files).await?;
        context
            .register_table(reference.clone(), view)
            .map_err(|e| LakeError::engine("registering a table", e))?;
        Ok(())
    }

    /// Some files of a table, with the schema of the whole table: what a part of a scan means must
    /// not hang on what the other files happen to hold.
    async fn read(
        &self,
        context: &SessionContext,
        table: &Table,
        files: &[PathBuf],
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let schema = self.schema(context, table).await?;
        let frame = open(context, table.format, files, Some(&schema)).await;
        Ok(frame.map_err(|e| LakeError::engine("opening a table", e))?.into_view())
    }

    /// The schema of all files of a table, remembered until they change.
    async fn schema(
        &self,
        context: &SessionContext,
        table: &Table,
    ) -> Result<SchemaRef, LakeError> {
        let key = fingerprint(&table.files)?;
        if let Some(known) = self.lock_schemas().get(&key) {
            return Ok(Arc::clone(known));
        }
        let guessed = open(context, table.format, &table.files, None)
            .await
            .map_err(|e| LakeError::engine("reading a table's columns", e))?;
        let guessed = guessed.schema().as_arrow().clone();
        let schema = match table.format {
            Format::Csv { .. } => {
                let columns: Vec<Field> = guessed
                    .fields()
                    .iter()
                    .map(|f| Field::new(f.name(), DataType::Utf8, true))
                    .collect();
                let text = open(context, table.format, &table.files, Some(&Schema::new(columns)))
                    .await
                    .map_err(|e| LakeError::engine("reading a table's columns", e))?;
                crate::columns::corrected(&guessed, text).await?
            }
            Format::Parquet | Format::Json { .. } => guessed,
        };
        let schema = Arc::new(schema);
        self.lock_schemas().insert(key, Arc::clone(&schema));
        Ok(schema)
    }

    fn lock_schemas(&self) -> std::sync::MutexGuard<'_, Schemas> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files of one format as a frame; without a schema the engine guesses one.
async fn open(
    context: &SessionContext,
    format: Format,
    files: &[PathBuf],
    schema: Option<&Schema>,
) -> datafusion::error::Result<DataFrame> {
    let paths: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let compression = |gzipped| {
        if gzipped { FileCompressionType::GZIP } else { FileCompressionType::UNCOMPRESSED }
    };
    match format {
        Format::Parquet => {
            let mut options = ParquetReadOptions::default().skip_metadata(true);
            options.schema = schema;
            context.read_parquet(paths, options).await
        }
        Format::Csv { gzipped } => {
            let mut options = CsvReadOptions::new()
                .has_header(true)
                .newlines_in_values(true)
                .file_extension(if gzipped { "csv.gz" } else { "csv" })
                .schema_infer_max_records(INFER_ROWS)
                .file_compression_type(compression(gzipped));
            options.schema = schema;
            context.read_csv(paths, options).await
        }
        Format::Json { gzipped } => {
            let ending = ending_of(files);
            let mut options = JsonReadOptions::default()
                .file_extension(&ending)
                .schema_infer_max_records(INFER_ROWS)
                .file_compression_type(compression(gzipped));
            options.schema = schema;
            context.read_json(paths, options).await
        }
    }
}

fn ending_of(files: &[PathBuf]) -> String {
    let name = files
        .first()
        .and_then(|f| f.file_name())
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let endings = ["jsonl.gz", "ndjson.gz", "json.gz", "jsonl", "ndjson"];
    endings.into_iter().find(|e| name.ends_with(e)).unwrap_or("json").to_owned()
}

/// What changes when the files change: the first path, the sizes together, the newest change.
fn fingerprint(files: &[PathBuf]) -> Result<(PathBuf, u64, Option<SystemTime>), LakeError> {
    let mut total = files.len() as u64;
    let mut newest = None;
    for file in files {
        let fail = |source| LakeError::Source { path: file.clone(), source };
        let metadata = std::fs::metadata(file).map_err(fail)?;
        total = total.wrapping_mul(31).wrapping_add(metadata.len());
        newest = newest.max(metadata.modified().ok());
    }
    Ok((files.first().cloned().unwrap_or_default(), total, newest))
}

/// Turns an error of planning into one that points into the SQL.
pub(crate) fn sql_error(sql: &str, error: &datafusion::error::DataFusionError) -> LakeError {
    use datafusion::common::SchemaError;
    use datafusion::error::DataFusionError;
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema_error, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref()
    {
        let names: Vec<&str> = valid_fields.iter().map(|f| f.name.as_str()).collect();
        let help = match position::nearest(&field.name, &names) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("the columns are: {}", names.join(", ")),
        };
        return LakeError::Sql {
            message: format!("there is no column {}", field.name),
            position: position::of_word(sql, &field.name),
            help: Some(help),
        };
    }
    let text = root.strip_backtrace();
    if text.contains("RecursionLimitExceeded") {
        return LakeError::Sql {
            message: "the statement is nested too deeply to be parsed".to_owned(),
            position: None,
            help: Some("write subqueries as common table expressions (WITH)".to_owned()),
        };
    }
    let text = text
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("SQL error: ")
        .trim_start_matches("ParserError(\"")
        .trim_end_matches("\")");
    let (message, position) = position::from_parser(text);
    LakeError::Sql { message, position, help: None }
}
