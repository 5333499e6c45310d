//! What a file holds: its columns, with what their values say about their types.

use datafusion::arrow::datatypes::{DataType, Field};
use throng_spec::ColumnType;

use super::discover::DataFile;
use super::evidence::Evidence;
use super::{csv, json, parquet};
use crate::LakeError;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Survey {
    pub(crate) columns: Vec<FileColumn>,
    /// Rows.
    pub(crate) rows: u64,
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileColumn {
    /// As the file has it.
    pub(crate) name: String,
    pub(crate) holds: Holds,
    /// Two columns of the file have this name.
    pub(crate) twice: bool,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Holds {
    /// Text of a CSV or JSON file.
    Values(Node),
    /// A type that the file states.
    Typed(DataType),
}

/// Values of a JSON file, which can be nested; those of CSV never are.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Node {
    pub(crate) scalars: Evidence,
    pub(crate) object: Option<Vec<(String, Node)>>,
    pub(crate) array: Option<Box<Node>>,
}

impl Node {
    /// The node of a field of the object that this is.
    pub(crate) fn field(&mut self, name: &str) -> &mut Node {
        field(self.object.get_or_insert_default(), name)
    }

    /// Adds what another file says.
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

    /// The type of the values and how they are written; `Ok(None)` if there is none but NULL; `Err` if
    /// scalars, objects and arrays are mixed.
    pub(crate) fn data_type(&self) -> Result<Option<(DataType, Option<&'static str>)>, Mixed> {
        let text = || DataType::Utf8View;
        match (self.scalars.data_type(), &self.object, &self.array) {
            (scalar, None, None) => Ok(scalar),
            (None, Some(fields), None) => {
                let mut of = Vec::with_capacity(fields.len());
                for (name, node) in fields {
                    let inner = node.data_type()?.map_or_else(text, |(t, _)| t);
                    of.push(Field::new(name, inner, true));
                }
                Ok(Some((DataType::Struct(of.into()), None)))
            }
            (None, None, Some(items)) => {
                let inner = items.data_type()?.map_or_else(text, |(t, _)| t);
                Ok(Some((DataType::new_list(inner, true), None)))
            }
            _ => Err(Mixed),
        }
    }
}

/// Objects or arrays, and other values, in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mixed;

/// The entry of a name, which is added if it is new.
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

/// How a source's columns are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    /// The types that are declared, by the name of the column.
    pub(crate) declared: Vec<(String, ColumnType)>,
    /// Text is read without the white space around it.
    pub(crate) trim: bool,
}

impl Reading {
    /// The declared type of a column: of this name, or of one that differs in case alone.
    pub(crate) fn declared(&self, column: &str) -> Option<ColumnType> {
        let same = self.declared.iter().find(|(name, _)| name == column);
        let lower = column.to_lowercase();
        let alike = || self.declared.iter().find(|(name, _)| name.to_lowercase() == lower);
        same.or_else(alike).map(|(_, declared)| *declared)
    }

    /// The value of a cell as it counts.
    pub(crate) fn cell<'a>(&self, text: &'a str) -> &'a str {
        if self.trim { text.trim() } else { text }
    }
}

/// Looks through a file: all of it if it is CSV or JSON, which costs about as much as scanning it; the
/// footer of a Parquet file.
///
/// # Errors
/// [`LakeError::Table`] naming the file, and the line where there is one.
pub(crate) fn survey(file: &DataFile, reading: &Reading) -> Result<Survey, LakeError> {
    match file.format {
        super::format::Format::Csv => Ok(csv::survey(file, reading)?),
        super::format::Format::Json => Ok(json::survey(file, reading)?),
        super::format::Format::Parquet => Ok(parquet::survey(file)?),
    }
}

/// White space that `trim` takes away: that of Unicode, as [`str::trim`] has it.
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
