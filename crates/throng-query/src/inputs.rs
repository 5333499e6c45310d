//! What models read: the files that a snapshot was made of, and whether those of now are the same and complete.

use serde::{Deserialize, Serialize};

/// What a snapshot was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Hexadecimal digits that change when a file is added, removed, replaced or written, and when the
    /// source declares other types. Of an audience with syncs: also when a file of their identifiers is.
    pub fingerprint: String,
    /// The model has another result at another time, or each time, over the same files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub time_dependent: bool,
}

/// A query whose files are inspected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputQuery {
    /// The SQL of a model, or of identifiers.
    pub sql: String,
    /// A query that calls a function whose value depends on the time is refused: its files do not say whether its
    /// result has changed.
    pub refuses_time: bool,
    /// The name of a file that a job writes when its files are complete.
    pub success_file: Option<String>,
}

/// The files of a query as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputState {
    /// They can be read; see [`Inputs::fingerprint`].
    Ready(String),
    /// The success file is missing or older than a file, for this reason.
    Incomplete(String),
    /// They cannot be read, for this reason.
    Refused(String),
}
