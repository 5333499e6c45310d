//! The tables of the sources.

use serde::Deserialize;

/// `GET /v1/sources`.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceList {
    pub(crate) sources: Vec<Source>,
}

/// A source.
#[derive(Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) refused: Option<Refusal>,
    #[serde(default)]
    pub(crate) tables: Vec<Table>,
    /// The first files and folders that are not tables.
    #[serde(default)]
    pub(crate) passed_over: Vec<SkippedFile>,
    #[serde(default)]
    pub(crate) passed_over_count: u64,
}

/// A table.
#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) refused: Option<Refusal>,
    pub(crate) file_count: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// Absent if the files are too large to count.
    pub(crate) rows: Option<u64>,
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    /// Columns that one file has twice.
    #[serde(default)]
    pub(crate) twice: Vec<String>,
    /// Columns with white space around values.
    #[serde(default)]
    pub(crate) padded: Vec<String>,
    /// Doubts about its files.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// The first files that are not read.
    #[serde(default)]
    pub(crate) passed_over: Vec<SkippedFile>,
    #[serde(default)]
    pub(crate) passed_over_count: u64,
}

/// A column of a table.
#[derive(Debug, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) data_type: String,
}

/// Why a source or a table cannot be read.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// A file or folder that is not read.
#[derive(Debug, Deserialize)]
pub(crate) struct SkippedFile {
    pub(crate) path: String,
    pub(crate) reason: String,
}
