//! The schema of a CSV or JSON file: its columns, with the kinds of their values.

use crate::node::Node;
use crate::plain_words::HeaderEvidence;

/// The schema of a CSV or JSON file, with its count of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSchema {
    /// Its columns; empty for an empty file.
    pub columns: Vec<TextColumn>,
    /// Count of rows.
    pub rows: u64,
    /// Whether the first line names the columns.
    pub header: HeaderEvidence,
}

/// A column of a CSV or JSON file.
#[derive(Debug, Clone, PartialEq)]
pub struct TextColumn {
    /// As the file writes it.
    pub name: String,
    /// Its values.
    pub values: Node,
    /// Whether two columns of the file have this name.
    pub twice: bool,
    /// For a JSON file: other spellings of the name that occur in one object with it. Rows of CSV
    /// files have all columns.
    pub beside: Vec<String>,
}
