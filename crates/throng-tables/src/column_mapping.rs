//! Reads CSV and JSON files and maps their columns to those of the table.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray, new_null_array};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{CastOptions, cast_with_options, is_not_null};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use throng_files::{FileFault, Format};

use super::csv_rows::CsvRows;
use super::fault::{of_reader, to_engine};
use super::json_rows::JsonRows;
use super::layout::{Column, FilePlan, Layout, Origin};

/// CSV and JSON files that are read one after another.
#[derive(Debug, Clone)]
pub(super) struct TextFiles {
    layout: Arc<Layout>,
    files: Vec<usize>,
    /// Columns of the table.
    wanted: Arc<[usize]>,
    schema: SchemaRef,
}

impl TextFiles {
    /// Some files of a table, read with the wanted columns, whose schema is `schema`.
    pub(super) fn new(
        layout: Arc<Layout>,
        files: Vec<usize>,
        wanted: Arc<[usize]>,
        schema: SchemaRef,
    ) -> Self {
        Self { layout, files, wanted, schema }
    }
}

impl PartitionStream for TextFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads in the thread that polls. With one thread for each reader, a query over more tables
    /// than there are threads would deadlock: readers would wait for each other.
    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = TableRows { text: self.clone(), next: 0, open: None, rows: 0, ended: false };
        let stream = futures::stream::iter(rows);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

/// The rows of some files, batch by batch.
struct TableRows {
    text: TextFiles,
    /// The next file to open.
    next: usize,
    open: Option<(usize, FileRows)>,
    /// Rows that were read of the open file.
    rows: usize,
    ended: bool,
}

enum FileRows {
    Csv(Box<CsvRows>),
    Json(Box<JsonRows>),
}

impl FileRows {
    fn next(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        match self {
            Self::Csv(rows) => rows.next(),
            Self::Json(rows) => rows.next(),
        }
    }
}

impl fmt::Debug for TableRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableRows").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Iterator for TableRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.ended {
            return None;
        }
        match self.read() {
            Ok(Some(batch)) => Some(Ok(batch)),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(fault) => {
                self.ended = true;
                Some(Err(to_engine(fault)))
            }
        }
    }
}

impl TableRows {
    fn read(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        loop {
            let sampled = self.text.layout.sample.is_some_and(|sample| self.rows >= sample);
            if let Some((at, rows)) = self.open.as_mut().filter(|_| !sampled)
                && let Some(batch) = rows.next()?
            {
                self.rows += batch.num_rows();
                let mapper = ColumnMapper::of(&self.text, *at);
                return mapper.apply(&batch).map(Some).map_err(|error| mapper.fault(&error));
            }
            (self.open, self.rows) = (None, 0);
            let Some(at) = self.text.files.get(self.next).copied() else { return Ok(None) };
            self.next += 1;
            self.open = ColumnMapper::of(&self.text, at).open()?.map(|rows| (at, rows));
        }
    }
}

/// Maps the columns of one file to those of the table.
struct ColumnMapper<'a> {
    layout: &'a Layout,
    file: &'a FilePlan,
    wanted: &'a [usize],
    schema: &'a SchemaRef,
}

impl<'a> ColumnMapper<'a> {
    fn of(text: &'a TextFiles, at: usize) -> Self {
        let TextFiles { layout, wanted, schema, .. } = text;
        Self { layout, file: &layout.files[at], wanted, schema }
    }

    fn open(&self) -> Result<Option<FileRows>, FileFault> {
        let mut columns: Vec<(String, DataType)> = Vec::new();
        for column in self.wanted {
            let names = match &self.file.origins[*column] {
                Origin::Column(name) => std::slice::from_ref(name),
                Origin::Spelled(names) => names.as_slice(),
                Origin::Missing | Origin::Folder(_) => &[],
            };
            let column = &self.layout.columns[*column];
            let as_text = column.converted || self.layout.trim;
            let nested = column.data_type.is_nested();
            let read =
                if as_text && !nested { DataType::Utf8View } else { column.data_type.clone() };
            columns.extend(names.iter().map(|name| (name.clone(), read.clone())));
        }
        match self.file.file.format {
            Format::Csv => {
                let positional = self.layout.positional.as_deref();
                CsvRows::open(&self.file.file, &columns, positional)
                    .map(|rows| Some(FileRows::Csv(Box::new(rows))))
            }
            Format::Json => JsonRows::open(&self.file.file, &columns)
                .map(|rows| Some(FileRows::Json(Box::new(rows)))),
            Format::Parquet => Ok(None),
        }
    }

    fn fault(&self, error: &DataFusionError) -> FileFault {
        let path = self.file.file.path();
        match error {
            DataFusionError::ArrowError(error, _) => of_reader(path, error),
            _ => FileFault::new(path, None, "a value is not of the type of its column"),
        }
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut read = batch.columns().iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wanted.len());
        for at in self.wanted {
            let column = &self.layout.columns[*at];
            columns.push(match &self.file.origins[*at] {
                Origin::Missing => new_null_array(&column.data_type, rows),
                Origin::Folder(value) => {
                    constant(value.as_deref(), column)?.to_array_of_size(rows)?
                }
                Origin::Column(_) => match read.next() {
                    Some(values) => self.converted(values, column)?,
                    None => new_null_array(&column.data_type, rows),
                },
                Origin::Spelled(names) => {
                    let mut all = new_null_array(&column.data_type, rows);
                    for values in read.by_ref().take(names.len()) {
                        let values = self.converted(values, column)?;
                        // A row has one of the names.
                        all = zip(&is_not_null(&all)?, &all, &values)?;
                    }
                    all
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(self.schema), columns, &options)?)
    }

    fn converted(&self, values: &ArrayRef, column: &Column) -> Result<ArrayRef> {
        let values = match (self.layout.trim, values.data_type()) {
            (true, DataType::Utf8View) => {
                // A blank cell of CSV is NULL.
                let csv = self.file.file.format == Format::Csv;
                let texts = values.as_string_view().iter();
                let texts =
                    texts.map(|text| text.map(str::trim).filter(|t| !(csv && t.is_empty())));
                Arc::new(texts.collect::<StringViewArray>()) as ArrayRef
            }
            _ => Arc::clone(values),
        };
        if *values.data_type() == column.data_type {
            return Ok(values);
        }
        Ok(cast_with_options(&values, &column.data_type, &strict())?)
    }
}

fn strict() -> CastOptions<'static> {
    CastOptions { safe: false, ..CastOptions::default() }
}

/// The value of a column that a folder names.
///
/// # Errors
/// If it is not a value of the declared type of the column.
pub(super) fn constant(value: Option<&str>, column: &Column) -> Result<ScalarValue> {
    let text = ScalarValue::Utf8View(value.map(str::to_owned));
    text.cast_to_with_options(&column.data_type, &strict())
}
