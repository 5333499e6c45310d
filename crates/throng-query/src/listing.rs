//! Sources as they are listed: their tables with files and columns, and what is passed over.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_files::{FileError, PassedOver};

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceListing {
    /// The first part of its tables' names in SQL.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Its tables, by name.
    pub tables: Vec<TableListing>,
    /// Files and folders that are not a table; 100 at most.
    pub passed_over: Vec<PassedOver>,
    /// How many there are.
    pub passed_over_count: u64,
    /// Doubts about its files, such as files with rows that are not read.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Why a source or a table cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableListing {
    /// The second part of its name in SQL.
    pub name: String,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Its files, in the order of their names; 1,000 at most.
    pub files: Vec<FileListing>,
    /// How many there are.
    pub file_count: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Rows of all files; `None` if counting them means reading more than 256 MiB of CSV and JSON.
    pub rows: Option<u64>,
    /// Its columns; empty if inferring them means reading as much.
    pub columns: Vec<ColumnListing>,
    /// Columns that a file has twice, which cannot be used.
    pub twice: Vec<String>,
    /// Text columns with values that have white space around them.
    pub padded: Vec<String>,
    /// Files in its folder that are not read; 100 at most.
    pub passed_over: Vec<PassedOver>,
    /// How many there are.
    pub passed_over_count: u64,
    /// Doubts about its files, such as a first line that may be a row.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileListing {
    /// Where it is.
    pub path: PathBuf,
    /// `parquet`, `csv` or `json`.
    pub format: String,
    /// Whether it is compressed by gzip.
    pub gzipped: bool,
    /// Its size.
    pub bytes: u64,
    /// Its rows, if they are known.
    pub rows: Option<u64>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnListing {
    /// Its name; `…` if it looks like personal data, or may be a value.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub of: String,
}

impl From<&FileError> for Refused {
    fn from(error: &FileError) -> Self {
        Self { message: throng_model::with_causes(error), help: Some(error.help().to_owned()) }
    }
}
