//! Reading the schema of Parquet files from their footers.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::datasource::file_format::parquet::Int96Coercer;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use throng_files::{DataFile, FileFault, HeaderEvidence, git_lfs_pointer};

use super::file_schema::{ColumnContents, FileColumn, FileSchema};

/// Reads the columns and the count of rows from a file's footer. Fails if the file is not complete.
pub(super) fn infer_schema(file: &DataFile) -> Result<FileSchema, FileFault> {
    let path = file.path();
    if file.stamp.bytes == 0 {
        return Err(FileFault::new(path, None, "it is empty: its writer did not finish")
            .with_help("remove the file, or write it again"));
    }
    let opened = throng_fs::open(path).map_err(|error| FileFault::io(path, &error))?;
    let damaged = |_| {
        git_lfs_pointer(path).unwrap_or_else(|| {
            FileFault::new(path, None, "it is not a complete Parquet file")
                .with_help("write the file again")
        })
    };
    let footer = ArrowReaderMetadata::load(&opened, ArrowReaderOptions::new()).map_err(damaged)?;
    // In nanoseconds, the year 9999 of a time of the type INT96 would be one of 1816. The session reads them so too.
    let wide = Int96Coercer::new(footer.parquet_schema(), footer.schema(), &TimeUnit::Microsecond);
    let wide = wide.coerce();
    let fields = wide.as_ref().unwrap_or(footer.schema()).fields();
    let columns = fields.iter().map(|field| FileColumn {
        name: field.name().clone(),
        contents: ColumnContents::Typed(plain(field.data_type())),
        twice: fields.iter().filter(|other| other.name() == field.name()).count() > 1,
        beside: Vec::new(),
    });
    let rows = u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
    Ok(FileSchema { columns: columns.collect(), rows, header: HeaderEvidence::Certain })
}

/// The type of the values in a table: one type for all texts, one for all bytes, no dictionaries.
fn plain(of: &DataType) -> DataType {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}
