//! Lists the sources: every table with its files and columns, and what is passed over.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_files::{FileError, Folder, Format, PassedOver, Table, of_folder};

use crate::engine::Engine;
use crate::tables::{Layout, shown};

/// CSV and JSON files of a table that a listing reads, in bytes. For larger tables it has no types
/// and no count of rows.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Files of a table that a listing names.
const MAX_FILES: usize = 1000;
/// Passed-over files that a listing names, of each table and each source.
const MAX_PASSED_OVER: usize = 100;

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

fn first(mut passed_over: Vec<PassedOver>) -> (Vec<PassedOver>, u64) {
    let count = passed_over.len() as u64;
    passed_over.truncate(MAX_PASSED_OVER);
    (passed_over, count)
}

impl Engine {
    /// Lists all sources. Costs a `stat` of every file, and reading the CSV and JSON files of
    /// tables that have no more than 256 MiB of them.
    pub(crate) async fn list(&self) -> Vec<SourceListing> {
        let mut listed = Vec::new();
        for (number, source) in self.inner.sources().iter().enumerate() {
            let (name, path) = (source.name.clone(), source.folder.clone());
            let (folder, refused) = match of_folder(&source.folder, &source.root) {
                Ok(folder) => (folder, None),
                Err(error) => (Folder::default(), Some(Refused::from(&error))),
            };
            let mut tables = Vec::with_capacity(folder.tables.len());
            for (name, table) in folder.tables {
                tables.push(self.list_table(number, name, table).await);
            }
            let (passed_over, passed_over_count) = first(folder.passed_over);
            listed.push(SourceListing {
                name,
                path,
                refused,
                tables,
                passed_over,
                passed_over_count,
            });
        }
        listed
    }

    async fn list_table(
        &self,
        source: usize,
        name: String,
        table: Result<Table, FileError>,
    ) -> TableListing {
        let (table, mut refused) = match table {
            Ok(table) => (table, None),
            Err(error) => (Table::default(), Some(Refused::from(&error))),
        };
        let text = table.files.iter().filter(|file| file.format != Format::Parquet);
        let readable = text.map(|file| file.stamp.bytes).sum::<u64>() <= MAX_TEXT_BYTES;
        let mut layout = None;
        if refused.is_none() && readable {
            match self.inner.whole(source, &table).await {
                Ok(found) => layout = Some(found),
                Err(error) => refused = Some(Refused::from(&error)),
            }
        }
        let rows_of =
            |at: usize| layout.as_ref().and_then(|l| l.files.get(at)).and_then(|f| f.rows);
        let files = table.files.iter().enumerate().take(MAX_FILES).map(|(at, file)| FileListing {
            path: file.path().to_owned(),
            format: file.format.to_string(),
            gzipped: file.gzipped,
            bytes: file.stamp.bytes,
            rows: rows_of(at),
        });
        let (files, file_count) = (files.collect(), table.files.len() as u64);
        let bytes = table.files.iter().map(|file| file.stamp.bytes).sum();
        let (passed_over, passed_over_count) = first(table.passed_over);
        // Without what may be a value of the data.
        let masked = |name: &str| {
            let header = layout.as_ref().map(|layout| &layout.header);
            header.map(|header| header.shown(name).into_owned()).unwrap_or_default()
        };
        let columns = layout.iter().flat_map(|layout| &layout.columns).map(|column| {
            ColumnListing { name: masked(&column.name), of: shown(&column.data_type) }
        });
        TableListing {
            name,
            refused,
            files,
            file_count,
            bytes,
            rows: layout.as_ref().and_then(Layout::rows),
            columns: columns.collect(),
            twice: layout.iter().flat_map(|l| &l.twice).map(|(name, _)| masked(name)).collect(),
            padded: layout.iter().flat_map(|l| &l.padded).map(|name| masked(name)).collect(),
            passed_over,
            passed_over_count,
            warnings: layout.iter().filter_map(|layout| layout.header.warning()).collect(),
        }
    }
}
