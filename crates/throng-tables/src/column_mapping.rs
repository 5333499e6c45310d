//! Reads CSV and JSON files and maps their columns to those of the table.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray, new_null_array};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{CastOptions, cast_with_options, is_not_null};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use throng_files::{FileFault, Format};
use throng_model::trim_invisible;

use super::csv_rows::CsvRows;
use super::fault::{of_reader, to_engine};
use super::json_rows::JsonRows;
use super::layout::{Column, FilePlan, Layout, Origin};

/// CSV and JSON files of a table.
#[derive(Debug, Clone)]
pub(super) struct TextFiles {
    pub(super) layout: Arc<Layout>,
    /// Columns of the table.
    pub(super) wanted: Arc<[usize]>,
    pub(super) schema: SchemaRef,
}

impl TextFiles {
    /// The files of a table, read with the wanted columns, whose schema is `schema`.
    pub(super) fn new(layout: Arc<Layout>, wanted: Arc<[usize]>, schema: SchemaRef) -> Self {
        Self { layout, wanted, schema }
    }

    /// The rows of a file.
    pub(super) fn rows(&self, file: usize) -> FileBatches {
        FileBatches { text: self.clone(), file, reader: Reader::Unopened, rows: 0 }
    }
}

/// The rows of a file, batch by batch.
pub(super) struct FileBatches {
    text: TextFiles,
    file: usize,
    reader: Reader,
    /// Rows that were read.
    rows: usize,
}

enum Reader {
    Unopened,
    Open(FileRows),
    Ended,
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

impl Iterator for FileBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let read = self.read();
        if !matches!(read, Ok(Some(_))) {
            self.reader = Reader::Ended;
        }
        read.map_err(to_engine).transpose()
    }
}

impl FileBatches {
    fn read(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        let mapper = ColumnMapper::of(&self.text, self.file);
        if matches!(self.reader, Reader::Unopened) {
            self.reader = mapper.open()?.map_or(Reader::Ended, Reader::Open);
        }
        if self.text.layout.sample.is_some_and(|sample| self.rows >= sample) {
            return Ok(None);
        }
        let Reader::Open(reader) = &mut self.reader else { return Ok(None) };
        let Some(batch) = reader.next()? else { return Ok(None) };
        self.rows += batch.num_rows();
        mapper.apply(&batch).map(Some).map_err(|error| mapper.fault(&error))
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
        let TextFiles { layout, wanted, schema } = text;
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
                    texts.map(|text| text.map(trim_invisible).filter(|t| !(csv && t.is_empty())));
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
