//! Parquet files of a table.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;

use crate::error::IngestError;
use crate::paths::create_file;

/// Writes rows, sorted by a column, to a new file, durably. Returns its size.
pub(crate) fn write_parquet(
    path: &Path,
    schema: &SchemaRef,
    rows: Option<&RecordBatch>,
    key_column: usize,
) -> Result<u64, IngestError> {
    let fail = |source: ParquetError| IngestError::Write { path: path.to_owned(), source };
    let file = create_file(path)?;
    let sorted = SortingColumn {
        column_idx: i32::try_from(key_column).unwrap_or(0),
        descending: false,
        nulls_first: false,
    };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_sorting_columns(Some(vec![sorted]))
        .build();
    let mut writer =
        ArrowWriter::try_new(file, SchemaRef::clone(schema), Some(properties)).map_err(fail)?;
    if let Some(rows) = rows {
        writer.write(rows).map_err(fail)?;
    }
    writer.finish().map_err(fail)?;
    let file = writer.inner();
    file.sync_all().map_err(IngestError::io("sync", path))?;
    let metadata = file.metadata().map_err(IngestError::io("read", path))?;
    Ok(metadata.len())
}
