//! Models, and what is known of one after it was planned.

use serde::{Deserialize, Serialize};
use throng_spec::{Audience, ParameterValue};
use xxhash_rust::xxh3::xxh3_128;

use crate::canonical::canonical;
use crate::inputs::Inputs;
use crate::rule::Rule;

/// A `SELECT` with a key column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The SQL.
    pub sql: String,
    /// The key column; `None`: the only column.
    pub key: Option<String>,
    /// The warehouse that runs the SQL; `None`: the lake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The values of its parameters, by name without `$`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, ParameterValue)>,
}

impl Model {
    /// The model of an audience.
    pub fn of(audience: &Audience) -> Self {
        Self {
            sql: audience.sql.clone(),
            key: audience.key.clone(),
            source: audience.source.as_ref().map(ToString::to_string),
            parameters: audience.parameters(),
        }
    }

    /// 32 hexadecimal digits that change when the SQL, the key column, the warehouse or the value of a
    /// parameter changes; comments, layout and a final semicolon of the lake's SQL do not count.
    pub fn fingerprint(&self) -> String {
        let key = self.key.as_deref().unwrap_or("");
        let mut text = match &self.source {
            None => format!("{}\0{key}", canonical(&self.sql)),
            // As it is: a warehouse may have other quotes and comments.
            Some(source) => format!("{}\0{key}\0{source}", self.sql),
        };
        for (name, value) in &self.parameters {
            // With lengths and the type: two lists of values never have one text.
            let value = format!("{value:?}");
            text.push_str(&format!("\0{}:{name}{}:{value}", name.len(), value.len()));
        }
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }
}

/// The shape of a model, which decides how it is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Each row of one table is kept or dropped by itself: files can be scanned one by one.
    FilterOnly,
    /// Anything else.
    General,
}

/// The result of planning a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The columns of the result, with their types.
    pub columns: Vec<(String, String)>,
    /// The key column.
    pub key_column: String,
    /// The key column's kind.
    pub key_kind: KeyKind,
    /// Rows that the model will probably return, if the engine has an estimate.
    pub estimated_rows: Option<u64>,
    /// Files that will be read.
    pub files: usize,
    /// See [`Model::fingerprint`].
    pub fingerprint: String,
    /// Decides how its rows are scanned.
    pub shape: Shape,
    /// Which users of the scanned rows are members.
    pub rule: Rule,
    /// The tables that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableFacts>,
    /// Their files.
    #[serde(default)]
    pub inputs: Inputs,
    /// Doubts about their files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The index of the column with this name, or of the only one whose name differs only in case.
pub fn column_index<'a>(name: &str, there: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
    let lower = name.to_lowercase();
    let mut alike = there.clone().enumerate().filter(|(_, other)| other.to_lowercase() == lower);
    let same = there.into_iter().position(|other| other == name);
    same.or_else(|| alike.next().filter(|_| alike.next().is_none()).map(|(at, _)| at))
}

/// The kind of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// Text, taken as it is.
    Text,
    /// Whole numbers, written in decimal.
    Integer,
    /// 16 bytes, written as a UUID.
    Uuid,
    /// Other bytes, written in hexadecimal.
    Binary,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Uuid => "uuid",
            Self::Binary => "binary",
        })
    }
}

/// A table of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// `source.table`.
    pub name: String,
    /// Whether it had rows; `None` if that is unknown.
    pub has_rows: Option<bool>,
    /// The columns that the model uses.
    pub columns: Vec<ColumnFacts>,
    /// Doubts about the columns that it finds users by, such as one that some files lack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Files in its folder that may have rows and are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// A column that a model uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub of: String,
    /// Whether the source declares its type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
    /// Whether keys have the text of its values. Earlier versions did not record it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_key: bool,
}

impl ColumnFacts {
    /// The key column of a warehouse's result, with its type as the warehouse calls it.
    pub fn key(name: String, of: String) -> Self {
        Self { name, of, declared: false, is_key: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_a_model_without_source_and_parameters_is_that_of_its_text() {
        let sql = "SELECT id FROM shop.orders";
        let model = Model {
            sql: sql.to_owned(),
            key: Some("id".to_owned()),
            source: None,
            parameters: Vec::new(),
        };
        let text = format!("{}\0id", canonical(sql));
        assert_eq!(model.fingerprint(), format!("{:032x}", xxh3_128(text.as_bytes())));
        let warehouse = Model { source: Some("app".to_owned()), ..model.clone() };
        let value = vec![("app".to_owned(), ParameterValue::Boolean(true))];
        let parameters = Model { parameters: value.clone(), ..model.clone() };
        let both = Model { parameters: value, ..warehouse.clone() };
        let all = [model, warehouse, parameters, both].map(|model| model.fingerprint());
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), 4, "{all:?}");
    }
}
