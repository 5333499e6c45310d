//! The schema of a file: its columns, with the types that their values have in common.

use datafusion::arrow::datatypes::{DataType, Field};
use throng_spec::ColumnType;

use super::discover::DataFile;
use super::infer::InferredType;
use super::{csv, json, parquet};
use crate::LakeError;

/// The schema of a file, with its count of rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileSchema {
    pub(crate) columns: Vec<FileColumn>,
    /// Count of rows.
    pub(crate) rows: u64,
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileColumn {
    /// As the file writes it.
    pub(crate) name: String,
    pub(crate) contents: ColumnContents,
    /// Whether two columns of the file have this name.
    pub(crate) twice: bool,
    /// For a JSON file: other spellings of the name that occur in one object with it. Rows of other
    /// files have all columns.
    pub(crate) beside: Vec<String>,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ColumnContents {
    /// Text of a CSV or JSON file.
    Values(Node),
    /// A type that the file declares.
    Typed(DataType),
}

/// Values of a JSON file, which can be nested; those of CSV never are.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Node {
    pub(crate) scalars: InferredType,
    pub(crate) object: Option<Vec<(String, Node)>>,
    pub(crate) array: Option<Box<Node>>,
}

impl Node {
    /// The node of a field of the object that this is.
    pub(crate) fn field(&mut self, name: &str) -> &mut Node {
        field(self.object.get_or_insert_default(), name)
    }

    /// Merges the values of another file.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.scalars.merge(&other.scalars);
        for (name, node) in other.object.iter().flatten() {
            self.field(name).merge(node);
        }
        if other.object.is_some() {
            self.object.get_or_insert_default();
        }
        if let Some(items) = &other.array {
            self.array.get_or_insert_default().merge(items);
        }
    }

    /// The node at the end of a path; `None` if no value has such a field.
    pub(crate) fn at(&self, path: &[Step]) -> Option<&Node> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        match step {
            Step::Field(name) => {
                let fields = self.object.as_ref()?;
                fields.iter().find(|(there, _)| there == name)?.1.at(rest)
            }
            Step::Items => self.array.as_ref()?.at(rest),
        }
    }

    /// The kinds of the values that are not NULL.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        let there = [
            (self.scalars.data_type().is_some(), "plain values"),
            (self.object.is_some(), "objects"),
            (self.array.is_some(), "arrays"),
        ];
        there.into_iter().filter(|(is_there, _)| *is_there).map(|(_, kind)| kind).collect()
    }

    /// The type of the values and how they are written; `Ok(None)` if all are NULL; `Err` if
    /// scalars, objects and arrays are mixed, here or in a field.
    pub(crate) fn data_type(&self) -> Result<Option<(DataType, Option<&'static str>)>, Mixed> {
        let text = || DataType::Utf8View;
        match (self.scalars.data_type(), &self.object, &self.array) {
            (scalar, None, None) => Ok(scalar),
            (None, Some(fields), None) => {
                let mut of = Vec::with_capacity(fields.len());
                for (name, node) in fields {
                    let inner = node
                        .data_type()
                        .map_err(|mixed| mixed.within(Step::Field(name.clone())))?
                        .map_or_else(text, |(t, _)| t);
                    of.push(Field::new(name, inner, true));
                }
                Ok(Some((DataType::Struct(of.into()), None)))
            }
            (None, None, Some(items)) => {
                let inner = items
                    .data_type()
                    .map_err(|mixed| mixed.within(Step::Items))?
                    .map_or_else(text, |(t, _)| t);
                Ok(Some((DataType::new_list(inner, true), None)))
            }
            _ => Err(Mixed { path: Vec::new() }),
        }
    }
}

/// A step into a nested value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A field of an object.
    Field(String),
    /// All items of an array.
    Items,
}

/// Objects or arrays are mixed with other values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mixed {
    /// The path from the column to the mixed values.
    pub(crate) path: Vec<Step>,
}

impl Mixed {
    fn within(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

/// The node of a field; it is added if it is new.
pub(crate) fn field<'a>(fields: &'a mut Vec<(String, Node)>, name: &str) -> &'a mut Node {
    let at = match fields.iter().position(|(there, _)| there == name) {
        Some(at) => at,
        None => {
            fields.push((name.to_owned(), Node::default()));
            fields.len() - 1
        }
    };
    &mut fields[at].1
}

/// The settings of a source for reading its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ReadOptions {
    /// The declared types, by column.
    pub(crate) declared: Vec<(String, ColumnType)>,
    /// Text is read without the white space around it.
    pub(crate) trim: bool,
    /// Whether CSV files start with a header; `None`: they do, and a first line that looks like
    /// values is refused.
    pub(crate) header: Option<bool>,
}

impl ReadOptions {
    /// The columns of CSV files in their order, where the source declares that the files have no
    /// header.
    pub(crate) fn positional(&self) -> Option<Vec<String>> {
        let names = || self.declared.iter().map(|(name, _)| name.clone()).collect();
        (self.header == Some(false)).then(names)
    }

    /// The declared type of the column with this name, or with one that differs only in case.
    pub(crate) fn declared(&self, column: &str) -> Option<ColumnType> {
        let same = self.declared.iter().find(|(name, _)| name == column);
        let lower = column.to_lowercase();
        let alike = || self.declared.iter().find(|(name, _)| name.to_lowercase() == lower);
        same.or_else(alike).map(|(_, declared)| *declared)
    }

    /// The value of a cell after trimming, if that is set.
    pub(crate) fn cell<'a>(&self, text: &'a str) -> &'a str {
        if self.trim { text.trim() } else { text }
    }
}

/// Infers the schema of a file. Reads all of a CSV or JSON file, which costs about as much as
/// scanning it, and the footer of a Parquet file.
///
/// # Errors
/// [`LakeError::Table`] naming the file, and the line where there is one.
pub(crate) fn infer_schema(
    file: &DataFile,
    options: &ReadOptions,
) -> Result<FileSchema, LakeError> {
    match file.format {
        super::format::Format::Csv => Ok(csv::infer_schema(file, options)?),
        super::format::Format::Json => Ok(json::infer_schema(file, options)?),
        super::format::Format::Parquet => Ok(parquet::infer_schema(file)?),
    }
}

/// The white space that `trim` removes: that of Unicode, as [`str::trim`].
pub(crate) const WHITE: [char; 25] = [
    '\t', '\n', '\u{b}', '\u{c}', '\r', ' ', '\u{85}', '\u{a0}', '\u{1680}', '\u{2000}',
    '\u{2001}', '\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}',
    '\u{2009}', '\u{200a}', '\u{2028}', '\u{2029}', '\u{202f}', '\u{205f}', '\u{3000}',
];

#[cfg(test)]
mod tests {
    use super::WHITE;

    #[test]
    fn white_space_is_that_of_unicode() {
        let all: Vec<char> = (char::MIN..=char::MAX).filter(|c| c.is_whitespace()).collect();
        assert_eq!(all, WHITE);
    }
}
