//! The schema of a file: its columns, with the types that their values have in common.

use datafusion::arrow::datatypes::DataType;
use throng_files::{HeaderEvidence, Node, TextSchema};

/// The schema of a file, with its count of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSchema {
    pub(super) columns: Vec<FileColumn>,
    /// Count of rows.
    pub(super) rows: u64,
    /// Whether the first line names the columns.
    pub(super) header: HeaderEvidence,
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileColumn {
    /// As the file writes it.
    pub(super) name: String,
    pub(super) contents: ColumnContents,
    /// Whether two columns of the file have this name.
    pub(super) twice: bool,
    /// For a JSON file: other spellings of the name that occur in one object with it. Rows of other
    /// files have all columns.
    pub(super) beside: Vec<String>,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ColumnContents {
    /// Text of a CSV or JSON file.
    Values(Node),
    /// A type that the file declares.
    Typed(DataType),
}

impl From<TextSchema> for FileSchema {
    fn from(schema: TextSchema) -> Self {
        let columns = schema.columns.into_iter().map(|column| FileColumn {
            name: column.name,
            contents: ColumnContents::Values(column.values),
            twice: column.twice,
            beside: column.beside,
        });
        Self { columns: columns.collect(), rows: schema.rows, header: schema.header }
    }
}
