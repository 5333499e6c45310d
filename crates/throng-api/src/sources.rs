//! The tables of the sources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sources of the applied spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "sources": [
        {
            "name": "shop", "path": "/data/shop",
            "tables": [
                {
                    "name": "orders",
                    "files": [
                        {
                            "path": "/data/shop/orders.parquet", "format": "parquet",
                            "gzipped": false, "bytes": 1048576, "rows": 20000
                        }
                    ],
                    "file_count": 1, "bytes": 1048576, "rows": 20000,
                    "columns": [{ "name": "customer", "type": "Utf8" }], "twice": [], "padded": [],
                    "passed_over": [], "passed_over_count": 0, "warnings": []
                }
            ],
            "passed_over": [
                { "path": "/data/shop/readme.txt", "reason": "it is not Parquet, CSV or JSON" }
            ],
            "passed_over_count": 1
        }
    ]
}))]
pub struct SourceList {
    /// The sources.
    pub sources: Vec<SourceTables>,
}

/// A source and its tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceTables {
    /// The schema of its tables in SQL.
    pub name: String,
    /// Its folder, or the URL of its bucket.
    pub path: String,
    /// Why it cannot be read; omitted if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<SourceRefusal>,
    /// Its tables, by name.
    pub tables: Vec<SourceTable>,
    /// Files and folders that are not tables; at most 100.
    pub passed_over: Vec<SourcePassedOver>,
    /// The number of such files and folders.
    pub passed_over_count: u64,
}

/// Why a source or a table cannot be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceRefusal {
    /// The cause.
    pub message: String,
    /// A hint how to fix it.
    pub help: Option<String>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceTable {
    /// The name in SQL, without the schema.
    pub name: String,
    /// Why it cannot be read; omitted if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<SourceRefusal>,
    /// Its files, in the order of their names; at most 1,000.
    pub files: Vec<SourceFile>,
    /// The number of its files.
    pub file_count: u64,
    /// The size of all files.
    pub bytes: u64,
    /// Null if counting them requires reading more than 256 MiB of CSV and JSON.
    pub rows: Option<u64>,
    /// The columns; empty if finding them requires reading as much.
    pub columns: Vec<SourceColumn>,
    /// Names of columns that a file has twice. They cannot be used.
    pub twice: Vec<String>,
    /// Text columns with white space around values.
    pub padded: Vec<String>,
    /// Files in its folder that are not read; at most 100.
    pub passed_over: Vec<SourcePassedOver>,
    /// The number of such files.
    pub passed_over_count: u64,
    /// Doubts about its files, such as a first line that may be a row.
    // Nodes of earlier versions do not send it.
    #[serde(default)]
    #[schema(required)]
    pub warnings: Vec<String>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceFile {
    /// The path.
    pub path: String,
    /// `parquet`, `csv` or `json`.
    pub format: String,
    /// Whether it is compressed with gzip.
    pub gzipped: bool,
    /// The size.
    pub bytes: u64,
    /// The number of rows, if it is known.
    pub rows: Option<u64>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceColumn {
    /// The name; `…` if it looks like personal data, or may be a value.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub of: String,
}

/// A file or folder that is not read, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourcePassedOver {
    /// The path.
    pub path: String,
    /// Why it is not read.
    pub reason: String,
}
