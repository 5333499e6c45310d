//! A table as it is read: its columns, and where each of its files has them. Pure.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use throng_files::{
    DataFile, DoubtfulForm, FileColumns, Format, NumberForms, PassedOver, TableHeader, shown_name,
};

/// Key in the metadata of a column's field: how its values are written, if the engine would write
/// them differently.
pub(super) const WRITTEN: &str = "throng.written";

/// A column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Its type is declared: the text of CSV and JSON files is converted to it.
    pub converted: bool,
    /// No file has a value of it, so its type is unknown.
    pub empty: bool,
    /// How its values are written, if the engine would write them differently.
    pub written: Option<String>,
}

impl Column {
    fn field(&self) -> Field {
        let field = Field::new(&self.name, self.data_type.clone(), true);
        match &self.written {
            Some(written) => field.with_metadata([(WRITTEN.to_owned(), written.clone())].into()),
            None => field,
        }
    }
}

/// Where a file has the values of a column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nowhere: the values are NULL.
    Missing,
    /// In its column of this name.
    Column(String),
    /// In its columns of these names, one of which each row has: objects of a JSON file that spell
    /// the name differently.
    Spelled(Vec<String>),
    /// In the name of its folder; `None` is NULL.
    Folder(Option<String>),
}

impl Origin {
    /// Combines the origin with one that was found later: of two columns both are kept.
    pub(super) fn and(&self, later: Self) -> Self {
        let mut names = match self {
            Self::Column(name) => vec![name.clone()],
            Self::Spelled(names) => names.clone(),
            Self::Missing | Self::Folder(_) => return later,
        };
        match later {
            Self::Column(name) => names.push(name),
            _ => return later,
        }
        Self::Spelled(names)
    }
}

/// A file, and where it has the columns of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct FilePlan {
    /// The file.
    pub file: DataFile,
    /// The origin of each column of the table.
    pub origins: Vec<Origin>,
    /// Its rows, if they are known.
    pub rows: Option<u64>,
}

/// A column that cannot be used, because its types in the files do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeConflict {
    /// Its name.
    pub column: String,
    /// The files and their types.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

/// A table as it is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its files.
    pub files: Vec<FilePlan>,
    /// Columns that a file has twice, with the file. They cannot be used.
    pub twice: Vec<(String, PathBuf)>,
    /// Columns whose types in the files do not agree. They cannot be used.
    pub conflicts: Vec<TypeConflict>,
    /// Files in its folder that are not read.
    pub passed_over: Vec<PassedOver>,
    /// Text columns with values that have white space or invisible characters around them.
    pub padded: Vec<String>,
    /// Text columns with numbers in the form of spreadsheets: `="00042"` or `'00042`.
    pub spreadsheet: Vec<String>,
    /// Columns whose declared type gives some of their numbers another text than the files do.
    pub rewritten: Vec<String>,
    /// Text columns whose values have doubtful forms.
    pub doubtful: Vec<(String, DoubtfulForm)>,
    /// Text columns with the forms by which their values are numbers or dates.
    pub number_forms: Vec<(String, NumberForms)>,
    /// Whether the CSV files begin with a header.
    pub header: TableHeader,
    /// Text is read without the white space and invisible characters around it.
    pub trim: bool,
    /// The columns of CSV files in their order, if the files have no header.
    pub positional: Option<Vec<String>>,
    /// About how many rows of each file are read, and of Parquet files of each partition; `None`:
    /// all.
    pub sample: Option<usize>,
}

impl Layout {
    pub(super) fn schema(&self) -> SchemaRef {
        Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()).into()
    }

    /// The columns of the files that have rows.
    pub fn file_columns(&self) -> Vec<FileColumns<'_>> {
        let with_rows = self.files.iter().filter(|plan| plan.rows != Some(0));
        let columns_of = |plan: &FilePlan| {
            let columns = self.columns.iter().zip(&plan.origins);
            let there = columns.filter(|(_, origin)| **origin != Origin::Missing);
            there.map(|(column, _)| column.name.as_str()).collect()
        };
        let columns = with_rows.map(|plan| FileColumns {
            path: plan.file.path(),
            sparse: plan.file.format == Format::Json,
            columns: columns_of(plan),
        });
        columns.collect()
    }

    /// Why a column, in any case, cannot be used because a file has it twice, and how to fix it.
    pub fn twice_fault(&self, column: &str) -> Option<(String, &'static str)> {
        let lower = column.to_lowercase();
        let (name, path) = self.twice.iter().find(|(name, _)| name.to_lowercase() == lower)?;
        let plan = self.files.iter().find(|plan| plan.file.path() == path);
        let folders = plan.iter().flat_map(|plan| &plan.file.folders);
        let (name, path) = (shown_name(name), path.display());
        Some(match folders.filter(|(folder, _)| folder.to_lowercase() == lower).count() {
            0 => (
                format!("two columns of {path} are named {name}"),
                "give the columns of the file names that differ",
            ),
            1 => (
                format!("the column {name} is both in {path} and in the name of its folder"),
                "give the column of the file or that of the folder another name, or remove it from the file",
            ),
            _ => (
                format!("two folders of {path} have a column {name} in their names"),
                "give the columns of the folders names that differ",
            ),
        })
    }

    /// The forms by which the values of a text column are numbers or dates.
    pub fn number_forms_of(&self, column: &str) -> Option<NumberForms> {
        self.number_forms.iter().find(|(name, _)| name == column).map(|(_, forms)| *forms)
    }

    /// Whether a Parquet file states the type of a column: a declared type does not change it.
    pub fn is_stated(&self, column: &str) -> bool {
        let at = self.columns.iter().position(|of| of.name == column);
        let has_it = |plan: &FilePlan| {
            let origin = at.and_then(|at| plan.origins.get(at));
            matches!(origin, Some(Origin::Column(_) | Origin::Spelled(_)))
        };
        self.files.iter().any(|plan| plan.file.format == Format::Parquet && has_it(plan))
    }

    /// Rows of all files, if they are known.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// A table of a query.
#[derive(Debug, Clone)]
pub struct OpenTable {
    /// `source.table`.
    pub name: String,
    /// How it is read.
    pub layout: Arc<Layout>,
}

/// Whether the values of a type are texts, whatever the engine's form of them: views and dictionaries too.
pub fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, value) => is_text(value),
        other => other.is_string(),
    }
}

/// A type as users see it.
pub fn shown(of: &DataType) -> String {
    match of {
        of if of.is_string() => "text".to_owned(),
        DataType::BinaryView => "bytes".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_and_dictionaries_of_texts_are_texts() {
        for (of, expected) in [
            ("Utf8", true),
            ("LargeUtf8", true),
            ("Utf8View", true),
            ("Dictionary(Int32, Utf8)", true),
            ("Dictionary(Int32, Utf8View)", true),
            ("Dictionary(Int32, Int64)", false),
            ("Binary", false),
        ] {
            assert_eq!(is_text(&of.parse().unwrap()), expected, "{of}");
        }
    }
}
