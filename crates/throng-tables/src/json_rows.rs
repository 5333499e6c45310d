//! Reads the rows of JSON files with the engine's decoder.

use std::path::PathBuf;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::json::reader::Decoder;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use throng_files::{DataFile, FileFault, JsonObjects, open};

use super::fault::of_reader;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// The rows of a file.
pub(super) struct JsonRows {
    path: PathBuf,
    objects: JsonObjects,
    decoder: Decoder,
    schema: SchemaRef,
}

impl JsonRows {
    /// Opens a file: `wanted` are names of columns in the file, with the types to read them as.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(file: &DataFile, wanted: &[(String, DataType)]) -> Result<Self, FileFault> {
        let path = file.path();
        let fields: Vec<Field> =
            wanted.iter().map(|(name, of)| Field::new(name, of.clone(), true)).collect();
        let schema: SchemaRef = Schema::new(fields).into();
        let decoder = ReaderBuilder::new(SchemaRef::clone(&schema))
            .with_batch_size(BATCH_ROWS)
            .with_coerce_primitive(true)
            .build_decoder()
            .map_err(|error| of_reader(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            objects: JsonObjects::new(open(file)?, path),
            decoder,
            schema,
        })
    }

    /// The next rows, with the wanted columns in their order; `None` at the end.
    ///
    /// # Errors
    /// If the file does not match its inferred schema.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        let (mut rows, mut first) = (0, 0);
        while rows < BATCH_ROWS {
            let Some((object, line)) = self.objects.next_object()? else { break };
            if rows == 0 {
                first = line;
            }
            if !self.schema.fields().is_empty() {
                let decoded = self.decoder.decode(object);
                decoded
                    .map_err(|_| FileFault::new(&self.path, Some(line), "it is not valid JSON"))?;
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let fault = |text: &str| FileFault::new(&self.path, Some(first), text);
        let columns = match self.decoder.flush() {
            Ok(Some(batch)) if batch.num_rows() == rows => batch.columns().to_vec(),
            Ok(None) if self.schema.fields().is_empty() => Vec::new(),
            Ok(_) => return Err(fault("its rows cannot be separated")),
            Err(_) => {
                return Err(fault(
                    "in this or a later line, a value is not of the type that its column has in the \
                     other rows",
                ));
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
            .map(Some)
            .map_err(|error| of_reader(&self.path, &error))
    }
}
