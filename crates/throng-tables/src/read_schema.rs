//! Infers the schema of a file of any format.

use throng_files::{DataFile, FileError, Format, ReadOptions, csv, json};

use super::declared::is_value;
use super::file_schema::FileSchema;
use super::parquet;

/// Infers the schema of a file. Reads all of a CSV or JSON file, which costs about as much as
/// scanning it, and the footer of a Parquet file.
///
/// # Errors
/// [`FileError::Table`] naming the file, and the line where there is one.
pub fn infer_schema(file: &DataFile, options: &ReadOptions) -> Result<FileSchema, FileError> {
    match file.format {
        Format::Csv => Ok(csv::infer_schema(file, options, is_value)?.into()),
        Format::Json => Ok(json::infer_schema(file, options, is_value)?.into()),
        Format::Parquet => Ok(parquet::infer_schema(file)?),
    }
}
