//! Reads the rows of CSV files with the engine's reader.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::csv::ReaderBuilder;
use datafusion::arrow::csv::reader::BufReader;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use throng_files::csv::header;
use throng_files::{DataFile, FileFault, TextReader, open};

use super::fault::of_reader;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// The rows of a file.
pub(super) struct CsvRows {
    path: PathBuf,
    /// `None` for an empty file.
    reader: Option<BufReader<TextReader>>,
    /// The indexes of the wanted columns in the batches that are read.
    order: Vec<usize>,
}

impl CsvRows {
    /// Opens a file: `wanted` are names of columns in the file, with the types to read them as, and
    /// `positional` the names of all columns if the file has no header.
    ///
    /// # Errors
    /// If it cannot be opened, or its header has changed.
    pub(super) fn open(
        file: &DataFile,
        wanted: &[(String, DataType)],
        positional: Option<&[String]>,
    ) -> Result<Self, FileFault> {
        let path = file.path();
        let names = match positional {
            Some(names) => Some(names.to_vec()),
            None => header(file)?,
        };
        let Some(names) = names else {
            return Ok(Self { path: path.to_owned(), reader: None, order: Vec::new() });
        };
        let mut places = Vec::with_capacity(wanted.len());
        for (name, _) in wanted {
            let place = names.iter().position(|there| there == name);
            places.push(
                place.ok_or_else(|| FileFault::new(path, Some(1), "its header has changed"))?,
            );
        }
        let mut fields: Vec<Field> = (0..names.len())
            .map(|place| Field::new(place.to_string(), DataType::Utf8View, true))
            .collect();
        for (place, (_, data_type)) in places.iter().zip(wanted) {
            fields[*place] = Field::new(place.to_string(), data_type.clone(), true);
        }
        // In the order of the file; at least one column, to count the rows.
        let mut projection = places.clone();
        projection.sort_unstable();
        projection.dedup();
        if projection.is_empty() {
            projection.push(0);
        }
        let order =
            places.iter().filter_map(|place| projection.iter().position(|p| p == place)).collect();
        let reader = ReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_header(positional.is_none())
            .with_batch_size(BATCH_ROWS)
            .with_projection(projection)
            .build_buffered(open(file)?)
            .map_err(|error| of_reader(path, &error))?;
        Ok(Self { path: path.to_owned(), reader: Some(reader), order })
    }

    /// The next rows, with the wanted columns in their order; `None` at the end.
    ///
    /// # Errors
    /// If the file does not match its inferred schema.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, FileFault> {
        let fail = |error| of_reader(&self.path, &error);
        match self.reader.as_mut().and_then(Iterator::next) {
            Some(batch) => {
                batch.and_then(|batch| batch.project(&self.order)).map(Some).map_err(fail)
            }
            None => Ok(None),
        }
    }
}
