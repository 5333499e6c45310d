//! The engine with its limits, and the registration of the tables that a query names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use throng_spec::Source;

use crate::tables::{Format, Table, of_folder, sql_name};
use crate::{LakeError, LakeLimits, position};

/// Rows that a schema is inferred from.
const INFER_ROWS: usize = 100_000;
/// Below this, sorts that spill fail (measured; see docs/adr).
const SORT_RESERVATION: usize = 512 << 20;

#[derive(Debug)]
pub(crate) struct Session {
    /// SQL name and folder of each source.
    sources: Vec<(String, PathBuf)>,
    runtime: Arc<RuntimeEnv>,
    config: SessionConfig,
    /// Inferred schemas of CSV files, by path, size and time of change: inference reads much of a
    /// file.
    schemas: Mutex<HashMap<(PathBuf, u64, Option<SystemTime>), SchemaRef>>,
}

impl Session {
    pub(crate) fn new(sources: &[Source], limits: LakeLimits) -> Result<Self, LakeError> {
        let memory = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
        let threads = limits.threads.max(1);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![limits.spill_dir.clone()]));
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
            sources: sources.iter().map(|s| (sql_name(s.name.as_str()), s.path.clone())).collect(),
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
        let context =
            SessionContext::new_with_config_rt(self.config.clone(), Arc::clone(&self.runtime));
        for reference in self.references(&context, sql)? {
            self.register(&context, sql, &reference, only).await?;
        }
        Ok(context)
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
        state.resolve_table_references(&statement).map_err(|e| sql_error(sql, &e))
    }

    /// The files behind each table that `sql` names.
    pub(crate) fn files(&self, sql: &str) -> Result<Vec<Table>, LakeError> {
        let context =
            SessionContext::new_with_config_rt(self.config.clone(), Arc::clone(&self.runtime));
        self.references(&context, sql)?.iter().map(|r| self.table(sql, r).map(|(_, t)| t)).collect()
    }

    fn table(&self, sql: &str, reference: &TableReference) -> Result<(String, Table), LakeError> {
        let name = reference.table();
        let wrong = |message: String, help: String| LakeError::Sql {
            message,
            position: position::of_word(sql, name),
            help: Some(help),
        };
        let names: Vec<&str> = self.sources.iter().map(|(name, _)| name.as_str()).collect();
        let Some(schema) = reference.schema() else {
            let example = names.first().copied().unwrap_or("source");
            return Err(wrong(
                format!("table {name} is named without its source"),
                format!("write <source>.{name}, for example {example}.{name}"),
            ));
        };
        let Some((_, folder)) = self.sources.iter().find(|(source, _)| source == schema) else {
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
        let mut tables = of_folder(folder)?;
        match tables.remove(name) {
            Some(table) => Ok((schema.to_owned(), table)),
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
        let (schema_name, mut table) = self.table(sql, reference)?;
        if let Some(only) = only {
            table.files.retain(|file| file == only);
        }
        let catalog_name = &self.config.options().catalog.default_catalog;
        if let Some(catalog) = context.catalog(catalog_name)
            && catalog.schema(&schema_name).is_none()
        {
            catalog
                .register_schema(&schema_name, Arc::new(MemorySchemaProvider::new()))
                .map_err(|e| LakeError::engine("naming a source", e))?;
        }
        let frame = self.read(context, &table).await?;
        context
            .register_table(reference.clone(), frame)
            .map_err(|e| LakeError::engine("registering a table", e))?;
        Ok(())
    }

    async fn read(
        &self,
        context: &SessionContext,
        table: &Table,
    ) -> Result<Arc<dyn datafusion::catalog::TableProvider>, LakeError> {
        let paths: Vec<String> =
            table.files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        let compression = |gzipped| {
            if gzipped { FileCompressionType::GZIP } else { FileCompressionType::UNCOMPRESSED }
        };
        let doing = "reading a table's schema";
        let frame = match table.format {
            Format::Parquet => {
                let options = ParquetReadOptions::default().skip_metadata(true);
                context.read_parquet(paths, options).await
            }
            Format::Csv { gzipped } => {
                let ending = if gzipped { "csv.gz" } else { "csv" };
                let options = CsvReadOptions::new()
                    .has_header(true)
                    .newlines_in_values(true)
                    .file_extension(ending)
                    .schema_infer_max_records(INFER_ROWS)
                    .file_compression_type(compression(gzipped));
                let schema = self.csv_schema(context, table, &paths, &options).await?;
                context.read_csv(paths, options.schema(&schema)).await
            }
            Format::Json { gzipped } => {
                let ending = ending_of(&table.files);
                let options = JsonReadOptions::default()
                    .file_extension(&ending)
                    .schema_infer_max_records(INFER_ROWS)
                    .file_compression_type(compression(gzipped));
                context.read_json(paths, options).await
            }
        };
        Ok(frame.map_err(|e| LakeError::engine(doing, e))?.into_view())
    }

    /// The schema of CSV files: the engine's guess, except that integers which are written with
    /// leading zeros are text. A customer number `00042` is not the number 42.
    async fn csv_schema(
        &self,
        context: &SessionContext,
        table: &Table,
        paths: &[String],
        options: &CsvReadOptions<'_>,
    ) -> Result<SchemaRef, LakeError> {
        let key = fingerprint(&table.files)?;
        if let Some(known) = self.lock_schemas().get(&key) {
            return Ok(Arc::clone(known));
        }
        let doing = "guessing a table's columns";
        let fail = |e| LakeError::engine(doing, e);
        let guessed = context.read_csv(paths.to_vec(), options.clone()).await.map_err(fail)?;
        let guessed = guessed.schema().as_arrow().clone();
        let as_text: Vec<Field> =
            guessed.fields().iter().map(|f| Field::new(f.name(), DataType::Utf8, true)).collect();
        let as_text = Schema::new(as_text);
        let plain = context
            .read_csv(paths.to_vec(), options.clone().schema(&as_text))
            .await
            .map_err(fail)?;
        let mut fields = Vec::new();
        for field in guessed.fields() {
            let mut field = field.as_ref().clone();
            if field.data_type().is_integer() && has_leading_zero(&plain, field.name()).await? {
                field = field.with_data_type(DataType::Utf8);
            }
            fields.push(field);
        }
        let schema = Arc::new(Schema::new(fields));
        self.lock_schemas().insert(key, Arc::clone(&schema));
        Ok(schema)
    }

    fn lock_schemas(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<(PathBuf, u64, Option<SystemTime>), SchemaRef>> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether any value of the column begins with a zero and goes on with a digit.
async fn has_leading_zero(
    table: &datafusion::dataframe::DataFrame,
    column: &str,
) -> Result<bool, LakeError> {
    use datafusion::prelude::{Expr, lit};
    let column = Expr::Column(datafusion::common::Column::from_name(column));
    let odd = column.clone().like(lit("0_%")).or(column.like(lit("-0_%")));
    let found = table
        .clone()
        .filter(odd)
        .and_then(|t| t.limit(0, Some(1)))
        .map_err(|e| LakeError::engine("looking for leading zeros", e))?;
    let rows =
        found.count().await.map_err(|e| LakeError::engine("looking for leading zeros", e))?;
    Ok(rows > 0)
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
    let text = text
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("SQL error: ")
        .trim_start_matches("ParserError(\"")
        .trim_end_matches("\")");
    let (message, position) = position::from_parser(text);
    LakeError::Sql { message, position, help: None }
}
