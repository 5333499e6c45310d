//! Models, and what is known of one after it was planned.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::canonical::canonical;
use crate::facts::TableFacts;
use crate::inputs::Inputs;
use crate::keys::KeyKind;
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
}

impl Model {
    /// 32 hexadecimal digits that change when the SQL, the key column or the warehouse changes;
    /// comments, layout and a final semicolon of the lake's SQL do not count.
    pub fn fingerprint(&self) -> String {
        let key = self.key.as_deref().unwrap_or("");
        let text = match &self.source {
            None => format!("{}\0{key}", canonical(&self.sql)),
            // As it is: a warehouse may have other quotes and comments.
            Some(source) => format!("{}\0{key}\0{source}", self.sql),
        };
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
